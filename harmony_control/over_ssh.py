"""Install the agent on a device over ssh, and enrol it: what a person would type, in one connection.

`install.sh` runs there. What it installs is in `harmony_control.package`.
"""

from __future__ import annotations

import asyncio
import io
import shlex
import tarfile
from pathlib import Path

from harmony_core.errors import BusUnreachable, ConfigError, UsageError

from .package import Package

__all__ = ["install_and_enrol"]

_INSTALL_SH = Path(__file__).with_name("install.sh")
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
    """Do it on *destination*, showing what is said there. `ConfigError` where it cannot be done.

    *ssh* is the command to reach a device by, as a person would write it: ``ssh -p 2222``.
    """
    try:
        command = shlex.split(ssh)
    except ValueError as error:
        raise UsageError(f"--ssh {ssh!r}: {error}") from error
    if not command or destination.startswith("-"):
        raise UsageError(f"{destination!r} by {ssh!r} is nowhere; write USER@HOST")
    as_root = "sudo -n --preserve-env=VERSION,REPLACE " if sudo else ""
    remote = (
        f"VERSION={shlex.quote(package.version)} REPLACE={'--replace' if replaces else ''} "
        f"{as_root}sh -c {shlex.quote(_INSTALL_SH.read_text())}"
    )
    try:
        process = await asyncio.create_subprocess_exec(
            *command, destination, remote, stdin=asyncio.subprocess.PIPE
        )
    except OSError as error:
        raise UsageError(
            f"{command[0]} cannot be run: {error.strerror}; name another by --ssh"
        ) from error
    try:
        await process.communicate(_packed(package, invitation))
    finally:
        if process.returncode is None:
            process.terminate()
    if process.returncode == 255:
        raise BusUnreachable(
            f"{destination} cannot be reached by {command[0]}; its message is above"
        )
    if process.returncode != 0:
        raise ConfigError(
            f"{destination} is not enrolled (status {process.returncode}); what went wrong there is above"
        )


def _packed(package: Package, invitation: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in {
            **package.files,
            "forget_broken.py": _FORGET_BROKEN.read_bytes(),
            "invitation": invitation.encode(),
        }.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o600
            archive.addfile(entry, io.BytesIO(data))
    return packed.getvalue()
