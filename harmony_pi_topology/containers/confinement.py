"""What keeps root in a container from making anybody root outside: no file that it writes changes who runs.

Root in a container is root on the disk. In a directory of the device that it may write, it could leave a
program with the set-user-ID bit, or with capabilities, which any local user then runs outside. podman's
``nosuid`` holds only inside, and a user namespace would shut out the files of root's that are mounted. So
the kernel refuses the bits where they are set, as for a service with ``RestrictSUIDSGID=``: by podman's
own seccomp profile, tightened. Without these capabilities a file loses its bits when it is written to,
has none of its own, and is no device. A Score that asks for one of them has it, where the device's policy
lets it; what is privileged is root on the device anyway, and has podman heed neither.

podman reads the profile when a container is made, and keeps what it says. It blocks: for a worker's thread.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from harmony_core.errors import ContainerFailed
from harmony_core.resources import Container
from harmony_pi_topology.posix.errors import translate_errors

from .paths import place_in

__all__ = ["PROFILE", "list_dropped", "provide_profile", "tighten"]

_DROPPED: Final = ("FSETID", "MKNOD", "SETFCAP")
PROFILE: Final = "/run/harmony/containers-seccomp.json"
"""Where podman reads it."""
_PODMAN_S: Final = ("/etc/containers/seccomp.json", "/usr/share/containers/seccomp.json")
"""Where podman has its own. The first that there is counts."""

_SET_ID: Final = 0o6000
_CREATES: Final = 0o100 | 0o20000000
"""O_CREAT and O_TMPFILE: without them, what stands where the mode would is no mode."""
_EPERM: Final = 1

# The number of the argument that is a mode.
_MODE_OF: Final = {
    "chmod": 1,
    "fchmod": 1,
    "fchmodat": 2,
    "fchmodat2": 2,
    "mknod": 1,
    "mknodat": 2,
    "creat": 1,
}
# Those of the flags, and of the mode.
_OPEN: Final = {"open": (1, 2), "openat": (2, 3)}
# What these create is said where no filter sees it. Programs do without them.
_UNSEEN: Final = frozenset({"openat2", "io_uring_setup", "io_uring_enter", "io_uring_register"})


def list_dropped(container: Container) -> list[str]:
    """Return the capabilities to drop from *container*, as podman names them."""
    if "ALL" in container.drop_capabilities:
        return ["ALL"]
    added = container.add_capabilities
    ours = () if "ALL" in added else (each for each in _DROPPED if each not in added)
    return [f"CAP_{each}" for each in sorted({*ours, *container.drop_capabilities})]


def provide_profile(root: Path) -> None:
    """Write the tightened profile to `PROFILE` beneath *root*. Raise `ContainerFailed` where podman's own
    profile is missing, and `WriteFailed`."""
    text = json.dumps(tighten(json.loads(_read_podman_s(root))))
    path = place_in(root, PROFILE)
    with translate_errors(str(path)):
        if path.is_file() and path.read_text() == text:
            return
        path.parent.mkdir(mode=0o700, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(text)
        new.replace(path)


def tighten(profile: dict[str, Any]) -> dict[str, Any]:
    """Return podman's *profile*, changed so that system calls that set a set-user-ID or set-group-ID bit are
    refused."""
    mine = {*_MODE_OF, *_OPEN, *_UNSEEN}
    kept = [
        {**rule, "names": names}
        for rule in profile["syscalls"]
        if (names := [each for each in rule["names"] if each not in mine])
    ]
    return {**profile, "syscalls": [*kept, *_rules()]}


def _rules() -> Iterator[dict[str, Any]]:
    for name, mode in _MODE_OF.items():
        yield _rule(name, "SCMP_ACT_ALLOW", mode, _SET_ID, 0)
        for bit in (0o4000, 0o2000):
            yield {**_rule(name, "SCMP_ACT_ERRNO", mode, bit, bit), "errnoRet": _EPERM}
    for name, (flags, mode) in _OPEN.items():
        yield _rule(name, "SCMP_ACT_ALLOW", mode, _SET_ID, 0)
        yield _rule(name, "SCMP_ACT_ALLOW", flags, _CREATES, 0)


def _rule(name: str, action: str, argument: int, mask: int, equals: int) -> dict[str, Any]:
    """Return the rule that takes *action* where *argument*, after applying *mask*, equals *equals*."""
    return {
        "names": [name],
        "action": action,
        "args": [
            {"index": argument, "value": mask, "valueTwo": equals, "op": "SCMP_CMP_MASKED_EQ"}
        ],
    }


def _read_podman_s(root: Path) -> str:
    for path in _PODMAN_S:
        with translate_errors(path, doing="read"), suppress(FileNotFoundError):
            return place_in(root, path).read_text()
    raise ContainerFailed(
        f"podman's seccomp profile is missing ({_PODMAN_S[-1]}), without which a container would not be "
        "confined; run: apt-get install --reinstall golang-github-containers-common"
    )
