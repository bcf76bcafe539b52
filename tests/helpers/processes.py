"""Commands in processes of their own, to be killed or told to end, that start with the libraries loaded."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

# A server imports them once, and every process begins as its copy. It has run no thread by then.
_LIBRARIES = [
    "datasets",
    "faiss",
    "matplotlib.figure",
    "sentence_transformers",
    "transformers.integrations.integration_utils",
    "transformers.trainer",
    "torch.utils.tensorboard",
]
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(_LIBRARIES)


def started(function: Callable[..., object], *arguments: Any, said: Path | None = None) -> BaseProcess:
    """A process that calls a function of a module; what it prints goes into a file, or nowhere."""
    process: BaseProcess = _SERVER.Process(
        target=_run, args=(function, arguments, dict(os.environ), said or os.devnull), daemon=True
    )
    process.start()
    return process


def command(*arguments: str, said: Path | None = None, threads: int | None = None) -> BaseProcess:
    """`mimo` with these arguments.

    Args:
        threads: that torch and FAISS compute with; None as many as here.
    """
    return started(_mimo, arguments, threads, said=said)


def kill(process: BaseProcess, when: Callable[[], object]) -> None:
    """Sends SIGKILL as soon as something is true."""
    while process.is_alive() and not when():
        time.sleep(0.002)
    assert process.is_alive(), f"it ended with {process.exitcode} before it could be killed"
    process.kill()
    process.join()


def _run(
    function: Callable[..., object], arguments: Any, environment: Mapping[str, str], said: str | Path
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    # A server that was started in the background hands down that Ctrl-C is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with Path(said).open("ab") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    function(*arguments)


def _mimo(arguments: tuple[str, ...], threads: int | None) -> None:
    import faiss
    import torch

    from mimo_plugin.cli import entry_point

    if threads is not None:
        # Too late for OMP_NUM_THREADS, which libraries read when they are loaded.
        torch.set_num_threads(threads)
        faiss.omp_set_num_threads(threads)
    sys.argv = ["mimo", *arguments]
    entry_point()
