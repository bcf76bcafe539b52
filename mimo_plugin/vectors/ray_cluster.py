"""The Ray that encoding runs on: one that is there already, or one for the time of the call."""

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

from mimo_plugin.errors import EnvironmentProblem, UsageError
from mimo_plugin.vectors.ray_options import LOCAL, RayOptions

_ADDRESS = re.compile(r"(\[[^\]]+\]|[^\s:/]+):(\d{1,5})")
_CONNECT_SECONDS = 5
_STATUS_SECONDS = 30


def require_ray() -> None:
    """Raises an EnvironmentProblem where Ray Data is not installed."""
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise EnvironmentProblem(
            f"--ray needs Ray Data, and it cannot be imported ({error}): pip install 'mimo-plugin[ray]'"
        ) from error


def check_address(address: str) -> str:
    """The address that an option stands for: `local`, `auto` or `HOST:PORT`.

    Raises:
        EnvironmentProblem: nothing answers there.
        UsageError: it is nothing of that kind.
    """
    address = (os.environ.get("RAY_ADDRESS") or LOCAL) if address == LOCAL else address
    if address in (LOCAL, "auto"):
        return address
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise UsageError(
            f"--ray {address!r}: HOST:PORT or auto was expected, a Ray cluster that this machine is part of, "
            "or no value for a Ray on this machine alone (collections are named before --ray)"
        )
    try:
        socket.create_connection((match[1].strip("[]"), int(match[2])), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise EnvironmentProblem(
            f"--ray {address}: no Ray answers there ({error}): start it with `ray start --head --port "
            f"{match[2]}` on that machine, and `ray start --address {address}` on the others"
        ) from error
    return address


@contextmanager
def connected(options: RayOptions) -> Iterator[None]:
    """Holds a connection to Ray; a Ray that was started here ends with it. One that the process has already
    is used and left as it is.

    Raises:
        EnvironmentProblem: there is no Ray, or this machine is not part of it.
        UsageError: the address is none.
    """
    address = check_address(options.address)
    # Read when Ray is imported and started: nothing is reported to anybody.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not options.debug:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    if ray.is_initialized():
        yield
        return
    if address not in (LOCAL, "auto"):
        _require_answer(address)
    with _own_signals(), nullcontext() if options.debug else _without_stderr():
        try:
            ray.init(**_settings(address, options.debug))
        except (OSError, RuntimeError, ValueError) as error:
            ray.shutdown()
            raise EnvironmentProblem(
                f"--ray {address}: {last_line(error)} (this machine must be part of the cluster: "
                "`ray start --address HOST:PORT`)"
            ) from error
    with nullcontext() if options.debug else _without_remarks():
        try:
            yield
        finally:
            ray.shutdown()


def _require_answer(address: str) -> None:
    """Raises an EnvironmentProblem where something else than a Ray of this release listens: `ray.init` would
    try again and again."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", address]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_STATUS_SECONDS)
    except subprocess.TimeoutExpired:
        reason = "no answer"
    else:
        if done.returncode == 0:
            return
        if "token" in done.stderr.lower():
            raise EnvironmentProblem(
                f"--ray {address}: the cluster asks for a token that it does not get from here: copy its "
                "~/.ray/auth_token to this machine and set RAY_AUTH_MODE=token"
            )
        reason = last_line(done.stderr)
    raise EnvironmentProblem(
        f"--ray {address}: what listens there does not answer as Ray does ({reason}): give the address that "
        "`ray start --head` shows, usually port 6379"
    )


def _settings(address: str, debug: bool) -> dict[str, Any]:
    level = logging.INFO if debug else logging.CRITICAL
    settings: dict[str, Any] = {"address": address, "log_to_driver": debug, "logging_level": level}
    if address == LOCAL:
        settings |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    return settings


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Drops what Ray's C++ part says on standard error while it starts."""
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Drops what Ray says of tasks that it tries again; it says so on standard output."""
    logger = logging.getLogger("ray.data")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
            yield
    finally:
        logger.setLevel(before)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray puts a handler of its own in the place of the one that ends a command in good order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def machines() -> list[dict[str, float]]:
    """What each machine of the cluster has: `CPU`, `GPU`."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def last_line(text: object) -> str:
    """The line of an error of Ray that says what was wrong: of a traceback the last one."""
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no message"
