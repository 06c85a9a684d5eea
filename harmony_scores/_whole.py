"""What a Score asks for is refused with its fields, when it is written, and not on the device."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from pydantic import ValidationError

from harmony_core.resources import first_problem

__all__ = ["refused_as_fields"]


@contextmanager
def refused_as_fields() -> Generator[None]:
    """Raise ValueError, as a validator of fields does, for a resource that cannot be."""
    try:
        yield
    except ValidationError as error:
        raise ValueError(first_problem(error)) from error
