"""What the fields of an option model say about themselves to the command line."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any


@dataclass(frozen=True)
class Option:
    """A command-line option, said once beside the field it fills: `Annotated[int, Option("Texts a batch.")]`.

    `cli.options.model_options` makes the command's options of them; a field without one has none. Its name,
    type, default and choices are those of the field, unless they are given here.

    Attributes:
        help: for `--help`, where the default is added, and for readers of the model.
        name: such as "--lambda" or "--resume/--no-resume".
        min, max: of a number.
        choices: of a text; those of an enum or a literal type are known.
        metavar: of the value.
        parse: from the text that was given to the field's value; None stays None.
        settings: further arguments of `click.option`.
    """

    help: str
    name: str | None = None
    min: float | None = None
    max: float | None = None
    choices: Sequence[str] = ()
    metavar: str | None = None
    parse: Callable[[str], Any] | None = None
    settings: dict[str, Any] = field(default_factory=dict)


# None shows bars on a terminal only.
Progress = Annotated[bool | None, Option("Progress bars on standard error.  [default: only on a terminal]")]
