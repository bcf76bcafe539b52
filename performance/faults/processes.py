"""`mimo` commands in processes that can be killed; forked, so that kills fall on work and not on imports."""

import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

# What commands would spend most of a short run on.
_HEAVY = (
    *(
        "torch",
        "transformers",
        "sentence_transformers",
        "datasets",
        "faiss",
        "pyarrow.parquet",
        "ranx",
        "scipy.stats",
    ),
    *(
        "sklearn.decomposition",
        "statsmodels.stats.multitest",
        "matplotlib.pyplot",
        "ir_datasets",
        "accelerate",
    ),
    *(
        "transformers.models.xlm_roberta.modeling_xlm_roberta",
        "transformers.trainer",
        "mimo_plugin.training.trainer",
    ),
    *("mimo_plugin.training.stages", "mimo_plugin.benchmark.reproduce", "mimo_plugin.report.page"),
    *("mimo_plugin.benchmark.geometry", "mimo_plugin.evaluation.evaluate", "mimo_plugin.indexing.search"),
    *(
        "mimo_plugin.indexing.build",
        "mimo_plugin.indexing.encode",
        "mimo_plugin.data.parallel",
        "mimo_plugin.cli",
    ),
)


def preload() -> None:
    """Imports what commands need. Nothing of it may start a thread: forks would lose it."""
    for name in _HEAVY:
        importlib.import_module(name)


@dataclass(frozen=True)
class Ended:
    """Attributes:
    status: exit status; the negative number of a signal that ended it.
    errors: lines of its standard error.
    seconds: how long it ran.
    """

    status: int
    errors: list[str]
    seconds: float


class Process:
    """A call in a process group of its own.

    Args:
        call: returns the exit status.
        log: directory for what it prints.
        limits: RLIMIT_... -> its soft limit in this process.
    """

    def __init__(self, call: Callable[[], int], log: Path, limits: Mapping[int, int] | None = None) -> None:
        self._errors = log / "stderr"
        self._began = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._run(call, log / "stdout", limits or {})
        self.ended: Ended | None = None

    def wait(self, seconds: float) -> Ended | None:
        """What became of it; None where it still runs after so many seconds."""
        until = time.monotonic() + seconds
        while self.ended is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                took = time.monotonic() - self._began
                lines = self._errors.read_text(errors="replace").splitlines() if self._errors.exists() else []
                self.ended = Ended(os.waitstatus_to_exitcode(status), lines, took)
            elif time.monotonic() >= until:
                return None
            else:
                time.sleep(0.001)
        return self.ended

    def signal(self, number: int) -> None:
        """Sends a signal to the process and all that it started."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            # It has not made its group yet.
            os.kill(self.pid, number)

    def finish(self) -> Ended:
        """Waits as long as it takes."""
        while (ended := self.wait(60)) is None:
            pass
        return ended

    def kill(self) -> Ended:
        self.signal(signal.SIGKILL)
        return self.finish()

    def _run(self, call: Callable[[], int], stdout: Path, limits: Mapping[int, int]) -> None:
        status = 70
        try:
            os.setsid()
            for number, path in ((1, stdout), (2, self._errors)):
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(descriptor, number)
                os.close(descriptor)
            _limit(limits)
            status = call()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)


def _limit(limits: Mapping[int, int]) -> None:
    import resource

    if limits:
        # The write fails then, in place of the process.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for name, soft in limits.items():
        resource.setrlimit(name, (soft, resource.getrlimit(name)[1]))


def mimo(arguments: list[str], log: Path, limits: Mapping[int, int] | None = None) -> Process:
    """Starts a command."""
    from mimo_plugin.cli import main

    return Process(lambda: main(arguments), log, limits)


_NOTES = ("mimo: warning: ", "mimo: loading encoder ")


def errors(ended: Ended) -> list[str]:
    """What a command said of its end."""
    return [line for line in ended.errors if line.startswith("mimo: ") and not line.startswith(_NOTES)]


def one_line(ended: Ended) -> str | None:
    """What is wrong with the end of a command that must fail with one line; None where nothing is."""
    said = errors(ended)
    if ended.status != 1:
        return f"exit status {ended.status}, expected 1: {' '.join(ended.errors)[-300:]}"
    if len(said) != 1:
        return f"{len(said)} lines of errors, expected 1: {' '.join(ended.errors)[-300:]}"
    if any(line.startswith("Traceback") for line in ended.errors):
        return "a traceback"
    if "mimo --debug" in said[0]:
        return f"an error that nobody expected: {said[0]}"
    return None
