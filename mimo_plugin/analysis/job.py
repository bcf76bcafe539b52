"""What `mimo analyze` does: every check that is cheap, all reported together, then runs, then encoders."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.analysis.encoders import Encoder, parse_encoder, same_labels
from mimo_plugin.analysis.records import Analysis
from mimo_plugin.analysis.texts import Role, sample_texts
from mimo_plugin.collections.records import ERROR
from mimo_plugin.errors import DataError, Findings, Problems, UsageError
from mimo_plugin.evaluation.run_reader import RunFile, file_problem, run_files, same_names
from mimo_plugin.evaluation.trained_on import TrainedOn, open_seen, trained_on
from mimo_plugin.files import check_place
from mimo_plugin.progress import bar

if TYPE_CHECKING:
    from mimo_plugin.evaluation.language_bias import LanguageBias
    from mimo_plugin.student import EncoderOptions


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


@dataclass(frozen=True)
class Analyzed:
    """analysis: None without encoders. language_bias: run -> what was found. warnings: a line each.
    trained_on: encoder -> how many of the texts it was trained on, where that is known."""

    analysis: Analysis | None
    language_bias: "Mapping[str, LanguageBias]"
    warnings: tuple[str, ...]
    trained_on: Mapping[str, TrainedOn] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        from mimo_plugin.analysis.json_report import as_json
        from mimo_plugin.evaluation.language_bias_json import as_json as bias_as_json

        seen = {name: found.as_json() for name, found in self.trained_on.items()}
        return {
            "geometry": None if self.analysis is None else as_json(self.analysis),
            "language_bias": {name: bias_as_json(bias) for name, bias in self.language_bias.items()},
            **({"trained_on": seen} if seen else {}),
        }


def analyze(
    collections: Sequence[str],
    encoders: Sequence[str],
    runs: Sequence[str] = (),
    options: AnalyzeOptions | None = None,
    encoder_options: "EncoderOptions | None" = None,
    *,
    json_file: Path | None = None,
    output: Path | None = None,
) -> Analyzed:
    """Looks at encoders on texts of collections, and at the languages of runs of their queries.

    Args:
        encoders: see `parse_encoder`.
        runs: `NAME=FILE` or a file.
        json_file, output: where the caller wants to write, checked before the work.

    Raises:
        MimoError: with every problem that can be found before something is encoded, and as `analyse`.
    """
    options = options or AnalyzeOptions()
    findings = Findings()
    files = run_files(runs)
    findings.attempt(_check_options, options, bool(encoders or runs))
    findings.attempt(_check_outputs, json_file, output, files)
    pool = findings.attempt(_open, collections, bool(encoders), bool(runs), options)
    parsed = [_loadable(findings, spec, encoder_options) for spec in encoders]
    chosen = [encoder for encoder in parsed if encoder is not None]
    findings.add(DataError, same_labels(chosen))
    findings.add(DataError, same_names(files))
    findings.add(DataError, dict.fromkeys(filter(None, (file_problem(file.path) for file in files))))
    pool = findings.complete(pool)

    biases, warnings = _runs(pool, files, options) if files else ({}, [])
    if not chosen:
        return Analyzed(None, biases, tuple(warnings))
    from mimo_plugin.analysis.analysis import analyse
    from mimo_plugin.collections.survey import copies_text, survey

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
    analysis = analyse(chosen, texts, encoder_options, progress=options.progress)
    seen, told = open_seen({encoder.label: encoder.checkpoint for encoder in chosen})
    found = trained_on(texts.texts, seen)
    for name, one in found.items():
        told += one.warnings(name, f"{options.role.value} looked at")
    return Analyzed(analysis, biases, (*warnings, *told), found)


def _check_options(options: AnalyzeOptions, anything: bool) -> None:
    from mimo_plugin.evaluation.language_bias import parse_cutoffs

    problems = Problems(UsageError)
    if not anything:
        problems.add("nothing to look at: name a checkpoint with --encoder, or a run with --run")
    if options.texts < 1:
        problems.add(f"{options.texts} texts, expected 1 or more: a thousand give stable numbers")
    if options.hits_cutoff < 1:
        problems.add(f"--hits-cutoff {options.hits_cutoff}, expected 1 or more")
    try:
        parse_cutoffs(options.fairness)
    except UsageError as error:
        problems.extend(str(error).splitlines())
    problems.raise_any()


def _check_outputs(json_file: Path | None, output: Path | None, files: Sequence[RunFile]) -> None:
    from mimo_plugin.evaluation.request import check_outputs

    problems = Problems(UsageError)
    if json_file is not None:
        try:
            check_outputs([json_file], files)
        except UsageError as error:
            problems.extend(str(error).splitlines())
    if output is not None:
        if output.exists() and not output.is_dir():
            problems.add(f"{output}: is a file, expected the name of a directory for pictures and tables")
        else:
            try:
                check_place(output / "tables")
            except UsageError as error:
                problems.add(str(error))
    problems.raise_any()


def _open(collections: Sequence[str], encoded: bool, searched: bool, options: AnalyzeOptions) -> Any:
    from mimo_plugin.collections import load_pool, require

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


def _loadable(findings: Findings, spec: str, options: "EncoderOptions | None") -> Encoder | None:
    """The encoder, if it can be loaded; it is let go again, so that there is never more than one."""
    from mimo_plugin.student import Student

    encoder = findings.attempt(parse_encoder, spec)
    if encoder is not None:
        findings.attempt(Student.load, encoder.checkpoint, options)
    return encoder


def _runs(
    pool: Any, files: Sequence[RunFile], options: AnalyzeOptions
) -> "tuple[dict[str, LanguageBias], list[str]]":
    """The language bias of each run, and warnings.

    Raises:
        DataError: with the problems of all runs.
    """
    from mimo_plugin.evaluation.doc_languages import documents_of
    from mimo_plugin.evaluation.language_bias import language_bias, parse_cutoffs
    from mimo_plugin.evaluation.run_reader import read_run
    from mimo_plugin.evaluation.topics import check_docids, check_queries, load_topics

    cutoff = options.hits_cutoff
    further = parse_cutoffs(options.fairness)
    deepest = further.deepest(cutoff)
    findings = Findings()
    read = [findings.attempt(read_run, file.path, file.name) for file in files]
    topics = findings.attempt(load_topics, pool)
    runs = [run for run in read if run is not None]
    if topics is not None:
        for run in runs:
            findings.add(DataError, check_queries(run, topics))
    topics = findings.complete(topics)

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
    biases = {
        run.name: findings.attempt(
            language_bias, run, topics, doc_langs, k=cutoff, collection=counts, further=further
        )
        for run in runs
    }
    findings.raise_any()
    return {name: bias for name, bias in biases.items() if bias is not None}, warnings
