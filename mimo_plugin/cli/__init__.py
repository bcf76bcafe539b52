"""The `mimo` command: its groups and commands, loaded when they are called."""

import atexit
import ctypes
import fcntl
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, NoReturn

import click

from mimo_plugin.core.errors import MimoError, near


class LazyGroup(click.Group):
    """A group whose commands are imported when they are needed.

    Args:
        modules: command -> its module in this package. The module names the click command
            `COMMAND_command`, or as given after a colon: `stages:stage1`.
        steps: heading in `--help` -> commands; by default all are under "Commands".
    """

    def __init__(
        self,
        *args: Any,
        modules: Mapping[str, str],
        steps: Mapping[str, Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._modules = modules
        self._steps = steps or {"Commands": list(modules)}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._modules:
            return None
        module, _, name = self._modules[cmd_name].partition(":")
        found = getattr(import_module(f"mimo_plugin.cli.{module}"), name or f"{cmd_name}_command")
        if not isinstance(found, click.Command):
            raise TypeError(f"mimo_plugin.cli.{self._modules[cmd_name]} is not a click command")
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in self._modules and not name.startswith("-") and not ctx.resilient_parsing:
            similar = near(name, self._modules) or f", expected one of {', '.join(self._modules)}"
            raise click.UsageError(f"No such command {name!r}{similar}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self._modules))
        for step, names in self._steps.items():
            found = [(name, self.get_command(ctx, name)) for name in names]
            with formatter.section(step):
                formatter.write_dl(
                    [
                        (f"{name:<{width}}", command.get_short_help_str(formatter.width - width - 4))
                        for name, command in found
                        if command is not None
                    ]
                )


INTERRUPTED = 130  # exit status, as shells have it

# `alarm` takes the signal's number as its seconds: the time that a command has to end by itself.
_ALARM = signal.SIGUSR1 if hasattr(fcntl, "F_SETSIG") else signal.SIGIO


def end_after_sigterm() -> None:
    """From now on the kernel ends this process some seconds after SIGTERM or Ctrl-C, if it still runs.

    Python's own handlers wait for the GIL, which a thread stuck in C code may hold for ever. The way here
    needs no GIL: Python's C handler writes the signal's number to the wake-up descriptor. The kernel then
    sends a second signal, because data has arrived there. That signal's handler is the C function `alarm`,
    and the kernel ends a process whose alarm goes off.
    """
    library = ctypes.CDLL(None)
    library.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    library.signal.restype = ctypes.c_void_p
    library.signal(_ALARM, ctypes.cast(library.alarm, ctypes.c_void_p))
    reader, writer = (end.detach() for end in socket.socketpair())
    for end in (reader, writer):
        os.set_blocking(end, False)
    fcntl.fcntl(reader, fcntl.F_SETOWN, os.getpid())
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(reader, fcntl.F_SETSIG, _ALARM)
    fcntl.fcntl(reader, fcntl.F_SETFL, fcntl.fcntl(reader, fcntl.F_GETFL) | os.O_ASYNC)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    # A child inherits the descriptors, and a signal to the child must not end this process.
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))


def leave(status: int) -> NoReturn:
    """Runs exit handlers, flushes the output and ends the process without waiting for its threads."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


# Step -> command -> its module in this package, see `LazyGroup`.
STEPS = {
    "Start": {"demo": "tools", "doctor": "tools", "collections": "tools"},
    "Index": {"index": "index", "encode": "index", "merge": "index", "export": "index"},
    "Search": {
        "search": "search",
        "bm25": "search",
        "fuse": "evaluate",
        "serve": "search",
        "pyserini": "search",
    },
    "Evaluate": {
        "evaluate": "evaluate",
        "reproduce": "benchmark",
        "report": "benchmark",
        "analyze": "benchmark",
    },
    "Train": {"data": "data", "train": "train", "experiment": "benchmark", "push": "train"},
}
COMMANDS = {name: module for step in STEPS.values() for name, module in step.items()}


@click.group(
    cls=LazyGroup,
    modules=COMMANDS,
    steps={step: list(commands) for step, commands in STEPS.items()},
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="mimo-plugin", prog_name="mimo")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
def mimo() -> None:
    """One dense index for many languages: encode, index, search and evaluate ir_datasets collections.

    \b
    The main job:
      mimo index miracl/sw/dev miracl/yo/dev --encoder intfloat/multilingual-e5-small --output indexes/sw-yo
      mimo search indexes/sw-yo --topics miracl/sw/dev miracl/yo/dev --output e5.trec
      mimo evaluate e5.trec bm25.trec --qrels miracl/sw/dev miracl/yo/dev --baseline bm25

    COLLECTION is an ir_datasets id (miracl/de/dev), a folder (path:DIR) or a packaged id (mimo-sample);
    several of them are one mixed pool. `mimo collections` says more, `mimo demo` shows all of it. In bash Tab
    completes commands and names after: eval "$(_MIMO_COMPLETE=bash_source mimo)"
    """


class _LogLines(logging.Handler):
    """Prints messages on standard error, each once: a command may load a model several times."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._shown: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "mimo: warning: " if record.levelno >= logging.WARNING else "mimo: "
        line = prefix + record.getMessage()
        if line not in self._shown:
            self._shown.add(line)
            click.echo(line, err=True)


@contextmanager
def _showing_log() -> Iterator[None]:
    """Shows the package's log on standard error, and keeps it from other handlers."""
    logger, handler = logging.getLogger("mimo_plugin"), _LogLines()
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def main(argv: list[str] | None = None) -> int:
    """Runs the command line and returns the exit status: 0 done, 1 failed, 2 wrong usage."""
    arguments = sys.argv[1:] if argv is None else argv
    debug = "--debug" in arguments or bool(os.environ.get("MIMO_DEBUG"))
    # Job schedulers send SIGTERM. It ends a command like Ctrl-C: partial files are removed on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _showing_log():
            # None leaves colours and bold to terminals.
            color = False if os.environ.get("NO_COLOR") else None
            result = mimo.main(args=arguments, prog_name="mimo", standalone_mode=False, color=color)
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("mimo: interrupted", err=True)
        return INTERRUPTED
    except MimoError as error:
        if debug:
            raise
        for line in str(error).splitlines():
            click.echo(f"mimo: {line}", err=True)
        return error.exit_code
    except BrokenPipeError:
        # The reader (head, less) has ended: no error, and nothing to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            raise
        text = " ".join(str(error).split()) or "no message"
        click.echo(f"mimo: {type(error).__name__}: {text} (mimo --debug ... shows where)", err=True)
        return 1


def entry_point() -> None:
    """The console script `mimo`."""
    end_after_sigterm()
    status = main()
    if status == INTERRUPTED:
        leave(status)
    sys.exit(status)
