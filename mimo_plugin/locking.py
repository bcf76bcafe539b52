"""One writer a directory: a lock that goes with its process, however that ends."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mimo_plugin.errors import ArtifactError
from mimo_plugin.files import cannot_write, writing


@contextmanager
def one_writer(directory: Path, note: Path) -> Iterator[None]:
    """Makes the directory and holds it for one writer; a new one in which nothing was written is gone after.

    Args:
        note: a file inside it that says who writes, for the message that others get.

    Raises:
        ArtifactError: another process is writing there.
        EnvironmentProblem: the directory or the note cannot be made; or, after work that went well, another
            directory or none lies there: somebody has removed the one that was held.
    """
    new = not directory.exists()
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = note.read_text(encoding="utf-8").strip() if note.is_file() else ""
            raise ArtifactError(
                f"{directory} is being written by {who or 'another process'}: wait for it, stop it, or "
                "choose another directory"
            ) from None
        except OSError:
            # A file system without locks: nothing tells whether another one writes.
            pass
        # In place: a kill must not leave a file that no later writer would know.
        with writing(note):
            note.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        try:
            yield
            if not _lies_at(descriptor, directory):
                raise cannot_write(directory, "somebody has removed or replaced it meanwhile")
        finally:
            note.unlink(missing_ok=True)
            if new:
                with suppress(OSError):
                    directory.rmdir()
    finally:
        os.close(descriptor)


def _lies_at(descriptor: int, directory: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), directory.stat())
    except FileNotFoundError:
        return False
