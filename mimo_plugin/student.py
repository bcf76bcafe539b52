"""The place of `Encoder` before 0.2, under its old name; code goes on with `mimo_plugin.Encoder`."""

from mimo_plugin.encoder.encoder import Encoder, NotFinite
from mimo_plugin.encoder.options import EncoderOptions

__all__ = ["EncoderOptions", "NotFinite", "Student"]


class Student(Encoder):
    """An encoder that is loaded by `Student.load(checkpoint, options)`."""

    @classmethod
    def load(cls, checkpoint: str, options: EncoderOptions | None = None) -> "Student":
        return cls(checkpoint, options)
