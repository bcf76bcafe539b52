"""What was compared, and on what it ran."""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from mimo_plugin.evaluation.tables import MISSING
from mimo_plugin.files import size_text
from mimo_plugin.report.names import system_names
from mimo_plugin.report.results import Results
from mimo_plugin.report.shapes import System
from mimo_plugin.report.table import Cell, Column, Note, Part, Table, count, words
from mimo_plugin.report.wording import labels

_MINUTE, _HOUR = 60, 3600


def systems_table(results: Results) -> Table:
    """A row a system."""
    names = system_names(results)
    columns = [
        Column("system"),
        *(Column(name, text=True) for name in ("kind", "made of", "fingerprint")),
        *map(Column, ("documents", "index size", "time")),
    ]
    rows = [_row(name, system, names) for name, system in results.systems.items()]
    return Table("systems", "Systems", columns, [Part(rows)], list(_details(results)), labels(results))


def _details(results: Results) -> Iterator[Note]:
    names = system_names(results)
    for name, system in results.systems.items():
        said = [
            f"{what} {_said(value)}"
            for what, value in system.details.items()
            if value not in (None, "", {}, [])
        ]
        if said:
            yield Note(f"{names[name]}: {', '.join(said)}.")


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"({', '.join(f'{key} {_said(part)}' for key, part in value.items())})"
    if isinstance(value, list):
        return f"({', '.join(map(_said, value))})"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _row(name: str, system: System, names: dict[str, str]) -> list[Cell]:
    parts = " + ".join(names.get(part, part) for part in system.parts)
    size = (
        Cell(MISSING)
        if system.index_bytes is None
        else Cell(size_text(system.index_bytes), system.index_bytes)
    )
    total = sum(system.seconds.values())
    return [
        words(names[name], name),
        words(system.kind),
        words(system.encoder or parts or MISSING),
        Cell((system.fingerprint or MISSING)[:12], system.fingerprint),
        count(system.documents),
        size,
        Cell(duration(total), total) if system.seconds else Cell(MISSING),
    ]


def times_table(results: Results) -> Table | None:
    """Seconds of each step, where any was timed."""
    names = system_names(results)
    steps = list(dict.fromkeys(step for system in results.systems.values() for step in system.seconds))
    if not steps:
        return None
    rows = [
        [
            words(names[name], name),
            *(
                Cell(f"{system.seconds[step]:,.1f}", system.seconds[step])
                if step in system.seconds
                else Cell(MISSING)
                for step in steps
            ),
        ]
        for name, system in results.systems.items()
    ]
    columns = [Column("system"), *map(Column, steps)]
    return Table("times", "Seconds of each step", columns, [Part(rows)], (), labels(results))


def provenance(results: Results) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Lists of names and values, each with a heading."""
    made = results.provenance
    hardware = made.hardware
    run = [("Date", _date(made.date))]
    if made.git_commit:
        run.append(("Commit", made.git_commit))
    yield "Run", run
    machine = [
        ("Machine", hardware.machine),
        ("Processor", hardware.processor),
        ("Cores", None if hardware.cores is None else str(hardware.cores)),
        ("Memory", None if hardware.memory_bytes is None else size_text(hardware.memory_bytes)),
        ("Device", hardware.device),
    ]
    yield "Hardware", [(name, value) for name, value in machine if value]
    yield "Versions", [(name, version or MISSING) for name, version in made.versions.items()]
    prints = [(name, value or MISSING) for name, value in made.fingerprints.items()]
    names = system_names(results)
    prints += [
        (names[name], system.fingerprint) for name, system in results.systems.items() if system.fingerprint
    ]
    yield "Fingerprints", prints


def duration(seconds: float) -> str:
    """For a reader: 5400 -> "1 h 30 min"."""
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    if seconds < _HOUR:
        return f"{seconds / _MINUTE:.1f} min"
    return f"{seconds // _HOUR:.0f} h {seconds % _HOUR / _MINUTE:.0f} min"


def _date(text: str) -> str:
    try:
        return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M %Z").strip()
    except ValueError:
        return text
