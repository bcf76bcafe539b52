"""The report: its sections, its page, the files beside it."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files as package_files
from pathlib import Path
from typing import NamedTuple

from mimo_plugin.core.errors import ArtifactError
from mimo_plugin.core.files import write_text, writing
from mimo_plugin.evaluation.results import BenchmarkResults
from mimo_plugin.report.bias_tables import (
    bias_by_language,
    bias_table,
    cutoffs_table,
    geometry_details,
    geometry_table,
    mix_table,
    provenance,
    systems_table,
    times_table,
)
from mimo_plugin.report.figures import Drawn, Figure, forest_plots, heat_maps, write_figure
from mimo_plugin.report.geometry_figures import geometry_figures
from mimo_plugin.report.table import Cell, Table, to_csv, to_latex
from mimo_plugin.report.tables import (
    FileNames,
    comparison_tables,
    counts_table,
    labels,
    score_tables,
    setting,
)


class Folded(NamedTuple):
    """A table that is looked at when it is asked for. printed: on paper, too."""

    table: Table
    printed: bool = False


Part = Table | Folded | Figure


@dataclass(frozen=True)
class Section:
    """id: of its place in the page."""

    id: str
    title: str
    parts: Sequence[Part]


def make_sections(results: BenchmarkResults) -> list[Section]:
    """All sections that have something in them; figures and tables have names of their own."""
    files, tables = FileNames(), FileNames()
    makers: list[tuple[str, str, Callable[[BenchmarkResults, FileNames], Iterator[Part]]]] = [
        ("scores", "Scores", _scores),
        ("differences", "Differences by language", _differences),
        ("language-bias", "Language bias", _bias),
        ("geometry", "Geometry of the encoders", _geometry),
        ("systems", "Systems", _systems),
    ]
    sections = []
    for id_, title, make in makers:
        parts = [_named(part, tables) for part in make(results, files)]
        if parts:
            sections.append(Section(id_, title, parts))
    return sections


def _named(part: Part, names: FileNames) -> Part:
    """With a name that no other table has."""
    if isinstance(part, Figure):
        return part
    if isinstance(part, Folded):
        return part._replace(table=replace(part.table, name=names.of(part.table.name)))
    return replace(part, name=names.of(part.name))


def _scores(results: BenchmarkResults, files: FileNames) -> Iterator[Part]:
    yield from score_tables(results)
    yield Folded(counts_table(results))


def _differences(results: BenchmarkResults, files: FileNames) -> Iterator[Part]:
    tables = list(comparison_tables(results))
    for figure, table in zip(forest_plots(results, files), tables, strict=True):
        yield figure
        yield Folded(table, printed=True)


def _bias(results: BenchmarkResults, files: FileNames) -> Iterator[Part]:
    if not results.language_bias:
        return
    yield bias_table(results)
    cutoffs = cutoffs_table(results)
    if cutoffs is not None:
        yield cutoffs
    for table in bias_by_language(results):
        yield Folded(table)
    for name, mix, figure in heat_maps(results, files):
        yield figure
        yield Folded(mix_table(results, name, figure.name, mix))


def _geometry(results: BenchmarkResults, files: FileNames) -> Iterator[Part]:
    geometry = results.geometry
    if geometry is None:
        return
    yield geometry_table(results, geometry)
    yield from geometry_figures(results, geometry, files)
    for table in geometry_details(results, geometry):
        yield Folded(table)


def _systems(results: BenchmarkResults, files: FileNames) -> Iterator[Part]:
    yield systems_table(results)
    times = times_table(results)
    if times is not None:
        yield Folded(times)


GENERATOR = "mimo-plugin"
_SAFE_LINKS = ("https://", "http://")


def render_page(results: BenchmarkResults, sections: Sequence[Section], drawn: Mapping[str, Drawn]) -> str:
    """The HTML of a report, whole in itself.

    Args:
        drawn: name of a figure -> what was drawn.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("mimo_plugin.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["exact"] = _exact
    environment.tests.update(figure=_is_figure, folded=_is_folded, safe_link=_is_safe_link)
    style = package_files("mimo_plugin.report").joinpath("templates", "page.css").read_text(encoding="utf-8")
    return environment.get_template("page.html").render(
        generator=GENERATOR,
        results=results,
        labels=labels(results),
        setting=setting(results),
        facts=_facts(results),
        sections=sections,
        provenance=[(title, entries) for title, entries in provenance(results) if entries],
        # Ours, and the drawing's own, which escapes the names in it.
        style=Markup(style),
        svg={name: Markup(one.inline) for name, one in drawn.items()},
    )


def _facts(results: BenchmarkResults) -> list[tuple[str, str]]:
    """What a reader wants to know first."""
    topics = results.evaluation.topics
    documents = sorted(
        {system.documents for system in results.systems.values() if system.documents is not None}
    )
    facts = [
        ("Collections", ", ".join(results.config.collections)),
        ("Languages", f"{len(topics.languages)}: {', '.join(topics.languages)}"),
        (
            "Topics",
            f"{topics.judged:,}" + (f" in {topics.units:,} parallel units" if topics.parallel else ""),
        ),
    ]
    if documents:
        facts.append(("Documents", " or ".join(f"{number:,}" for number in documents)))
    facts.append(("Hits a query", f"{results.config.depth:,}"))
    return facts


def _exact(cell: Cell) -> str:
    """A number with every digit, as JSON has it."""
    return repr(cell.exact)


def _is_figure(part: Part) -> bool:
    return isinstance(part, Figure)


def _is_folded(part: Part) -> bool:
    return isinstance(part, Folded)


def _is_safe_link(address: str) -> bool:
    """No script: a results file may come from elsewhere."""
    return address.lower().startswith(_SAFE_LINKS)


PAGE = "index.html"
FIGURES = "figures"
TABLES = "tables"
_MARK = ".report"


def write_report(results: BenchmarkResults, directory: Path) -> Path:
    """Writes the report of a reproduction; returns its page.

    The page holds all of it: figures/ (SVG, PNG) and tables/ (CSV, LaTeX) have its parts once more. These two
    directories are the report's own and are replaced whole. The same results give the same bytes.

    Raises:
        ArtifactError: the directory holds something else under these names.
        EnvironmentProblem: the file system refuses.
    """
    _check(directory)
    _clear_leftovers(directory)
    sections = make_sections(results)
    figures, tables = (directory / f".{name}.{os.getpid()}.tmp" for name in (FIGURES, TABLES))
    try:
        with writing(directory / PAGE):
            for made in (figures, tables):
                made.mkdir(parents=True)
            drawn = _write_parts(sections, figures, tables)
            page = render_page(results, sections, drawn)
            # From here on the two directories are known as a report's, also where it is cut short.
            (directory / _MARK).touch()
            _take_place(figures, directory / FIGURES)
            _take_place(tables, directory / TABLES)
    finally:
        for made in (figures, tables):
            shutil.rmtree(made, ignore_errors=True)
    write_text(directory / PAGE, page)
    (directory / _MARK).unlink()
    return directory / PAGE


def _check(directory: Path) -> None:
    if directory.exists() and not directory.is_dir():
        raise ArtifactError(f"{directory} is a file, expected a directory: choose another --output")
    there = [name for name in (PAGE, FIGURES, TABLES) if (directory / name).exists()]
    if there and not (directory / _MARK).exists() and not _is_ours(directory / PAGE):
        raise ArtifactError(
            f"{directory} holds {', '.join(there)} of something else, which a report would replace: choose "
            "another --output"
        )


def _clear_leftovers(directory: Path) -> None:
    """Removes what a report that was cut short has left."""
    for name in (FIGURES, TABLES):
        for ending in ("tmp", "old"):
            for leftover in directory.glob(f".{name}.*.{ending}"):
                shutil.rmtree(leftover, ignore_errors=True)


def _is_ours(page: Path) -> bool:
    try:
        with page.open(encoding="utf-8", errors="replace") as file:
            return f'name="generator" content="{GENERATOR}"' in file.read(2000)
    except OSError:
        return False


def _write_parts(sections: list[Section], figures: Path, tables: Path) -> dict[str, Drawn]:
    drawn = {}
    for section in sections:
        for part in section.parts:
            if isinstance(part, Figure):
                drawn[part.name] = write_figure(part, figures)
            else:
                table = part.table if isinstance(part, Folded) else part
                (tables / f"{table.name}.csv").write_text(to_csv(table), encoding="utf-8")
                (tables / f"{table.name}.tex").write_text(to_latex(table), encoding="utf-8")
    return drawn


def _take_place(made: Path, place: Path) -> None:
    old = place.with_name(f".{place.name}.{os.getpid()}.old")
    if place.exists():
        place.rename(old)
    made.rename(place)
    shutil.rmtree(old, ignore_errors=True)
