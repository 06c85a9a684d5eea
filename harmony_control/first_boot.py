"""The one file by which a device comes into the fleet at its first boot: user-data for cloud-init.

    user-data on the boot partition -> cloud-init: files below /var/lib/harmony-first-boot
    -> harmony-first-boot.service -> first_boot.sh -> install.sh, as over ssh: the device is enrolled, with
    keys that it has made -> the invitation is removed, and user-data is what it was before

The agent's wheel and its locks are in the file; what they name comes from pip's index, or from the folder
``harmony-packages`` beside the file. Nothing of it is quoted by hand: each text is the content of a file, and
each command is a list of words.
"""

# ruamel.yaml is untyped; what crosses this seam is typed below.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import base64
import io
import os
import tempfile
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString, LiteralScalarString

from harmony_core.errors import ConfigError
from harmony_core.wire.enrolment import Invitation

from .over_ssh import INSTALL_SH, files_to_install
from .package import Package

__all__ = ["PLACE", "first_boot_text", "read_own_part", "write_user_data"]

PLACE = "/var/lib/harmony-first-boot"
"""Where all of it lies on a device until it is enrolled."""

_FIRST_BOOT_SH = Path(__file__).with_name("first_boot.sh")
_SERVICE = "harmony-first-boot.service"
_UNIT_PATH = f"/etc/systemd/system/{_SERVICE}"
_COMMANDS = [
    ["sync"],
    ["systemctl", "enable", _SERVICE],
    # Not waited for: it begins when cloud-init has ended.
    ["systemctl", "start", "--no-block", _SERVICE],
]
_HEADER = "#cloud-config"
_ARCHIVE = "#cloud-config-archive"
_NOTHING = f"{_HEADER}\n"
_UNLIMITED = 2**30


def first_boot_text(package: Package, invitation: Invitation, own: str | None = None) -> str:
    """Return user-data with which a device installs *package* and comes by *invitation*.

    With the text *own*, another user-data, cloud-init does what that says as well; after the enrolment *own*
    alone is left, unchanged. Secret as the invitation is.
    """
    ours = _HEADER + "\n" + _to_yaml(_cloud_config(package, invitation, own or _NOTHING))
    if own is None:
        return ours
    # cloud-init reads each part by itself, so *own* stands in it as it was written.
    return f"{_ARCHIVE}\n" + _to_yaml([{"content": _literal(own)}, {"content": _literal(ours)}])


def _cloud_config(package: Package, invitation: Invitation, afterwards: str) -> dict[str, object]:
    files = files_to_install(package, invitation.to_text() + "\n")
    written = [
        *(_file(f"{PLACE}/package/{name}", data) for name, data in files.items()),
        _file(f"{PLACE}/install.sh", INSTALL_SH.read_bytes()),
        _file(f"{PLACE}/first-boot.sh", _FIRST_BOOT_SH.read_bytes()),
        _file(f"{PLACE}/version", package.version.encode()),
        _file(f"{PLACE}/user-data", afterwards.encode()),
        *([] if invitation.agent_id else [_file(f"{PLACE}/chooses-id", b"\n")]),
        _file(_UNIT_PATH, _read_service(), mode="0644"),
    ]
    return {
        # Beside what another part says: whatever else that says stays, and lists are joined, ours first. All
        # commands are one script, which another part may end.
        "merge_how": "dict(recurse_array,no_replace)+list(prepend)+str()",
        "write_files": written,
        "runcmd": _COMMANDS,
    }


def _read_service() -> bytes:
    """Return the unit: of the wheel, or of a working tree."""
    here = Path(__file__).parent
    installed = here / "deploy" / _SERVICE
    return (installed if installed.exists() else here.parent / "deploy" / _SERVICE).read_bytes()


def _file(path: str, data: bytes, *, mode: str = "0600") -> dict[str, object]:
    entry: dict[str, object] = {"path": path, "owner": "root:root", "permissions": mode}
    try:
        return entry | {"content": _literal(data.decode())}
    except UnicodeDecodeError:
        encoded = base64.encodebytes(data).decode()
        return entry | {"encoding": "b64", "content": _literal(encoded)}


def _literal(text: str) -> object:
    """Have *text* written line by line, for people to read; quoted, where a reader may take it otherwise."""
    is_plain = text.isascii() and text.replace("\n", "").isprintable()
    if not is_plain:
        return DoubleQuotedScalarString(text)
    return LiteralScalarString(text) if "\n" in text else text


def _to_yaml(document: object) -> str:
    yaml = YAML(pure=True)
    yaml.default_flow_style = False
    yaml.allow_unicode = False
    yaml.width = _UNLIMITED  # the invitation stays in one piece, by which a device finds it
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


def read_own_part(path: Path) -> str | None:
    """Return what *path* says without us: None where there is no such file, or nothing of anybody else in it.

    `ConfigError` for what cannot be read, or is no ``#cloud-config``.
    """
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}; correct it, or name another file"
        ) from error
    header = text.partition("\n")[0].rstrip()
    if header == _ARCHIVE and PLACE in text:
        return _first_part(path, text)
    if header != _HEADER:
        raise ConfigError(
            f"{path} is there, and is no user-data that this can be added to: its first line must be "
            f"{_HEADER}; name another file, or move this one away"
        )
    if f"path: {PLACE}/" not in text:
        return text
    if not _is_all_ours(text):
        raise _changed(path)
    return None


def _first_part(path: Path, text: str) -> str:
    try:
        parts: Any = YAML(typ="safe", pure=True).load(text)
        own, ours = (each["content"] for each in parts)
    except (YAMLError, LookupError, TypeError, ValueError):
        raise _changed(path) from None
    if not isinstance(own, str) or not isinstance(ours, str) or not _is_all_ours(ours):
        raise _changed(path)
    return own


def _is_all_ours(text: str) -> bool:
    """Return whether the user-data *text* has nothing but what `harmony invite` has written."""
    try:
        found: Any = YAML(typ="safe", pure=True).load(text)
        paths = [str(each["path"]) for each in found["write_files"]]
        commands = [[str(word) for word in each] for each in found["runcmd"]]
    except (YAMLError, LookupError, TypeError):
        return False
    return (
        {*found} == {"merge_how", "write_files", "runcmd"}
        and all(each.startswith(f"{PLACE}/") or each == _UNIT_PATH for each in paths)
        and commands == _COMMANDS
    )


def _changed(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} was made by `harmony invite`, and changed since; move it away, write your own part into a "
        "new file, and do this again"
    )


def write_user_data(path: Path, text: str) -> None:
    """Replace *path*: whole and durable when this returns, untouched if it raises `ConfigError`.

    It is for its owner alone, where the file system knows owners: FAT, as on a boot partition, does not.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".harmony.", delete=False) as file:
            try:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink()
                raise
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}; make room, or choose another place"
        ) from error
