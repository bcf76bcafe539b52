"""The lines of a text file by number, without the file in memory."""

import mmap
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


class Lines:
    """The lines of a text file by number, mapped from disk: 8 bytes of memory a line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, number: int) -> str:
        start, stop = int(self._starts[number]), int(self._starts[number + 1])
        return self._bytes[start : stop - 1].decode("utf-8")

    def between(self, start: int, stop: int) -> list[str]:
        """The lines from `start` up to, not including, `stop`."""
        return _split(self._bytes[int(self._starts[start]) : int(self._starts[stop])])

    def take(self, numbers: "np.ndarray") -> list[str]:
        """The lines of these numbers, int64 (n,), in their order: a tenth of the time of one by one."""
        import pyarrow as pa

        taken = self._table.take(pa.array(numbers))
        content = taken.buffers()[2]
        return [] if content is None else _split(content.to_pybytes())

    @cached_property
    def _bytes(self) -> mmap.mmap:
        with self._path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    @cached_property
    def _starts(self) -> "np.ndarray":
        """Where each line starts, and where the last one ends, int64 (lines + 1,)."""
        import numpy as np

        piece = 1 << 24
        ends = [
            np.flatnonzero(np.frombuffer(self._bytes[at : at + piece], dtype=np.uint8) == ord("\n")) + at
            for at in range(0, len(self._bytes), piece)
        ]
        return np.concatenate([np.zeros(1, dtype=np.int64), *(part + 1 for part in ends)])

    @cached_property
    def _table(self) -> "pa.LargeBinaryArray":
        """The lines with their line ends, over the mapped file."""
        import pyarrow as pa

        buffers = [None, pa.py_buffer(self._starts), pa.py_buffer(self._bytes)]
        return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(self), buffers)


class StrippedLines:
    """The lines of a text file in memory, without white space at their ends: so Pyserini reads docids."""

    def __init__(self, path: Path) -> None:
        with path.open(encoding="utf-8") as file:
            self._lines = [line.rstrip() for line in file]

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, number: int) -> str:
        return self._lines[number]

    def between(self, start: int, stop: int) -> list[str]:
        """The lines from `start` up to, not including, `stop`."""
        return self._lines[start:stop]

    def take(self, numbers: "np.ndarray") -> list[str]:
        """The lines of these numbers, int64 (n,), in their order."""
        return [self._lines[number] for number in numbers.tolist()]


def _split(lines: bytes) -> list[str]:
    """Lines that all end with a line end, without it."""
    return lines.decode("utf-8").split("\n")[:-1]
