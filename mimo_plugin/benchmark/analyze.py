"""What `mimo analyze` does: encode, measure, draw, print."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.benchmark.texts import NamedEncoder, Role, file_name, parse_encoders, sample_texts
from mimo_plugin.collections.records import ERROR
from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import DataError, Problems, UsageError
from mimo_plugin.core.files import check_place, make_parent, write_text
from mimo_plugin.evaluation.options import TableFormat
from mimo_plugin.evaluation.results import AnalysisResult, BiasResult, GeometryResult
from mimo_plugin.evaluation.runs import RunFile, run_files, run_problems
from mimo_plugin.evaluation.tables import MISSING, Table, render

if TYPE_CHECKING:
    from mimo_plugin.encoder.encoder import Encoder, EncoderOptions


@dataclass(frozen=True)
class AnalyzeOptions:
    """Attributes:
    role: documents or queries.
    texts: see `sample_texts`.
    seed: of all that is drawn.
    hits_cutoff: how many hits of a query are looked at, in runs.
    fairness: further cutoffs of PEER and MRC, see `parse_cutoffs`.
    pooled: ids are `lang:id` also for a single collection.
    duplicates: see `survey` and `load_pool`.
    progress: bars; None shows them on a terminal only.
    """

    role: Role = Role.DOCUMENTS
    texts: int = 1000
    seed: int = 42
    hits_cutoff: int = 20
    fairness: Sequence[str] = ()
    pooled: bool = False
    duplicates: str = ERROR
    progress: bool | None = None


def analyze(
    collections: Sequence[str],
    encoders: "Sequence[str | Encoder]",
    runs: Sequence[str] = (),
    options: AnalyzeOptions | None = None,
    encoder_options: "EncoderOptions | None" = None,
    *,
    json_file: Path | None = None,
    output: Path | None = None,
) -> AnalysisResult:
    """Looks at encoders on texts of collections, and at the languages of runs of their queries.

    Args:
        encoders: see `parse_encoders`.
        runs: `NAME=FILE` or a file.
        encoder_options: of those that are not loaded yet.
        json_file, output: where the caller wants to write, checked before the work.

    Raises:
        MimoError: with every problem that can be found before something is encoded, and as
            `measure_geometry`.
    """
    options = options or AnalyzeOptions()
    problems = Problems(DataError)
    files = run_files(runs)
    chosen: list[NamedEncoder] = []
    pool: Any = None
    with problems.collect():
        _check_options(options, bool(encoders or runs))
    with problems.collect():
        _check_outputs(json_file, output, files)
    with problems.collect():
        pool = _open(collections, bool(encoders), bool(runs), options)
    with problems.collect():
        chosen = parse_encoders(encoders, check=True)
    problems.extend(run_problems(files))
    problems.raise_any()
    for encoder in chosen:
        # It is let go again, so that there is never more than one.
        with problems.collect():
            encoder.load(encoder_options)
    problems.raise_any()

    biases, warnings = _runs(pool, files, options) if files else ({}, [])
    if not chosen:
        return AnalysisResult(geometry=None, language_bias=biases, warnings=tuple(warnings))
    from mimo_plugin.benchmark.geometry import measure_geometry
    from mimo_plugin.collections.survey import copies_text, survey
    from mimo_plugin.evaluation.trained_on import open_seen, trained_on, trained_on_warnings

    if options.role is Role.DOCUMENTS:
        surveyed = survey(pool, duplicates=options.duplicates, progress=options.progress)
        if surveyed.repeated:
            warnings.append(copies_text(surveyed.copies))
            pool = _with_docs(pool, surveyed.distinct(pool))
    texts = sample_texts(
        pool,
        collections,
        role=options.role,
        count=options.texts,
        seed=options.seed,
        progress=options.progress,
    )
    geometry = measure_geometry(chosen, texts, encoder_options, progress=options.progress)
    seen, told = open_seen({encoder.label: encoder.checkpoint for encoder in chosen})
    found = trained_on(texts.texts, seen)
    told += trained_on_warnings(found, f"{options.role.value} looked at")
    return AnalysisResult(
        geometry=geometry,
        language_bias=biases,
        trained_on=found,
        warnings=(*warnings, *told),
    )


def _check_options(options: AnalyzeOptions, anything: bool) -> None:
    from mimo_plugin.evaluation.language import parse_cutoffs

    problems = Problems(UsageError)
    if not anything:
        problems.add("nothing to look at: name a checkpoint with --encoder, or a run with --run")
    if options.texts < 1:
        problems.add(f"{options.texts} texts, expected 1 or more: a thousand give stable numbers")
    if options.hits_cutoff < 1:
        problems.add(f"--hits-cutoff {options.hits_cutoff}, expected 1 or more")
    with problems.collect():
        parse_cutoffs(options.fairness)
    problems.raise_any()


def _check_outputs(json_file: Path | None, output: Path | None, files: Sequence[RunFile]) -> None:
    from mimo_plugin.core.files import check_outputs

    problems = Problems(UsageError)
    if json_file is not None:
        with problems.collect():
            check_outputs([json_file], {f"the run {name!r}": path for name, path in files})
    if output is not None and output.exists() and not output.is_dir():
        problems.add(f"{output}: is a file, expected the name of a directory for pictures and tables")
    elif output is not None:
        with problems.collect():
            check_place(output / "tables")
    problems.raise_any()


def _open(collections: Sequence[str], encoded: bool, searched: bool, options: AnalyzeOptions) -> Any:
    from mimo_plugin.collections.loading import require
    from mimo_plugin.collections.pool import load_pool

    require(
        collections,
        docs=searched or (encoded and options.role is Role.DOCUMENTS),
        queries=searched or (encoded and options.role is Role.QUERIES),
        qrels=searched,
    )
    return load_pool(collections, pooled=options.pooled or None, duplicates=options.duplicates)


def _with_docs(pool: Any, docs: Any) -> Any:
    from ir_datasets import Dataset

    queries, qrels = (
        getattr(pool, f"{part}_handler")() if pool.has(part) else None for part in ("queries", "qrels")
    )
    return Dataset(docs, queries, qrels)


def _runs(
    pool: Any, files: Sequence[RunFile], options: AnalyzeOptions
) -> tuple[dict[str, BiasResult], list[str]]:
    """The language bias of each run, and warnings.

    Raises:
        DataError: with the problems of all runs.
    """
    from mimo_plugin.evaluation.language import language_bias, parse_cutoffs
    from mimo_plugin.evaluation.runs import read_run
    from mimo_plugin.evaluation.topics import check_docids, check_queries, documents_of, load_topics

    cutoff = options.hits_cutoff
    further = parse_cutoffs(options.fairness)
    deepest = further.deepest(cutoff)
    problems = Problems(DataError)
    runs = []
    for file in files:
        with problems.collect():
            runs.append(read_run(file.path, file.name))
    with problems.collect():
        topics = load_topics(pool)
        for run in runs:
            problems.extend(check_queries(run, topics))
    problems.raise_any()

    warnings = []
    for run in runs:
        warnings += check_docids(run, topics)
        depth = max(len(ranking.docids) for ranking in run.queries.values())
        if depth < deepest:
            warnings.append(
                f"run {run.name!r} has {depth} hits a query at most, fewer than the {deepest} that are "
                f"looked at: search deeper, or read them as the first {depth}"
            )
    wanted = set().union(*(documents_of(run, topics, deepest) for run in runs))
    doc_langs: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for doc in bar(pool.docs_iter(), what="reading", unit="documents", enabled=options.progress):
        if doc.lang:
            counts[doc.lang] += 1
            if doc.doc_id in wanted:
                doc_langs[doc.doc_id] = doc.lang
    biases = {}
    for run in runs:
        with problems.collect():
            biases[run.name] = language_bias(
                run, topics, doc_langs, k=cutoff, collection=counts, further=further
            )
    problems.raise_any()
    return biases, warnings


# A matrix of more languages fits no page; `--json` has it.
_MOST_COLUMNS = 24
Values = Sequence[Sequence[float | None]]


def make_tables(geometry: GeometryResult) -> list[Table]:
    """All encoders, then by language, then each encoder's matrices and trail."""
    tables = [_summary(geometry), _by_language(geometry)]
    for label, encoder in geometry.encoders.items():
        pairs = {(first, second): value for first, second, value in encoder.pair_alignment}
        if pairs:
            names = sorted({language for pair in pairs for language in pair})
            values = [[pairs.get((min(a, b), max(a, b))) for b in names] for a in names]
            tables.append(_matrix(f"{label}: alignment of pairs of languages", names, names, values))
        centroids = encoder.centroid_distances
        if len(centroids.languages) > 1:
            title = f"{label}: distance between the mean vectors of languages"
            tables.append(_matrix(title, centroids.languages, centroids.languages, centroids.distances))
        if encoder.trail:
            rows = [
                [f"{point.step:,}", _cell(point.alignment), _cell(point.uniformity)]
                for point in encoder.trail
            ]
            why = geometry.skipped.get(f"{label}: trail")
            headers = ["step", "alignment", "uniformity"]
            tables.append(Table(f"{label}: while it trained", headers, rows, 0, (f"{why}.",) if why else ()))
    return [table for table in tables if len(table.headers) <= _MOST_COLUMNS + 1]


def _matrix(title: str, rows: Sequence[str], columns: Sequence[str], values: Values) -> Table:
    cells = [
        [name, *(MISSING if value is None else f"{value:.2f}" for value in line)]
        for name, line in zip(rows, values, strict=True)
    ]
    return Table(title, ["", *columns], cells)


def _summary(geometry: GeometryResult) -> Table:
    texts = geometry.texts
    title = (
        f"geometry on {texts.groups:,} texts, {texts.vectors:,} {texts.role} in {len(texts.languages)} "
        "languages"
    )
    headers = ["encoder", "dimensions", "alignment", "uniformity", "centroid probe", "kNN probe", "chance"]
    rows = []
    for label, encoder in geometry.encoders.items():
        probe = encoder.separability
        told = (None, None, None) if probe is None else (probe.centroid, probe.knn, probe.chance)
        values = (encoder.alignment, encoder.uniformity, *told)
        rows.append([label, str(encoder.dimension), *map(_cell, values)])
    notes = [
        "alignment: mean squared distance of translations, 0 to 4; uniformity: log mean exp(-2 distance^2), "
        "-8 to 0; both: lower is better."
    ]
    probes = [one.separability for one in geometry.encoders.values() if one.separability]
    if probes:
        notes.append(
            f"probes: share of texts whose language is told from the vector, by the nearest mean vector and "
            f"by {probes[0].neighbours} nearest neighbours; {probes[0].folds} folds, versions of a text in "
            "one fold; at chance the languages are mixed."
        )
    notes += [f"{what}: {why}." for what, why in geometry.skipped.items()]
    return Table(title, headers, rows, notes=tuple(notes))


def _by_language(geometry: GeometryResult) -> Table:
    several = len(geometry.encoders) > 1
    parallel = any(one.pair_alignment for one in geometry.encoders.values())
    headers = ["language", "texts"]
    columns = []
    for label, encoder in geometry.encoders.items():
        if parallel:
            headers.append(f"alignment, {label}" if several else "alignment")
            columns.append(_mean_over_pairs(encoder.pair_alignment))
        headers.append(f"uniformity, {label}" if several else "uniformity")
        columns.append(encoder.uniformity_per_language)
    rows = [
        [language, f"{count:,}", *(_cell(column.get(language)) for column in columns)]
        for language, count in geometry.texts.languages.items()
    ]
    notes = ("alignment of a language: the mean over its pairs with the others.",) if parallel else ()
    return Table("by language", headers, rows, notes=notes)


def _mean_over_pairs(pairs: Sequence[tuple[str, str, float | None]]) -> Mapping[str, float | None]:
    values: dict[str, list[float]] = {}
    for first, second, value in pairs:
        for language in (first, second) if value is not None else ():
            values.setdefault(language, []).append(value or 0.0)
    return {language: fsum(own) / len(own) for language, own in values.items()}


def _cell(value: float | None) -> str:
    return MISSING if value is None else f"{value:.4f}"


_SUFFIXES = {TableFormat.TEXT: "txt", TableFormat.MARKDOWN: "md", TableFormat.LATEX: "tex"}


def tables_text(analysis: AnalysisResult, form: TableFormat) -> str:
    tables = [] if analysis.geometry is None else make_tables(analysis.geometry)
    if analysis.language_bias:
        tables += make_run_tables(analysis.language_bias)
    return render(tables, form)


def write_json(analysis: AnalysisResult, path: Path) -> None:
    make_parent(path)
    write_text(path, analysis.to_json())


def write_directory(analysis: AnalysisResult, directory: Path, form: TableFormat) -> list[Path]:
    """Writes the tables, and each picture as PNG and SVG; returns the files."""
    from mimo_plugin.report.maps import draw_all, save_figure

    tables = directory / f"tables.{_SUFFIXES[form]}"
    make_parent(tables)
    write_text(tables, tables_text(analysis, form))
    files = [tables]
    geometry = analysis.model_dump(mode="json")["geometry"]
    for (what, label), figure in draw_all(geometry).items() if geometry else ():
        name = what if label is None else f"{what}-{file_name(label)}"
        files += save_figure(figure, directory / name)
    return files


def make_run_tables(biases: Mapping[str, BiasResult]) -> list[Table]:
    """All runs, then the language mix of each: rows are the queries' languages, columns the hits'."""
    cutoff = max(bias.cutoff for bias in biases.values())
    rows = []
    notes = [
        "own language, entropy: of the hits. PEER, AWRF: 1 is fair. MRC: 100 is the same ranking whatever "
        "the query's language. preference: 1 is none. gap: nDCG of same-language documents less that of "
        "others."
    ]
    tables = []
    for name, bias in biases.items():
        preference, gap, mix = bias.same_language_preference, bias.cross_lingual_gap, bias.language_mix
        values = (
            mix.own,
            mix.entropy,
            bias.peer.mean,
            bias.awrf.mean if bias.awrf else None,
            bias.mrc.mean if bias.mrc else None,
            preference.mean if preference else None,
            gap.gap if gap else None,
        )
        rows.append([name, *map(_cell, values)])
        notes += [f"{name}, {what}: {why}." for what, why in bias.skipped.items()]
        title = f"{name}: languages of the first {cutoff} hits, a row for each language of the queries"
        tables.append(_matrix(title, mix.query_languages, mix.doc_languages, mix.shares))
    headers = ["run", "own language", "entropy", "PEER", "AWRF", "MRC", "preference", "gap"]
    first = Table(f"language bias of the first {cutoff} hits", headers, rows, notes=tuple(notes))
    return [first, *_fairness_tables(biases), *tables]


def _fairness_tables(biases: Mapping[str, BiasResult]) -> Iterator[Table]:
    """MRC and PEER by query language at each further cutoff, a row a run."""
    measured: dict[str, dict[str, Any]] = {}
    for name, bias in biases.items():
        for kind, found in (("MRC", bias.mrc_at), ("PEER", bias.peer_at)):
            for at, one in found.items():
                measured.setdefault(f"{kind}@{at}", {})[name] = one
    for title, by_run in measured.items():
        languages = sorted({language for one in by_run.values() for language in one.per_language})
        rows = [
            [name, *map(_cell, (one.mean, *map(one.per_language.get, languages)))]
            for name, one in by_run.items()
        ]
        yield Table(f"{title} by query language", ["run", "mean", *languages], rows)
