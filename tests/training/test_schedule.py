"""Every combination of languages equally often: exactly where rows allow it, else as nearly as they allow."""

from collections import deque
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimo_plugin.core.errors import UsageError
from mimo_plugin.training.schedule import Combination, Schedule, language_sets, pairs, singles


def bits(row: Sequence[int]) -> int:
    return sum(1 << language for language in row)


def least_squares(combinations: Sequence[Combination], rows: Sequence[int], base: Sequence[int]) -> int:
    """The smallest sum of squared counts there is, by shortest augmenting paths, a row at a time."""
    needed = [bits(set(combination)) for combination in combinations]
    allowed = [[k for k, need in enumerate(needed) if need & row == need] for row in rows]
    counts, shown = list(base), [-1] * len(rows)
    for row in range(len(rows)):
        came: dict[int, tuple[int | None, int]] = dict.fromkeys(allowed[row], (None, row))
        waiting = deque(came)
        while waiting:
            at = waiting.popleft()
            for other in (r for r in range(row) if shown[r] == at):
                for k in allowed[other]:
                    if k not in came:
                        came[k] = (at, other)
                        waiting.append(k)
        place: int | None = min(came, key=lambda k: counts[k])
        counts[place] += 1
        while place is not None:
            previous, moved = came[place]
            shown[moved], place = place, previous
    return sum(count * count for count in counts)


@st.composite
def instances(draw: st.DrawFn) -> tuple[int, bool, list[int]]:
    languages = draw(st.integers(2, 5))
    ordered = draw(st.booleans())
    row = st.sets(st.integers(0, languages - 1), min_size=2 if ordered else 1, max_size=languages)
    return languages, ordered, draw(st.lists(row.map(bits), min_size=1, max_size=30))


@given(instances(), st.integers(0, 1000))
@settings(max_examples=100)
def test_counts_are_as_even_as_can_be(instance: tuple[int, bool, list[int]], seed: int) -> None:
    languages, ordered, rows = instance
    schedule = Schedule(pairs(languages) if ordered else singles(languages), np.random.default_rng(seed))
    for _ in range(2):
        before = schedule.counts.tolist()
        drawn = schedule.draw(np.array(rows, dtype=np.int64))
        assert (np.bincount(drawn, minlength=len(before)) + before == schedule.counts).all()
        for row, position in zip(rows, drawn, strict=True):
            shown = schedule.combinations[position]
            assert all(row >> language & 1 for language in shown)
            assert len(set(shown)) == len(shown)
        best = least_squares(schedule.combinations, rows, before)
        assert int((schedule.counts**2).sum()) == best


@given(st.integers(2, 14), st.lists(st.integers(1, 400), min_size=1, max_size=4), st.integers(0, 99))
@settings(max_examples=40)
def test_complete_rows_differ_by_one_at_most(languages: int, passes: list[int], seed: int) -> None:
    schedule = Schedule(pairs(languages), np.random.default_rng(seed))
    for rows in passes:
        schedule.draw(np.full(rows, (1 << languages) - 1, dtype=np.int64))
        assert schedule.counts.max() - schedule.counts.min() <= 1
    assert schedule.counts.sum() == sum(passes)


def test_fourteen_languages_have_182_pairs() -> None:
    assert len(pairs(14)) == 182
    assert len(set(pairs(14))) == 182


def test_whole_numbers_that_levelling_alone_does_not_bring_to_the_best() -> None:
    """Chains over several sets are needed in some of these."""
    rng = np.random.default_rng(0)
    for trial in range(30):
        languages = int(rng.integers(3, 6))
        rows = [
            bits(rng.choice(languages, int(rng.integers(2, languages + 1)), replace=False).tolist())
            for _ in range(int(rng.integers(5, 40)))
        ]
        schedule = Schedule(pairs(languages), np.random.default_rng(trial))
        schedule.draw(np.array(rows, dtype=np.int64))
        best = least_squares(schedule.combinations, rows, [0] * len(schedule.combinations))
        assert int((schedule.counts**2).sum()) == best


def test_a_seed_decides_everything() -> None:
    rows = np.array([0b111, 0b11, 0b101, 0b111] * 20)
    one, same, other = (Schedule(pairs(3), np.random.default_rng(s)).draw(rows) for s in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


def test_rows_of_a_set_are_drawn_at_random() -> None:
    rows = np.full(600, 0b111)
    drawn = Schedule(pairs(3), np.random.default_rng(0)).draw(rows)
    assert len(set(drawn[:60])) == 6
    assert (np.diff(drawn) != 0).mean() > 0.5


def test_a_row_with_one_language_cannot_be_a_pair() -> None:
    with pytest.raises(UsageError, match="too few languages"):
        Schedule(pairs(2), np.random.default_rng(0)).draw(np.array([0b11, 0b10]))


def test_language_sets() -> None:
    assert language_sets([["de", "ru"], ["en"]], ["de", "en", "ru"]).tolist() == [0b101, 0b010]
    with pytest.raises(UsageError, match="64 languages"):
        language_sets([], [str(number) for number in range(64)])
