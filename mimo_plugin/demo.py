"""`mimo demo`: training, indexes of 14 languages, searches, BM25 and a picture, on packaged data."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import fsum
from pathlib import Path
from typing import Any

from mimo_plugin.collections.packaged import sample_table
from mimo_plugin.collections.pool import load
from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import ArtifactError
from mimo_plugin.core.files import make_parent, replacing
from mimo_plugin.data.debian.build import make_debian
from mimo_plugin.data.options import CollectionOptions, DebianOptions, SplitOptions
from mimo_plugin.encoder.packaged import E5, MODEL, TEACHER
from mimo_plugin.evaluation.fusion import fuse_files
from mimo_plugin.evaluation.options import FusionMethod, FusionOptions
from mimo_plugin.evaluation.runs import write_run
from mimo_plugin.indexing.build import index
from mimo_plugin.indexing.search import read_topics, search_to_run
from mimo_plugin.indexing.settings import SearchOptions
from mimo_plugin.pyserini.bm25 import index_bm25, search_bm25
from mimo_plugin.training.models import StudentOptions, TeacherOptions
from mimo_plugin.training.recipe import Recipe, RunSettings, Stage1Options, Stage2Options
from mimo_plugin.training.run import INITIAL
from mimo_plugin.training.schedule import Objective
from mimo_plugin.training.stages import STAGE1, train_stage1, train_stage2

HITS = 100
# Share of the sample's descriptions, by software, that is never trained on.
_TEST_SHARE = 0.25

# Two layers of a pretrained multilingual encoder, and few enough steps for minutes.
_STUDENT = StudentOptions(checkpoint=E5, layers=2, vocabulary="used")
_STAGE1 = Stage1Options(batch_size=64, mini_batch_size=64, learning_rate=5e-4, max_length=64, steps=120)
_STAGE2 = Stage2Options(
    batch_size=64, mini_batch_size=64, learning_rate=3e-4, max_length=64, steps=40, cache_gradients=False
)


@dataclass(frozen=True)
class DemoOptions:
    """What the demo trains, and on which data.

    Attributes:
        table: descriptions, in the format of `mimo data debian`.
        teacher: a checkpoint.
        progress: see `core.environment.bar`.
    """

    table: Path = field(default_factory=sample_table)
    student: StudentOptions = _STUDENT
    teacher: str = TEACHER
    stage1: Stage1Options = _STAGE1
    stage2: Stage2Options = _STAGE2
    progress: bool | None = None


@dataclass(frozen=True)
class Demo:
    """What the demo made.

    Attributes:
        collection: the held-out test collection.
        runs: MIMO's, XLCO's, BM25's, and the hybrid of MIMO and BM25.
        picture: their nDCG and the languages of their hits, as a PNG.
    """

    collection: str
    runs: tuple[Path, Path, Path, Path]
    picture: Path


def run_demo(output: Path, say: Callable[[str], Any], options: DemoOptions | None = None) -> Demo:
    """Trains MIMO and XLCO on three quarters of the packaged sample and searches the rest.

    Results of an earlier demo in `output` are used again.

    Args:
        output: a directory, new or of an earlier demo.
        say: prints a line.

    Raises:
        ArtifactError: `output` holds something else.
    """
    options = options or DemoOptions()
    if output.exists() and not output.is_dir():
        raise ArtifactError(f"{output} is a file: a directory was expected")
    data = output / "data"
    collection = f"path:{data / 'test'}"

    say("1. Training data and a test collection from the packaged sample: Debian's package descriptions")
    say(
        f"   mimo data debian --from-table mimo-sample --no-exclude --dev-share 0 --test-share {_TEST_SHARE} "
        f"--min-query-languages 5 --output {data}"
    )
    manifest, _ = make_debian(
        data,
        DebianOptions(
            main=options.table,
            exclude=(),
            split=SplitOptions(dev_share=0, test_share=_TEST_SHARE),
            collections=CollectionOptions(min_doc_languages=5, min_query_languages=5),
            progress=options.progress,
        ),
    )
    say(f"   {manifest.pairs} pairs for stage 1, {manifest.table} rows for stage 2\n")

    recipe = Recipe(
        student=options.student,
        teacher=TeacherOptions(checkpoint=options.teacher),
        pairs=str(data / "pairs"),
        table=str(data / "table"),
        stage1=options.stage1,
        stage2=options.stage2,
    )
    trained = _train(recipe, output, say, options.progress)
    runs = [_search(name, model, collection, output, say, options.progress) for name, model in trained]
    runs.append(_bm25(collection, output, say, options.progress))
    runs.append(_hybrid(runs[0], runs[-1], output, say))
    picture = output / "demo.png"
    _draw_systems(runs, [collection], picture)
    return Demo(collection, (runs[0], runs[1], runs[2], runs[3]), picture)


def _train(
    recipe: Recipe, output: Path, say: Callable[[str], Any], progress: bool | None
) -> list[tuple[str, Path]]:
    """Trains MIMO in two stages, and XLCO from the same student with as many stage-2 updates."""
    file = output / "recipe.yaml"
    recipe.write(file)

    def settings(name: str) -> RunSettings:
        return RunSettings(output / name, teacher_store=output / "teacher-store", progress=progress)

    student = recipe.student
    cut = f", cut to {student.layers} layers" if student.layers else ""
    say(f"2. Stage 1: a multilingual student ({student.checkpoint}{cut}) learns from an English")
    say(f"   teacher, {recipe.teacher.checkpoint}")
    say(f"   mimo train stage1 --recipe {file} --output {output / STAGE1}")
    first = train_stage1(recipe, settings(STAGE1))
    say(_indented(str(first)) + "\n")

    say("3. Stage 2: MIMO continues from stage 1; XLCO, which has no teacher, starts from the student as it")
    say("   was before stage 1 and gets as many updates")
    systems = []
    for objective, start in ((Objective.MIMO, first.directory), (Objective.XLCO, first.directory / INITIAL)):
        name = objective.value
        say(
            f"   mimo train stage2 --recipe {file} --student {start} --objective {name} "
            f"--output {output / name}"
        )
        own = recipe.model_copy(
            update={
                "student": StudentOptions(checkpoint=str(start)),
                "stage2": recipe.stage2.model_copy(update={"objective": objective}),
            }
        )
        done = train_stage2(own, settings(name))
        say(_indented(str(done)))
        systems.append((name, done.directory / MODEL))
    say("")
    return systems


def _search(
    name: str, model: Path, collection: str, output: Path, say: Callable[[str], Any], progress: bool | None
) -> Path:
    directory, run = output / f"index-{name}", output / f"{name}.trec"
    say(f"4. {name}: one index of the test collection, then every query in every language against it")
    say(f"   mimo index {collection} --encoder {model} --output {directory}")
    built = index(collection, str(model), directory, progress=progress)
    say(_indented(built.summary()))
    say(f"   mimo search {directory} --topics {collection} --hits {HITS} --output {run}")
    searched = search_to_run(built, [collection], run, SearchOptions(hits=HITS, progress=progress))
    say(_indented(f"{run}: {searched.queries} queries, {searched.lines} lines") + "\n")
    return run


def _bm25(collection: str, output: Path, say: Callable[[str], Any], progress: bool | None) -> Path:
    say("5. BM25 on the same documents, through Pyserini's Lucene")
    pool = load(collection)
    lucene, run = output / "lucene", output / "bm25.trec"
    index_bm25(pool, lucene, progress=progress)
    queries = read_topics(pool).queries
    with bar(total=len(queries), what="BM25 searching", unit="queries", enabled=progress) as counter:
        lines = write_run(run, search_bm25(lucene, queries, hits=HITS, advance=counter.update), "bm25")
    say(_indented(f"{run}: {len(queries)} queries, {lines} lines") + "\n")
    return run


def _hybrid(dense: Path, sparse: Path, output: Path, say: Callable[[str], Any]) -> Path:
    run = output / "hybrid.trec"
    say("6. A hybrid: the sum of MIMO's and BM25's scores, each scaled to 0..1 per query")
    say(f"   mimo fuse {dense} {sparse} --method sum --output {run}")
    fused = fuse_files([str(dense), str(sparse)], run, FusionOptions(FusionMethod.SUM))
    say(_indented(f"{run}: {fused.queries} queries, {fused.lines} lines") + "\n")
    return run


def _indented(text: str) -> str:
    return "\n".join(f"   {line}" for line in text.splitlines())


_CUTOFF = 20
_NORMAL_95 = 1.96


def _draw_systems(runs: Sequence[Path], collections: Sequence[str], output: Path) -> None:
    """Draws two bar charts as a PNG: each run's nDCG@20, and its share of hits in the query's language.

    nDCG@20 has a 95 % normal interval over topics; versions of one topic in several languages count once. The
    share is of the first 20 hits; a line shows it for hits drawn from all documents alike.

    Raises:
        DataError: a run or the collections cannot be read.
    """
    import numpy as np
    from matplotlib.figure import Figure

    from mimo_plugin.evaluation.language import language_mix
    from mimo_plugin.evaluation.measures import parse_measures, score_run
    from mimo_plugin.evaluation.runs import read_run
    from mimo_plugin.evaluation.topics import load_topics, open_pool

    pool = open_pool(collections)
    topics = load_topics(pool)
    doc_langs = {doc.doc_id: doc.lang for doc in pool.docs_iter()}
    (measure,) = parse_measures([f"ndcg@{_CUTOFF}"])
    names, means, errors, own = [], [], [], []
    for path in runs:
        run = read_run(path, path.stem)
        scores = score_run(run, topics, [measure]).per_topic[measure]
        blocks = np.bincount(topics.block_of, scores) / np.bincount(topics.block_of)
        names.append(path.stem)
        means.append(scores.mean())
        errors.append(_NORMAL_95 * blocks.std(ddof=1) / np.sqrt(len(blocks)) if len(blocks) > 1 else 0.0)
        own.append(language_mix(run, topics.query_languages, doc_langs, _CUTOFF).own)
    even = _even_share(topics.counts, list(doc_langs.values()))

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    quality, mix = figure.subplots(1, 2)
    colors = [f"C{number}" for number in range(len(names))]
    quality.bar(names, means, yerr=errors, color=colors, capsize=4)
    quality.set_ylabel(f"nDCG@{_CUTOFF} (0 to 1)")
    quality.set_title(f"Quality: {len(topics.query_ids):,} queries, {len(topics.languages)} languages")
    mix.bar(names, own, color=colors)
    mix.axhline(even, color="0.3", linestyle="--", linewidth=1, label=f"languages mixed evenly: {even:.2f}")
    mix.legend(frameon=False, fontsize="small", loc="upper left")
    mix.set_ylim(0, 1)
    mix.set_ylabel(f"share of the first {_CUTOFF} hits")
    mix.set_title("Hits in the query's own language")
    for axes in (quality, mix):
        axes.grid(axis="y", alpha=0.25)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    make_parent(output)
    with replacing(output) as beside:
        figure.savefig(beside, format="png", dpi=130, metadata={"Software": None})


def _even_share(topics: dict[str, int], documents: Sequence[str]) -> float:
    """The expected share of own-language hits, if hits were drawn from all documents alike."""
    counts = Counter(documents)
    own = fsum(number * counts[language] for language, number in topics.items())
    return own / counts.total() / sum(topics.values())
