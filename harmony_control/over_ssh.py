"""Install the agent on a device over ssh, and enrol it, or remove it: what a person would type.

`install.sh` or `uninstall.sh` runs there. What it installs is in `harmony_control.package`. At a first boot,
`install.sh` runs as well: `harmony_control.first_boot`.
"""

from __future__ import annotations

import asyncio
import io
import shlex
import tarfile
from collections.abc import Mapping
from pathlib import Path

from harmony_core.errors import BusUnreachable, ConfigError, UsageError

from .package import Package

__all__ = ["INSTALL_SH", "files_to_install", "install_and_enrol", "uninstall"]

INSTALL_SH = Path(__file__).with_name("install.sh")
_UNINSTALL_SH = Path(__file__).with_name("uninstall.sh")
_FORGET_BROKEN = Path(__file__).with_name("_forget_broken.py")


async def install_and_enrol(
    destination: str,
    invitation: str,
    package: Package,
    *,
    ssh: str = "ssh",
    sudo: bool = False,
    replaces: bool = False,
) -> None:
    """Install and enrol on *destination*, and show its output. Raise `ConfigError` where that fails.

    *ssh* is the command with which a device is reached, as a person would write it: ``ssh -p 2222``.
    """
    options = f"--wait-s 60{' --replace' if replaces else ''}"
    settings = {"VERSION": package.version, "OPTIONS": options}
    status = await _run(
        destination,
        INSTALL_SH.read_text(),
        settings,
        ssh=ssh,
        sudo=sudo,
        given=_packed(package, invitation),
    )
    if status != 0:
        raise ConfigError(
            f"{destination} is not enrolled (status {status}); what went wrong there is above"
        )


async def uninstall(
    destination: str, agent_id: str, *, ssh: str = "ssh", sudo: bool = False
) -> None:
    """Remove the agent from *destination*, with all that it keeps there. What Scores made stays. Idempotent.

    Raise `ConfigError` where that fails, or the device there is another than *agent_id*; then nothing is
    removed. *ssh* is as for `install_and_enrol`.
    """
    settings = {"AGENT": agent_id}
    status = await _run(
        destination, _UNINSTALL_SH.read_text(), settings, ssh=ssh, sudo=sudo, given=b""
    )
    if status != 0:
        raise ConfigError(
            f"the agent is not removed from {destination} (status {status}), and nothing else was changed; "
            "what went wrong there is above"
        )


async def _run(
    destination: str,
    script: str,
    settings: Mapping[str, str],
    *,
    ssh: str,
    sudo: bool,
    given: bytes,
) -> int:
    """Run *script* there as root, with *given* as its input. Return its status. Raise `BusUnreachable`."""
    try:
        command = shlex.split(ssh)
    except ValueError as error:
        raise UsageError(f"--ssh {ssh!r}: {error}") from error
    if not command or destination.startswith("-"):
        raise UsageError(f"{destination!r} by {ssh!r} is nowhere; write USER@HOST")
    as_root = f"sudo -n --preserve-env={','.join(settings)} " if sudo else ""
    set_there = " ".join(f"{name}={shlex.quote(value)}" for name, value in settings.items())
    remote = f"{set_there} {as_root}sh -c {shlex.quote(script)}"
    try:
        process = await asyncio.create_subprocess_exec(
            *command, destination, remote, stdin=asyncio.subprocess.PIPE
        )
    except OSError as error:
        raise UsageError(
            f"{command[0]} cannot be run: {error.strerror}; name another by --ssh"
        ) from error
    try:
        await process.communicate(given)
    finally:
        if process.returncode is None:
            process.terminate()
    if process.returncode == 255:
        raise BusUnreachable(
            f"{destination} cannot be reached by {command[0]}; its message is above"
        )
    assert process.returncode is not None
    return process.returncode


def files_to_install(package: Package, invitation: str) -> dict[str, bytes]:
    """Return what `install.sh` needs beside itself, by name."""
    return {
        **package.files,
        "forget_broken.py": _FORGET_BROKEN.read_bytes(),
        "invitation": invitation.encode(),
    }


def _packed(package: Package, invitation: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in files_to_install(package, invitation).items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o600
            archive.addfile(entry, io.BytesIO(data))
    return packed.getvalue()
