"""Where an evaluation's tables and JSON go."""

from pathlib import Path

from mimo_plugin.evaluation.choices import TableFormat
from mimo_plugin.evaluation.evaluation import Evaluation
from mimo_plugin.evaluation.json_report import to_json
from mimo_plugin.evaluation.rendering import render
from mimo_plugin.evaluation.tables import make_tables
from mimo_plugin.files import make_parent, write_text


def write_outputs(
    evaluation: Evaluation, form: TableFormat, output: Path | None = None, json_file: Path | None = None
) -> str:
    """Writes the tables to `output` and the JSON to `json_file`, where they are given; returns the
    tables' text."""
    tables = render(make_tables(evaluation), form)
    for path, text in ((output, tables), (json_file, to_json(evaluation))):
        if path is not None:
            make_parent(path)
            write_text(path, text)
    return tables
