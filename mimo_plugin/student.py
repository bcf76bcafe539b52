"""The place of `Encoder` before 0.2; code goes on with `mimo_plugin.encoder.encoder`."""

from mimo_plugin.encoder.encoder import Encoder, EncoderOptions, NotFinite

Student = Encoder

__all__ = ["EncoderOptions", "NotFinite", "Student"]
