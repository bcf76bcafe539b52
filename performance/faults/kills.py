"""Commands killed at random moments, and whether they end the same all the same."""

import fcntl
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from helpers.fault_world import Command, differences, leftovers, unsound

from faults.processes import Ended, mimo

Say = Callable[[str], None]


@dataclass
class Killed:
    """Attributes:
    command: its name.
    seconds: of the uninterrupted run.
    kills: that fell while the command ran.
    directories: in which they fell; in each the command was run to its end.
    before: kills before anything was written.
    complete: kills after the result had become complete.
    faults: all that was not as it had to be.
    """

    command: str
    seconds: float
    kills: int = 0
    directories: int = 0
    before: int = 0
    complete: int = 0
    faults: list[str] = field(default_factory=list)


def kill_test(command: Command, base: Path, *, kills: int, chain: int, seed: int, say: Say) -> dict[str, Any]:
    """Kills a command so many times, up to `chain` times in a directory, and compares what it makes then.

    A moment is uniform over the length of an uninterrupted run. Where a command that goes on ends before its
    moment, the moment does not count.
    """
    base.mkdir(parents=True)
    generator = random.Random(f"{command.name} {seed}")
    whole = base / "whole"
    ended = _run(command, whole, base)
    if ended.status:
        raise SystemExit(f"mimo {command.name} fails without being killed: {' '.join(ended.errors)}")
    expected = command.content(whole)
    found = Killed(command.name, round(ended.seconds, 2))
    while found.kills < kills:
        place, before = base / f"killed-{found.directories}", found.kills
        for _ in range(min(chain, kills - found.kills)):
            if not _kill(command, place, base, generator.uniform(0, ended.seconds), expected, found):
                break
        found.directories += found.kills > before
        last = _run(command, place, base)
        if last.status:
            found.faults.append(f"{place.name}: ends with {last.status}: {' '.join(last.errors)[-300:]}")
        elif other := differences(command.content(place), expected):
            found.faults.append(f"{place.name}: not as after an uninterrupted run: {', '.join(other)[:300]}")
        found.faults += [f"{place.name}: {name} is left" for name in leftovers(place)]
        where = f"{found.kills} kills in {found.directories} directories"
        say(f"{command.name}: {where}, {len(found.faults)} faults")
        shutil.rmtree(place, ignore_errors=True)
    shutil.rmtree(base)
    return asdict(found)


def _run(command: Command, place: Path, log: Path) -> Ended:
    return mimo(command.arguments(place), log).finish()


def _kill(command: Command, place: Path, log: Path, moment: float, expected: Any, found: Killed) -> bool:
    """Kills it once and looks at what is there; False where it ended before."""
    process = mimo(command.arguments(place), log)
    if (early := process.wait(moment)) is not None:
        if early.status:
            found.faults.append(f"{place.name}: ends with {early.status}: {' '.join(early.errors)[-300:]}")
        return False
    process.kill()
    found.kills += 1
    found.before += not place.exists()
    if command.complete(place):
        found.complete += 1
        try:
            # Work that was to be removed may lie there as well.
            there = command.content(place)
            same = all(there.get(name) == content for name, content in expected.items())
        except (OSError, ValueError, KeyError) as error:
            found.faults.append(f"{place.name}: looks complete and is not: {error}")
        else:
            if not same:
                found.faults.append(f"{place.name}: looks complete and holds another result")
    found.faults += [f"{place.name}: {fault}" for fault in unsound(place)]
    if place.is_dir() and not is_free(place):
        found.faults.append(f"{place.name}: its lock is held after the kill")
    return True


def is_free(directory: Path) -> bool:
    """Whether nobody holds a directory, or one below it."""
    for path in (directory, *(path for path in directory.rglob("*") if path.is_dir())):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
    return True
