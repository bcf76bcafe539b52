"""The kinds of values in a config, with what makes each of them right."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, Tag

from mimo_plugin.errors import MimoError
from mimo_plugin.evaluation.measures import parse_measures

DATA = "{data}"

_IN_DATA = f"path:{DATA}"


def _measure(name: str) -> str:
    try:
        found = parse_measures(name)
    except MimoError as error:
        raise ValueError("; ".join(str(error).splitlines())) from None
    if len(found) != 1:
        raise ValueError(f"{len(found)} measures in one text, expected a list with each by itself")
    return str(found[0])


def _spec(spec: str) -> str:
    if spec.split() != [spec] and not spec.startswith("path:"):
        raise ValueError(
            f"{spec!r} has white space in it, expected an ir_datasets id, path:DIR or hub:OWNER/NAME"
        )
    rest = spec.removeprefix(_IN_DATA)
    if DATA in spec and (rest == spec or DATA in rest or not rest.startswith("/")):
        raise ValueError(f"{spec!r}, expected {DATA} as the start of a path: {_IN_DATA}/FOLDER")
    return spec


Text = Annotated[str, Field(min_length=1)]
# They become names of directories and columns.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9+._-]*$", max_length=100)]
Language = Annotated[str, Field(pattern=r"^[A-Za-z]{2,8}([_-][A-Za-z0-9]{1,8})*$")]
Spec = Annotated[str, Field(min_length=1), AfterValidator(_spec)]
MeasureName = Annotated[str, AfterValidator(_measure)]
Count = Annotated[int, Field(strict=True, ge=1)]
Score = Annotated[float, Field(strict=True, ge=0, le=1)]
Weight = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]


def _shape(value: Any) -> str | None:
    if isinstance(value, Mapping):
        return "mapping"
    return "list" if isinstance(value, list | tuple) else None


Collections = Annotated[
    Annotated[dict[Language, Spec], Field(min_length=1), Tag("mapping")]
    | Annotated[tuple[Spec, ...], Field(min_length=1), Tag("list")],
    Discriminator(
        _shape,
        custom_error_type="collections_shape",
        custom_error_message=(
            "Input should be a mapping language: collection, or a list of collections that hold several "
            "languages"
        ),
    ),
]
