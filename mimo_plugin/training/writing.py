"""What libraries say where the file system refuses their files, in words that a user can act on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mimo_plugin.files import cannot_write, writing

# torch says that its archive came out shorter than what it wrote, or that there is no directory for it.
_TORCH = ("unexpected pos", "iostream error", "PytorchStreamWriter", "Parent directory")


@contextmanager
def writing_tensors(path: Path) -> Iterator[None]:
    """As `files.writing`, also where safetensors or torch write.

    Raises:
        EnvironmentProblem: the file system refuses.
    """
    from safetensors import SafetensorError

    try:
        with writing(path):
            yield
    except SafetensorError as error:
        if "I/O error" not in str(error):
            raise
        raise cannot_write(path, str(error).rpartition("I/O error: ")[2]) from error
    except RuntimeError as error:
        if not any(sign in str(error) for sign in _TORCH):
            raise
        raise cannot_write(path, "the disk is full, or the directory is gone") from error
