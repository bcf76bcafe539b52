"""The sections of the report, its page and the files beside it."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files as package_files
from pathlib import Path
from typing import NamedTuple

from mimo_plugin.core.errors import ArtifactError
from mimo_plugin.core.files import writing
from mimo_plugin.core.table import Table, to_csv, to_latex
from mimo_plugin.evaluation.results import BenchmarkResults
from mimo_plugin.evaluation.tables import slice_tables
from mimo_plugin.report.bias_tables import (
    Biases,
    bias_by_language,
    bias_table,
    cutoffs_table,
    encoder_tables,
    geometry_details,
    geometry_table,
    mix_table,
    provenance,
    systems_table,
    times_table,
)
from mimo_plugin.report.figures import Figure, forest_plot, heat_maps, write_figure
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
)

PAGE = "index.html"
FIGURES = "figures"
TABLES = "tables"
_PARTS = (FIGURES, TABLES, PAGE)
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


def make_sections(results: BenchmarkResults) -> list[Section]:
    """All sections with content; figures and tables have unique names."""
    files, tables = FileNames(), FileNames()
    sections = [
        Section("scores", "Scores", [*score_tables(results), Folded(counts_table(results))]),
        Section("differences", "Differences by language", list(_differences(results, files))),
        Section("slices", "Slices of topics", list(_slices(results))),
        Section("language-bias", "Language bias", list(_bias(results, files))),
        Section("geometry", "Geometry of the encoders", list(_geometry(results, files))),
        Section("systems", "Systems", list(_systems(results))),
    ]
    return [
        section._replace(parts=[_named(part, tables) for part in section.parts])
        for section in sections
        if section.parts
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
    for run, figure in heat_maps(results, files):
        yield figure
        yield Folded(mix_table(biases, run, figure.name))


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


def render_page(results: BenchmarkResults, sections: Sequence[Section], svg: Mapping[str, str]) -> str:
    """The self-contained HTML of a report.

    Args:
        svg: name of a figure -> its SVG element.
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
    # A number with all digits, as in JSON.
    environment.filters["exact"] = lambda cell: repr(cell.exact)
    environment.tests.update(
        figure=lambda part: isinstance(part, Figure),
        folded=lambda part: isinstance(part, Folded),
        # No javascript: links, as the results file may be foreign.
        safe_link=lambda address: address.lower().startswith(("https://", "http://")),
    )
    style = package_files("mimo_plugin.report").joinpath("templates", "page.css").read_text(encoding="utf-8")
    return environment.get_template("page.html").render(
        generator=_GENERATOR,
        results=results,
        labels=labels(results),
        setting=setting(results),
        facts=_facts(results),
        sections=sections,
        provenance=[(title, entries) for title, entries in provenance(results) if entries],
        # Our own style, and drawings, in which names are escaped.
        style=Markup(style),
        svg={name: Markup(drawing) for name, drawing in svg.items()},
    )


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


def write_report(results: BenchmarkResults, directory: Path) -> Path:
    """Writes the report of a reproduction; returns its page.

    The page is complete: figures/ (SVG, PNG) and tables/ (CSV, LaTeX) repeat its parts. These two directories
    belong to the report and are replaced. The same results give the same bytes.

    Raises:
        ArtifactError: the directory holds other files under these names.
        EnvironmentProblem: the file system refuses.
    """
    _check(directory)
    beside = directory / _BESIDE
    with writing(directory / PAGE):
        _remove(beside)
        try:
            for name in (FIGURES, TABLES):
                (beside / name).mkdir(parents=True)
            sections = make_sections(results)
            svg = _write_parts(sections, beside)
            (beside / PAGE).write_text(render_page(results, sections, svg), encoding="utf-8")
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        for name in _PARTS:
            _remove(directory / name)
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


def _write_parts(sections: Sequence[Section], directory: Path) -> dict[str, str]:
    """Writes all figures and tables; returns name of a figure -> its SVG element."""
    svg = {}
    for section in sections:
        for part in section.parts:
            if isinstance(part, Figure):
                svg[part.name] = write_figure(part, directory / FIGURES)
            else:
                table = part.table if isinstance(part, Folded) else part
                place = directory / TABLES / table.name
                place.with_suffix(".csv").write_text(to_csv(table), encoding="utf-8")
                place.with_suffix(".tex").write_text(to_latex([table]), encoding="utf-8")
    return svg
