"""Pyserini's server, run in this process as `mimo pyserini server.rest` runs it."""

import gc
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread


@contextmanager
def serving(run: Callable[[], object], port: int) -> Iterator[None]:
    """Runs a call that starts a server on a port of this machine, and stops the server at the end."""
    import uvicorn

    thread = Thread(target=run, daemon=True)
    thread.start()
    while not _answers(port):
        if not thread.is_alive():
            raise RuntimeError("the server has ended before it was up")
        time.sleep(0.05)
    try:
        yield
    finally:
        # Pyserini keeps it to itself. While it starts, objects in the making must be left alone.
        for found in gc.get_objects():
            if type(found) is uvicorn.Server:
                found.should_exit = True
        thread.join()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
