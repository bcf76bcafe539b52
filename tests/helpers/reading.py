"""A part of the package that reads files, fed with damaged ones."""

import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from helpers.mutations import damaged

from mimo_plugin.core.errors import MimoError

_SECONDS = 3.0
_WAITS = 20


class Hang(BaseException):
    """A reader took longer than any reader of a small file may."""


@dataclass(frozen=True)
class Reader:
    """A part of the package that reads files of a user.

    Attributes:
        directory: the valid files lie here.
        files: names of those that are damaged, one at a time.
        read: called with the directory, and a path below which it may write.
    """

    name: str
    directory: Path
    files: tuple[str, ...]
    read: Callable[[Path, Path], object]

    def attempt(self, file: str, content: bytes) -> MimoError | None:
        """Reads with one file replaced, and puts it back.

        Returns:
            The error that was raised on purpose, None where all is well. Whatever else happens is raised.
        """
        path, output = self.directory / file, self.directory / "output"
        whole = path.read_bytes()
        present = set(self.directory.rglob("*"))
        try:
            path.write_bytes(content)
            with _no_longer_than(_SECONDS):
                self.read(self.directory, output)
        except MimoError as error:
            self._check(error, output)
            return error
        finally:
            path.write_bytes(whole)
            for left in sorted(set(self.directory.rglob("*")) - present):
                if left.is_dir():
                    shutil.rmtree(left)
                else:
                    left.unlink(missing_ok=True)
        return None

    def damage(self) -> "Any":
        """A strategy of (file, content) pairs."""
        from hypothesis import strategies as st

        contents = {file: (self.directory / file).read_bytes() for file in self.files}
        return st.sampled_from(self.files).flatmap(
            lambda file: st.tuples(st.just(file), damaged(file, contents[file]))
        )

    def _check(self, error: MimoError, output: Path) -> None:
        lines = str(error).splitlines()
        assert lines, "an error without a message"
        assert len(lines) <= 200, f"{len(lines)} lines of errors"
        left = [path for path in output.rglob("*") if path.name == "manifest.json" or path.suffix == ".tmp"]
        assert not left, f"left behind: {left}"
        assert not output.is_file(), "a part of a file was left"


@contextmanager
def _no_longer_than(seconds: float) -> Iterator[None]:
    """Seconds of processor time, whatever else the machine does; waiting for nothing ends some time, too."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise Hang(f"more than {seconds:.0f} s")

    timers = (
        (signal.ITIMER_PROF, signal.SIGPROF, seconds),
        (signal.ITIMER_REAL, signal.SIGALRM, _WAITS * seconds),
    )
    before = {number: signal.signal(number, ring) for _, number, _ in timers}
    for timer, _, limit in timers:
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for timer, number, _ in timers:
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])
