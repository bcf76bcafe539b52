"""What a user should know although the work goes on: one line each."""

import sys
import warnings
from typing import Any

# What this command has said.
_shown: set[str] = set()


class Notice(UserWarning):
    """A warning that is complete without the place in the code that raised it."""


def notify(message: str) -> None:
    warnings.warn(message, Notice, stacklevel=2)


def print_notices() -> None:
    """From now on notices are one line on standard error, as the command line's other warnings are."""
    _shown.clear()
    before = warnings.showwarning
    if getattr(before, "prints_notices", False):
        return

    def show(message: Warning | str, category: type[Warning], *place: Any, **settings: Any) -> None:
        if issubclass(category, Notice):
            # A command may load a model several times.
            if str(message) not in _shown:
                _shown.add(str(message))
                print(f"mimo: warning: {message}", file=sys.stderr)
        else:
            before(message, category, *place, **settings)

    show.prints_notices = True  # type: ignore[attr-defined]
    warnings.showwarning = show
    warnings.simplefilter("always", Notice)
