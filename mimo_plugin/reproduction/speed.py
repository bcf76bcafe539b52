"""How fast an encoder is on a collection's documents, from a short measurement."""

import time
from collections.abc import Iterator, Sequence
from itertools import accumulate

from mimo_plugin.reproduction.parts import Part
from mimo_plugin.student import Student

# Lengths that are tried, each of as many documents.
_LENGTHS = 16
# Texts at a time where there is no accelerator, which larger batches do not make faster.
_CPU_BATCH = 4


def seconds_a_document(student: Student, parts: Sequence[Part], batch_size: int) -> float:
    """Seconds to encode one document of these parts on average.

    Documents are encoded in batches of like length, padded to the longest; so are the texts here, see
    `lengths`.
    """
    texts = list(lengths(parts))
    batch = min(batch_size, _CPU_BATCH) if student.device_type == "cpu" else batch_size
    # To warm up, also what depends on the shape.
    for text in (texts[0], texts[-1]):
        student.encode_documents([text] * batch)
    began = time.perf_counter()
    for text in texts:
        student.encode_documents([text] * batch)
    return (time.perf_counter() - began) / (len(texts) * batch)


def lengths(parts: Sequence[Part]) -> Iterator[str]:
    """Texts from short to long, each of which stands for as many documents.

    Documents are cut into slices in the order of their number of characters. Of each slice it is the text
    with the most bytes, as a sign of the most tokens: in a mix of languages these pad their batch.
    """
    sample = sorted(
        ((text, part.documents / len(part.looked.sample)) for part in parts for text in part.looked.sample),
        key=lambda weighted: len(weighted[0]),
    )
    ends = list(accumulate(weight for _, weight in sample))
    starts = [0.0, *ends[:-1]]
    for step in range(_LENGTHS):
        low, high = (ends[-1] * edge / _LENGTHS for edge in (step, step + 1))
        slice_ = (
            text
            for (text, _), start, end in zip(sample, starts, ends, strict=True)
            if start < high and end > low
        )
        yield max(slice_, key=lambda text: len(text.encode("utf-8", "surrogatepass")))
