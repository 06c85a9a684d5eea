"""Who may sign in to `harmony serve`: names, roles and password hashes, in the home's ``web-users.toml``.

::

    [ada]
    role = "operator"
    password = "$argon2id$…"

The file is looked at on each use, so that whoever is taken out of it is out at once.
"""

from __future__ import annotations

import fcntl
import re
import tomllib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import attrs
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from harmony_control.store.home import Home, read_if_there, write_toml
from harmony_core.errors import ConfigError, UsageError

__all__ = ["PASSWORD_MOST", "Role", "User", "Users", "includes"]

Role: TypeAlias = Literal["viewer", "operator", "approver"]
"""A viewer looks; an operator also has devices look at their Scores; an approver may do what an operator
may."""

ROLES: tuple[Role, ...] = get_args(Role)
"""Each includes those before it."""
PASSWORD_LEAST, PASSWORD_MOST = 10, 1000
"""Characters of a password."""
_NAME = re.compile(r"[a-z0-9]([a-z0-9._@-]{0,62}[a-z0-9])?")


def includes(role: Role, needed: Role) -> bool:
    """Return whether who has *role* may do what is for *needed*."""
    return ROLES.index(role) >= ROLES.index(needed)


@attrs.frozen(kw_only=True)
class User:
    """Somebody who may sign in."""

    name: str
    role: Role
    password: str = attrs.field(default="", repr=False)
    """An argon2id hash; empty for who signs in by somebody else's word."""
    issuer: str = ""
    """Who vouches for them, by name; empty for a user of the file."""


class Users:
    """The users of one home. Every method: `ConfigError` for a file that cannot be read or written."""

    def __init__(self, home: Home, hasher: PasswordHasher | None = None) -> None:
        self.file = home.root / "web-users.toml"
        self._home = home
        self._hasher = hasher or PasswordHasher()
        self._known: tuple[tuple[int, int, int] | None, Mapping[str, User]] | None = None

    def read(self) -> Mapping[str, User]:
        """Return all users by name; empty where there is no file."""
        version = _version(self.file)
        if self._known is None or self._known[0] != version:
            self._known = version, self._read()
        return self._known[1]

    def add(self, name: str, role: Role, password: str) -> bool:
        """Add a user, or give one that there is another role and password. True for a new one.

        `UsageError` for what cannot be a name or a password.
        """
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} cannot be a user's name: use 1 to 64 lower-case letters, digits and inner . _ @ -"
            )
        if not PASSWORD_LEAST <= len(password) <= PASSWORD_MOST:
            raise UsageError(
                f"a password has {PASSWORD_LEAST} to {PASSWORD_MOST} characters; this one has {len(password)}"
            )
        hashed = self._hasher.hash(password)
        with self._editing():
            users = dict(self.read())
            is_new = name not in users
            users[name] = User(name=name, role=role, password=hashed)
            self._write(users)
        return is_new

    def remove(self, name: str) -> None:
        """Take a user out; their sessions end with the next request. `UsageError` for an unknown one."""
        with self._editing():
            users = dict(self.read())
            if name not in users:
                known = ", ".join(sorted(users)) or "none"
                raise UsageError(f"there is no user {name!r}; there are: {known}")
            del users[name]
            self._write(users)

    def verify(self, name: str, password: str) -> User | None:
        """Return who that is; None for a wrong name or password, which take the same time.

        It takes some tens of milliseconds and 64 MiB, on purpose: call it in a thread, few at once.
        """
        user = self.read().get(name)
        try:
            self._hasher.verify(user.password if user else self._nobodys, password)
        except (VerificationError, InvalidHashError):
            return None
        return user

    @cached_property
    def _nobodys(self) -> str:
        """A hash of a password that nobody has."""
        return self._hasher.hash("\0" * PASSWORD_LEAST)

    @contextmanager
    def _editing(self) -> Generator[None]:
        """Hold the file. Others wait, also processes."""
        self._home.make()
        with self.file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _read(self) -> Mapping[str, User]:
        self._home.refuse_open(self.file)
        found = read_if_there(self.file)
        try:
            table = tomllib.loads(found.decode()) if found else {}
            return {name: _user_of(name, each) for name, each in table.items()}
        except ValueError as error:
            raise ConfigError(
                f"{self.file}: {error}; correct it, or delete it and add the users anew with "
                "`harmony serve-user add NAME`"
            ) from error

    def _write(self, users: Mapping[str, User]) -> None:
        self._known = None
        write_toml(
            self.file,
            {
                name: {"role": each.role, "password": each.password}
                for name, each in sorted(users.items())
            },
        )


def _user_of(name: str, found: object) -> User:
    match found:
        case {"role": str(role), "password": str(password)} if role in ROLES:
            return User(name=name, role=role, password=password)
        case _:
            raise ValueError(
                f"[{name}] must have a role ({', '.join(ROLES)}) and the hash of a password"
            )


def _version(path: Path) -> tuple[int, int, int] | None:
    """Return what tells one file from the next; None for no file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; make it readable") from error
    return found.st_ino, found.st_mtime_ns, found.st_size
