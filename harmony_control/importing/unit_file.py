"""A unit file of systemd, line by line: sections, keys, values, and where each stands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs

from harmony_core.errors import NotImportable

__all__ = ["Line", "read_unit_file"]

_MAX_BYTES = 1024 * 1024


@attrs.frozen
class Line:
    """One key with its value, which may have gone on over several lines."""

    file: str
    number: int
    section: str
    key: str
    value: str

    @property
    def where(self) -> str:
        """Where it stands, for whoever is to correct it."""
        return f"{self.file}:{self.number}: {self.key}"


def read_unit_file(path: Path) -> list[Line]:
    """Return all keys of the file, in order. `NotImportable` says which line cannot be read."""
    try:
        data = path.read_bytes()
        text = data.decode()
    except OSError as error:
        raise NotImportable(f"{path} cannot be read: {error.strerror}; is it there?") from error
    except UnicodeDecodeError as error:
        raise NotImportable(f"{path} is not UTF-8 text (byte {error.start}); save it so") from error
    if len(data) > _MAX_BYTES:
        raise NotImportable(f"{path} is larger than {_MAX_BYTES} bytes; split it")
    return list(_lines(str(path), text))


def _lines(file: str, text: str) -> Iterator[Line]:
    section = ""
    numbered = iter(enumerate(text.split("\n"), 1))
    for number, raw in numbered:
        line = raw.strip()
        if not line or line.startswith(("#", ";")):
            continue
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
            continue
        while line.endswith("\\"):
            _, following = next(numbered, (0, ""))
            if not following.lstrip().startswith(("#", ";")):
                line = line[:-1] + following.rstrip()
        key, equals, value = line.partition("=")
        if not equals or not section:
            raise NotImportable(
                f"{file}:{number}: {line[:40]!r} is neither a section nor a key with its value; write "
                "[Section], and KEY=VALUE below one"
            )
        yield Line(file, number, section, key.rstrip(), value.lstrip())
