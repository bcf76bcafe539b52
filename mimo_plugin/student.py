"""The place of `Student` before 0.2; code goes on with `mimo_plugin.encoder.encoder`."""

from mimo_plugin.encoder.encoder import EncoderOptions, NotFinite, Student

__all__ = ["EncoderOptions", "NotFinite", "Student"]
