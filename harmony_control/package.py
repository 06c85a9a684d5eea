"""What is installed on a device: the wheel of this very version of Harmony, and the lock that comes with it.

It is a wheel that is given, or the files that are installed here, packed as a wheel again.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import io
import zipfile
from pathlib import Path

import attrs

from harmony_core.errors import ConfigError

__all__ = ["Package", "package_of", "package_of_ours"]

_DISTRIBUTION = "harmony"
_LOCK = "harmony_agent/deploy/agent.lock"


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
