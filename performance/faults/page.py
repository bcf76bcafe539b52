"""The page that says what was done and what came of it, from the figures."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_INTRODUCTION = """# Reliability

What `performance/reliability.py` does to the commands, how often, and what came of it; its figures are in
`reliability.json`. Commands work on a tiny world: encoders of two layers with random weights,
{documents} documents, {steps} training steps a stage, a benchmark of {texts} texts in three languages.

    {run}

{environment}
"""

_KILLS = """## Killed with SIGKILL

The process group of a command is killed at random moments, uniform over the length of an uninterrupted
run, up to four times in one directory; then the command runs to its end. Its result must be that of an
uninterrupted run: byte for byte for indexes, vectors, runs, weights and the teacher's vectors; results
of `mimo reproduce` without times and dates. After each kill nothing that is incomplete may look
complete, and no lock may be held; at the end nothing unfinished may lie there. Processes are forked from
one that has the libraries loaded, so that kills fall on work.
"""

_DAMAGE = """## One byte changed

One byte of a file, at a random place, is made another one, and a command reads it. It must fail with one
line that names the file (for work that was cut short: its directory and what differs), or do exactly
what it does with the whole file. Notes of `mimo reproduce` are not complained of, what they are about is
made again.
"""

_DISK = """## Full disk

Each command writes to a tmpfs on which 0, 30, 60 and 90 % of what it needs is free. It must end with
status 1 and one line, leave nothing that looks complete and no temporary file, and come to the right
result once there is room.
"""

_MEDDLING = """## Second writer, removed directory, signals

A second writer must be refused with the first one's process and host, and not disturb it. A command
whose output directory is removed while it runs must fail with one line; SIGINT and SIGTERM must end it
with status 130 and `mimo: interrupted`, without temporary files. Run again, the command must come to the
right result each time.
"""

_FUZZ = """## Damaged files

Every reader is fed with files that hypothesis makes of valid ones: bytes flipped, cut, moved, repeated,
put in; values of JSON and YAML replaced by huge numbers, deep nesting, lone surrogates and other kinds;
other encodings; free bytes. It must read them or raise one of the package's own errors within three
seconds of processor time, and leave no part of an output behind.
"""

_REST = """## Not covered

- Power loss: files are flushed before they are renamed, directories are not, and no machine was switched
  off.
- File systems without `flock` (some network mounts): there nothing tells a second writer apart.
- A changed byte in a checkpoint that is given by its own directory, or in a collection, a run or qrels:
  these are the user's, and nothing says what they were. A fingerprint of model and documents stands in
  every index.
- Reads that fail in the middle (a dying disk, a network mount that goes away).
- `mimo data debian`, `mimo experiment`, `mimo export`, `mimo merge` and training over several processes
  are not killed here; each is made of the same parts.
"""


def render(figures: Mapping[str, Any]) -> str:
    """The page in Markdown."""
    parts = [_INTRODUCTION.format(**figures["about"]).rstrip() + "\n"]
    sections = (("kills", _KILLS, _kills), ("damage", _DAMAGE, _damage), ("disk", _DISK, _disk))
    sections += (("meddling", _MEDDLING, _meddled), ("fuzz", _FUZZ, _fuzzed))
    for name, text, rows in sections:
        found = figures.get(name)
        if isinstance(found, str):
            parts.append(f"{text}\nNot run: {found}.\n")
        elif found:
            parts.append(f"{text}\n{_table(*rows(found))}\n{_faults(found)}")
    return "\n".join([*parts, _REST])


def _kills(found: Sequence[Mapping[str, Any]]) -> tuple[list[str], Iterator[list[object]]]:
    head = ["command", "seconds", "kills", "directories", "before the first file", "after the last", "faults"]
    names = ("command", "seconds", "kills", "directories", "before", "complete")
    return head, ([*(row[name] for name in names), len(row["faults"])] for row in found)


def _damage(found: Sequence[Mapping[str, Any]]) -> tuple[list[str], Iterator[list[object]]]:
    head = ["file", "positions", "named", "mended", "without effect", "silently different", "other"]

    def row(one: Mapping[str, Any]) -> list[object]:
        mended, harmless = (one["harmless"], 0) if one["mended"] else (0, one["harmless"])
        counts = (one["positions"], one["named"], mended, harmless, one["silent"], len(one["faults"]))
        return [one["kind"], *(count or "" for count in counts)]

    return head, map(row, found)


def _disk(found: Sequence[Mapping[str, Any]]) -> tuple[list[str], Iterator[list[object]]]:
    head = [
        "command",
        "bytes",
        "tries",
        "refused in one line",
        "enough after all",
        "right with room",
        "faults",
    ]
    names = ("command", "needed", "tries", "failed", "finished", "resumed")
    return head, ([*(row[name] for name in names), len(row["faults"])] for row in found)


def _meddled(found: Sequence[Mapping[str, Any]]) -> tuple[list[str], Iterator[list[object]]]:
    return ["command", "what", "tries", "as expected"], (
        [row[name] for name in ("command", "what", "tries", "as_expected")] for row in found
    )


def _fuzzed(found: Sequence[Mapping[str, Any]]) -> tuple[list[str], Iterator[list[object]]]:
    head = ["reader", "seconds", "files", "errors of ours", "read", "faults"]
    names = ("reader", "seconds", "examples", "errors", "read")
    return head, ([*(row[name] for name in names), len(row["faults"])] for row in found)


def _table(head: Sequence[str], rows: Iterator[list[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def _faults(found: Sequence[Mapping[str, Any]]) -> str:
    """What was not as it must be, in full."""
    names = ("command", "kind", "reader")
    lines = []
    for row in found:
        name = next(str(row[key]) for key in names if key in row)
        lines += [
            f"- {name}{', ' + row['what'] if 'what' in row else ''}: {fault}" for fault in row["faults"]
        ]
    return "\nFaults:\n\n" + "\n".join(lines) + "\n" if lines else ""
