"""Which key of which hardware token is meant, and how to come at it: a URI as RFC 7512 has it.

    pkcs11:token=harmony;object=root-a?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/root/pin

Before the ``?`` stands which key of which token, after it the library that speaks to the token, and the file
with the PIN. There is no way to write a PIN itself: whoever may list processes would read it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Self
from urllib.parse import quote, unquote_to_bytes

import attrs

from harmony_core.close_names import did_you_mean
from harmony_core.errors import UsageError

__all__ = ["PKCS11_SCHEME", "TokenUri", "format_id"]

PKCS11_SCHEME = "pkcs11:"
"""With which the URI of a key in a token begins."""

_MODULE_VARIABLE = "PKCS11_MODULE"
_OF_TOKENS = ("token", "serial", "manufacturer", "model")
_OF_KEYS = ("object", "id")
_PATH = (*_OF_TOKENS, *_OF_KEYS, "type")
_QUERY = ("module-path", "pin-source")
_PIN = re.compile(r"[;?&:]pin-value=", re.IGNORECASE)
_MODULE = re.compile(r"[?&]module-path=")
_NO_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


@attrs.frozen(kw_only=True)
class TokenUri:
    """What a URI says. An attribute that it has not fits everything."""

    text: str
    """As it was typed. There is no PIN in it, so it may be shown."""
    module: Path
    """The library."""
    pin_file: Path | None
    """None: a person types the PIN."""
    token: dict[str, str]
    """What of the token must be so: its ``token`` (label), ``serial``, ``manufacturer`` and ``model``."""
    label: str | None
    """Of the key."""
    id: bytes | None
    """Of the key."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """`UsageError` for what is no such URI, says no key or no library, or has a PIN in it."""
        path, _, query = text.removeprefix(PKCS11_SCHEME).partition("?")
        if _PIN.search(text):
            raise UsageError(
                "a PIN in a URI (pin-value) is read by whoever lists processes: change it, put it into a "
                "file (pin-source=file:/PATH), or name none, and type it when asked"
            )
        fields = _split(path, ";", _PATH, text)
        settings = _split(query, "&", _QUERY, text)
        if fields.get("type", b"private") not in {b"private", b"public"}:
            raise UsageError(f"{text}: type is `private` or `public`, or is left out")
        if not fields.keys() & set(_OF_KEYS):
            raise UsageError(
                f"{text}: says no key; add object=LABEL or id=%01, and quote it all, since a shell ends "
                "it at ;"
            )
        texts = {name: _decode(value, text) for name, value in fields.items() if name != "id"}
        return cls(
            text=text,
            module=_find_module(settings.get("module-path"), text),
            pin_file=_find_pin_file(settings.get("pin-source"), text),
            token={name: texts[name] for name in _OF_TOKENS if name in texts},
            label=texts.get("object"),
            id=fields.get("id"),
        )

    def with_module(self) -> str:
        """Return the URI for somewhere where the environment may say another library."""
        if _MODULE.search(self.text):
            return self.text
        return f"{self.text}{'&' if '?' in self.text else '?'}module-path={quote(str(self.module))}"

    @property
    def key_name(self) -> str:
        """How the key is called, for people."""
        parts = [] if self.label is None else [repr(self.label)]
        if self.id is not None:
            parts.append(f"with the id {format_id(self.id)}")
        return " ".join(parts)

    @property
    def token_name(self) -> str:
        """How the token is called, for people."""
        return ", ".join(f"{name} {value!r}" for name, value in self.token.items()) or "any token"


def format_id(value: bytes) -> str:
    """Return *value* as a URI has the id of a key, such as ``%01%a0``."""
    return "".join(f"%{each:02x}" for each in value)


def _split(part: str, separator: str, known: tuple[str, ...], text: str) -> dict[str, bytes]:
    """Return what *part* says by name. `UsageError` for what is not *known*, or said twice."""
    found: dict[str, bytes] = {}
    for each in part.split(separator) if part else []:
        name, equals, value = each.partition("=")
        if not equals or not value or _NO_ESCAPE.search(value):
            raise UsageError(
                f"{text}: {each!r} is not NAME=VALUE, in which a % is followed by two hexadecimal digits"
            )
        if name not in known:
            raise UsageError(
                f"{text}: {name!r} is not known here{did_you_mean(name, known)}; use {', '.join(known)}"
            )
        if name in found:
            raise UsageError(f"{text}: {name} is said twice; leave one out")
        found[name] = unquote_to_bytes(value)
    return found


def _decode(value: bytes, text: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise UsageError(f"{text}: {value!r} is not UTF-8; only id= may be other bytes") from None


def _find_module(said: bytes | None, text: str) -> Path:
    module = _decode(said, text) if said is not None else os.environ.get(_MODULE_VARIABLE)
    if not module:
        raise UsageError(
            f"{text}: says no library that speaks to the token; add ?module-path=/PATH/TO/LIBRARY.so, or set "
            f"{_MODULE_VARIABLE}"
        )
    return _refuse_relative(Path(module), text)


def _find_pin_file(said: bytes | None, text: str) -> Path | None:
    if said is None:
        return None
    source = _decode(said, text)
    if source.startswith("|"):
        raise UsageError(f"{text}: no program is run for a PIN; name a file: pin-source=file:/PATH")
    return _refuse_relative(Path(source.removeprefix("file://").removeprefix("file:")), text)


def _refuse_relative(path: Path, text: str) -> Path:
    if not path.is_absolute():
        raise UsageError(
            f"{text}: {path} would be another file in another directory; name it from / on"
        )
    return path
