"""The report's sections: tables and figures in the order in which they are read."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from mimo_plugin.report.bias_tables import bias_by_language, bias_table, cutoffs_table, mix_table
from mimo_plugin.report.comparison_tables import comparison_tables
from mimo_plugin.report.figure import Figure
from mimo_plugin.report.forest import forest_plots
from mimo_plugin.report.geometry_figures import geometry_figures
from mimo_plugin.report.geometry_tables import geometry_details, geometry_table
from mimo_plugin.report.heat_map import heat_maps
from mimo_plugin.report.names import FileNames
from mimo_plugin.report.results import Results
from mimo_plugin.report.score_tables import counts_table, score_tables
from mimo_plugin.report.system_tables import systems_table, times_table
from mimo_plugin.report.table import Table


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


def make_sections(results: Results) -> list[Section]:
    """All sections that have something in them; figures and tables have names of their own."""
    files, tables = FileNames(), FileNames()
    makers: list[tuple[str, str, Callable[[Results, FileNames], Iterator[Part]]]] = [
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


def _scores(results: Results, files: FileNames) -> Iterator[Part]:
    yield from score_tables(results)
    yield Folded(counts_table(results))


def _differences(results: Results, files: FileNames) -> Iterator[Part]:
    tables = list(comparison_tables(results))
    for figure, table in zip(forest_plots(results, files), tables, strict=True):
        yield figure
        yield Folded(table, printed=True)


def _bias(results: Results, files: FileNames) -> Iterator[Part]:
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


def _geometry(results: Results, files: FileNames) -> Iterator[Part]:
    geometry = results.geometry
    if geometry is None:
        return
    yield geometry_table(results, geometry)
    yield from geometry_figures(results, geometry, files)
    for table in geometry_details(results, geometry):
        yield Folded(table)


def _systems(results: Results, files: FileNames) -> Iterator[Part]:
    yield systems_table(results)
    times = times_table(results)
    if times is not None:
        yield Folded(times)
