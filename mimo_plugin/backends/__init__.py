"""What runs an encoder: torch itself, or its graph, exported once, in OpenVINO or ONNX Runtime.

`choosing` says which, `running` takes texts to vectors whichever it is.
"""

from mimo_plugin.backends.choosing import BACKENDS, DTYPES, choose, installed, wanted
from mimo_plugin.backends.notices import Notice, print_notices
from mimo_plugin.backends.runner import Runner, TorchRunner
from mimo_plugin.backends.running import Texts, encode, encode_each

__all__ = [
    "BACKENDS",
    "DTYPES",
    "Notice",
    "Runner",
    "Texts",
    "TorchRunner",
    "choose",
    "encode",
    "encode_each",
    "installed",
    "print_notices",
    "wanted",
]
