"""The encoders of a table, of which one at a time is in memory."""

from dataclasses import dataclass

from mimo_plugin.errors import ModelError
from mimo_plugin.student import EncoderOptions, Student


@dataclass(frozen=True)
class Facts:
    """What is known of an encoder without having it in memory; the fields are `Student`'s.

    Attributes:
        truncate: the dimension that was asked for; None is the checkpoint's own.
    """

    name: str
    fingerprint: str
    dimension: int
    pooling: str | None
    max_length: int
    document_prompt: str
    query_prompt: str
    device: str
    dtype: str
    backend: str
    batch_size: int
    truncate: int | None = None

    @classmethod
    def of(cls, student: Student) -> "Facts":
        return cls(
            name=student.name,
            fingerprint=student.fingerprint,
            dimension=student.dimension,
            pooling=student.pooling,
            max_length=student.max_length,
            document_prompt=student.document_prompt,
            query_prompt=student.query_prompt,
            device=student.device_type,
            dtype=student.options.dtype,
            backend=student.backend,
            batch_size=student.options.batch_size,
            truncate=student.options.dimension,
        )


def shortened(facts: Facts) -> dict[str, int]:
    """What an identity has in it besides, where vectors are cut."""
    return {} if facts.truncate is None else {"dimension": facts.truncate}


class Models:
    """Loads encoders; the one before is let go first, so that several large ones fit where one does."""

    def __init__(self, options: EncoderOptions) -> None:
        self._options = options
        self._held: tuple[str, Student] | None = None

    def facts(self, checkpoint: str) -> Facts:
        """Raises: as `Student.load`."""
        return Facts.of(self._load(checkpoint))

    def load(self, checkpoint: str, facts: Facts) -> Student:
        """The encoder that the facts are of; keep it no longer than it is used.

        Raises:
            ModelError: the checkpoint is another one than it was; or as `Student.load`.
        """
        student = self._load(checkpoint)
        if student.fingerprint != facts.fingerprint:
            raise ModelError(
                f"{facts.name} has changed since this command began, expected fingerprint "
                f"{facts.fingerprint[:12]}, found {student.fingerprint[:12]}: run it again"
            )
        return student

    def release(self) -> None:
        self._held = None

    def _load(self, checkpoint: str) -> Student:
        if self._held is None or self._held[0] != checkpoint:
            self._held = None
            self._held = checkpoint, Student.load(checkpoint, self._options)
        return self._held[1]
