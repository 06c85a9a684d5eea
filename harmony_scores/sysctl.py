"""SysctlScore: settings of the kernel, now and after every boot."""

from __future__ import annotations

from typing import Annotated, Protocol

from pydantic import AfterValidator, Field, StringConstraints

from harmony_core import (
    File,
    HasFiles,
    HasSystemd,
    Inventory,
    Outcome,
    Score,
    SystemdUnit,
    outcome_of,
)

from ._unit_file import oneshot

__all__ = ["SysctlScore"]

_PROGRAM = "/usr/lib/systemd/systemd-sysctl"

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Key = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9_]+([./][A-Za-z0-9_-]+)+$", max_length=256)
]
Value = Annotated[str, StringConstraints(pattern=r"^[!-~]([ -~]*[!-~])?$", max_length=1024)]


def _some(settings: dict[str, str]) -> dict[str, str]:
    if not settings:
        raise ValueError("give at least one setting, as in net.ipv4.ip_forward: '1'")
    return settings


class HasSettings(HasFiles, HasSystemd, Protocol):
    """What it takes to set the kernel's settings for good."""


class SysctlScore(Score[HasSettings]):
    """The kernel's ``settings`` have these values, from a file that is applied at every boot, too.

    They are set when the file changes; a value that somebody sets by hand stays until the next boot. A
    setting that this kernel does not have is a failure. When the Score is removed the file goes, and the
    values stay until the next boot: what they were is not known.
    """

    name: Name = Field(description="Names the file: /etc/sysctl.d/60-harmony-NAME.conf.")
    settings: Annotated[dict[Key, Value], AfterValidator(_some)] = Field(
        description="Values by name, as in net.ipv4.ip_forward: '1'."
    )

    async def interpret(self, inventory: Inventory, topology: HasSettings) -> Outcome:  # noqa: ARG002
        path = f"/etc/sysctl.d/60-harmony-{self.name}.conf"
        lines = [f"{key} = {value}\n" for key, value in sorted(self.settings.items())]
        written = await topology.files.ensure(File(path=path, content="".join(lines).encode()))
        unit = SystemdUnit(
            name=f"harmony-sysctl-{self.name}.service",
            content=oneshot(f"Kernel settings: {self.name}", (_PROGRAM, "--strict", path)),
            enabled=None,
            uses=(path,),
        )
        return outcome_of(written + await topology.systemd.ensure(unit))
