"""The machine: versions, device, progress bars, logs of libraries, reachable hosts."""

import os
import platform
import signal
import subprocess
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mimo_plugin.core.errors import EnvironmentProblem

if TYPE_CHECKING:
    from tqdm import tqdm

_PACKAGES = (
    "mimo-plugin",
    "torch",
    "transformers",
    "sentence-transformers",
    "accelerate",
    "tokenizers",
    "numpy",
)


def environment(device: str, processes: int) -> dict[str, Any]:
    """Versions, device and, in a git checkout of the package, the commit."""
    import torch

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": installed_versions(_PACKAGES),
        "device": {"cuda": torch.cuda.get_device_name, "cpu": processor}.get(device, lambda: device)(),
        "threads": torch.get_num_threads(),
        "processes": processes,
        "git_commit": git_commit(Path(__file__).parent),
    }


def processor() -> str:
    """The processor's name, or its architecture if the name is unknown."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def cores() -> int | None:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def memory_bytes() -> int | None:
    """The size of the machine's memory; None if it is unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def native_bfloat16(kind: str) -> bool:
    """Whether a kind of device, such as cpu or cuda, multiplies bfloat16 matrices in hardware."""
    import torch

    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Older releases of torch lack these. Measured with each: 1.7 times the training steps of float32.
    names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return kind == "cpu" and any(getattr(torch.cpu, name, bool)() for name in names)


NOT_INSTALLED = "not installed"


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Package -> its version, or "not installed"."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = NOT_INSTALLED
    return found


def missing(modules: Iterable[str]) -> list[str]:
    """The modules that cannot be imported because they are not installed; none is imported."""
    return [module for module in modules if find_spec(module) is None]


def require_extra(what: str, modules: Iterable[str], extra: str) -> None:
    """Raises an EnvironmentProblem where modules of an extra of this package are not installed.

    Args:
        what: needs them, such as "training".
    """
    if names := missing(modules):
        raise EnvironmentProblem(
            f"{what} needs {', '.join(names)}, not installed here: pip install 'mimo-plugin[{extra}]'"
        )


def git_commit(directory: Path) -> str | None:
    """The commit of a git checkout, with `-dirty` if files differ from it; None elsewhere."""
    try:
        commit = _git(directory, "rev-parse", "HEAD")
        return f"{commit}-dirty" if _git(directory, "status", "--porcelain", "--", ".") else commit
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(directory), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def bar(
    iterable: Iterable[Any] | None = None,
    *,
    total: int | None = None,
    initial: int = 0,
    what: str,
    unit: str,
    enabled: bool | None = None,
) -> "tqdm[Any]":
    """A progress bar with count, rate and, if the total is known, remaining time.

    Args:
        enabled: None shows the bar only if standard error is a terminal.
    """
    from tqdm import tqdm

    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    return tqdm(
        iterable,
        total=total,
        initial=initial,
        desc=what,
        unit=f" {unit}",
        unit_scale=total is None or total >= 10_000,
        disable=None if enabled is None else not enabled,
        dynamic_ncols=True,
        smoothing=0.05,
    )


@contextmanager
def without_model_bars() -> Iterator[None]:
    """Hides the progress bars of reading and writing weights."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def without_dataset_logs() -> Iterator[None]:
    """Silences the log of `datasets`, which repeats the errors that it raises."""
    from datasets.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


_CONNECT_SECONDS = 5


@contextmanager
def signals_kept() -> Iterator[None]:
    """Restores Python's handlers of Ctrl-C and the like, which a JVM or Ray replaces in its block."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        if current_thread() is main_thread():
            for number, handler in handlers.items():
                if handler is not None:
                    signal.signal(number, handler)


def hub_problem() -> str | None:
    """Why the model hub cannot be reached; None if it answers."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    return None if reachable([constants.ENDPOINT]) else "the hub does not answer"


def reachable(urls: Sequence[str]) -> bool:
    """Whether any of the URLs' hosts answers; each host is asked once per process."""
    return any(_answers(urlsplit(url)._replace(path="/", query="", fragment="").geturl()) for url in urls)


@cache
def _answers(url: str) -> bool:
    import requests

    try:
        # Any answer will do, so no redirect is followed; proxies of the environment are used.
        requests.head(url, timeout=_CONNECT_SECONDS, allow_redirects=False).close()
    except (OSError, RuntimeError):  # RuntimeError: sandboxes that forbid sockets
        return False
    return True
