"""Texts in which a secret stands: as ``${secret.NAME}`` where it is written, as its word on a device."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final, TypeAlias

from pydantic import ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticCustomError

from harmony_core.secret_values import find_words

from ._base import NOT_SHOWN
from .file import SecretRef

__all__ = ["IN_CLEAR", "Secret", "has_secret"]

IN_CLEAR: Final = (
    "it would stand in clear in the manifest; write ${secret.NAME}, and keep it by "
    "`harmony secret set NAME`"
)
"""What is wrong with a password that is no secret."""
_REFERS_TO_SECRET: Final = re.compile(r"\$\{secret\.")


def has_secret(text: str) -> bool:
    """Return whether *text* refers to a secret, or contains a word that stands for one on a device."""
    return bool(find_words(text) or _REFERS_TO_SECRET.search(text))


def _refuse_in_clear(value: object, handler: ValidatorFunctionWrapHandler) -> object:
    if isinstance(value, Mapping | SecretRef):
        return SecretRef.model_validate(value)  # what is wrong with it is told as of nothing else
    if not (isinstance(value, str) and has_secret(value)):
        raise PydanticCustomError(NOT_SHOWN, IN_CLEAR)
    return handler(value)


Secret: TypeAlias = Annotated[SecretRef | str, WrapValidator(_refuse_in_clear)]
"""A secret of the fleet, ``${secret.NAME}`` alone or within a text; or one that is on the device."""
