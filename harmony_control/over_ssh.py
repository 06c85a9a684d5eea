"""Install the agent on a device over ssh, and enrol it: what a person would type, in one connection.

What is installed is this very version of Harmony: the files that are installed here, packed as a wheel again,
and the packages that it needs by the lock that comes with it, each by its hash. `install.sh` runs there.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import importlib.metadata
import io
import shlex
import tarfile
import zipfile
from pathlib import Path

import attrs

from harmony_core.errors import BusUnreachable, ConfigError, UsageError

__all__ = ["Package", "install_and_enrol", "package_of", "package_of_ours"]

_DISTRIBUTION = "harmony"
_LOCK = "harmony_agent/deploy/agent.lock"

_INSTALL_SH = Path(__file__).with_name("install.sh")


@attrs.frozen
class Package:
    """What is to be installed."""

    name: str
    """The wheel's file name."""
    wheel: bytes
    lock: bytes
    version: str


def package_of(wheel: Path) -> Package:
    """Return what the file *wheel* is. `ConfigError` for another, or none."""
    try:
        data = wheel.read_bytes()
        with zipfile.ZipFile(io.BytesIO(data)) as content:
            lock = content.read(_LOCK)
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise ConfigError(
            f"{wheel} is no wheel of Harmony: {error}; `make wheel` makes it"
        ) from error
    name, version, *_ = [*wheel.name.split("-"), ""]
    if name != _DISTRIBUTION or not version:
        raise ConfigError(f"{wheel} has not the name of a wheel of Harmony, harmony-VERSION-….whl")
    return Package(wheel.name, data, lock, version)


def package_of_ours() -> Package:
    """Return what is installed here, packed again. `ConfigError` where it is a working tree."""
    installed = importlib.metadata.distribution(_DISTRIBUTION)
    files = [each for each in installed.files or () if not str(each).startswith("..")]
    if not any(str(each) == _LOCK for each in files):
        raise ConfigError(
            "Harmony is not installed here from a wheel, but runs from a working tree; give one with "
            "--wheel dist/harmony-VERSION-py3-none-any.whl, which `make wheel` makes"
        )
    packed = io.BytesIO()
    record: list[str] = []
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as wheel:
        for each in files:
            name = str(each)
            if name.endswith((".pyc", "/RECORD", "/INSTALLER", "/REQUESTED", "/direct_url.json")):
                continue
            data = each.read_binary()
            wheel.writestr(name, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            record.append(f"{name},sha256={digest},{len(data)}")
        listed = next(str(each) for each in files if str(each).endswith("/RECORD"))
        wheel.writestr(listed, "\n".join([*record, f"{listed},,"]) + "\n")
    lock = next(each for each in files if str(each) == _LOCK).read_binary()
    name = f"{_DISTRIBUTION}-{installed.version}-py3-none-any.whl"
    return Package(name, packed.getvalue(), lock, installed.version)


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
        for name, data in (
            (package.name, package.wheel),
            ("agent.lock", package.lock),
            ("invitation", invitation.encode()),
        ):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o600
            archive.addfile(entry, io.BytesIO(data))
    return packed.getvalue()
