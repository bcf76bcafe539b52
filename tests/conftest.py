"""For every test: tiny files in place of ir_datasets' downloads, and no network."""

import atexit
import gc
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
import pytest_socket

# It tries an IPv6 socket when it is imported, which it may not do inside a test.
import urllib3  # noqa: F401
from helpers import tiny_ir_datasets
from hypothesis import HealthCheck, settings

# ir_datasets reads the variable when it is imported, so it is set before any test module is.
_HOME = tempfile.mkdtemp(prefix="ir-datasets-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
tiny_ir_datasets.write(Path(_HOME))
os.environ["IR_DATASETS_HOME"] = _HOME
os.environ["HF_HUB_OFFLINE"] = "1"
# An encoder is exported once and used for long; here every test has one of its own.
os.environ["MIMO_BACKEND"] = "torch"
# Compiling ranx takes half a minute: the result stays with the environment, and the home as it is.
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(sys.prefix) / "numba-cache"))
# So does a packaged encoder, which is converted once.
os.environ["XDG_CACHE_HOME"] = str(Path(sys.prefix) / "test-cache")
os.environ.setdefault("MPLCONFIGDIR", str(Path(sys.prefix) / "matplotlib-cache"))


# No test depends on how fast the machine is; examples of a test may share its directory.
settings.register_profile(
    "mimo",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("mimo")


_loaded = 0


def _freeze() -> None:
    """Trainers and statsmodels call gc.collect(), which need not look through all libraries each time."""
    global _loaded
    if len(sys.modules) > _loaded + 20:
        gc.collect()
        gc.freeze()
        _loaded = len(sys.modules)


def pytest_collection_finish() -> None:
    _freeze()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    _freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    allowed = "socket_enabled" in getattr(item, "fixturenames", ()) or item.get_closest_marker(
        "enable_socket"
    )
    if not allowed:
        pytest_socket.disable_socket(allow_unix_socket=True)
