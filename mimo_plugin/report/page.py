"""The sections of the report, its pages and the files beside them."""

import re
import shutil
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from importlib.resources import files as package_files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mimo_plugin.core.errors import ArtifactError
from mimo_plugin.core.files import writing
from mimo_plugin.core.table import BETTER, Column, Table, number, to_csv, to_latex, words
from mimo_plugin.evaluation.results import AGAIN, BenchmarkResults
from mimo_plugin.evaluation.tables import slice_tables
from mimo_plugin.report.bias_tables import (
    Biases,
    bias_by_language,
    bias_table,
    commands,
    cutoffs_table,
    encoder_tables,
    geometry_details,
    geometry_table,
    mix_table,
    provenance,
    systems_table,
    times_table,
)
from mimo_plugin.report.figures import (
    Figure,
    forest_plot,
    narrow_figure,
    winner_chart,
    write_figure,
)
from mimo_plugin.report.heat import mix_figure
from mimo_plugin.report.maps import geometry_figures
from mimo_plugin.report.tables import (
    FileNames,
    compared,
    comparison_table,
    counts_table,
    labels,
    measure_name,
    score_tables,
    setting,
    system_names,
    verdict,
)

if TYPE_CHECKING:
    from jinja2 import Environment

    from mimo_plugin.evaluation.per_topic import PerTopicResults, TopicResult

PAGE = "index.html"
TOPICS_PAGE = "topics.html"
FIGURES = "figures"
TABLES = "tables"
_PARTS = (FIGURES, TABLES, TOPICS_PAGE, PAGE)
_TOPICS = "topics"
# CSV only: as many rows as topics.
_BY_TOPIC = "scores-by-topic"
# Folder of an unfinished report. If a kill leaves it, it shows that the directory holds a report.
_BESIDE = ".report"
_GENERATOR = "mimo-plugin"


class Folded(NamedTuple):
    """A table that the page shows on demand. printed: whether it is always printed on paper."""

    table: Table
    printed: bool = False


Part = Table | Folded | Figure


class Section(NamedTuple):
    """A section of the page. id: its HTML anchor."""

    id: str
    title: str
    parts: Sequence[Part]


class ShownTopic(NamedTuple):
    """A topic on a page. id: its HTML anchor. scores: run -> score. difference: best run minus baseline."""

    id: str
    query_id: str
    topic: "TopicResult"
    scores: Mapping[str, float]
    difference: float | None


def make_sections(results: BenchmarkResults, per_topic: "PerTopicResults | None" = None) -> list[Section]:
    """All sections with content; figures and tables have unique names. The topics are no parts."""
    files, tables = FileNames(), FileNames()
    tables.of(_BY_TOPIC)
    chart = winner_chart(results, files)
    sections = [
        Section("result", "Result", [chart] if chart else []),
        Section("scores", "Scores", [*score_tables(results), Folded(counts_table(results))]),
        Section("differences", "Differences by language", list(_differences(results, files))),
        Section(_TOPICS, "Topics", []),
        Section("slices", "Slices of topics", list(_slices(results))),
        Section("language-bias", "Language bias", list(_bias(results, files))),
        Section("geometry", "Geometry of the encoders", list(_geometry(results, files))),
        Section("systems", "Systems", list(_systems(results))),
    ]
    return [
        section._replace(parts=[_named(part, tables) for part in section.parts])
        for section in sections
        if section.parts or (per_topic and section.id == _TOPICS)
    ]


def _named(part: Part, names: FileNames) -> Part:
    """The part, with a unique name if it is a table."""
    if isinstance(part, Figure):
        return part
    if isinstance(part, Folded):
        return part._replace(table=part.table._replace(name=names.of(part.table.name)))
    return part._replace(name=names.of(part.name))


def _differences(results: BenchmarkResults, files: FileNames) -> Iterator[Part]:
    test = results.evaluation.test
    for measure in results.evaluation.measures:
        if test is not None and compared(results, measure):
            yield forest_plot(results, measure, test.confidence, files)
            yield Folded(comparison_table(results, measure, test), printed=True)


def _slices(results: BenchmarkResults) -> Iterator[Part]:
    for table in slice_tables(results.evaluation, system_names(results), measure_name):
        yield table._replace(name=table.title, labels=labels(results))


def _bias(results: BenchmarkResults, files: FileNames) -> Iterator[Part]:
    biases = Biases.of(results)
    if not biases.found:
        return
    yield bias_table(biases)
    cutoffs = cutoffs_table(biases)
    if cutoffs is not None:
        yield cutoffs
    yield from map(Folded, bias_by_language(biases))
    figure = mix_figure(results, files)
    yield figure
    for run in biases.found:
        yield Folded(mix_table(biases, run, f"{figure.name}-{run}"))


def _geometry(results: BenchmarkResults, files: FileNames) -> Iterator[Part]:
    geometry = results.geometry
    if geometry is not None:
        yield geometry_table(geometry, labels(results))
        yield from geometry_figures(geometry, files.of, labels(results))
        yield from map(Folded, geometry_details(geometry, labels(results)))
        yield from map(Folded, encoder_tables(geometry, labels(results)))


def _systems(results: BenchmarkResults) -> Iterator[Part]:
    yield systems_table(results)
    times = times_table(results)
    if times is not None:
        yield Folded(times)


def shown_topics(per_topic: "PerTopicResults") -> dict[str, ShownTopic]:
    """Query id -> topic, of all that the record has hits of."""
    measure = per_topic.measure or next(iter(next(iter(per_topic.scores.values()), {})), "")
    places = {query_id: place for place, query_id in enumerate(per_topic.query_ids)}
    found = {}
    for query_id, topic in per_topic.topics.items():
        place = places[query_id]
        scores = {run: by_measure[measure][place] for run, by_measure in per_topic.scores.items()}
        difference = None
        if per_topic.compared:
            baseline, best = per_topic.compared
            difference = scores[best] - scores[baseline]
        found[query_id] = ShownTopic(f"topic-{place}", query_id, topic, scores, difference)
    return found


def topics_table(results: BenchmarkResults, per_topic: "PerTopicResults") -> Table:
    """The score of each topic, a column per run and measure; for CSV."""
    names = system_names(results)
    columns = [Column("query"), Column("language")]
    scores = []
    for run, by_measure in per_topic.scores.items():
        for measure, values in by_measure.items():
            columns.append(Column(measure, names[run]))
            scores.append(values)
    rows = (
        [words(query_id), words(language), *map(number, values)]
        for query_id, language, *values in zip(per_topic.query_ids, per_topic.languages, *scores, strict=True)
    )
    return Table.of("Scores of each topic", columns, rows, name=_BY_TOPIC, labels=labels(results))


_PATH = re.compile(
    r"(?<![\w/.~-])(?:~|\.{1,2})?(?:/[^\s/:,;'\"<>|]+){2,}?(/[^\s/:,;'\"<>|]+/[^\s/:,;'\"<>|]+)(?![^\s:,;'\"<>|])"
)


def short(text: str) -> str:
    """Text with only the last two parts of each long local path.

    >>> short("path:/home/me/data/debian/test, miracl/sw/dev")
    'path:…/debian/test, miracl/sw/dev'
    """
    return _PATH.sub(r"…\1", text)


def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("mimo_plugin.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # A number with all digits, as in JSON.
    environment.filters.update(exact=lambda cell: repr(cell.exact), short=short, measure=measure_name)
    environment.tests.update(
        figure=lambda part: isinstance(part, Figure),
        folded=lambda part: isinstance(part, Folded),
        # No javascript: links, as the results file may be foreign.
        safe_link=lambda address: address.lower().startswith(("https://", "http://")),
    )
    return environment


def render_pages(
    results: BenchmarkResults,
    sections: Sequence[Section],
    svg: Mapping[str, tuple[str, str]],
    per_topic: "PerTopicResults | None" = None,
) -> dict[str, str]:
    """File name -> HTML of the page, and of the topics if there are any. Each needs no other file.

    Args:
        svg: name of a figure -> its SVG elements, for wide and for narrow screens.
    """
    from markupsafe import Markup

    def own(name: str) -> str:
        return package_files("mimo_plugin.report").joinpath("templates", name).read_text(encoding="utf-8")

    script = f"\n{own('page.js')}"
    topics = shown_topics(per_topic) if per_topic else {}
    content: dict[str, Any] = {
        "generator": _GENERATOR,
        "results": results,
        "names": system_names(results),
        "labels": labels(results),
        "setting": setting(results),
        "facts": _facts(results),
        "verdict": list(verdict(results)),
        "sections": sections,
        "per_topic": per_topic,
        "topics": topics,
        "by_topic": _BY_TOPIC,
        "topics_page": TOPICS_PAGE,
        "page": PAGE,
        "commands": commands(results),
        "provenance": [(title, entries) for title, entries in provenance(results) if entries],
        "better": BETTER,
        # Our own style and script, and drawings, in which names are escaped.
        "style": Markup(own("page.css")),
        "script": Markup(script),
        "script_hash": b64encode(sha256(script.encode()).digest()).decode(),
        "svg": {name: tuple(map(Markup, drawings)) for name, drawings in svg.items()},
    }
    environment = _environment()
    wanted = [PAGE, TOPICS_PAGE] if topics else [PAGE]
    return {name: environment.get_template(name).render(content) for name in wanted}


def _facts(results: BenchmarkResults) -> list[tuple[str, str]]:
    """The main facts of the evaluation."""
    topics = results.evaluation.topics
    units = f" in {topics.units:,} parallel units" if topics.parallel else ""
    documents = sorted({one.documents for one in results.systems.values() if one.documents is not None})
    facts = [
        ("Collections", ", ".join(results.config.collections)),
        ("Languages", f"{len(topics.languages)}: {', '.join(topics.languages)}"),
        ("Topics", f"{topics.judged:,}{units}"),
        ("Documents", " or ".join(f"{number:,}" for number in documents)),
        ("Hits a query", f"{results.config.depth:,}"),
    ]
    return [(name, value) for name, value in facts if value]


def write_report(
    results: BenchmarkResults, directory: Path, per_topic: "PerTopicResults | None" = None
) -> Path:
    """Writes the report of a reproduction; returns its page.

    The page is complete: figures/ (SVG, PNG) and tables/ (CSV, LaTeX) repeat its parts, topics.html has the
    hits of some topics. All of them belong to the report and are replaced. The same results give the same
    bytes.

    Raises:
        ArtifactError: the directory holds other files under these names; the topics are of other results.
        EnvironmentProblem: the file system refuses.
    """
    _check(directory)
    if per_topic is not None and per_topic.fingerprints != results.provenance.fingerprints:
        raise ArtifactError(f"topics.json belongs to other results than those in results.json; {AGAIN}")
    beside = directory / _BESIDE
    with writing(directory / PAGE):
        _remove(beside)
        try:
            for name in (FIGURES, TABLES):
                (beside / name).mkdir(parents=True)
            sections = make_sections(results, per_topic)
            svg = _write_parts(sections, beside)
            if per_topic is not None:
                _write_csv(topics_table(results, per_topic), beside)
            for name, html in render_pages(results, sections, svg, per_topic).items():
                (beside / name).write_text(html, encoding="utf-8")
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        for name in _PARTS:
            _remove(directory / name)
            if (beside / name).exists():
                (beside / name).rename(directory / name)
        beside.rmdir()
    return directory / PAGE


def _check(directory: Path) -> None:
    if directory.exists() and not directory.is_dir():
        raise ArtifactError(f"{directory} is a file, expected a directory: choose another --output")
    there = [name for name in _PARTS if (directory / name).exists()]
    if there and not (directory / _BESIDE).exists() and not _is_ours(directory / PAGE):
        raise ArtifactError(
            f"{directory} holds {', '.join(there)} of something else, which a report would replace: choose "
            "another --output"
        )


def _is_ours(page: Path) -> bool:
    try:
        with page.open(encoding="utf-8", errors="replace") as file:
            return f'name="generator" content="{_GENERATOR}"' in file.read(2000)
    except OSError:
        return False


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _write_parts(sections: Sequence[Section], directory: Path) -> dict[str, tuple[str, str]]:
    """Writes all figures and tables; returns name of a figure -> its SVG elements, wide and narrow."""
    svg = {}
    for section in sections:
        for part in section.parts:
            if isinstance(part, Figure):
                svg[part.name] = write_figure(part, directory / FIGURES), narrow_figure(part)
            else:
                table = part.table if isinstance(part, Folded) else part
                _write_csv(table, directory)
                latex = directory / TABLES / f"{table.name}.tex"
                latex.write_text(to_latex([table]), encoding="utf-8")
    return svg


def _write_csv(table: Table, directory: Path) -> None:
    (directory / TABLES / f"{table.name}.csv").write_text(to_csv(table), encoding="utf-8")
