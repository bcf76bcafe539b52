"""Progress bars on standard error: on a terminal, unless the user says otherwise."""

from collections.abc import Iterable, Sized
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm


def bar(
    iterable: Iterable[Any] | None = None,
    *,
    total: int | None = None,
    initial: int = 0,
    what: str,
    unit: str,
    enabled: bool | None = None,
) -> "tqdm[Any]":
    """A bar with count, rate and, where the total is known, remaining time.

    Args:
        enabled: True and False as said; None shows it only where standard error is a terminal.
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
