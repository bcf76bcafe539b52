"""Where an analysis's tables, pictures and JSON go."""

import json
from pathlib import Path

from mimo_plugin.analysis.encoders import file_name
from mimo_plugin.analysis.job import Analyzed
from mimo_plugin.analysis.tables import make_tables
from mimo_plugin.evaluation.choices import TableFormat
from mimo_plugin.evaluation.rendering import render
from mimo_plugin.files import make_parent, write_text

_SUFFIXES = {TableFormat.TEXT: "txt", TableFormat.MARKDOWN: "md", TableFormat.LATEX: "tex"}


def tables_text(analyzed: Analyzed, form: TableFormat) -> str:
    tables = [] if analyzed.analysis is None else make_tables(analyzed.analysis)
    if analyzed.language_bias:
        from mimo_plugin.analysis.run_tables import make_run_tables

        tables += make_run_tables(analyzed.language_bias)
    return render(tables, form)


def write_json(analyzed: Analyzed, path: Path) -> None:
    make_parent(path)
    text = json.dumps(analyzed.as_json(), ensure_ascii=False, allow_nan=False, indent=2)
    write_text(path, text + "\n")


def write_directory(analyzed: Analyzed, directory: Path, form: TableFormat) -> list[Path]:
    """Writes the tables, and each picture as PNG and SVG; returns the files."""
    from mimo_plugin.analysis.pictures import draw_all, save_figure

    tables = directory / f"tables.{_SUFFIXES[form]}"
    make_parent(tables)
    write_text(tables, tables_text(analyzed, form))
    files = [tables]
    geometry = analyzed.as_json()["geometry"]
    for (what, label), figure in draw_all(geometry).items() if geometry else ():
        name = what if label is None else f"{what}-{file_name(label)}"
        files += save_figure(figure, directory / name)
    return files
