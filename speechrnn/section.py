"""What every part of a recipe is, and a value in it that may change over a training."""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

try:
    from pydantic import (
        BaseModel,
        ConfigDict,
        Field,
        SerializerFunctionWrapHandler,
        model_serializer,
        model_validator,
    )
except ImportError as error:  # the device side has no recipes
    from speechrnn.errors import MissingExtra

    raise MissingExtra("reading a recipe", "train") from error

Range = tuple[float, float]
Fraction = Annotated[float, Field(ge=0, le=1)]

Value = TypeVar("Value", float, Range)


class Section(BaseModel):
    """A part of a recipe: immutable, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Ramp(Section, Generic[Value]):
    """A number or a range, constant or moving in a straight line over a training's epochs.

    In YAML a plain value, ``[0.9, 1.1]``, is constant; ``{start: [1, 1], end: [0.9, 1.1],
    by_epoch: 20}`` is its ``start`` in the first epoch and its ``end`` from the 21st on.

    >>> masks = Ramp[float].model_validate({"start": 0, "end": 10, "by_epoch": 20})
    >>> [masks.at(epoch) for epoch in (0, 5, 20, 100)]
    [0.0, 2.5, 10.0, 10.0]
    >>> Ramp[Range].model_validate([0.9, 1.1]).at(7)
    (0.9, 1.1)
    """

    start: Value
    end: Value
    by_epoch: Annotated[int, Field(ge=0)]

    @model_validator(mode="before")
    @classmethod
    def _constant(cls, value: Any) -> Any:
        if isinstance(value, (dict, Ramp)):
            return value
        return {"start": value, "end": value, "by_epoch": 0}

    @model_serializer(mode="wrap")
    def _as_written(self, serialise: SerializerFunctionWrapHandler) -> Any:
        tree = serialise(self)
        return tree["start"] if self.start == self.end else tree

    def at(self, epoch: int) -> Value:
        """The value in an epoch, from 0."""
        share = min(1.0, epoch / self.by_epoch) if self.by_epoch else 1.0
        if isinstance(self.start, tuple) and isinstance(self.end, tuple):
            pairs = zip(self.start, self.end, strict=True)
            return tuple(a + share * (b - a) for a, b in pairs)  # type: ignore[return-value]
        return self.start + share * (self.end - self.start)  # type: ignore[operator, return-value]

    def never_leaves(self, value: Value) -> bool:
        """Whether it is ``value`` in every epoch."""
        return self.start == self.end == value


def constant(value: Any) -> Any:
    """A field whose default is this plain value, which need not be written as a ramp."""
    return Field(default=value, validate_default=True)
