"""Every reader of the package with valid files to damage, for the tests and `performance/reliability.py`."""

from helpers.artifact_readers import ARTIFACTS
from helpers.input_readers import INPUTS, import_file
from helpers.reading import Hang, Reader

READERS = INPUTS | ARTIFACTS

__all__ = ["READERS", "Hang", "Reader", "import_file"]
