"""What is installed on a device: the wheel of this version of Harmony, and locks in which all has its hash.

The wheel is one that is given, or the files that are installed here, packed as a wheel again. The locks come
in it.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import attrs

from harmony_core.errors import ConfigError

__all__ = ["Package", "find_package", "lock_with_wheel", "package_of", "package_of_ours"]

_DISTRIBUTION = "harmony"
_MODULE = "harmony_core/__init__.py"
_INSTALL_AGAIN = "install Harmony again (make install), or give a wheel with --wheel"
_LOCK = "harmony_agent/deploy/agent.lock"
_BUILD_LOCK = "harmony_agent/deploy/build.lock"


@attrs.frozen
class Package:
    """What is to be installed."""

    version: str
    files: Mapping[str, bytes]
    """The wheel and its locks, by the names under which they lie beside each other on the device."""


def lock_with_wheel(name: str, wheel: bytes, lock: bytes) -> bytes:
    """Return *lock* with the *wheel* that lies beside it as *name*: pip then installs all, or nothing."""
    digest = hashlib.sha256(wheel).hexdigest()
    version = _version_of(name)
    ours = f"--find-links .\n{_DISTRIBUTION}=={version} \\\n    --hash=sha256:{digest}\n"
    return ours.encode() + lock


def find_package(wheel: str | None) -> Package:
    """Return what the file *wheel* is, or without one what is installed here. `ConfigError`."""
    return package_of(Path(wheel)) if wheel else package_of_ours()


def package_of(wheel: Path) -> Package:
    """Return what the file *wheel* is. `ConfigError` for another, or none."""
    try:
        data = wheel.read_bytes()
        with zipfile.ZipFile(io.BytesIO(data)) as content:
            lock, build_lock = content.read(_LOCK), content.read(_BUILD_LOCK)
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise ConfigError(
            f"{wheel} is no wheel of Harmony: {error}; `make wheel` makes it"
        ) from error
    return _package(wheel.name, data, lock, build_lock)


def package_of_ours() -> Package:
    """Return what is installed here, packed again. `ConfigError` where it is a working tree."""
    installed = importlib.metadata.distribution(_DISTRIBUTION)
    files = [each for each in installed.files or () if not str(each).startswith("..")]
    # An installation to be edited has the locks, and a path to the modules in their place.
    if not {_LOCK, _MODULE} <= {str(each) for each in files}:
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
            data, digest = _read_as_installed(each)
            wheel.writestr(name, data)
            record.append(f"{name},sha256={digest},{len(data)}")
        listed = next(str(each) for each in files if str(each).endswith("/RECORD"))
        wheel.writestr(listed, "\n".join([*record, f"{listed},,"]) + "\n")
    lock, build_lock = (
        next(each for each in files if str(each) == name).read_binary()
        for name in (_LOCK, _BUILD_LOCK)
    )
    name = f"{_DISTRIBUTION}-{installed.version}-py3-none-any.whl"
    return _package(name, packed.getvalue(), lock, build_lock)


def _read_as_installed(file: importlib.metadata.PackagePath) -> tuple[bytes, str]:
    """Return what is in *file*, and its hash as RECORD has it. `ConfigError` where it is something else."""
    try:
        data = file.read_binary()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}; {_INSTALL_AGAIN}") from error
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    if file.hash is not None and file.hash.value != digest:
        raise ConfigError(f"{file} is not as it was installed; {_INSTALL_AGAIN}")
    return data, digest


def _package(name: str, wheel: bytes, lock: bytes, build_lock: bytes) -> Package:
    files = {
        name: wheel,
        "agent.lock": lock_with_wheel(name, wheel, lock),
        "build.lock": build_lock,
    }
    return Package(_version_of(name), files)


def _version_of(wheel: str) -> str:
    name, version, *_ = [*wheel.split("-"), ""]
    if name != _DISTRIBUTION or not version:
        raise ConfigError(f"{wheel} has not the name of a wheel of Harmony, harmony-VERSION-….whl")
    return version
