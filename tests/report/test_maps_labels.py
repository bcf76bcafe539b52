"""Pictures are drawn from the results alone, the same each time, and keep names readable."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from mimo_plugin.evaluation.results import GeometryResult
from mimo_plugin.report.figures import Figure, write_figure
from mimo_plugin.report.maps import geometry_figures, look

LANGS = [f"l{number:02}" for number in range(18)]


def geometry(langs: list[str], *, parallel: bool = True, mirrored: bool = False) -> GeometryResult:
    rng = np.random.default_rng(0)
    count = len(langs)
    distances = rng.random((count, count)).tolist()
    distances[0][-1] = distances[-1][0] = None
    points = [[*rng.normal(size=2).tolist(), lang, text] for text in range(9) for lang in range(count)]
    if mirrored:
        points += [[-x, -y, *rest] for x, y, *rest in points]
    pairs = [[a, b, float(rng.random())] for a in langs for b in langs if a < b] if parallel else []
    one: dict[str, Any] = {
        "name": "model",
        "fingerprint": None,
        "dimension": 32,
        "alignment": 0.5 if parallel else None,
        "pair_alignment": pairs,
        "uniformity": -2.0,
        "uniformity_per_language": {},
        "separability": None,
        "centroid_distances": {"languages": langs, "distances": distances},
        "projection": {"method": "pca", "explained": [0.2, 0.1], "languages": langs, "points": points},
        "trail": [
            {"step": step, "alignment": 1 - step / 100, "uniformity": -1 - step / 80} for step in (0, 40, 80)
        ],
    }
    texts = {"collections": ["c"], "groups": 100, "vectors": 1800, "role": "documents", "seed": 1}
    return GeometryResult.model_validate(
        {
            "texts": {**texts, "languages": dict.fromkeys(langs, 100)},
            "encoders": {"one": one, "two": {**one, "trail": []}},
            "skipped": {} if parallel else {"alignment": "no versions"},
        }
    )


def figures(found: GeometryResult) -> dict[str, Figure]:
    return {figure.name: figure for figure in geometry_figures(found, lambda *parts: " ".join(parts))}


def test_every_language_has_a_look_of_its_own() -> None:
    assert len({tuple(look(number).values()) for number in range(56)}) == 56


def test_all_pictures_as_files(tmp_path: Path) -> None:
    found = figures(geometry(LANGS[:4]))
    assert list(found) == ["plane", "projection one", "projection two", "centroids", "pair alignment"]
    for name in ("plane", "projection one", "centroids"):
        write_figure(found[name], tmp_path)
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert ElementTree.parse(tmp_path / f"{name}.svg").getroot().tag.endswith("svg")
    before = [(tmp_path / f"plane.{form}").read_bytes() for form in ("png", "svg")]
    write_figure(figures(geometry(LANGS[:4]))["plane"], tmp_path)
    assert [(tmp_path / f"plane.{form}").read_bytes() for form in ("png", "svg")] == before


def test_names_do_not_cover_each_other() -> None:
    """18 languages with their middles at one spot, as an encoder that mixes languages well has them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    figure = figures(geometry(LANGS, mirrored=True))["projection one"].draw()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    names = [text for text in figure.axes[0].texts if text.get_text() in LANGS]
    # Of the text alone: an annotation's own extent has its line in it.
    boxes = [Text.get_window_extent(text, canvas.get_renderer()) for text in names]
    assert len(boxes) == 18
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:number])


def test_nothing_to_draw() -> None:
    alone = figures(geometry(LANGS[:3], parallel=False))
    assert {name.partition(" ")[0] for name in alone} == {"projection", "centroids"}
    assert set(figures(geometry(["de"], parallel=False))) == {"projection one", "projection two"}
