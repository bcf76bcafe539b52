"""Where an evaluation's tables and JSON go."""

import os
from pathlib import Path

from mimo_plugin.errors import Problems, UsageError
from mimo_plugin.evaluation.choices import TableFormat
from mimo_plugin.evaluation.evaluation import Evaluation
from mimo_plugin.evaluation.json_report import to_json
from mimo_plugin.evaluation.rendering import render
from mimo_plugin.evaluation.tables import make_tables
from mimo_plugin.files import write_text, writing


def check_outputs(*paths: Path | None) -> None:
    """Raises `UsageError` before any work for files that cannot be written after it."""
    problems = Problems(UsageError)
    for path in paths:
        if path is None:
            continue
        if path.is_dir():
            problems.add(f"{path}: is a directory, expected the name of a file to write")
            continue
        parent = path.absolute().parent
        while not parent.exists():
            parent = parent.parent
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            problems.add(f"{path}: cannot be written, {parent} is not a directory where you may write")
    problems.raise_any()


def write_outputs(
    evaluation: Evaluation, form: TableFormat, output: Path | None = None, json_file: Path | None = None
) -> str:
    """Writes the tables to `output` and the JSON to `json_file`, where they are given; returns the
    tables' text."""
    tables = render(make_tables(evaluation), form)
    for path, text in ((output, tables), (json_file, to_json(evaluation))):
        if path is not None:
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, text)
    return tables
