"""A systemd unit: its file (or an existing one), enablement and activity."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, ClassVar, Literal, Self

import attrs
from pydantic import AfterValidator, Field, StringConstraints, model_validator

from harmony_core.content import CONTENT_MARK
from harmony_core.credentials import CREDENTIAL_NAME
from harmony_core.paths import AbsolutePath
from harmony_core.steps import Restarted, Started, Step
from harmony_core.unit_install import find_broken_section, read_install_words
from harmony_core.unit_paths import UNIT_NAME_MAX

from ._base import Claim, Privilege, Resource, State, in_words, resource_id
from .file import File
from .probes import Probe, Seconds

__all__ = [
    "Activating",
    "Active",
    "CredentialName",
    "Failed",
    "Inactive",
    "SliceName",
    "SystemdUnit",
    "UnitFile",
    "UnitName",
    "UnitState",
]

UnitName = Annotated[
    str,
    StringConstraints(
        # What begins with a hyphen is taken for an option; systemd itself has -.mount, the root of all. Only
        # what is named by a path has escapes, as in srv-my\x2ddata.mount.
        pattern=r"^(-\.mount|[A-Za-z0-9:_.][A-Za-z0-9:_.-]{0,199}(@[A-Za-z0-9:_.-]{0,40})?\.(service|socket|timer|path|target|slice)"
        r"|([A-Za-z0-9:_.]|\\x[0-9a-f]{2})([A-Za-z0-9:_.-]|\\x[0-9a-f]{2})*\.(mount|automount))$",
        max_length=UNIT_NAME_MAX,
    ),
    in_words("write a unit's name with its type, as in web.service"),
]
"""As systemd names units; templates need their instance (``getty@tty1.service``)."""


def _slice(name: str) -> str:
    if not name.endswith(".slice"):
        raise ValueError("must end in .slice")
    return name


SliceName = Annotated[UnitName, AfterValidator(_slice)]


def _plain_unit_file(text: str) -> str:
    """Refuse a file that systemd would read differently than a person."""
    for character in text:
        if character in "\n\t":
            continue
        if (
            ord(character) < 0x20
            or character in "\x7f\x85\u2028\u2029"
            or "\ud800" <= character <= "\udfff"
        ):
            raise ValueError(f"control character {character!r}; a unit file is plain lines of text")
    if not text.endswith("\n"):
        raise ValueError("must end with a newline, or its last line may be lost")
    if (broken := find_broken_section(text)) is not None:
        raise ValueError(
            f"{broken!r} begins a section and has no ] at its end: systemd reads no such file"
        )
    return text


_DIRECTORY = "/etc/systemd/system"

SettingPath = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)+$", max_length=256
    ),
    in_words(
        "write a setting of the kernel by its path below /proc/sys, as in net/ipv4/ip_forward"
    ),
]
SettingValue = Annotated[str, StringConstraints(min_length=1, max_length=1024)]

CredentialName = Annotated[
    str,
    StringConstraints(pattern=CREDENTIAL_NAME),
    in_words(
        "write a credential's name of 255 letters, digits and ._@+- at most, the first a letter, a digit or "
        "_, as in db-password"
    ),
]
"""As a program finds it in $CREDENTIALS_DIRECTORY."""

UnitFile = Annotated[
    str, Field(max_length=64 * 1024), AfterValidator(_plain_unit_file), CONTENT_MARK
]


class SystemdUnit(Resource):
    """The unit *name* has this file, is enabled or not, and is active or not.

    ``content`` None leaves the unit's file to whoever made it (a Debian package, say). A restart
    follows when the invocation that runs was not started from this file and these ``uses``: a
    comparison of states, so nothing is lost when the agent is killed between write and restart.
    """

    resource_type: ClassVar[str] = "unit"

    name: UnitName
    """Its name with its type, as in web.service."""
    content: UnitFile | None = None
    """Its whole file; none leaves the file to whoever made it."""
    enabled: bool | None = True
    """None leaves enablement as it is."""
    state: Literal["running", "stopped"] | None = "running"
    """None leaves it to others, such as a timer, when it runs."""
    uses: tuple[AbsolutePath, ...] = ()
    """Files that the running unit has read: one that changes is a reason to restart it."""
    credentials: dict[CredentialName, AbsolutePath] = Field(default_factory=dict)
    """What its file has it loaded with (LoadCredential=), by name, and from which files: that is asked of
    systemd, once it has read the file, since a drop-in may take it away."""
    slice: SliceName | None = None
    """The slice that its file has a service in (Slice=): that is asked of systemd, once it has read the file.
    None asks nothing."""
    settings: dict[SettingPath, SettingValue] = Field(default_factory=dict)
    """Settings of the kernel that its program has made, by their paths below /proc/sys: one that has another
    value while it is up is a reason to restart it."""
    settle_s: Annotated[float, Field(ge=0, le=300)] = 2.0
    """How long the same invocation must stay up, without a restart, before it counts as converged."""
    ready: Probe | None = None
    """The question that is answered once it serves; none asks nothing."""
    start_timeout_s: Seconds = 90.0
    """How long its start may take, in seconds."""
    gives_root: bool = False
    """Whether what its program does lets others act as root: the device has to allow it as it does a job that
    runs as root."""
    takes_back: bool = False
    """Whether what it runs when it is stopped takes back what was done here: when it goes, that is run until
    it has succeeded, whatever has become of the unit. So it has to be such that it may be run again."""
    claims: tuple[Claim, ...] = ()
    """What its program changes, such as a setting of the kernel: a second Score that claims the same is
    refused. No part of what the unit is."""

    @property
    def key(self) -> str:
        return self.name

    @property
    def exclusive(self) -> frozenset[str]:
        """What it claims, and its file with the names that this gives it, where that is wished for."""
        if self.content is None:
            return frozenset(self.claims)
        aliases = read_install_words(self.content, "Alias")
        return frozenset(
            {
                f"path:{_DIRECTORY}/{self.name}",
                *(f"unit:{alias}" for alias in aliases),
                *self.claims,
            }
        ) - {self.id}

    @classmethod
    def paths_of(cls, key: str) -> tuple[str, ...]:
        return (f"{_DIRECTORY}/{key}",)

    @classmethod
    def units_of(cls, key: str) -> tuple[str, ...]:
        return (key,)

    @property
    def privileges(self) -> frozenset[Privilege]:
        return frozenset({"run-as-root"} if self.gives_root else ())

    @property
    def is_slice(self) -> bool:
        """Whether it only holds others, which a restart would stop: systemd limits them anew by its file once
        that is read."""
        return self.name.endswith(".slice")

    def preview_steps(
        self, steps: tuple[Step, ...], before: State | None, rewritten: Collection[str]
    ) -> tuple[Step, ...]:
        changed = [path for path in self.uses if path in rewritten]
        if not changed or Started() in steps or self.state != "running":
            return steps
        if self.is_slice and isinstance(before, Active):
            return steps
        if not isinstance(before, Active | Activating):
            return (*steps, Started())
        planned = next((each for each in steps if isinstance(each, Restarted)), Restarted())
        restart = attrs.evolve(planned, changed=tuple(dict.fromkeys([*planned.changed, *changed])))
        return (*(each for each in steps if each != planned), restart)

    def overridden_by(self, state: State) -> tuple[str, ...]:
        """Return its drop-ins, where its whole file is desired; without those that it uses."""
        if self.content is None or not isinstance(state, Active | Activating | Inactive | Failed):
            return ()
        others = (path for path in state.drop_ins if path not in self.uses)
        return tuple(resource_id(File.resource_type, path) for path in others)

    @model_validator(mode="after")
    def _a_template_needs_its_instance(self) -> Self:
        if "@." in self.name and self.state == "running":
            raise ValueError(
                f"name: {self.name} is a template; name an instance, as in getty@tty1.service, or set state "
                "to null, and enabled too, to have its file alone"
            )
        return self


@attrs.frozen(kw_only=True)
class Active(State):
    """Up since *since* (RFC 3339). ``sub`` and ``result`` are systemd's SubState and Result.

    ``drop_ins`` are the paths of those for this unit that are in force and came with no package.
    """

    since: str
    sub: str
    result: str
    enabled: bool | None = None
    drop_ins: tuple[str, ...] = ()

    @property
    def is_ready(self) -> bool:
        return True


@attrs.frozen(kw_only=True)
class Activating(State):
    """On its way up, or down."""

    sub: str
    result: str
    enabled: bool | None = None
    drop_ins: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Inactive(State):
    """Loaded or known, and not running."""

    sub: str
    result: str
    enabled: bool | None = None
    drop_ins: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Failed(State):
    """systemd gave up on it."""

    sub: str
    result: str
    enabled: bool | None = None
    drop_ins: tuple[str, ...] = ()


UnitState = Active | Activating | Inactive | Failed
