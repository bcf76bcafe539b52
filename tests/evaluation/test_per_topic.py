"""Which topics a report shows, and the texts of their hits."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimo_plugin.core.errors import ArtifactError
from mimo_plugin.evaluation.per_topic import _largest, _sample, document_texts, read_per_topic

_VALUES = st.lists(st.tuples(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0]), st.integers(0, 9)), max_size=60)


@given(_VALUES, st.integers(0, 3))
def test_largest_gains_then_largest_losses_one_version_of_each_topic(
    topics: list[tuple[float, int]], seed: int
) -> None:
    differences = np.array([value for value, _ in topics], dtype=np.float64)
    blocks = np.array([block for _, block in topics], dtype=np.intp)
    found = _largest(differences, blocks, seed)
    signs = [differences[place] > 0 for place in found]
    assert signs == sorted(signs, reverse=True)
    for gain in (True, False):
        sign = 1 if gain else -1
        chosen = [place for place in found if (differences[place] > 0) == gain]
        best: dict[int, float] = {}
        for value, block in topics:
            best[block] = max(best.get(block, 0.0), sign * value)
        wanted = sorted((value for value in best.values() if value > 0), reverse=True)[:10]
        assert [sign * differences[place] for place in chosen] == wanted
        assert len({int(blocks[place]) for place in chosen}) == len(chosen)
    assert _largest(differences, blocks, seed) == found


@given(st.lists(st.sampled_from("abc"), max_size=40), st.integers(0, 50), st.integers(0, 3))
def test_every_language_has_a_share_of_the_sample(languages: list[str], number: int, seed: int) -> None:
    places = _sample(languages, number, seed)
    assert places == sorted(set(places))
    assert len(places) == min(number, len(languages))
    there, chosen = Counter(languages), Counter(languages[place] for place in places)
    fullest = max(chosen.values(), default=0)
    assert all(chosen[language] >= min(there[language], fullest - 1) for language in there)


def test_texts_are_cut_and_reading_stops_when_all_are_found() -> None:
    read: list[str] = []

    def docs() -> object:
        for name, text in (("a", "one\n two"), ("b", "word " * 1000), ("c", "x")):
            read.append(name)
            yield SimpleNamespace(doc_id=name, text=text, lang="en")

    found = document_texts([SimpleNamespace(docs_iter=docs)], {"a", "b"})
    assert read == ["a", "b"]
    assert found["a"].text == "one two"
    assert len(found["b"].text) <= 300
    assert found["b"].text.endswith("word…")
    assert document_texts([SimpleNamespace(docs_iter=docs)], set()) == {}
    assert read == ["a", "b"]


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    assert read_per_topic(tmp_path) is None
    (tmp_path / "topics.json").write_text('{"format": "mimo-reproduction-topics"')
    with pytest.raises(ArtifactError, match=r"topics\.json is damaged"):
        read_per_topic(tmp_path)
