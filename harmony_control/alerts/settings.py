"""The file of `harmony serve --alerts`: what is told, to whom, and how. TOML, and strict."""

from __future__ import annotations

from email.utils import parseaddr
from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from harmony_control.settings_file import (
    Table,
    Url,
    make_context,
    read_secret,
    read_tables,
    resolve_paths,
)

from .find import Kind

__all__ = ["Email", "Settings", "Webhook", "read_settings"]

Name: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]


def _check_address(text: str) -> str:
    if parseaddr(text)[1].count("@") != 1 or any(not each.isprintable() for each in text):
        raise ValueError("must be an e-mail address")
    return text


Address: TypeAlias = Annotated[str, AfterValidator(_check_address)]


class Webhook(Table):
    """An address that is sent JSON by POST."""

    name: Name
    url: Url
    secret_file: Path
    """With what it is signed."""
    ca_file: Path | None = None
    """An authority of one's own, whose certificate the address has."""


class Email(Table):
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


class Settings(Table):
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
    settings = read_tables(file, Settings)
    place = file.parent
    settings = settings.model_copy(
        update={
            "webhook": tuple(resolve_paths(each, place) for each in settings.webhook),
            "email": tuple(resolve_paths(each, place) for each in settings.email),
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
