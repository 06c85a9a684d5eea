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
from urllib.parse import quote, unquote, unquote_to_bytes

import attrs

from harmony_core.close_names import did_you_mean
from harmony_core.errors import UsageError

__all__ = ["TokenUri", "format_id", "is_token_uri"]

_SCHEME = "pkcs11:"

_MODULE_VARIABLE = "PKCS11_MODULE"
_OF_TOKENS = ("token", "serial", "manufacturer", "model")
_OF_KEYS = ("object", "id")
_PATH = (*_OF_TOKENS, *_OF_KEYS, "type")
_QUERY = ("module-path", "pin-source")
_PIN_FILE = re.compile(r"(?:file://(?:localhost)?|file:(?!//))?(/.*)", re.IGNORECASE | re.DOTALL)
"""A path, or a URI of the scheme ``file`` (RFC 8089) for this machine."""
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
        """Return *text* as a URI of a key. Raise `UsageError` if it is none, names no key or no library, or
        has a PIN."""
        _refuse_unprintable(text)
        _refuse_pin(text)
        if not is_token_uri(text):
            raise UsageError(f"{text}: is no URI of a key in a token; begin it with {_SCHEME}")
        path, _, query = text[len(_SCHEME) :].partition("?")
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


def is_token_uri(text: str) -> bool:
    """Return whether *text* begins as the URI of a key in a token does. A scheme has no case."""
    return text[: len(_SCHEME)].lower() == _SCHEME


def format_id(value: bytes) -> str:
    """Return *value* as a URI has the id of a key, such as ``%01%a0``."""
    return "".join(f"%{each:02x}" for each in value)


def _refuse_unprintable(text: str) -> None:
    """Raise `UsageError` where *text* would change what a terminal shows, or a line of a file."""
    odd = next((each for each in text if not each.isprintable()), None)
    if odd is not None:
        raise UsageError(
            f"the URI of a key in a token has a character that cannot be shown (U+{ord(odd):04X}); leave it "
            "out, or write its bytes, as %0A is a line break"
        )


def _refuse_pin(text: str) -> None:
    """Raise `UsageError` for whatever may be a PIN, also where it was mistyped; before *text* is shown."""
    for each in re.split("[;?&]", text):
        name, _, value = each.partition("=")
        if "pin" not in unquote(name).lower():
            continue
        if name != "pin-source":
            raise UsageError(
                "a PIN in a URI is read by whoever lists processes: change it, put it into a file, of which "
                "the URI says pin-source=file:/PATH; or name none, and type it when asked"
            )
        if unquote(value).startswith("|"):
            raise UsageError("no program is run for a PIN; name a file: pin-source=file:/PATH")
        if not _PIN_FILE.fullmatch(unquote(value)):
            raise UsageError(
                "what pin-source says is not shown, since it may be a PIN, and it is no file of this "
                "machine, named from / on; say pin-source=file:/PATH"
            )


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
    return _to_path(module, text)


def _find_pin_file(said: bytes | None, text: str) -> Path | None:
    if said is None:
        return None
    return _to_path(_PIN_FILE.sub(r"\1", _decode(said, text)), text)


def _to_path(named: str, text: str) -> Path:
    if not named.isprintable():
        raise UsageError(
            f"{text}: {named!r} is no path that can be shown; name the file without that"
        )
    if not named.startswith("/"):
        raise UsageError(
            f"{text}: {named} would be another file in another directory; name it from / on"
        )
    return Path(named)
