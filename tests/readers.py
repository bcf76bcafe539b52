"""Every reader of the package with valid files to damage, for the tests and `benchmarks/reliability.py`."""

from artifact_readers import ARTIFACTS
from input_readers import INPUTS, import_file
from reading import Hang, Reader

READERS = INPUTS | ARTIFACTS

__all__ = ["READERS", "Hang", "Reader", "import_file"]
