"""Rendering a service's unit file from fields, so that every field arrives as it was written.

systemd reads a unit file line by line, expands ``%`` everywhere, ``$`` in commands, and takes quotes,
backslashes and a command's leading ``@-:+!`` in its own sense. So: nothing that ends a line is accepted;
arguments and variables are always quoted, and their ``\\ " % $`` escaped; where systemd knows no quotes,
only characters without a second meaning are accepted.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated

import attrs
from pydantic import AfterValidator, Field

from harmony_core.errors import UnsafePath
from harmony_core.paths import AbsolutePath, check_path
from harmony_core.unit_text import command_line, escape_specifiers, quote

__all__ = [
    "Command",
    "OneLine",
    "PlainPath",
    "ServiceEnvironment",
    "ServiceFields",
    "Words",
    "load_credentials",
    "oneshot",
    "render",
]

_LINE_ENDING_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}
_NOT_TO_BE_SET = frozenset(
    {
        "PATH",
        "NOTIFY_SOCKET",
        "LISTEN_FDS",
        "LISTEN_FDNAMES",
        "LISTEN_PID",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        # By which Python finds what it loads; others, as PYTHONUNBUFFERED, are harmless.
        "PYTHONHOME",
        "PYTHONPATH",
        "PYTHONPLATLIBDIR",
        "PYTHONSTARTUP",
        "PYTHONBREAKPOINT",
        "PYTHONUSERBASE",
        "PYTHONPYCACHEPREFIX",
        "PYTHONEXECUTABLE",
    }
)
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._+@:-]+", re.ASCII)
_NOT_TO_BE_SET_PREFIXES = ("LD_",)


def _one_line(text: str) -> str:
    for character in text:
        if unicodedata.category(character) in _LINE_ENDING_CATEGORIES and character != "\t":
            raise ValueError(f"contains {character!a}; a unit's fields are single lines of text")
    return text


def _words(text: str) -> str:
    if text != text.strip() or text.endswith("\\") or "\t" in text:
        raise ValueError("must not begin or end with a space, nor end with a backslash")
    return _one_line(text)


def _plain(path: str) -> str:
    if not _PLAIN_PATH.fullmatch(path):
        raise ValueError(
            "may have only letters, digits and . _ + @ : - in it, since systemd takes no quotes here; "
            "write the unit_file yourself if it must be"
        )
    return path


def _command(command: tuple[str, ...]) -> tuple[str, ...]:
    program = command[0]
    try:
        check_path(program)
        _plain(program)
    except (UnsafePath, ValueError) as error:
        raise ValueError(
            f"the program {program!r}: {error}; begin with its absolute path, as in /usr/bin/sleep"
        ) from error
    return command


def _environment(environment: dict[str, str]) -> dict[str, str]:
    for name, value in environment.items():
        if not (name.isidentifier() and name.isascii()):
            raise ValueError(f"{name!r} is not an environment variable's name")
        if name in _NOT_TO_BE_SET or name.startswith(_NOT_TO_BE_SET_PREFIXES):
            raise ValueError(
                f"{name} would change how programs are found, loaded or watched; "
                "write the unit_file yourself if it must be"
            )
        try:
            _one_line(value)
        except ValueError as error:
            raise ValueError(f"{name} {error}") from error
    return environment


OneLine = Annotated[str, AfterValidator(_one_line)]
"""Any text of one line."""

Argument = Annotated[str, Field(max_length=8192), AfterValidator(_one_line)]
"""One argument of a command: any text of one line."""

Words = Annotated[str, Field(max_length=256), AfterValidator(_words)]
"""A line of text for people."""

PlainPath = Annotated[AbsolutePath, AfterValidator(_plain)]
"""An absolute path of letters, digits and ``. _ + @ : -``: systemd takes no quotes here."""

Command = Annotated[tuple[Argument, ...], Field(min_length=1), AfterValidator(_command)]
"""A program by its absolute path, and its arguments."""

ServiceEnvironment = Annotated[dict[str, str], AfterValidator(_environment)]
"""Environment variables by name, without those by which programs are found and loaded."""


@attrs.frozen(kw_only=True)
class ServiceFields:
    """What a rendered unit file says; every field has been validated by the types above."""

    description: str
    exec_start: Sequence[str]
    type: str
    restart: str
    user: str | None
    working_directory: str | None
    environment: Mapping[str, str]
    after_units: Sequence[str]
    slice: str | None = None
    credentials: Mapping[str, str] = MappingProxyType({})
    """The files of its credentials, by name: both of plain characters."""
    installed: bool = True
    """Whether it can be enabled; else others start it."""
    exec_stop: Sequence[str] = ()
    """What is run when it is stopped."""
    remains: bool = False
    """Whether it counts as active until it is stopped, also when its program has ended well."""
    requires_mounts_for: Sequence[str] = ()
    """Paths whose file systems have to be mounted before, if they are to be mounted at all."""


def oneshot(
    description: str,
    command: Sequence[str],
    *,
    user: str | None = None,
    environment: Mapping[str, str] = MappingProxyType({}),
    credentials: Mapping[str, str] = MappingProxyType({}),
    undo: Sequence[str] = (),
    lasting: bool = False,
    requires_mounts_for: Sequence[str] = (),
    restart: str = "no",
) -> str:
    """Return the text of a service that runs *command* to its end whenever it is started.

    A *lasting* service is active from then on, as long as what it has done holds, and can be enabled. *undo*
    is run when the service is stopped. *restart* says when systemd starts it again (``Restart=``).
    """
    return render(
        ServiceFields(
            description=description,
            exec_start=command,
            type="oneshot",
            restart=restart,
            user=user,
            working_directory=None,
            environment=environment,
            after_units=(),
            credentials=credentials,
            installed=lasting,
            exec_stop=undo,
            remains=lasting,
            requires_mounts_for=requires_mounts_for,
        )
    )


def load_credentials(content: str, credentials: Mapping[str, str]) -> str:
    """Return the unit file *content*, with a section at its end that loads *credentials*, files by name."""
    if not credentials:
        return content
    # The empty line ends one that goes on.
    lines = "".join(f"{line}\n" for line in _load_lines(credentials))
    return f"{content}\n[Service]\n{lines}"


def render(fields: ServiceFields) -> str:
    """Return the text of a ``.service`` file. Equal fields give equal text."""
    return "".join(f"{line}\n" for line in _lines(fields))


def _lines(fields: ServiceFields) -> Iterator[str]:
    yield "[Unit]"
    yield f"Description={escape_specifiers(fields.description)}"
    if fields.after_units:
        yield f"Wants={' '.join(fields.after_units)}"
        yield f"After={' '.join(fields.after_units)}"
    if fields.requires_mounts_for:
        yield f"RequiresMountsFor={' '.join(fields.requires_mounts_for)}"
    yield ""
    yield "[Service]"
    yield f"Type={fields.type}"
    yield f"ExecStart={command_line(fields.exec_start)}"
    if fields.exec_stop:
        yield f"ExecStop={command_line(fields.exec_stop)}"
    if fields.remains:
        yield "RemainAfterExit=yes"
    yield f"Restart={fields.restart}"
    if fields.user is not None:
        yield f"User={fields.user}"
    if fields.working_directory is not None:
        yield f"WorkingDirectory={fields.working_directory}"
    if fields.slice is not None:
        yield f"Slice={fields.slice}"
    for name, value in sorted(fields.environment.items()):
        yield f"Environment={quote(f'{name}={value}')}"
    yield from _load_lines(fields.credentials)
    if fields.installed:
        yield ""
        yield "[Install]"
        yield "WantedBy=multi-user.target"


def _load_lines(credentials: Mapping[str, str]) -> Iterator[str]:
    for name, path in sorted(credentials.items()):
        yield f"LoadCredential={name}:{path}"
