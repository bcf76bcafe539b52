"""A disk that fills up: a small tmpfs, and what each command leaves there."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from helpers.fault_world import Command, leftovers

from faults.processes import mimo, one_line
from mimo_plugin.core.files import NOTES

Say = Callable[[str], None]

# Of what a command needs in all, so much is there.
SHARES = (0.0, 0.3, 0.6, 0.9)
_PAGE = 4096


@dataclass
class Full:
    """Attributes:
    needed: bytes that the finished result takes.
    tries: how often the disk was too small.
    failed: ended with status 1 and one line.
    finished: ended well, as what was free turned out to be enough.
    resumed: how often the same command then came to the right result.
    """

    command: str
    needed: int = 0
    tries: int = 0
    failed: int = 0
    finished: int = 0
    resumed: int = 0
    faults: list[str] = field(default_factory=list)


def disk_test(command: Command, base: Path, *, say: Say) -> dict[str, Any]:
    """Runs a command on a disk with too little room, then with enough.

    Raises:
        PermissionError: nothing can be mounted here.
    """
    base.mkdir(parents=True)
    found = Full(command.name)
    with _mounted(base / "disk") as disk:
        whole = disk / "whole"
        ended = mimo(command.arguments(whole), base).finish()
        if ended.status:
            raise SystemExit(f"mimo {command.name} fails on an empty disk: {ended.errors}")
        expected = command.content(whole)
        found.needed = _used(disk)
        _clear(disk)
        for share in SHARES:
            _try(command, disk, base, round(found.needed * share), expected, found)
            _clear(disk)
    say(f"{command.name}: {found.tries} full disks, {found.resumed} right after, {len(found.faults)} faults")
    return asdict(found)


def _try(command: Command, disk: Path, log: Path, room: int, expected: Any, found: Full) -> None:
    place, where = disk / "output", f"{room} of {found.needed} bytes free"
    found.tries += 1
    with _filled(disk, room):
        ended = mimo(command.arguments(place), log).finish()
        if ended.status == 0:
            found.finished += 1
        elif (fault := one_line(ended)) is not None:
            found.faults.append(f"{where}: {fault}")
        else:
            found.failed += 1
        if ended.status and command.complete(place):
            found.faults.append(f"{where}: what is left looks complete")
        if any(name.endswith((".tmp", ".old", *NOTES)) for name in leftovers(place)):
            found.faults.append(f"{where}: left behind: {', '.join(leftovers(place))}")
    ended = mimo(command.arguments(place), log).finish()
    if ended.status:
        found.faults.append(f"{where}, then room: status {ended.status}, {' '.join(ended.errors)[-200:]}")
    elif command.content(place) != expected:
        found.faults.append(f"{where}, then room: another result")
    else:
        found.resumed += 1


@contextmanager
def _mounted(place: Path, size: str = "64m") -> Iterator[Path]:
    place.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True, text=True
    )
    if mount.returncode:
        raise PermissionError(mount.stderr.strip())
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@contextmanager
def _filled(disk: Path, room: int) -> Iterator[None]:
    """Leaves so many bytes free."""
    ballast = disk / "ballast"
    free = os.statvfs(disk).f_bavail * _PAGE
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(free - room - room % _PAGE, _PAGE))
    try:
        yield
    finally:
        ballast.unlink()


def _used(disk: Path) -> int:
    stat = os.statvfs(disk)
    return (stat.f_blocks - stat.f_bfree) * _PAGE


def _clear(disk: Path) -> None:
    import shutil

    for path in disk.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
