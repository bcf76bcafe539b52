"""The place of the packaged teacher before 0.2; code goes on with `mimo_plugin.encoder.packaged`."""

from mimo_plugin.encoder.packaged import TEACHER, teacher_directory

__all__ = ["TEACHER", "teacher_directory"]
