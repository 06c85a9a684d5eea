"""A file of settings that a person writes: TOML, strict, with paths as seen from it."""

from __future__ import annotations

import ssl
import tomllib
from pathlib import Path
from typing import Annotated, TypeAlias, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from harmony_control.bus_url import is_loopback
from harmony_core.errors import ConfigError
from harmony_core.resources import first_problem

__all__ = [
    "Table",
    "Url",
    "check_url",
    "make_context",
    "read_secret",
    "read_tables",
    "resolve_paths",
]

SECRET_LEAST = 16
"""Characters of a secret."""


def check_url(text: str) -> str:
    """Return *text*, an address of https. Raise ValueError for anything else, except for this machine's own
    address."""
    url = urlsplit(text)
    if url.scheme == "https" and url.hostname:
        return text
    if url.scheme == "http" and url.hostname and is_loopback(f"tls://{url.netloc}"):
        return text
    raise ValueError("must be https://…; http:// is for this machine's own addresses only")


Url: TypeAlias = Annotated[str, AfterValidator(check_url)]
"""An address that is https, or of this machine."""


class Table(BaseModel):
    """A table of such a file: what it does not know, it refuses."""

    model_config = ConfigDict(frozen=True, extra="forbid")


T = TypeVar("T", bound=Table)


def read_tables(file: Path, model: type[T]) -> T:
    """Return the content of *file*, as *model*. Raise `ConfigError` with what to correct."""
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{file} is no TOML: {error}") from error
    try:
        return model.model_validate(found)
    except ValidationError as error:
        raise ConfigError(f"{file}: {first_problem(error)}") from error


def resolve_paths(table: T, place: Path) -> T:
    """Return *table* with its paths as seen from *place*."""
    paths = {name: place / each for name, each in dict(table).items() if isinstance(each, Path)}
    return table.model_copy(update=paths)


def read_secret(file: Path, *, least: int = SECRET_LEAST) -> str:
    """Return the one line of *file*; it may be changed at any time. Raise `ConfigError`."""
    try:
        secret = file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {file}: {error}") from error
    if len(secret) < least or not secret.isprintable():
        raise ConfigError(
            f"{file} must have one line with at least {least} characters: openssl rand -hex 32"
        )
    return secret


def make_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return the context with which a server is verified. Raise `ConfigError` for an authority that is
    none."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{ca_file} cannot be used as an authority: {error}") from error
