"""The file of `harmony serve --alerts`: what is told, to whom, and how. TOML, and strict."""

from __future__ import annotations

import ssl
import tomllib
from email.utils import parseaddr
from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from harmony_control.bus.url import is_loopback
from harmony_core.errors import ConfigError
from harmony_core.resources import first_problem

from .find import Kind

__all__ = ["Email", "Settings", "Webhook", "read_secret", "read_settings"]

T = TypeVar("T", "Webhook", "Email")
SECRET_LEAST = 16
"""Characters of a secret."""
Name: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]


def _check_address(text: str) -> str:
    if parseaddr(text)[1].count("@") != 1 or any(not each.isprintable() for each in text):
        raise ValueError("must be an e-mail address")
    return text


def _check_url(text: str) -> str:
    url = urlsplit(text)
    if url.scheme == "https" and url.hostname:
        return text
    if url.scheme == "http" and url.hostname and is_loopback(f"tls://{url.netloc}"):
        return text
    raise ValueError("must be https://…; http:// is for this machine's own addresses only")


Address: TypeAlias = Annotated[str, AfterValidator(_check_address)]
Url: TypeAlias = Annotated[str, AfterValidator(_check_url)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Webhook(_Table):
    """An address that is sent JSON by POST."""

    name: Name
    url: Url
    secret_file: Path
    """With what it is signed."""
    ca_file: Path | None = None
    """An authority of one's own, whose certificate the address has."""


class Email(_Table):
    """A server of SMTP, and who is written to."""

    name: Name
    host: Annotated[str, Field(min_length=1, max_length=253)]
    port: Annotated[int, Field(ge=1, le=65_535)] = 587
    tls: Literal["starttls", "tls", "none"] = "starttls"
    ca_file: Path | None = None
    user: str = ""
    password_file: Path | None = None
    sender: Address
    to: Annotated[tuple[Address, ...], Field(min_length=1, max_length=50)]

    @model_validator(mode="after")
    def _be_safe(self) -> Self:
        if bool(self.user) != (self.password_file is not None):
            raise ValueError("user and password_file belong together; give both")
        if self.user and self.tls == "none":
            raise ValueError("a password is not sent in clear; set tls to starttls or tls")
        return self


class Settings(_Table):
    """All of the file."""

    group_by: Annotated[str, Field(max_length=63)] = "site"
    """The label by whose value devices are told together."""
    wait_s: Annotated[float, Field(ge=0, le=3_600)] = 30.0
    """For how long something must be so, and what comes meanwhile is in the same message."""
    root_expires_days: Annotated[int, Field(ge=1, le=365)] = 14
    kinds: tuple[Kind, ...] = (
        "DevicesOffline",
        "WorkloadsError",
        "NotWhoTheySay",
        "RolloutAborted",
        "RootExpires",
    )
    webhook: tuple[Webhook, ...] = ()
    email: tuple[Email, ...] = ()

    @model_validator(mode="after")
    def _name_each_once(self) -> Self:
        names = [*(each.name for each in self.webhook), *(each.name for each in self.email)]
        if not names:
            raise ValueError("there is neither a [[webhook]] nor an [[email]]")
        if repeated := sorted({each for each in names if names.count(each) > 1}):
            raise ValueError(f"the name {repeated[0]} is used twice; rename one of them")
        return self


def read_settings(file: Path) -> Settings:
    """Return what *file* says, with paths as seen from it. `ConfigError` says what to correct; also for a
    secret or a certificate that cannot be read."""
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{file} is no TOML: {error}") from error
    try:
        settings = Settings.model_validate(table)
    except ValidationError as error:
        raise ConfigError(f"{file}: {first_problem(error)}") from error
    place = file.parent
    settings = settings.model_copy(
        update={
            "webhook": tuple(_placed(each, place) for each in settings.webhook),
            "email": tuple(_placed(each, place) for each in settings.email),
        }
    )
    for hook in settings.webhook:
        read_secret(hook.secret_file)
        make_context(hook.ca_file)
    for email in settings.email:
        if email.password_file is not None:
            read_secret(email.password_file, least=1)
        make_context(email.ca_file)
    return settings


def _placed(table: T, place: Path) -> T:
    paths = {name: place / each for name, each in dict(table).items() if isinstance(each, Path)}
    return table.model_copy(update=paths)


def read_secret(file: Path, *, least: int = SECRET_LEAST) -> str:
    """Return the one line of *file*; it may be changed at any time. `ConfigError`."""
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
    """Return how a server is told from any other. `ConfigError` for an authority that is none."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{ca_file} cannot be used as an authority: {error}") from error
