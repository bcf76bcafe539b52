"""Draws the languages of each row, so that all combinations are equally frequent.

A combination is a tuple of languages: (query, passage) for MIMO and XLCO, one language for both in InfoNCE,
(query, other query) in LaKDA. A row that lacks a translation takes part in the combinations of its other
languages.
"""

from collections.abc import Sequence
from enum import StrEnum
from itertools import permutations
from typing import TYPE_CHECKING

from mimo_plugin.core.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

# A row's languages are the bits of one integer.
_MOST_LANGUAGES = 63
_PASSES = 50


class Objective(StrEnum):
    """What stage 2 minimises."""

    MIMO = "mimo"
    XLCO = "xlco"
    INFONCE = "infonce"
    LAKDA = "lakda"


Combination = tuple[int, ...]


def pairs(languages: int) -> list[Combination]:
    """All ordered pairs of two different languages, as positions in the list of languages."""
    return list(permutations(range(languages), 2))


def singles(languages: int) -> list[Combination]:
    return [(language,) for language in range(languages)]


def language_sets(rows: Sequence[Sequence[str]], languages: Sequence[str]) -> "np.ndarray":
    """The languages of each row as bits, int64 (rows,): bit k is `languages[k]`.

    Raises:
        UsageError: more than 63 languages.
    """
    import numpy as np

    if len(languages) > _MOST_LANGUAGES:
        raise UsageError(f"{len(languages)} languages were found, at most {_MOST_LANGUAGES} can be scheduled")
    bit = {language: 1 << position for position, language in enumerate(languages)}
    return np.fromiter((sum(bit[language] for language in row) for row in rows), np.int64, len(rows))


class Schedule:
    """Draws a combination for each row, with total counts as even as the rows allow.

    If every row has every language, counts differ by at most 1. Rows with the same set of languages can be
    spread freely over that set's combinations. Each set in turn is spread to level the total counts ("water
    filling"), until no set changes. This is coordinate descent on the sum of squared counts, which is convex.
    As counts are integers, it can stop short of the minimum. Single rows are then moved along chains of sets
    until no chain helps, which gives the minimum.

    Args:
        combinations: those that can be drawn.
        generator: decides ties and the combination of each row.
    """

    def __init__(self, combinations: Sequence[Combination], generator: "np.random.Generator") -> None:
        import numpy as np

        self.combinations = list(combinations)
        self.counts = np.zeros(len(combinations), dtype=np.int64)
        self._needed = np.array([sum(1 << k for k in set(c)) for c in self.combinations], dtype=np.int64)
        self._generator = generator

    def allowed(self, languages: int) -> "np.ndarray":
        """Positions of the combinations that are possible with a set of languages."""
        import numpy as np

        return np.flatnonzero((self._needed & languages) == self._needed)

    def draw(self, rows: "np.ndarray") -> "np.ndarray":
        """Draws and counts a combination for each row, as positions in `combinations`, int64 (rows,).

        Args:
            rows: the rows' languages as bits, see `language_sets`.

        Raises:
            UsageError: a row has too few languages for any combination.
        """
        import numpy as np

        sets, members, sizes = np.unique(rows, return_inverse=True, return_counts=True)
        choices = [self.allowed(int(languages)) for languages in sets]
        if any(len(allowed) == 0 for allowed in choices):
            raise UsageError("a row has too few languages to be scheduled: leave such rows out before")
        parts = [np.zeros(len(allowed), dtype=np.int64) for allowed in choices]
        # Sets with few choices come first, and the others even out their counts.
        order = sorted(range(len(sets)), key=lambda position: len(choices[position]))
        for _ in range(_PASSES):
            changed = False
            for position in order:
                allowed, before = choices[position], parts[position]
                level = self.counts[allowed] - before
                after = self._fill(level, int(sizes[position]))
                # Changes must make the counts more even, or ties would swap forever.
                if ((level + after) ** 2).sum() < ((level + before) ** 2).sum() or not before.any():
                    self.counts[allowed] += after - before
                    parts[position] = after
                    changed = True
            if not changed:
                break
        self._exchange(choices, parts)
        drawn = np.empty(len(rows), dtype=np.int64)
        for position, (allowed, part) in enumerate(zip(choices, parts, strict=True)):
            drawn[members == position] = self._generator.permutation(np.repeat(allowed, part))
        return drawn

    def _fill(self, level: "np.ndarray", amount: int) -> "np.ndarray":
        """Distributes the amount so that the lowest levels rise to one height; returns what each gets."""
        import numpy as np

        shuffled = self._generator.permutation(len(level))
        order = shuffled[np.argsort(level[shuffled], kind="stable")]
        sorted_levels = level[order]
        # Cost of raising the first k + 1 levels to the height of the last of them.
        cost = sorted_levels * np.arange(1, len(level) + 1) - np.cumsum(sorted_levels)
        raised = int(np.searchsorted(cost, amount, side="right"))
        height, rest = divmod(amount + int(sorted_levels[:raised].sum()), raised)
        added = np.zeros(len(level), dtype=np.int64)
        added[order[:raised]] = height - sorted_levels[:raised]
        added[order[:rest]] += 1
        return added

    def _exchange(self, choices: Sequence["np.ndarray"], parts: list["np.ndarray"]) -> None:
        """Moves rows to less frequent combinations, directly or through others, until no move is left."""
        import numpy as np

        owner = np.repeat(np.arange(len(parts)), [len(allowed) for allowed in choices])
        combination, part = np.concatenate(choices), np.concatenate(parts)
        height = int(self.counts.max())
        while height > int(self.counts.min()) + 1:
            if not self._move(height, owner, combination, part):
                height = int(self.counts[self.counts < height].max())
        ends = np.cumsum([len(allowed) for allowed in choices])
        parts[:] = np.split(part, ends[:-1])

    def _move(self, height: int, owner: "np.ndarray", combination: "np.ndarray", part: "np.ndarray") -> bool:
        """Moves a row from a combination with count `height` to one with at most `height - 2`.

        Args:
            owner, combination: pairs of a set of rows and a combination possible for it. (entries,)
            part: number of the set's rows in the combination. (entries,)

        Returns:
            False if no chain of sets leads there; the shortest is taken.
        """
        import numpy as np

        reached = self.counts == height
        # The entry through which each set and each combination was reached.
        set_from = np.full(int(owner[-1]) + 1, -1)
        from_set = np.full(len(self.counts), -1)
        while True:
            leaving = np.flatnonzero(reached[combination] & (part > 0) & (set_from[owner] < 0))
            set_from[owner[leaving]] = leaving
            arriving = np.flatnonzero(~reached[combination] & (set_from[owner] >= 0))
            if not len(arriving):
                return False
            from_set[combination[arriving]] = arriving
            reached[combination[arriving]] = True
            found = combination[arriving][self.counts[combination[arriving]] <= height - 2]
            if len(found):
                break
        place = int(found[0])
        self.counts[place] += 1
        while (entry := int(from_set[place])) >= 0:
            part[entry] += 1
            left = int(set_from[owner[entry]])
            part[left] -= 1
            place = int(combination[left])
        self.counts[place] -= 1
        return True
