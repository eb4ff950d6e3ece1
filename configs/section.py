"""What every section of a recipe is: frozen, strict, and without keys that nobody knows."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

# Beyond this, arithmetic in 64 bits would be at risk, and no run means it.
WHOLE_NUMBER_LIMIT = 2**32

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"

Pixels = Annotated[int, Field(ge=8, le=1024)]


class Section(BaseModel):
    """A frozen group of keys; a value of another type is an error, never converted.

    A rule between two keys is a validator of the second one, so that its message has a line.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _whole_numbers_are_of_this_world(cls, value: object) -> object:
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int) and number >= WHOLE_NUMBER_LIMIT:
                raise ValueError(f"whole numbers must be below {WHOLE_NUMBER_LIMIT:,}")
        return value
