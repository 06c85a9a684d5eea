"""Content that lies on a web server: known by its hash, and fetched by the device itself."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Annotated, Any, cast
from urllib.parse import unquote

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from harmony_core.secret_values import find_words
from harmony_core.visible import cut

from ._base import in_words
from .asset import ASSET_MAX_BYTES, Hex64

__all__ = ["URL_MAX_CHARACTERS", "Download", "check_url", "place_of"]

URL_MAX_CHARACTERS = 2048
_SHOWN_MOST = 160
_HOST_MOST = 253
_PORT_MOST = 65535
_USUAL_PORT = ":443"
_LABEL = "[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?"
_AUTHORITY = re.compile(
    rf"(?P<host>{_LABEL}(\.{_LABEL})*|\[[0-9a-f:.]{{2,45}}\])(:(?P<port>[1-9][0-9]{{0,4}}))?"
)
_PATH = re.compile(r"(/([A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)*")
_QUERY = re.compile(r"([!$&-;=?-Z_a-z~\[\]]|%[0-9A-Fa-f]{2})*")


def check_url(url: str) -> str:
    """Return *url*. Raise ValueError, with the remedy, unless it is an https address with one meaning
    only."""
    if find_words(url):
        raise ValueError(
            "a secret cannot stand in an address, which reports and logs show; choose one that needs none, "
            "or push the file as an asset (asset_from)"
        )
    if not url.startswith("https://"):
        raise ValueError("only https is fetched; write https://HOST/PATH")
    if "#" in url:
        raise ValueError("a server is never sent what follows #; remove it")
    authority, path, query = _split(url)
    if "@" in authority:
        raise ValueError(
            "a name or password in an address is shown in reports and logs; choose one that needs none, or "
            "push the file as an asset (asset_from)"
        )
    found = _AUTHORITY.fullmatch(authority)
    if found is None or len(found["host"]) > _HOST_MOST or int(found["port"] or 1) > _PORT_MOST:
        raise ValueError(
            "write the server's name in lower-case letters, digits, dots and hyphens, and a port as a "
            "number, as in https://downloads.example.org:8443/model.bin"
        )
    if _PATH.fullmatch(path) is None or _QUERY.fullmatch(query) is None:
        raise ValueError("write what an address cannot have, such as a space, as %20")
    plain = unquote(path)
    if "\\" in plain or not {".", ".."}.isdisjoint(plain.split("/")):
        raise ValueError("write the path without . and .. parts, and without backslashes")
    return url


def place_of(url: str) -> str:
    """Return server and path of *url*, as a device's policy lists them: ``example.org/models/a.bin``."""
    authority, path, _ = _split(url)
    return f"{authority.removesuffix(_USUAL_PORT)}{path}"


def _split(url: str) -> tuple[str, str, str]:
    """Return server, path and query."""
    before, _, query = url.removeprefix("https://").partition("?")
    authority, slash, path = before.partition("/")
    return authority, f"{slash}{path}", query


class Download(BaseModel):
    """Names content by its hash, and says from where on the web the device fetches it.

    What comes is taken only if it has that hash; so nobody on the way, and no server, can have anything else
    be written. It is kept on the device, and fetched again only where that was lost.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    url: Annotated[str, Field(max_length=URL_MAX_CHARACTERS), AfterValidator(check_url)]
    """Where: https, without a name or password."""
    sha256: Annotated[Hex64, in_words("write the SHA-256 of the content, as 64 hexadecimal digits")]
    """Hex, of the content."""
    size_bytes: Annotated[
        int | None,
        Field(strict=True, ge=1, le=ASSET_MAX_BYTES, exclude_if=lambda given: given is None),
    ] = None
    """Of the content, where it is known before: then room for it is looked for before the server is asked."""

    @model_validator(mode="before")
    @classmethod
    def _has_a_hash(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and "sha256" not in given:
            url = cast("Mapping[str, object]", given).get("url")
            shown = shlex.quote(url) if isinstance(url, str) else "URL"
            raise ValueError(
                "add sha256, without which anything could come from there: who offers the file names it, or "
                f"look at the file, and run: curl -fsSL {cut(shown, _SHOWN_MOST)} | sha256sum"
            )
        return cast("object", given)

    @property
    def name(self) -> str:
        """The address, for people: without a query, which may be what lets somebody in."""
        authority, path, query = _split(self.url)
        return cut(f"https://{authority}{path}{'?…' if query else ''}", _SHOWN_MOST)

    @property
    def summary(self) -> str:
        """Address and the begin of the hash, for people."""
        return f"{self.name}, sha256 {self.sha256[:12]}…"
