"""A volume: data of containers under a name, kept by podman; and where a container sees one."""

from __future__ import annotations

from typing import Annotated, ClassVar

import attrs
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from ._base import Privilege, Resource, State, in_words
from .container_parts import MountPath

__all__ = ["ObjectLabels", "Volume", "VolumeMount", "VolumeName", "VolumePresent"]

HOLDS_OF_CONTAINERS = "harmony-hold-"
"""What the volumes are called in which containers put their holds."""
_OURS = "harmony-"

VolumeName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$"),
    in_words("write a name of letters, digits and _.-, as in web-data"),
]


def _not_for_containers(name: str) -> str:
    if name.startswith(_OURS):
        raise ValueError(
            f"names that begin with {_OURS} are those of volumes that containers bring; choose another name"
        )
    return name


def _no_holds(name: str) -> str:
    if name.startswith(HOLDS_OF_CONTAINERS):
        raise ValueError(
            f"{name} is where a container puts its holds, and no other may; name another one"
        )
    return name


def _plain_labels(labels: dict[str, str]) -> dict[str, str]:
    for name in labels:
        if not name or "\0" in name or "=" in name:
            raise ValueError(
                f"{name!r} is not a label's name; write one without '=', as in com.acme.a"
            )
        if name.startswith("harmony."):
            raise ValueError(f"{name} is Harmony's own; choose a name that does not begin so")
    return labels


ObjectLabels = Annotated[dict[str, str], AfterValidator(_plain_labels)]
"""Labels, by name. None may begin with ``harmony.``."""


class VolumeMount(BaseModel):
    """A volume, seen inside the container."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    volume: Annotated[VolumeName, AfterValidator(_no_holds)]
    """The volume's name. It has to be there: a VolumeScore before this one makes it, or anybody."""
    target: MountPath
    """The path in the container."""
    read_only: bool = False
    """Whether the container may only read it."""


class Volume(Resource):
    """There is a volume of this name, empty when it is made, and never made anew while it is there.

    What is in it outlives every container that sees it, and this Score too, unless *delete_data* is set.
    """

    resource_type: ClassVar[str] = "volume"

    name: Annotated[VolumeName, AfterValidator(_not_for_containers)]
    """Its name, which podman shows."""
    labels: ObjectLabels = Field(default_factory=dict)
    """Labels that it is made with. They cannot be changed afterwards, since that would take its data."""
    delete_data: bool = False
    """Whether its data goes with it when no Score wants it any more. That is asked first, as a large removal
    is; without it, volume and data stay."""

    @property
    def key(self) -> str:
        return self.name

    @classmethod
    def paths_of(cls, key: str) -> tuple[str, ...]:  # noqa: ARG003 - none that a Score could name
        return ()

    @classmethod
    def units_of(cls, key: str) -> tuple[str, ...]:  # noqa: ARG003 - it has none
        return ()

    @property
    def privileges(self) -> frozenset[Privilege]:
        return frozenset()

    @classmethod
    def survives_reboot(cls, key: str) -> bool:  # noqa: ARG003 - all do
        return True


@attrs.frozen(kw_only=True)
class VolumePresent(State):
    """It is there, since ``created_at`` (RFC 3339). ``deletes_data`` says whether its data goes with it."""

    created_at: str
    deletes_data: bool = False

    @property
    def is_ready(self) -> bool:
        return True
