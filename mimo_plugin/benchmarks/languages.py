"""Whether collections have the languages that a config speaks of, which only reading them tells."""

from collections.abc import Iterable

from mimo_plugin.benchmarks.schema import BenchmarkConfig
from mimo_plugin.benchmarks.validation import near
from mimo_plugin.errors import Problems, UsageError


def check_languages(config: BenchmarkConfig, found: Iterable[str]) -> None:
    """Checks the chosen languages, and those of the published scores, against what was found.

    Args:
        found: languages of the documents or queries of the chosen collections.

    Raises:
        UsageError: with every language that is not there.
    """
    known = sorted({language for language in found if language})
    expected = f"one of {', '.join(known)}" if known else "documents that say their language"
    problems = Problems(UsageError)
    for language in config.languages:
        if language not in known:
            problems.add(
                f"{config.name}: the collections have nothing in {language!r}, expected {expected}"
                f"{near(language, known)}"
            )
    queried = {*known, config.topics.lang}
    for reference in config.reference:
        for language in reference.per_language:
            if language not in queried and language not in config.languages:
                problems.add(
                    f"{config.name}: {reference.system} has a published score in {language!r}, which the "
                    f"collections do not have, expected {expected}{near(language, known)}"
                )
    problems.raise_any()
