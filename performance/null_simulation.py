"""How often the macro test finds a difference that is not there, and one that is; what its interval covers.

    python performance/null_simulation.py --trials 1000

Each trial draws scores of two runs on topics in several languages and hands them to `macro_test`, the test
behind the row "all" of `mimo evaluate`. Under the null hypothesis the two runs' scores of a topic are
exchangeable: p <= 0.05 must come up in 5 % of the trials. "Equal means" is weaker: the runs differ, their
macro averages do not; no test that relabels runs is exact there, and the figures show what this one does. The
last setting is a contrast: versions of one topic taken for so many topics, which the package does not do.

Power and coverage are measured in two of the settings against the true difference, beside the power of a
normal test that knows the standard error. Everything is written as JSON, text and PNG; a setting that the
JSON holds already is not simulated again.
"""

import json
import platform
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from mimo_plugin.core.environment import git_commit
from mimo_plugin.evaluation.options import SignificanceTest
from mimo_plugin.evaluation.significance import Plan, macro_test
from mimo_plugin.evaluation.topics import Topics, make_topics

ALPHA = 0.05
TOLERANCE = 0.015
SHIFTS = (0.05, 0.1, 0.2, 0.3)
_TRUTH_DRAWS = 2000

Values = NDArray[np.float64]
# Latent normal values -> scores in [0, 1].
Margin = Callable[[Values], Values]


def graded(latent: Values) -> Values:
    """Like nDCG@10: a third zeros, a tenth ones, the rest skewed between them."""
    from scipy.stats import beta, norm

    share = norm.cdf(latent)
    inside = beta.ppf(np.clip((share - 0.33) / 0.57, 0.0, 1.0), 1.2, 1.6)
    return np.where(share < 0.33, 0.0, np.where(share > 0.9, 1.0, inside))


def reciprocal(latent: Values) -> Values:
    """Like MRR@10: 0, 1/10 ... 1/2 and 1; two fifths zeros, three tenths ones: most differences are 0."""
    from scipy.stats import norm

    values = np.array([0.0, *(1 / rank for rank in range(10, 0, -1))])
    shares = np.array([0.4, *np.linspace(0.01, 0.056, 9), 0.3])
    return values[np.searchsorted(np.cumsum(shares)[:-1] / shares.sum(), norm.cdf(latent))]


@dataclass(frozen=True)
class Setting:
    """Attributes:
    sizes: topics in each language.
    parallel: the languages share their topics.
    margin: what scores look like.
    apart: test versions of a topic as if they were topics of their own.
    opposed: latent advantage of one run in every other language, of the other in the rest.
    gamble: the second run gains much on a tenth of the topics and loses a little on the others.
    null: the runs' scores are exchangeable, so that the rate of p <= alpha must be alpha.
    """

    sizes: tuple[int, ...]
    parallel: bool = False
    margin: Margin = graded
    apart: bool = False
    opposed: float = 0.0
    gamble: bool = False
    null: bool = True

    def topics(self) -> Topics:
        ids = {f"l{x}:{n:04}": f"l{x}" for x, size in enumerate(self.sizes) for n in range(size)}
        shared = self.parallel and not self.apart
        return make_topics({topic: {f"d-{topic[-4:] if shared else topic}": 1} for topic in ids}, dict(ids))

    def draw(self, rng: np.random.Generator, shift: float) -> Values:
        """Scores of two runs, (2, topics), languages one after the other; shift: latent, of the second run.

        A score's latent value is the sum of what topic, run on topic, and chance contribute; the first two
        are the same in all languages of a parallel topic.
        """
        number = sum(self.sizes)
        language = np.repeat(np.arange(len(self.sizes)), self.sizes)
        place = np.concatenate([np.arange(size) for size in self.sizes])
        topic = np.arange(number) if not self.parallel else place
        common = rng.normal(size=topic.max() + 1)[topic]
        own = rng.normal(size=(2, topic.max() + 1))[:, topic]
        latent = np.sqrt(0.6) * common + np.sqrt(0.2) * own + np.sqrt(0.2) * rng.normal(size=(2, number))
        # Languages are not equally hard; two and two are, so that what is opposed in them cancels out.
        latent += np.linspace(-0.5, 0.5, (len(self.sizes) + 1) // 2)[language // 2]
        latent[1] += shift
        if self.opposed:
            latent[(language % 2), np.arange(number)] += self.opposed
        scores = self.margin(latent)
        if self.gamble:
            gains = np.where(rng.random(number) < 0.1, 0.45, -0.05)
            scores = np.stack([scores[0], scores[0] + gains])
        return scores


SETTINGS = {
    "8 languages, 50 topics each": Setting((50,) * 8),
    "3 languages, 20 topics each": Setting((20,) * 3),
    "parallel: 60 topics in 8 languages": Setting((60,) * 8, parallel=True),
    "parallel: 20 topics in 14 languages": Setting((20,) * 14, parallel=True),
    "unequal: 10 to 400 topics": Setting((10, 20, 40, 80, 160, 400)),
    "reciprocal ranks, 8 x 50": Setting((50,) * 8, margin=reciprocal),
    "reciprocal ranks, unequal": Setting((10, 20, 40, 80, 160, 400), margin=reciprocal),
    "reciprocal ranks, parallel 60 x 8": Setting((60,) * 8, parallel=True, margin=reciprocal),
    "equal means: better in half of the languages": Setting((50,) * 8, opposed=0.5, null=False),
    "equal means: large gains, small losses": Setting((50,) * 8, gamble=True, null=False),
    "contrast: parallel, versions as topics": Setting((60,) * 8, parallel=True, apart=True, null=False),
}
POWER = ("8 languages, 50 topics each", "parallel: 60 topics in 8 languages")


@click.command()
@click.option("--trials", default=1000, show_default=True, help="Of each setting without a difference.")
@click.option("--power-trials", default=500, show_default=True, help="Of each difference.")
@click.option("--permutations", default=399, show_default=True, help="And bootstrap samples, in a trial.")
@click.option("--seed", default=1, show_default=True)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("performance/null_simulation.json"),
    show_default=True,
    help="JSON; text and picture get its name.",
)
def main(trials: int, power_trials: int, permutations: int, seed: int, output: Path) -> None:
    """Simulate the test of the macro average under the null hypothesis and beside it."""
    options = {
        "trials": trials,
        "power_trials": power_trials,
        "permutations": permutations,
        "seed": seed,
        "alpha": ALPHA,
    }
    record = _begun(output, options)
    cells = [(name, 0.0) for name in SETTINGS] + [(name, shift) for name in POWER for shift in SHIFTS]
    for name, shift in cells:
        key = f"{name} | {shift:g}"
        if key not in record["cells"]:
            began = perf_counter()
            cell = _simulate(name, shift, power_trials if shift else trials, permutations, seed)
            record["cells"][key] = {**cell, "seconds": round(perf_counter() - began, 1)}
            output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        click.echo(_line(record["cells"][key]))
    text = _text(record)
    output.with_suffix(".txt").write_text(text, encoding="utf-8")
    _draw(record, output.with_suffix(".png"))
    click.echo(f"\n{text}")


def _begun(output: Path, options: dict[str, Any]) -> dict[str, Any]:
    """What an earlier run with the same options has computed, or an empty record."""
    if output.is_file():
        found: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
        if found.get("options") == options:
            return found
    return {
        "command": " ".join(["python", *sys.argv]),
        "options": options,
        "environment": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "versions": {name: version(name) for name in ("numpy", "scipy")},
            "git_commit": git_commit(Path(__file__).parent),
        },
        "cells": {},
    }


def _simulate(name: str, shift: float, trials: int, permutations: int, seed: int) -> dict[str, Any]:
    """Rates over the trials of one setting and one latent shift."""
    setting = SETTINGS[name]
    topics = setting.topics()
    # Every cell has its own stream of numbers, whatever was computed before it.
    rng = np.random.default_rng([seed, zlib.crc32(name.encode()), round(shift * 1000)])
    truth = _truth(setting, shift, rng)
    rejected = covered = 0
    tied, widths, differences = [], [], []
    for trial in range(trials):
        values = setting.draw(rng, shift)
        plan = Plan(SignificanceTest.PERMUTATION, alpha=ALPHA, permutations=permutations, seed=trial)
        (outcome,) = macro_test(values, topics, plan).values()
        if outcome.p is None or outcome.ci_low is None or outcome.ci_high is None:
            raise SystemExit(f"{name}: no p or no interval, {outcome.note}")
        rejected += outcome.p <= ALPHA
        covered += outcome.ci_low <= truth <= outcome.ci_high
        tied.append(float(np.mean(values[0] == values[1])))
        widths.append(outcome.ci_high - outcome.ci_low)
        differences.append(_macro(values, setting))
    error = float(np.std(differences, ddof=1))
    return {
        "setting": name,
        "shift": shift,
        "null": setting.null and shift == 0,
        "trials": trials,
        "true_difference": truth,
        "rejected": rejected / trials,
        "rejected_interval": _wilson(rejected, trials),
        "covered": covered / trials,
        "covered_interval": _wilson(covered, trials),
        "standard_error": error,
        "normal_power": _normal_power(truth / error),
        "tied_topics": float(np.mean(tied)),
        "interval_width": float(np.mean(widths)),
    }


def _truth(setting: Setting, shift: float, rng: np.random.Generator) -> float:
    """The true macro difference: 0 by symmetry, or the mean of many draws."""
    if shift == 0:
        return 0.0
    return float(np.mean([_macro(setting.draw(rng, shift), setting) for _ in range(_TRUTH_DRAWS)]))


def _macro(values: Values, setting: Setting) -> float:
    parts = np.split(values[1] - values[0], np.cumsum(setting.sizes)[:-1])
    return float(np.mean([part.mean() for part in parts]))


def _wilson(count: int, trials: int) -> tuple[float, float]:
    from scipy.stats import binomtest

    interval = binomtest(count, trials).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def _normal_power(standardised: float) -> float:
    from scipy.stats import norm

    edge = norm.ppf(1 - ALPHA / 2)
    return float(norm.sf(edge - standardised) + norm.cdf(-edge - standardised))


def _line(cell: dict[str, Any]) -> str:
    low, high = (100 * bound for bound in cell["rejected_interval"])
    rates = (100 * cell[name] for name in ("normal_power", "covered", "tied_topics"))
    verdict = ""
    if cell["null"]:
        verdict = "ok" if abs(cell["rejected"] - ALPHA) <= TOLERANCE else "NOT within 5 % +- 1.5"
    return (
        f"{cell['setting']:<46}{cell['true_difference']:>7.4f} {100 * cell['rejected']:>6.1f} "
        f"[{low:4.1f}, {high:5.1f}] {' '.join(f'{rate:>7.1f}' for rate in rates)}  {verdict}"
    ).rstrip()


def _text(record: dict[str, Any]) -> str:
    options = record["options"]
    lines = [
        f"{options['trials']} trials, {options['power_trials']} of each difference; in each "
        f"{options['permutations']} permutations and bootstrap samples; seed {options['seed']}, "
        f"alpha {options['alpha']}",
        "all in %; [ ]: 95 % Wilson interval; normal: power of a z test that knows the standard error",
        "",
        f"{'setting':<46}{'truth':>7} {'p<=.05':>6} {'':15} {'normal':>7} {'covered':>7} {'tied':>7}",
        *(_line(cell) for cell in record["cells"].values()),
    ]
    return "\n".join(lines) + "\n"


def _draw(record: dict[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    cells = list(record["cells"].values())
    at_zero = [cell for cell in cells if cell["shift"] == 0 and not cell["setting"].startswith("contrast")]
    names = [cell["setting"] for cell in at_zero]
    rates = np.array([100 * cell["rejected"] for cell in at_zero])
    bounds = np.array([[100 * bound for bound in cell["rejected_interval"]] for cell in at_zero]).T
    left.axvspan(100 * (ALPHA - TOLERANCE), 100 * (ALPHA + TOLERANCE), color="0.9")
    left.axvline(100 * ALPHA, color="0.5", linewidth=1)
    left.errorbar(rates, range(len(names)), xerr=np.abs(bounds - rates), fmt="o", color="#0072b2", capsize=3)
    left.set_yticks(range(len(names)), names, fontsize=8)
    left.invert_yaxis()
    left.set(xlabel="p <= 0.05, % of trials", xlim=(0, 10), title="Without a difference")
    for name, colour, marker in zip(POWER, ("#0072b2", "#d55e00"), "os", strict=True):
        line = [cell for cell in cells if cell["setting"] == name]
        truths = [cell["true_difference"] for cell in line]
        found = [100 * cell["rejected"] for cell in line]
        right.plot(truths, found, marker=marker, color=colour, label=name)
        right.plot(truths, [100 * cell["normal_power"] for cell in line], ":", color=colour)
    right.set(xlabel="true difference of macro averages", ylabel="p <= 0.05, % of trials", title="Power")
    right.legend(
        title="dotted: normal test, known standard error",
        loc="upper center",
        bbox_to_anchor=(0.5, -0.16),
        fontsize=8,
        title_fontsize=8,
    )
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
