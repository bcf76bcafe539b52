"""Which shards of a collection one of several machines makes: `2/4` is the second of four parts."""

import re
from dataclasses import dataclass

from mimo_plugin.errors import UsageError

_PART = re.compile(r"([1-9]\d*)/([1-9]\d*)")


@dataclass(frozen=True)
class Part:
    """Attributes:
    number: from 1 to `of`.
    of: number of parts that the collection is cut into.
    """

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str | None) -> "Part":
        """Reads `i/n`; None is the whole.

        Raises:
            UsageError: it is nothing of that kind.
        """
        if text is None:
            return cls()
        match = _PART.fullmatch(text)
        if match is None or int(match[1]) > int(match[2]):
            raise UsageError(f"--shard {text!r}: i/n with 1 <= i <= n was expected, e.g. 2/4")
        return cls(int(match[1]), int(match[2]))

    @property
    def name(self) -> str | None:
        """As it was given; None for the whole."""
        return f"{self.number}/{self.of}" if self.of > 1 else None

    def shards(self, documents: int, shard_size: int) -> range:
        """The numbers of its shards in a collection. Parts have as many, or one more or less.

        Raises:
            UsageError: the collection has fewer shards than parts.
        """
        shards = -(-documents // shard_size)
        if self.of > shards:
            raise UsageError(
                f"--shard {self.name}: the collection has {documents} documents, {shards} shards of "
                f"{shard_size}, and cannot be cut into {self.of} parts: use fewer, or a smaller --shard-size"
            )
        return range(shards * (self.number - 1) // self.of, shards * self.number // self.of)

    def documents(self, documents: int, shard_size: int) -> int:
        """How many of a collection's documents are in it; raises as `shards`."""
        shards = self.shards(documents, shard_size)
        return min(shards.stop * shard_size, documents) - shards.start * shard_size


WHOLE = Part()
