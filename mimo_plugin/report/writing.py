"""Writes a report: index.html, and its figures and tables as files."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mimo_plugin.errors import ArtifactError
from mimo_plugin.files import write_text, writing
from mimo_plugin.report.comma_separated import to_csv
from mimo_plugin.report.figure import Drawn, Figure, write_figure
from mimo_plugin.report.latex import to_latex
from mimo_plugin.report.page import GENERATOR, render_page
from mimo_plugin.report.results import parse_results
from mimo_plugin.report.sections import Folded, Section, make_sections

PAGE = "index.html"
FIGURES = "figures"
TABLES = "tables"
_MARK = ".report"


def write_report(results: Mapping[str, Any], directory: Path) -> Path:
    """Writes the report of a reproduction; returns its page.

    The page holds all of it: figures/ (SVG, PNG) and tables/ (CSV, LaTeX) have its parts once more. These two
    directories are the report's own and are replaced whole. The same results give the same bytes.

    Args:
        results: the object of `results.json`.

    Raises:
        ArtifactError: the object is another one, or the directory holds something else under these names.
        EnvironmentProblem: the file system refuses.
    """
    parsed = parse_results(results)
    _check(directory)
    _clear_leftovers(directory)
    sections = make_sections(parsed)
    figures, tables = (directory / f".{name}.{os.getpid()}.tmp" for name in (FIGURES, TABLES))
    try:
        with writing(directory / PAGE):
            for made in (figures, tables):
                made.mkdir(parents=True)
            drawn = _write_parts(sections, figures, tables)
            page = render_page(parsed, sections, drawn)
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
