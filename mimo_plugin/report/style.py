"""How all figures of the report look."""

from typing import Any

# Two of Okabe and Ito's colours, which differ also without colour vision.
BLUE = "#0072B2"
VERMILION = "#D55E00"
INK = "#222222"
FAINT = "#767676"

# Without a date, a version or random ids: the same results give the same bytes. Text stays text, and names
# with a dollar are no formulas.
RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mimo-plugin",
    "text.parse_math": False,
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.labelsize": 9.0,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def shortened(name: str, limit: int = 36) -> str:
    return name if len(name) <= limit else f"{name[: limit - 1]}…"
