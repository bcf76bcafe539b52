"""What a user should know although the work goes on: one line each."""

import sys
import warnings
from typing import Any


class Notice(UserWarning):
    """A warning that is complete without the place in the code that raised it."""


def notify(message: str) -> None:
    warnings.warn(message, Notice, stacklevel=2)


def print_notices() -> None:
    """From now on notices are one line on standard error, as the command line's other warnings are."""
    before = warnings.showwarning
    if getattr(before, "prints_notices", False):
        return

    def show(message: Warning | str, category: type[Warning], *place: Any, **settings: Any) -> None:
        if issubclass(category, Notice):
            print(f"mimo: warning: {message}", file=sys.stderr)
        else:
            before(message, category, *place, **settings)

    show.prints_notices = True  # type: ignore[attr-defined]
    warnings.showwarning = show
    # Each is shown as often as it happens: that is once a model.
    warnings.simplefilter("always", Notice)
