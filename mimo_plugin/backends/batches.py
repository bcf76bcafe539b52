"""Which texts share a batch. It depends on the texts alone, so that the same texts give the same vectors."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mimo_plugin.backends.runner import Features

if TYPE_CHECKING:
    import numpy as np

# Texts that are tokenised at a time, and characters of their padded rows at most.
_PIECE_TEXTS = 1024
_PIECE_CHARACTERS = 2**22


class Batch(NamedTuple):
    """Attributes:
    rows: positions in the piece, of shape (texts,).
    features: of the texts, padded to the longest of them.
    """

    rows: "np.ndarray"
    features: Features


def pieces(lengths: Sequence[int]) -> list[list[int]]:
    """Positions of texts that are tokenised together: the longest texts first, those of like length together.

    What does not fit into memory shows at once that way.

    Args:
        lengths: of the texts, in characters.
    """
    order = sorted(range(len(lengths)), key=lambda position: -lengths[position])
    found, start = [], 0
    while start < len(order):
        count = min(_PIECE_TEXTS, max(1, _PIECE_CHARACTERS // max(1, lengths[order[start]])))
        found.append(order[start : start + count])
        start += count
    return found


def rectangular(features: Features, texts: int) -> bool:
    """Whether every tensor has a row a text and a column a token, so that rows can be batched again."""
    mask = features.get("attention_mask")
    if mask is None or mask.ndim != 2 or len(mask) != texts:
        return False
    return all(value.shape == mask.shape for value in features.values() if hasattr(value, "shape"))


def batches(features: Features, *, texts: int, tokens: int) -> Iterator[Batch]:
    """Cuts the features of a piece into batches of like length, the longest first; texts without tokens, as
    some tokenizers make of empty ones, have batches of their own with one column of padding.

    Args:
        texts: most texts a batch.
        tokens: most tokens a batch, padding included; a longer text is a batch of its own.
    """
    import numpy as np

    mask = features["attention_mask"]
    lengths = mask.sum(dim=1).numpy()
    # Padding is on one side for all: on the right where every text that has tokens begins with one.
    on_right = bool((mask[lengths > 0, 0] == 1).all())
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = max(1, int(lengths[order[start]]))
        rows = order[start : start + max(1, min(texts, tokens // longest))]
        if lengths[rows[0]] > 0:
            # What a text without tokens gets must not depend on the others.
            rows = rows[lengths[rows] > 0]
        columns = slice(0, longest) if on_right else slice(mask.shape[1] - longest, None)
        yield Batch(rows, {name: _cut(value, rows, columns) for name, value in features.items()})
        start += len(rows)


def _cut(value: Any, rows: "np.ndarray", columns: slice) -> Any:
    return value[rows][:, columns].contiguous() if hasattr(value, "shape") else value
