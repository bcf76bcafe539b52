"""Pictures are drawn from the JSON alone, the same each time, and keep names readable."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from mimo_plugin.core.errors import DataError
from mimo_plugin.report.maps import (
    draw_all,
    draw_pair_alignment,
    draw_plane,
    draw_projection,
    look,
    save_figure,
)

LANGS = [f"l{number:02}" for number in range(18)]


def geometry(langs: list[str], *, parallel: bool = True) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    count = len(langs)
    distances = rng.random((count, count)).tolist()
    distances[0][-1] = distances[-1][0] = None
    points = [[*rng.normal(size=2).tolist(), lang, text] for text in range(9) for lang in range(count)]
    pairs = [[a, b, float(rng.random())] for a in langs for b in langs if a < b] if parallel else []
    one = {
        "alignment": 0.5 if parallel else None,
        "pair_alignment": pairs,
        "uniformity": -2.0,
        "centroid_distances": {"languages": langs, "distances": distances},
        "projection": {"method": "pca", "explained": [0.2, 0.1], "languages": langs, "points": points},
        "trail": [
            {"step": step, "alignment": 1 - step / 100, "uniformity": -1 - step / 80} for step in (0, 40, 80)
        ],
    }
    return {
        "texts": {"vectors": 1800, "role": "documents", "languages": dict.fromkeys(langs, 100)},
        "encoders": {"one": one, "two": {**one, "trail": []}},
        "skipped": {} if parallel else {"alignment": "no versions"},
    }


def test_every_language_has_a_look_of_its_own() -> None:
    assert len({look(number) for number in range(56)}) == 56


def test_all_pictures_as_files(tmp_path: Path) -> None:
    figures = draw_all(geometry(LANGS[:4]))
    assert list(figures) == [
        ("plane", None),
        *(
            (what, label)
            for label in ("one", "two")
            for what in ("projection", "centroids", "pair-alignment")
        ),
    ]
    for what, label in (("plane", None), ("projection", "one"), ("centroids", "one")):
        png, svg = save_figure(figures[what, label], tmp_path / what)
        assert png.read_bytes().startswith(b"\x89PNG")
        assert ElementTree.parse(svg).getroot().tag.endswith("svg")
    again = save_figure(draw_plane(geometry(LANGS[:4])), tmp_path / "again")
    assert [file.read_bytes() for file in again] == [
        (tmp_path / f"plane{file.suffix}").read_bytes() for file in again
    ]


def test_names_do_not_cover_each_other() -> None:
    """18 languages with their middles at one spot, as an encoder that mixes languages well has them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    crowded = geometry(LANGS)
    points = crowded["encoders"]["one"]["projection"]["points"]
    points += [[-x, -y, *rest] for x, y, *rest in points]
    figure = draw_projection(crowded, "one")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    names = [text for text in figure.axes[0].texts if text.get_text() in LANGS]
    # Of the text alone: an annotation's own extent has its line in it.
    boxes = [Text.get_window_extent(text, canvas.get_renderer()) for text in names]
    assert len(boxes) == 18
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:number])


def test_nothing_to_draw() -> None:
    alone = geometry(LANGS[:3], parallel=False)
    assert {what for what, _ in draw_all(alone)} == {"projection", "centroids"}
    with pytest.raises(DataError, match="no alignment to draw: no versions"):
        draw_plane(alone)
    with pytest.raises(DataError, match="no alignment to draw: no versions"):
        draw_pair_alignment(alone, "one")
    assert {what for what, _ in draw_all(geometry(["de"], parallel=False))} == {"projection"}
