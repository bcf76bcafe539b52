"""A figure of the report, drawn and written."""

import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from mimo_plugin.report.style import FAINT, RC

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

_PNG_DPI = 200
_MARGIN = 0.05  # inches
_CHARACTERS_AN_INCH = 17  # of a label in its size
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
_HREF = "{http://www.w3.org/1999/xlink}href"
_LOCAL = re.compile(r"url\(#([^)]+)\)")
_FAMILY = re.compile(r"font-family:[^;]*;?|(?<=font: )(.*?px) [^;]*")


@dataclass(frozen=True)
class Figure:
    """Attributes:
    name: of its files.
    caption: below it.
    description: what it shows, for who cannot see it.
    draw: draws it.
    labels: what has to stand beside every number.
    """

    name: str
    title: str
    caption: str
    description: str
    draw: Callable[[], "Canvas"]
    labels: Sequence[str] = ()


@dataclass(frozen=True)
class Drawn:
    """inline: the SVG as part of a page."""

    figure: Figure
    inline: str


def write_figure(figure: Figure, directory: Path) -> Drawn:
    """Writes NAME.svg and NAME.png into the directory."""
    buffer = io.StringIO()
    with _drawing():
        canvas = figure.draw()
        # Laid out once: each of the two files would do it twice more.
        canvas.draw_without_rendering()
        canvas.set_layout_engine("none")
        _add_labels(canvas, figure.labels)
        box = canvas.get_tightbbox().padded(_MARGIN)
        canvas.savefig(buffer, format="svg", metadata=_NO_METADATA, transparent=True, bbox_inches=box)
        canvas.savefig(
            directory / f"{figure.name}.png",
            format="png",
            dpi=_PNG_DPI,
            metadata={"Software": None},
            facecolor="white",
            bbox_inches=box,
        )
    text = buffer.getvalue()
    (directory / f"{figure.name}.svg").write_text(text, encoding="utf-8")
    return Drawn(figure, _inline(text, figure))


@contextmanager
def _drawing() -> Iterator[None]:
    """Our style; and no complaints about characters that only the page's own fonts have."""
    import matplotlib as mpl

    fonts = logging.getLogger("matplotlib.font_manager")
    level = fonts.level
    with mpl.rc_context(RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        warnings.filterwarnings("ignore", "Matplotlib currently does not support")
        fonts.setLevel(logging.ERROR)
        try:
            yield
        finally:
            fonts.setLevel(level)


def _add_labels(canvas: "Canvas", labels: Sequence[str]) -> None:
    """Below the figure, so that they go where it goes."""
    width = max(30, int(canvas.get_figwidth() * _CHARACTERS_AN_INCH))
    text = "\n".join(fill(label, width) for label in labels)
    if text:
        below = -0.06 / canvas.get_figheight()
        canvas.text(0.01, below, text, va="top", ha="left", fontsize=7, color=FAINT)


def _inline(text: str, figure: Figure) -> str:
    """An SVG document as an element of a page: ids that no other figure has, no rules for the whole page, no
    fonts but the page's."""
    own = f"figure-{figure.name}"
    root = ElementTree.fromstring(text)
    for parent in root.iter():
        for child in [part for part in parent if part.tag.endswith("}style")]:
            parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        link = element.attrib.pop(_HREF, None)
        if link is not None:
            local = link.startswith("#")
            element.set("href", f"#{own}-{link[1:]}" if local else link)
        for key, value in element.attrib.items():
            if key == "id":
                element.set(key, f"{own}-{value}")
            elif "url(#" in value:
                element.set(key, _LOCAL.sub(rf"url(#{own}-\1)", value))
            elif key == "style" and "font" in value:
                element.set(key, _FAMILY.sub(lambda match: f"{match[1]} inherit" if match[1] else "", value))
    width = float(root.attrib["width"].removesuffix("pt"))
    root.set("style", f"--natural: {width * 4 / 3:.0f}px")
    for key in ("width", "height", "version"):
        del root.attrib[key]
    root.set("role", "img")
    root.set("aria-labelledby", f"{own}-title {own}-desc")
    for place, (name, words) in enumerate((("title", figure.title), ("desc", figure.description))):
        part = ElementTree.Element(name, {"id": f"{own}-{name}"})
        part.text = words
        root.insert(place, part)
    return ElementTree.tostring(root, encoding="unicode")
