"""What others do to a command that runs: a second writer, a removed directory, a signal."""

import random
import shutil
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from helpers.fault_world import Command, leftovers

from faults.kills import is_free
from faults.processes import Ended, Process, mimo, one_line
from mimo_plugin.core.files import NOTE, NOTES

Say = Callable[[str], None]


@dataclass
class Meddled:
    """Attributes:
    tries: how often somebody meddled while the command ran.
    as_expected: how often it ended as it must.
    """

    command: str
    what: str
    tries: int = 0
    as_expected: int = 0
    faults: list[str] = field(default_factory=list)


def second_writer_test(command: Command, base: Path, *, say: Say) -> dict[str, Any]:
    """Starts a command twice on one place; the first is stopped meanwhile, so that it surely runs."""
    found = Meddled(command.name, "second writer")
    base.mkdir(parents=True)
    expected = _expected(command, base)
    place = base / "output"
    first = mimo(command.arguments(place), _log(base, "first"))
    _until_written(command, place, first)
    first.signal(signal.SIGSTOP)
    found.tries += 1
    second = mimo(command.arguments(place), _log(base, "second")).finish()
    first.signal(signal.SIGCONT)
    whose = f"process {first.pid} on {socket.gethostname()}"
    ended = first.finish()
    fault = one_line(second)
    if fault is None and whose not in second.errors[-1]:
        fault = f"the message does not name {whose}: {second.errors[-1]}"
    if fault is None and (ended.status or command.content(place) != expected):
        fault = f"the first one was disturbed: status {ended.status}, {' '.join(ended.errors)[-200:]}"
    return _concluded(found, fault, say)


def removal_test(command: Command, base: Path, *, tries: int, seed: int, say: Say) -> dict[str, Any]:
    """Removes the output directory at random moments while a command writes into it."""
    found = Meddled(command.name, "output removed")
    # Those that had finished by then, and were only on their way out.
    finished: set[Path] = set()

    def meddle(place: Path, process: Process) -> None:
        # In one step, as the command sees it: what it writes meanwhile must not keep the directory.
        gone = place.with_name("removed")
        with suppress(FileNotFoundError):
            place.rename(gone)
        if command.complete(gone):
            finished.add(place)
        shutil.rmtree(gone, ignore_errors=True)

    def judge(place: Path, ended: Ended, expected: Any) -> str | None:
        if ended.status == 0:
            there = command.complete(place) and command.content(place) == expected
            return None if there or place in finished else "ended well, and the result is not there"
        if command.complete(place):
            return "failed, and what is left looks complete"
        return one_line(ended)

    return _meddle(command, base, tries, seed, found, meddle, judge, say)


def signal_test(
    command: Command, base: Path, number: signal.Signals, *, tries: int, seed: int, say: Say
) -> dict[str, Any]:
    """Sends SIGINT or SIGTERM at random moments."""
    found = Meddled(command.name, number.name)

    def meddle(place: Path, process: Process) -> None:
        process.signal(number)

    def judge(place: Path, ended: Ended, expected: Any) -> str | None:
        if ended.status == 0:
            return None if command.content(place) == expected else "ended well with another result"
        if ended.status != 130 or not ended.errors or ended.errors[-1] != "mimo: interrupted":
            return f"status {ended.status}, {' '.join(ended.errors)[-300:]}"
        if any(line.startswith("Traceback") for line in ended.errors):
            return f"a traceback: {' '.join(ended.errors)[-300:]}"
        left = [name for name in leftovers(place) if name.endswith((".tmp", ".old", *NOTES))]
        if left:
            return f"left behind: {', '.join(left)}"
        if command.complete(place) and command.content(place) != expected:
            return "interrupted, and what is left looks complete"
        return None if not place.is_dir() or is_free(place) else "its lock is held"

    return _meddle(command, base, tries, seed, found, meddle, judge, say)


def _meddle(
    command: Command,
    base: Path,
    tries: int,
    seed: int,
    found: Meddled,
    meddle: Callable[[Path, Process], None],
    judge: Callable[[Path, Ended, Any], str | None],
    say: Say,
) -> dict[str, Any]:
    base.mkdir(parents=True)
    generator = random.Random(f"{command.name} {found.what} {seed}")
    began = time.monotonic()
    expected = _expected(command, base)
    took = time.monotonic() - began
    faults = []
    for number in range(5 * tries):
        if found.tries == tries:
            break
        place = base / f"output-{number}"
        process = mimo(command.arguments(place), _log(base, "process"))
        _until_written(command, place, process)
        if process.wait(generator.uniform(0, 0.8 * took)) is None:
            found.tries += 1
            meddle(place, process)
        ended = process.finish()
        fault = judge(place, ended, expected)
        if fault is None:
            again = mimo(command.arguments(place), _log(base, "again")).finish()
            if again.status or command.content(place) != expected:
                fault = f"run again it does not come to the result: {' '.join(again.errors)[-200:]}"
        if fault is not None:
            faults.append(f"try {number}: {fault}")
        shutil.rmtree(place, ignore_errors=True)
    found.as_expected = found.tries - len(faults)
    found.faults = faults
    say(f"{command.name}, {found.what}: {found.as_expected} of {found.tries} as expected")
    shutil.rmtree(base)
    return asdict(found)


def _concluded(found: Meddled, fault: str | None, say: Say) -> dict[str, Any]:
    found.as_expected += fault is None
    found.faults += [fault] if fault else []
    say(f"{found.command}, {found.what}: {fault or 'as expected'}")
    return asdict(found)


def _expected(command: Command, base: Path) -> Any:
    ended = mimo(command.arguments(base / "whole"), _log(base, "whole-log")).finish()
    if ended.status:
        raise SystemExit(f"mimo {command.name} fails by itself: {ended.errors}")
    return command.content(base / "whole")


def _until_written(command: Command, place: Path, process: Process) -> None:
    """Waits until the place is held, or the process has ended."""
    while process.wait(0) is None:
        if any(note in {path.name for path in _files(place)} for note in command.notes):
            return
        time.sleep(0.001)


def _files(place: Path) -> list[Path]:
    try:
        return [*place.iterdir(), *place.glob(f"*/{NOTE}")] if place.is_dir() else []
    except FileNotFoundError:
        return []


def _log(base: Path, name: str) -> Path:
    (base / name).mkdir(exist_ok=True)
    return base / name
