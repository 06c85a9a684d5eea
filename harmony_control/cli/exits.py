"""Exit codes, which scripts may rely on, and how an error is told.

0    converged, or done                      4    not reachable, or no answer in time
1    a Score failed, or a check             70    a defect in harmony itself
2    bad input or usage                    130    interrupted
3    refused before pushing                141    nobody read the output to its end
5    a plan has changes
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterable
from typing import TypeGuard

from harmony_core.errors import (
    AnswerTooLarge,
    BootedSince,
    DownloadFailed,
    FactMissing,
    HarmonyError,
    LoadTakenBack,
    MissingCapability,
    NoRoom,
    NotAllowed,
    NotEnrolled,
    OutOfScope,
    PolicyRefused,
    RebootPostponed,
    RegistryUnreachable,
    RequestExpired,
    RequestFailed,
    RevisionConflict,
    RootExpired,
    RootRejected,
    StaleGeneration,
    StoreError,
    TooManyRequests,
    TransferDamaged,
    UnknownKind,
    UnknownTransfer,
    UnknownVerb,
    UnsupportedVersion,
    UntrustedSignature,
    VolumeBusy,
    WrongEpoch,
)
from harmony_core.outcome_words import indent

__all__ = [
    "CHANGES",
    "CONVERGED",
    "FAILED",
    "NO_ANSWER",
    "REFUSED",
    "USAGE",
    "exit_code_of",
    "find_gravest",
    "say",
]

CONVERGED, FAILED, USAGE, REFUSED, NO_ANSWER = range(5)
CHANGES = 5
DEFECT = 70
_SEVERITY = (CONVERGED, NO_ANSWER, REFUSED, USAGE, FAILED, DEFECT)


def find_gravest(codes: Iterable[int]) -> int:
    """Return the exit code for all of *codes*, each of one device or class: a failure counts before a missing
    answer."""
    return max(codes, key=_SEVERITY.index, default=CONVERGED)


def exit_code_of(error: Exception) -> int:
    """Return the exit code for *error*."""
    match error:
        case (
            MissingCapability()
            | UnknownKind()
            | UnsupportedVersion()
            | UnknownVerb()
            | FactMissing()
        ):
            return REFUSED  # by what the device can do
        case (
            PolicyRefused()
            | NotAllowed()
            | StaleGeneration()
            | RevisionConflict()
            | UntrustedSignature()
            | OutOfScope()
            | WrongEpoch()
            | RootExpired()
            | RootRejected()
            | NotEnrolled()
            | BootedSince()
        ):
            return REFUSED  # by the device's owner or the server, or by what is known of the device
        case (
            RequestFailed()
            | AnswerTooLarge()
            | VolumeBusy()
            | NoRoom()
            | UnknownTransfer()
            | TransferDamaged()
            | LoadTakenBack()
        ):
            return FAILED  # there, while it tried to answer
        case (
            StoreError()
            | RegistryUnreachable()
            | DownloadFailed()
            | RequestExpired()
            | TooManyRequests()
            | RebootPostponed()
        ):
            return NO_ANSWER
        case HarmonyError():
            return USAGE
        case _:
            return USAGE if _is_not_installed(error) else DEFECT


def say(error: Exception, *, as_json: bool, agent_id: str | None = None) -> None:
    """Print *error* on standard error: what is wrong, and what to do; with the device's id where *agent_id*
    is given."""
    if os.environ.get("HARMONY_DEBUG"):
        traceback.print_exception(error)
    if isinstance(error, HarmonyError):
        code, message = error.code, error.message
    elif _is_not_installed(error):
        code = "NotInstalled"
        message = (
            f"{error.name} is not installed here, as in the environment of an agent; run harmony on your own "
            "machine, where `make install` has put all that it needs"
        )
    else:
        code = type(error).__name__
        message = f"a defect in harmony: {code}: {error}; HARMONY_DEBUG=1 shows where"
    if as_json:
        whose = {} if agent_id is None else {"agent": agent_id}
        print(json.dumps({"error": {**whose, "code": code, "message": message}}), file=sys.stderr)
    else:
        whose_it_is = "" if agent_id is None else f"{agent_id}: "
        print(f"harmony: {whose_it_is}{indent(message)}", file=sys.stderr)


def _is_not_installed(error: Exception) -> TypeGuard[ModuleNotFoundError]:
    """Return whether a third-party package is not installed."""
    return isinstance(error, ModuleNotFoundError) and not (error.name or "harmony_").startswith(
        "harmony_"
    )
