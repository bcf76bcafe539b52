"""The one collector of problems."""

import pytest

from mimo_plugin.core.errors import ModelError, Problems


class NeedsMore(ModelError):
    def __init__(self, position: int, name: str) -> None:
        super().__init__(f"{name} is wrong at {position}")


def test_an_error_made_of_more_than_a_message_is_collected() -> None:
    problems = Problems()
    with problems.collect():
        raise NeedsMore(3, "model")
    with pytest.raises(ModelError, match="^model is wrong at 3$"):
        problems.raise_any()
