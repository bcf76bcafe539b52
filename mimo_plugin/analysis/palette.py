"""Colours and shapes that are told apart without colour vision, in print too."""

from typing import NamedTuple

# Okabe and Ito, Color Universal Design (2008), without the yellow, which is lost on white.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Their number has no divisor in common with that of the colours: 56 different looks.
_MARKERS = ("o", "s", "^", "D", "P", "v", "X", "<")
# Even for the eye at every step, with and without colour vision.
COLOR_MAP = "cividis"


class Look(NamedTuple):
    """A colour and a marker of matplotlib."""

    color: str
    marker: str


def look(number: int) -> Look:
    """The look of the language or model of that number."""
    return Look(_COLORS[number % len(_COLORS)], _MARKERS[number % len(_MARKERS)])
