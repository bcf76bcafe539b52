"""The `mimo` command: one module a command, loaded when it is called."""

import os
import signal
import sys

import click

from mimo_plugin.cli.ending import INTERRUPTED, end_after_sigterm, leave
from mimo_plugin.cli.lazy import LazyGroup
from mimo_plugin.errors import MimoError

# command -> its module in this package, see `LazyGroup`
COMMANDS = {
    "doctor": "doctor",
    "collections": "collections",
    "data": "data",
    "train": "train",
    "experiment": "experiment",
    "encode": "encode",
    "index": "index",
    "merge": "merge",
    "export": "export",
    "search": "search",
    "evaluate": "evaluate",
    "fuse": "fuse",
    "analyze": "analyze",
    "reproduce": "reproduce",
    "report": "report",
    "pyserini": "pyserini",
    "demo": "demo",
}


@click.group(
    cls=LazyGroup,
    modules=COMMANDS,
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
    several of them are one mixed pool. `mimo collections` says more, `mimo demo` shows all of it.
    """


def main(argv: list[str] | None = None) -> int:
    """Runs the command line and returns the exit status: 0 done, 1 failed, 2 wrong usage."""
    arguments = sys.argv[1:] if argv is None else argv
    debug = "--debug" in arguments or bool(os.environ.get("MIMO_DEBUG"))
    # A killed job scheduler step ends like Ctrl-C: partial files are removed on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        result = mimo.main(args=arguments, prog_name="mimo", standalone_mode=False)
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
        # The reader (head, less) has gone: no error, and nothing more to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            raise
        text = " ".join(str(error).split()) or "no message"
        click.echo(f"mimo: {type(error).__name__}: {text} (mimo --debug ... shows where)", err=True)
        return 1


def entry_point() -> None:
    end_after_sigterm()
    status = main()
    if status == INTERRUPTED:
        leave(status)
    sys.exit(status)
