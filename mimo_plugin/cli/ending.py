"""A command that is told to end does end, whatever its threads do."""

import atexit
import ctypes
import fcntl
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import NoReturn

INTERRUPTED = 130  # exit status, as shells have it

# Its number is also the seconds that a command has to end by itself.
_ALARM = signal.SIGUSR1 if hasattr(fcntl, "F_SETSIG") else signal.SIGIO


def end_after_sigterm() -> None:
    """From now on SIGTERM or Ctrl-C ends this process some seconds later, unless it has ended by itself.

    Python's own handlers wait for the GIL, which a thread stuck in C code may hold for ever. So nothing here
    needs it: the C handler of a signal writes its number to the wake-up descriptor, the kernel answers what
    can be read there with a second signal, the handler of that one is the C function `alarm`, and the kernel
    ends a process whose alarm goes off.
    """
    library = ctypes.CDLL(None)
    library.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    library.signal.restype = ctypes.c_void_p
    # alarm(seconds) takes the signal's number for seconds.
    library.signal(_ALARM, ctypes.cast(library.alarm, ctypes.c_void_p))
    reader, writer = (end.detach() for end in socket.socketpair())
    for end in (reader, writer):
        os.set_blocking(end, False)
    fcntl.fcntl(reader, fcntl.F_SETOWN, os.getpid())
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(reader, fcntl.F_SETSIG, _ALARM)
    fcntl.fcntl(reader, fcntl.F_SETFL, fcntl.fcntl(reader, fcntl.F_GETFL) | os.O_ASYNC)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    # A child has the same descriptors: what ends it is not to end this process.
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))


def leave(status: int) -> NoReturn:
    """Ends the process without waiting for its threads."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
