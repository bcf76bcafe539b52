"""Command-line options, declared at the fields of option models."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any


@dataclass(frozen=True)
class Option:
    """A command-line option, declared at its field: `Annotated[int, Option("Texts a batch.")]`.

    `cli.generate.model_options` makes a command's options from the fields that have one. Name, type, default
    and choices are those of the field, unless given here.

    Attributes:
        help: for `--help`, which adds the default.
        name: such as "--lambda" or "--resume/--no-resume".
        also: further names, such as "-k".
        min, max: of a number.
        choices: of a text; those of an enum or a literal type are known.
        examples: values of a text that shell completion offers; others are as good.
        group: heading in `--help`; None is the model's own, its `GROUP`, else "Options".
        parse: converts the given text to the field's value; None stays None.
        settings: further arguments of `click.option`.
    """

    help: str
    name: str | None = None
    also: Sequence[str] = ()
    min: float | None = None
    max: float | None = None
    choices: Sequence[str] = ()
    examples: Sequence[str] = ()
    group: str | None = None
    metavar: str | None = None
    parse: Callable[[str], Any] | None = None
    settings: dict[str, Any] = field(default_factory=dict)


# Groups of several models; the last in every `--help`.
TOPICS, ADVANCED = "Topic", "Advanced"

# None shows bars on a terminal only.
Progress = Annotated[
    bool | None,
    Option("Progress bars on standard error.  [default: only on a terminal]", group=ADVANCED),
]

# Options of topics and qrels: shared by collections, or in files of their own.
SharedTopics = Annotated[
    bool,
    Option(
        "The collections have topics in common, as NeuCLIR's: one query, judged in each of them.",
        group=TOPICS,
    ),
]
TopicField = Annotated[
    str | None, Option("Field of shared topics, e.g. title.  [default: as in ir_datasets]", group=TOPICS)
]
TOPIC_LANG = Option(
    "Language of shared topics that do not say it, or of a FILE, or one per FILE in order; in a pool it is "
    "the prefix of a FILE's ids.  [default: the text before the colon of the ids]",
    metavar="LANG...",
    group=TOPICS,
)
TopicLang = Annotated[Sequence[str], TOPIC_LANG]
RemoveQuery = Annotated[
    bool,
    Option(
        "Leave out hits that are the query itself: docid and query id are equal, including prefixes.",
        group=TOPICS,
    ),
]


def duplicates_of(what: str) -> Option:
    """The option `--duplicates`. what: the duplicates."""
    return Option(
        f"For {what}: fail, or take the first. Identical records are always taken once.",
        choices=("error", "first"),
        group=ADVANCED,
    )
