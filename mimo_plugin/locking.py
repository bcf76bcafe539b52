"""One writer a directory: a lock that goes with its process, however that ends."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mimo_plugin.errors import ArtifactError, EnvironmentProblem
from mimo_plugin.files import writing

# Says who writes, for the message that others get. It is renamed into its place, so that they read all of it.
NOTE = ".writer"
_BESIDE = ".writer.new"
# What a kill can leave of it; the next writer removes it.
NOTES = (NOTE, _BESIDE)


class Held:
    """A directory as it was when this was made: somebody may remove it, and work goes to another of its name.

    Args:
        path: of a directory that is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._made = path.stat()

    def lies_there(self) -> bool:
        try:
            return os.path.samestat(self._made, self.path.stat())
        except FileNotFoundError:
            return False

    def require(self) -> None:
        """Raises an EnvironmentProblem where the directory is no longer there, or is another one."""
        if not self.lies_there():
            raise EnvironmentProblem(
                f"{self.path} was removed while it was written to: run the command again, it starts over"
            )


@contextmanager
def one_writer(directory: Path) -> Iterator[Held]:
    """Makes the directory and holds it for one writer; a new one in which nothing was written is gone after.

    Raises:
        ArtifactError: another process is writing there.
        EnvironmentProblem: nothing can be written there; or work has gone well, and the directory is no
            longer the one that it began in.
    """
    new = not directory.exists()
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        _lock(descriptor, directory)
        try:
            with writing(directory / NOTE):
                held = Held(directory)
                beside = directory / _BESIDE
                beside.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
                beside.replace(directory / NOTE)
            yield held
            held.require()
        finally:
            for name in NOTES:
                (directory / name).unlink(missing_ok=True)
            if new:
                with suppress(OSError):
                    directory.rmdir()
    finally:
        os.close(descriptor)


def _lock(descriptor: int, directory: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        who = "another process"
        with suppress(FileNotFoundError):
            who = (directory / NOTE).read_text(encoding="utf-8").strip()
        raise ArtifactError(
            f"{directory} is being written by {who}: wait for it, stop it, or choose another directory"
        ) from None
    except OSError:
        # A file system without locks: nothing tells whether another one writes.
        pass
