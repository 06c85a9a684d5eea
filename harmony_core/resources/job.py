"""A job: a program that is run to its end, once."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Annotated, ClassVar, Self

import attrs
from pydantic import Field, StringConstraints, model_validator

from harmony_core.errors import UnsafePath
from harmony_core.paths import AbsolutePath, check_path

from ._base import Claim, Privilege, Resource, State, in_words
from .container import Environment
from .probes import Seconds

__all__ = ["Finished", "InProgress", "Job", "JobName", "JobState", "NotNeeded"]

JobName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$"),
    in_words("write a name of small letters, digits and -, as in import-maps"),
]
Argument = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=64 * 1024)]

_WHAT_IS_RUN = frozenset(
    {"command", "unless", "environment", "network", "privileged", "undo", "undo_always"}
)


class Job(Resource):
    """*command* has been run to its end, successfully, once for each specification of it.

    It runs apart from the agent, as nobody in particular: no capabilities, nothing writable but a /tmp of its
    own, no network unless *network*. One that fails may say why (`harmony_core.reasons`). When nobody wants
    it any more, what it did stays, but for what *undo* takes back.
    """

    resource_type: ClassVar[str] = "job"

    name: JobName
    """Its name; the same name is the same job."""
    command: Annotated[tuple[Argument, ...], Field(min_length=1)]
    """A program by its absolute path, and its arguments."""
    unless: tuple[Argument, ...] = ()
    """A question, asked before it is run, once after each boot, and when somebody asks or pushes: where this
    exits with 0, nothing is to be done, and where with another code, it is run, also when it was before. With
    75 (EX_TEMPFAIL) it cannot be told now, and is asked again soon. It can change nothing."""
    asked_when_changed: tuple[AbsolutePath, ...] = ()
    """Files that what it did is seen in: ``unless`` is also asked when one of them has changed, and whenever
    the agent starts."""
    undo: tuple[Argument, ...] = ()
    """Run likewise when nobody wants it any more; without, what it did stays."""
    undo_always: bool = False
    """Whether *undo* is run also where ``unless`` has always said that there is nothing to do: for one that
    knows by its own notes what there is to take back, also where the agent has lost its state."""
    environment: Environment = Field(default_factory=dict)
    """Variables of its environment, by name."""
    network: bool = False
    """Whether it may use the network."""
    privileged: bool = False
    """As root, and nothing of the device is out of its reach."""
    retry: bool = False
    """Whether it may be run again after it has failed, or was cut short and nobody knows where."""
    time_limit_s: Seconds = 300.0
    """How long it may run, in seconds, before it is ended."""
    memory_bytes: Annotated[int, Field(ge=16 * 1024 * 1024)] = 512 * 1024 * 1024
    """Its address space."""
    output_bytes: Annotated[int, Field(ge=1024, le=1024 * 1024)] = 64 * 1024
    """How much it may write to each of standard output and error before it is ended. One that is privileged
    is not ended: it can write no more than twice that to both together."""
    claims: tuple[Claim, ...] = ()
    """What it changes, such as a package: a second Score that claims the same is refused. No part of what is
    run."""
    recurring: bool = False
    """Whether it is due again and again, as its ``unless`` says: then that is no drift, and what the question
    writes is told. No part of what is run."""

    @property
    def key(self) -> str:
        return self.name

    @property
    def exclusive(self) -> frozenset[str]:
        return frozenset(self.claims)

    @classmethod
    def paths_of(cls, key: str) -> tuple[str, ...]:  # noqa: ARG003 - it has none
        return ()

    @classmethod
    def units_of(cls, key: str) -> tuple[str, ...]:  # noqa: ARG003 - it has none
        return ()

    @property
    def privileges(self) -> frozenset[Privilege]:
        return frozenset({"run-as-root" if self.privileged else "run"})

    @cached_property
    def run_hash(self) -> str:
        """Hex SHA-256 of what is run: what "has this been run?" compares."""
        what = self.model_dump(mode="json", include=set(_WHAT_IS_RUN), exclude_defaults=True)
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()

    @model_validator(mode="after")
    def _programs_are_named_by_their_paths(self) -> Self:
        for name, words in (
            ("command", self.command),
            ("unless", self.unless),
            ("undo", self.undo),
        ):
            if words:
                try:
                    check_path(words[0])
                except UnsafePath as error:
                    raise ValueError(f"{name}: {error.message}") from error
        return self


@attrs.frozen(kw_only=True)
class InProgress(State):
    """Begun at *since* (RFC 3339), and not known to have ended."""

    since: str

    @property
    def is_under_way(self) -> bool:
        return True


@attrs.frozen(kw_only=True)
class Finished(State):
    """Ended at *at* (RFC 3339). ``result`` is "success", or systemd's word for what ended it."""

    at: str
    exit_code: int
    result: str
    sha256: str
    """Of what was run: `Job.run_hash`."""
    stdout: str = ""
    stderr: str = ""
    """The last kilobyte of each."""

    @property
    def is_ready(self) -> bool:
        return self.result == "success"


@attrs.frozen(kw_only=True)
class NotNeeded(State):
    """Its ``unless`` said at *at* that there is nothing to do."""

    at: str
    stdout: str = ""
    """The last kilobyte of what that has written, of a job that is due again and again."""

    @property
    def is_ready(self) -> bool:
        return True


JobState = InProgress | Finished | NotNeeded
