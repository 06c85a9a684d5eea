"""Errors, as HTTP tells them: a status, a stable code, and a sentence that says what to do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from litestar import Request, Response
from litestar.exceptions import HTTPException

from harmony_core.errors import (
    ConfigError,
    HarmonyError,
    NoAnswer,
    NotAllowed,
    RequestError,
    StoreError,
    UnknownClass,
    UnknownDevice,
    UnknownScore,
    UsageError,
)

from .live import Closing, TooManyWatchers
from .oidc.faults import SignInRefused

__all__ = ["HANDLERS", "Problem", "TooManyAttempts", "problem_of"]

_LOG = logging.getLogger("harmony.web")


@attrs.frozen
class Problem:
    """What went wrong, as it is told."""

    code: str
    message: str


class TooManyAttempts(Exception):
    """A sign-in failed too often; *wait_s* later it may be tried again."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(wait_s)
        self.wait_s = wait_s


def problem_of(error: Exception) -> tuple[int, Problem]:
    """Return the HTTP status that *error* leads to, and what is told of it."""
    match error:
        case HarmonyError():
            return _status_of(error), Problem(error.code, error.message)
        case TooManyWatchers():
            return 503, Problem("TooManyWatchers", "as many watch as may at once; try again later")
        case Closing():
            return 503, Problem("Closing", "harmony serve is ending; try again when it runs again")
        case TooManyAttempts(wait_s=wait_s):
            return 429, Problem(
                "TooManyAttempts", f"sign-in failed too often; try again in {wait_s + 1:.0f} s"
            )
        case HTTPException(status_code=status) if status < 500:
            return status, Problem(type(error).__name__, error.detail)
        case _:
            return 500, Problem(
                type(error).__name__, "a defect in harmony; its log says where: see `harmony serve`"
            )


_STATUS: Mapping[type[HarmonyError], int] = {
    UnknownClass: 404,
    UnknownDevice: 404,
    UnknownScore: 404,
    NotAllowed: 403,
    NoAnswer: 504,
    ConfigError: 503,
    StoreError: 503,
    UsageError: 400,
    RequestError: 409,
    SignInRefused: 403,
    HarmonyError: 502,
}


def _status_of(error: HarmonyError) -> int:
    """Return the status of the error's nearest kin in the table."""
    return next(_STATUS[each] for each in type(error).__mro__ if each in _STATUS)


def _answer(_: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    status, problem = problem_of(error)
    if status == 500:
        _LOG.error("a request failed", exc_info=error)
    headers: dict[str, str] = {}
    if isinstance(error, TooManyAttempts):
        headers["Retry-After"] = f"{error.wait_s + 1:.0f}"
    elif isinstance(error, HTTPException) and error.headers:
        headers |= error.headers
    return Response(problem, status_code=status, headers=headers, media_type="application/json")


HANDLERS: dict[int | type[Exception], Callable[[Request[Any, Any, Any], Any], Response[Any]]] = {
    Exception: _answer,
    HTTPException: _answer,
}
