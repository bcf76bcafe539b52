"""The filters of parallel text, and the sample that a language's pairs are cut down to."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimo_plugin.core.errors import UsageError
from mimo_plugin.data.options import Drop, PairFilter
from mimo_plugin.data.parallel import Sample


@given(
    text=st.integers(0, 60),
    anchor=st.integers(0, 60),
    shortest=st.integers(1, 20),
    more=st.integers(0, 30),
    ratio=st.floats(1, 5),
)
def test_filters_do_what_their_names_say(
    text: int, anchor: int, shortest: int, more: int, ratio: float
) -> None:
    longest = shortest + more
    reason = PairFilter(shortest, longest, ratio).reason("ж" * text, "𐍈" * anchor)
    fits = all(shortest <= length <= longest for length in (text, anchor))
    assert (reason is None) == (fits and max(text, anchor) <= ratio * min(text, anchor))
    if not text or not anchor:
        assert reason is Drop.EMPTY
    elif reason is Drop.SHORT:
        assert min(text, anchor) < shortest
    elif reason is Drop.LONG:
        assert max(text, anchor) > longest


@pytest.mark.parametrize(
    ("text", "anchor", "reason"),
    [
        ("a" * 10, "b" * 30, None),
        ("a" * 10, "b" * 31, Drop.RATIO),
        ("a" * 9, "b" * 10, Drop.SHORT),
        ("a" * 512, "b" * 512, None),
        ("a" * 512, "b" * 513, Drop.LONG),
        ("", "b" * 20, Drop.EMPTY),
    ],
)
def test_the_papers_limits_are_inclusive(text: str, anchor: str, reason: Drop | None) -> None:
    assert PairFilter().reason(text, anchor) is reason


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0, 5, 3.0), "lengths from 0 to 5"),
        ((6, 5, 3.0), "lengths from 6 to 5"),
        ((1, 5, 0.5), "length ratio 0.5"),
        ((1, 5, math.nan), "length ratio nan"),
    ],
)
def test_filters_that_nothing_passes_are_refused(values: tuple[int, int, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PairFilter(*values)


def taken(tmp_path: Path, keys: list[str], size: int, seed: int = 0) -> tuple[list[list[str]], list[bool]]:
    with Sample(tmp_path / "sample.tmp", size, seed=seed, name="de") as sample:
        offers = [sample.offer(key, str(number)) for number, key in enumerate(keys)]
        sample.settle()
        records = list(sample.records())
        assert len(records) == len(sample)
    assert not (tmp_path / "sample.tmp").exists()
    return records, offers


@settings(max_examples=50)
@given(keys=st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=3)), data=st.data())
def test_a_sample_is_of_distinct_keys_and_independent_of_their_order(
    keys: list[str], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("sample")
    size = data.draw(st.integers(1, 8))
    records, offers = taken(directory, keys, size)
    chosen = [key for key, _ in records]
    assert len(chosen) == len(set(chosen)) == min(size, len(set(keys)))
    # the first record of each, in the order in which they came
    assert [int(number) for _, number in records] == sorted(keys.index(key) for key in chosen)
    if len(set(keys)) <= size:
        assert offers.count(False) == len(keys) - len(set(keys))
    shuffled, _ = taken(directory, data.draw(st.permutations(keys)), size)
    assert {key for key, _ in shuffled} == set(chosen)


def test_a_sample_is_uniform_and_of_its_seed(tmp_path: Path) -> None:
    keys = [str(number) for number in range(40)]
    counts = dict.fromkeys(keys, 0)
    samples = set()
    for seed in range(400):
        records, _ = taken(tmp_path, keys, 10, seed)
        samples.add(tuple(key for key, _ in records))
        for key, _ in records:
            counts[key] += 1
    assert len(samples) == 400
    # 400 draws with p = 1/4: mean 100, standard deviation 8.7
    assert all(60 < count < 140 for count in counts.values())
    chi_squared = sum((count - 100) ** 2 / 75 for count in counts.values())
    assert chi_squared < 80  # 39 degrees of freedom: p is about 0.0001
