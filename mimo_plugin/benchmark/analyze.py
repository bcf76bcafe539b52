"""Analysis of encoders and runs, for `mimo analyze`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import fsum
from operator import not_
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from mimo_plugin.benchmark.bias import shallow
from mimo_plugin.benchmark.geometry import measure_geometry
from mimo_plugin.benchmark.settings import AnalyzeOptions, Role
from mimo_plugin.benchmark.similarity import (
    SentencePairs,
    SimilarityResult,
    measure_similarity,
    name_files,
    read_sentence_pairs,
    similarity_tables,
)
from mimo_plugin.benchmark.texts import NamedEncoder, file_name, parse_encoders, sample_texts
from mimo_plugin.collections.loading import require
from mimo_plugin.collections.pool import load
from mimo_plugin.collections.survey import copies_text, survey
from mimo_plugin.core.config import ResultRecord
from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import DataError, Problems, UsageError
from mimo_plugin.core.files import check_outputs, check_place, make_parent, write_text, writing
from mimo_plugin.core.table import Table, count, number, render, words
from mimo_plugin.evaluation.language import language_bias, parse_cutoffs
from mimo_plugin.evaluation.results import (
    BiasResult,
    EncoderResult,
    GeometryResult,
    TrainedOnResult,
)
from mimo_plugin.evaluation.runs import RunFile, read_run, run_files, run_problems
from mimo_plugin.evaluation.topics import check_docids, check_queries, documents_of, load_topics
from mimo_plugin.evaluation.trained_on import open_seen, trained_on, trained_on_warnings
from mimo_plugin.report.bias_tables import (
    Biases,
    bias_by_language,
    bias_table,
    cutoffs_table,
    encoder_tables,
    geometry_table,
    mix_table,
)
from mimo_plugin.report.figures import write_figure
from mimo_plugin.report.maps import geometry_figures

if TYPE_CHECKING:
    from mimo_plugin.encoder.encoder import Encoder
    from mimo_plugin.encoder.options import EncoderOptions


class AnalysisResult(ResultRecord):
    """What `mimo analyze --json` writes.

    Attributes:
        geometry: None without encoders or without collections.
        sts: file of sentence pairs -> similarity of its sentences.
        warnings: not written.
    """

    geometry: GeometryResult | None
    language_bias: Mapping[str, BiasResult]
    trained_on: Mapping[str, TrainedOnResult] = Field(default={}, exclude_if=not_)
    sts: Mapping[str, SimilarityResult] = Field(default={}, exclude_if=not_)
    warnings: tuple[str, ...] = Field(default=(), exclude=True)


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
    """Analyses encoders on texts of collections and on sentence pairs, and the language bias of runs.

    Args:
        collections: may be none, if encoders are only analysed on sentence pairs.
        encoders: see `parse_encoders`.
        runs: `NAME=FILE` or a file.
        encoder_options: of encoders that are not loaded yet.
        json_file, output: places that the caller will write to, checked before the work.

    Raises:
        MimoError: with all problems that are found before texts are encoded; and as `measure_geometry`.
    """
    options = options or AnalyzeOptions()
    problems = Problems(DataError)
    files = run_files(runs)
    chosen: list[NamedEncoder] = []
    pool: Any = None
    sentences: dict[str, SentencePairs] = {}
    with problems.collect():
        _check_options(options, collections, encoders, runs)
    with problems.collect():
        _check_outputs(json_file, output, files)
    if collections:
        with problems.collect():
            pool = _open(collections, bool(encoders), bool(runs), options)
    for name, path in name_files(options.sts).items():
        with problems.collect():
            sentences[name] = read_sentence_pairs(path)
    with problems.collect():
        chosen = parse_encoders(encoders, check=True)
    problems.extend(run_problems(files))
    problems.raise_any()
    for encoder in chosen:
        # Not kept, so that only one model is in memory.
        with problems.collect():
            encoder.load(encoder_options)
    problems.raise_any()

    biases, warnings = _runs(pool, files, options) if files else ({}, [])
    seen, more = open_seen({encoder.label: encoder.checkpoint for encoder in chosen})
    warnings += more
    similarity = measure_similarity(
        chosen if sentences else (),
        sentences,
        encoder_options,
        role=options.role or Role.QUERIES,
        seed=options.seed,
        progress=options.progress,
    )
    for name, pairs in sentences.items():
        warnings += trained_on_warnings(trained_on(pairs.sentences, seen), f"sentences of {name}")
    if not chosen or not collections:
        return AnalysisResult(geometry=None, language_bias=biases, sts=similarity, warnings=tuple(warnings))
    if options.texts_of is Role.DOCUMENTS:
        surveyed = survey(pool, duplicates=options.duplicates, progress=options.progress)
        if surveyed.repeated:
            warnings.append(copies_text(surveyed.copies))
            pool = _with_docs(pool, surveyed.distinct(pool))
    texts = sample_texts(
        pool,
        collections,
        role=options.texts_of,
        count=options.texts,
        seed=options.seed,
        progress=options.progress,
    )
    geometry = measure_geometry(chosen, texts, encoder_options, progress=options.progress)
    found = trained_on(texts.texts, seen)
    warnings += trained_on_warnings(found, f"{options.texts_of} analysed")
    return AnalysisResult(
        geometry=geometry,
        language_bias=biases,
        trained_on=found,
        sts=similarity,
        warnings=tuple(warnings),
    )


def _check_options(
    options: AnalyzeOptions, collections: Sequence[str], encoders: Sequence[Any], runs: Sequence[str]
) -> None:
    problems = Problems(UsageError)
    if not encoders and not runs:
        problems.add("nothing to look at: name a checkpoint with --encoder, or a run with --run")
    if not collections and (runs or not options.sts):
        problems.add("no COLLECTION was given, expected one, or --sts FILE with --encoder")
    if options.sts and not encoders:
        problems.add("--sts needs an encoder: name a checkpoint with --encoder")
    if options.texts < 1:
        problems.add(f"{options.texts} texts, expected 1 or more: a thousand give stable numbers")
    if options.hits_cutoff < 1:
        problems.add(f"--hits-cutoff {options.hits_cutoff}, expected 1 or more")
    with problems.collect():
        parse_cutoffs(options.fairness)
    problems.raise_any()


def _check_outputs(json_file: Path | None, output: Path | None, files: Sequence[RunFile]) -> None:
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
    require(
        collections,
        docs=searched or (encoded and options.texts_of is Role.DOCUMENTS),
        queries=searched or (encoded and options.texts_of is Role.QUERIES),
        qrels=searched,
    )
    return load(*collections, pooled=options.pooled or None, duplicates=options.duplicates)


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
        warnings += [*check_docids(run, topics), *shallow(run, topics, deepest)]
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


# Larger matrices fit no page; `--json` has them.
_MOST_COLUMNS = 24


def make_tables(analysis: AnalysisResult) -> list[Table]:
    """Tables of sentence pairs; of all encoders, then of each one; of all runs, then of each run."""
    tables: list[Table] = similarity_tables(analysis.sts)
    geometry = analysis.geometry
    if geometry is not None:
        pairs = [_pairs(label, encoder) for label, encoder in geometry.encoders.items()]
        tables += [geometry_table(geometry), _by_language(geometry), *pairs, *encoder_tables(geometry)]
    if analysis.language_bias:
        biases = Biases(analysis.language_bias, {name: name for name in analysis.language_bias})
        mixes = [mix_table(biases, name, "") for name in analysis.language_bias]
        further = filter(None, [cutoffs_table(biases)])
        tables += [bias_table(biases), *further, *bias_by_language(biases, further_only=True), *mixes]
    return [table for table in tables if 1 < len(table.columns) <= _MOST_COLUMNS + 1]


def _by_language(geometry: GeometryResult) -> Table:
    several = len(geometry.encoders) > 1
    parallel = any(one.pair_alignment for one in geometry.encoders.values())
    headers = ["language", "texts"]
    columns = []
    for label, encoder in geometry.encoders.items():
        if parallel:
            headers.append(f"alignment, {label}" if several else "alignment")
            columns.append(_mean_over_pairs(encoder))
        headers.append(f"uniformity, {label}" if several else "uniformity")
        columns.append(encoder.uniformity_per_language)
    rows = [
        [words(language), count(texts), *(number(column.get(language)) for column in columns)]
        for language, texts in geometry.texts.languages.items()
    ]
    notes = ["alignment of a language: the mean over its pairs with the others."] if parallel else []
    return Table.of("by language", headers, rows, notes)


def _mean_over_pairs(encoder: EncoderResult) -> Mapping[str, float | None]:
    values: dict[str, list[float]] = {}
    for first, second, value in encoder.pair_alignment:
        for language in (first, second):
            if value is not None:
                values.setdefault(language, []).append(value)
    return {language: fsum(own) / len(own) for language, own in values.items()}


def _pairs(label: str, encoder: EncoderResult) -> Table:
    pairs = {frozenset((first, second)): value for first, second, value in encoder.pair_alignment}
    names = sorted(frozenset().union(*pairs))
    rows = [
        [words(first), *(number(pairs.get(frozenset((first, other)))) for other in names)] for first in names
    ]
    return Table.of(f"{label}: alignment of pairs of languages", ["language", *names], rows)


_ENDINGS = {"text": "txt", "markdown": "md", "latex": "tex"}


def write_outputs(
    analysis: AnalysisResult, form: str, output: Path | None = None, json_file: Path | None = None
) -> str:
    """Writes the numbers to `json_file`, tables and pictures (PNG and SVG) to the directory `output`.

    Args:
        form: of the tables, see `render`.

    Returns:
        The text to print: the tables, or the names of written files.
    """

    def file_of(what: str, *label: str) -> str:
        return "-".join((what.replace(" ", "-"), *map(file_name, label)))

    tables = render(make_tables(analysis), form)
    texts = {} if json_file is None else {json_file: analysis.to_json()}
    if output is not None:
        texts[output / f"tables.{_ENDINGS[form]}"] = tables
    for path, text in texts.items():
        make_parent(path)
        write_text(path, text)
    if output is None:
        return tables
    files = [f"tables.{_ENDINGS[form]}"]
    for figure in geometry_figures(analysis.geometry, file_of) if analysis.geometry else ():
        with writing(output / figure.name):
            write_figure(figure, output)
        files += [f"{figure.name}.{ending}" for ending in ("png", "svg")]
    return f"{output}: {', '.join(files)}\n"
