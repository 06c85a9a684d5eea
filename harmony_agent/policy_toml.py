"""policy.toml: what this device allows, whoever signed it. Chosen by root on the device, and by nobody else.

    open       whatever is not the system's; what is the system's, where it is named
    appliance  what is named, and nothing else

It lies beside agent.toml, and is read when the agent starts. Where there is none, the preset is open and no
jobs are run. Every refusal names the line that refuses, and what root would write (`PolicyTable.refused_by`).
"""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    PrivateAttr,
    StringConstraints,
    ValidationError,
    model_validator,
)

from harmony_core.errors import ConfigError
from harmony_core.paths import AbsolutePath
from harmony_core.visible import cut

__all__ = ["JobPolicy", "PolicyTable", "refuse_foreign"]

JobPolicy: TypeAlias = Literal["none", "confined", "any"]
"""Which jobs this device runs: none, those that can change nothing, or also privileged ones."""

_ONLY_APPLIANCE: Final = (
    *("kinds", "registries", "insecure_registries", "digest", "downloads", "networks", "firewalls"),
    *("devices", "device_rules", "capabilities", "host_namespaces", "propagation", "privileged"),
    *("volumes", "volume_data", "container_networks"),
)
_PATH: Final = Path("/etc/harmony/policy.toml")
_SHOWN_MOST: Final = 160
_KEY: Final = re.compile(r"""\s*([\w-]+|"(?:[^"\\]|\\.)*"|'[^']*')\s*=""")
_RESTART: Final = "systemctl restart harmony-agent"

Pattern = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e ]{1,256}$")]
"""A name, in which * stands for anything."""
Registry = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.:-]*(/[a-z0-9][a-z0-9._-]*)*$")
]
"""A registry, or a part of it: ghcr.io/acme."""
DownloadPlace = Annotated[
    str,
    StringConstraints(
        pattern=r"^([a-z0-9][a-z0-9._-]*|\[[0-9a-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*$",
        max_length=512,
    ),
]
"""A web server, or a part of it: github.com/acme."""


class PolicyTable(BaseModel):
    """What the device allows."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    preset: Literal["open", "appliance"]
    jobs: JobPolicy = "none"
    """Which programs a Score may have run, beside units."""
    paths: tuple[AbsolutePath, ...] = ()
    """Paths, with all below them, that a Score may change."""
    units: tuple[Pattern, ...] = ()
    """Units that a Score may manage, with their files. Programs of theirs may run as root."""
    mounts: tuple[AbsolutePath, ...] = ()
    """Paths, with all below them, that a container may see."""
    kinds: tuple[Pattern, ...] = ()
    """Kinds of Score."""
    registries: tuple[Registry, ...] = ()
    """Where images may come from: registries, or parts of them."""
    insecure_registries: tuple[Registry, ...] = ()
    """Those of them, or mirrors, that may be asked without TLS, or believed whatever their certificate is."""
    digest: bool = False
    """Whether an image must be named by its digest."""
    downloads: tuple[DownloadPlace, ...] = ()
    """Where files may be downloaded from: servers, or parts of them."""
    networks: tuple[Pattern, ...] = ()
    """Network profiles."""
    firewalls: tuple[Pattern, ...] = ()
    """Firewalls: what they let in, their Scores say."""
    volumes: tuple[Pattern, ...] = ()
    """Volumes that a Score may make, and that a container may see."""
    volume_data: tuple[Pattern, ...] = ()
    """Volumes whose data an operator may save and load: whoever reads it may read secrets."""
    container_networks: tuple[Pattern, ...] = ()
    """Networks that a Score may make, and that a container may be on."""
    packages: tuple[Pattern, ...] = ()
    """Packages of Debian. They are installed by a privileged job, which `jobs` must allow too."""
    devices: tuple[Pattern, ...] = ()
    """Devices below /dev that a container may use, and disks and servers that may be mounted."""
    device_rules: tuple[Pattern, ...] = ()
    """Devices that a container may use once they are there, as the Score has them: c 188:* rwm."""
    capabilities: tuple[Pattern, ...] = ()
    """Capabilities of Linux that a container may have beside podman's own few."""
    host_namespaces: tuple[Literal["network", "pid", "ipc"], ...] = ()
    """What a container may share with the device: its network, its processes, its shared memory."""
    propagation: tuple[Literal["rslave", "rshared"], ...] = ()
    """How mounts may be seen on the other side, of a container and of the device."""
    privileged: bool = False
    """Whether a container may be privileged: it is root on the device, whatever else is listed."""

    _path: Path = PrivateAttr(default=_PATH)
    _lines: Mapping[str, int] = PrivateAttr(default_factory=dict[str, int])

    @model_validator(mode="after")
    def _says_nothing_in_vain(self) -> Self:
        said = [name for name in _ONLY_APPLIANCE if name in self.model_fields_set]
        if self.preset == "open" and said:
            raise ValueError(
                f'{said[0]} changes nothing in the preset "open"; remove it, or write preset = "appliance"'
            )
        return self

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read *path*. Raise `ConfigError` with the field and the remedy. Without a file, everything is
        allowed."""
        try:
            found = path.lstat()
            if not stat.S_ISREG(found.st_mode):
                # A link that leads nowhere, yet or any more, must not read as no policy.
                raise ConfigError(
                    f"{path} is a link or no file, so what this device allows would be decided elsewhere; "
                    "put the file itself there"
                )
            refuse_foreign(path, found, "choose what this device allows")
            if found.st_mode & 0o022:
                raise ConfigError(
                    f"{path} may be written by others, who could choose what this device allows; run: chmod "
                    f"go-w {path}"
                )
            return cls.read_text(path.read_text("utf-8"), path)
        except FileNotFoundError:
            table = cls(preset="open")
            table._path = path
            return table
        except OSError as error:
            raise ConfigError(
                f"{path} cannot be read: {error.strerror}; run this as root, or check its owner"
            ) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not TOML: {error}; correct it") from error
        except ValidationError as error:
            from harmony_core.resources import first_problem  # noqa: PLC0415 - at start nobody waits for it

            raise ConfigError(f"{path}: {first_problem(error, cls)}") from error

    @classmethod
    def read_text(cls, text: str, path: Path = _PATH) -> Self:
        """Read the *text* of *path*. Raises what tomllib and pydantic do."""
        table = cls.model_validate(tomllib.loads(text))
        table._path = path
        table._lines = {
            name: line for name in cls.model_fields if (line := _find_line(text, name)) is not None
        }
        return table

    @property
    def is_appliance(self) -> bool:
        return self.preset == "appliance"

    def describe(self) -> str:
        """Return the preset, the file that sets it, and what it means."""
        means = {
            "open": "whoever signs for this device may be root on it",
            "appliance": "nothing but what it lists",
        }[self.preset]
        where = f"{self._path}" if self._lines else f"there is no {self._path}"
        return f"{self.preset} ({where}): {means}; jobs: {self.jobs}"

    def refused_by(self, field: str, wanted: object) -> str:
        """Return which line refuses, and what root would write so that *field* allows *wanted*."""
        value = json.dumps(wanted, ensure_ascii=False)
        is_list = isinstance(getattr(self, field), tuple)
        if field in self._lines:
            by = f"{self._path}, line {self._lines[field]}: {field} = {self._show(field)}"
            add = f"add {value} to {field} there" if is_list else f"make it {field} = {value}"
        else:
            line = f"{field} = [{value}]" if is_list else f"{field} = {value}"
            if self._lines:
                by = (
                    f'{self._path}, line {self._lines["preset"]}: preset = "{self.preset}", and no line has '
                    f"{field}"
                )
                add = f"add the line {line} there"
            else:
                by = f'the preset "{self.preset}", since there is no {self._path}'
                add = f'write preset = "{self.preset}" and {line} there, each on a line of its own'
            if is_list:
                add += f" (if {field} is set by then, add {value} to its list)"
        return f"refused by {by}; to allow it, {add}, as root on the device, and run: {_RESTART}"

    def _show(self, field: str) -> str:
        text = json.dumps(self.model_dump(mode="json", include={field})[field], ensure_ascii=False)
        return cut(text, _SHOWN_MOST)


def refuse_foreign(path: Path, found: os.stat_result, could: str) -> None:
    """Raise `ConfigError` where *path* belongs to another user than root, who *could* do something."""
    if found.st_uid not in {0, os.geteuid()}:
        raise ConfigError(
            f"{path} belongs to the user with the number {found.st_uid}, who could {could}; run: chown "
            f"root:root {path}"
        )


def _find_line(text: str, key: str) -> int | None:
    """Return the number of the line on which *key* is set; None where it is not."""
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if _sets(line) == key and _is_toml("\n".join(lines[: number - 1])):
            return number
    return None


def _sets(line: str) -> str | None:
    """Return which key *line* sets, if it sets one: in TOML a key may be quoted, and escaped."""
    if (found := _KEY.match(line)) is None:
        return None
    try:
        (key,) = tomllib.loads(f"{found[1]} = 0")
    except tomllib.TOMLDecodeError:
        return None
    return key


def _is_toml(text: str) -> bool:
    """Return whether *text* is complete: no string or list of it continues in the next line."""
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True
