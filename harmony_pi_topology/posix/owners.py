"""Users and groups by name and number, as the device itself knows them.

Of the running machine the C library is asked, which also knows users that no file lists; of a machine
beneath another root, its own ``/etc/passwd`` and ``/etc/group`` are read.
"""

from __future__ import annotations

import grp
import pwd
from collections.abc import Mapping, Sequence

from harmony_core.errors import WriteFailed

from .root import Root

__all__ = ["Owners"]

_DATABASE_MAX_BYTES = 4 * 1024 * 1024


class Owners:
    """What is known at one moment: make a new one for each pass, since users come and go."""

    def __init__(self, root: Root, *, of_this_machine: bool) -> None:
        self._root = root
        self._of_this_machine = of_this_machine
        self._users: dict[str, int] = {"root": 0}
        self._groups: dict[str, int] = {"root": 0}
        self._user_names: dict[int, str] = {0: "root"}
        self._group_names: dict[int, str] = {0: "root"}

    def uid(self, user: str) -> int:
        """Return the number of *user*, a name or a number. Raise `WriteFailed` when there is no such user."""
        if user not in self._users:
            self._users[user] = int(user) if user.isdecimal() else self._find_user(user)
        return self._users[user]

    def gid(self, group: str) -> int:
        """Return the number of *group*, a name or a number. Raise `WriteFailed` when there is no such
        group."""
        if group not in self._groups:
            self._groups[group] = int(group) if group.isdecimal() else self._find_group(group)
        return self._groups[group]

    def home(self, user: str) -> str:
        """Return the home of *user*, a name. Raise `WriteFailed` when there is no such user."""
        try:
            if self._of_this_machine:
                return pwd.getpwnam(user).pw_dir
            return next(e[5] for e in self._read_entries("passwd") if e[0] == user and len(e) > 5)
        except (KeyError, StopIteration):
            raise WriteFailed(
                f"this device has no user {user!r}; create it, or name another"
            ) from None

    def user(self, uid: int) -> str:
        """Return the name of *uid*; the number itself when it has none."""
        if uid not in self._user_names:
            self._user_names[uid] = self._name("passwd", uid)
        return self._user_names[uid]

    def group(self, gid: int) -> str:
        """Return the name of *gid*; the number itself when it has none."""
        if gid not in self._group_names:
            self._group_names[gid] = self._name("group", gid)
        return self._group_names[gid]

    def _find_user(self, user: str) -> int:
        try:
            return (
                pwd.getpwnam(user).pw_uid
                if self._of_this_machine
                else self._read_database("passwd")[user]
            )
        except KeyError:
            raise WriteFailed(
                f"this device has no user {user!r}; create it, or name another owner"
            ) from None

    def _find_group(self, group: str) -> int:
        try:
            return (
                grp.getgrnam(group).gr_gid
                if self._of_this_machine
                else self._read_database("group")[group]
            )
        except KeyError:
            raise WriteFailed(
                f"this device has no group {group!r}; create it, or name another group"
            ) from None

    def _name(self, database: str, number: int) -> str:
        try:
            if not self._of_this_machine:
                names = (
                    name for name, uid in self._read_database(database).items() if uid == number
                )
                return next(names, str(number))
            if database == "passwd":
                return pwd.getpwuid(number).pw_name
            return grp.getgrgid(number).gr_name
        except KeyError:
            return str(number)

    def _read_database(self, database: str) -> Mapping[str, int]:
        """Return the names and numbers in ``/etc/passwd`` or ``/etc/group``."""
        entries = self._read_entries(database)
        return {e[0]: int(e[2]) for e in entries if len(e) > 2 and e[2].isdecimal()}

    def _read_entries(self, database: str) -> Sequence[Sequence[str]]:
        """Return the fields of each entry in ``/etc/passwd`` or ``/etc/group``; none where there is no such
        file.

        Raise an error for one that cannot be read: who is in it is not known, and nobody may be called
        missing.
        """
        try:
            content = self._root.read(f"/etc/{database}", max_bytes=_DATABASE_MAX_BYTES)
        except FileNotFoundError:
            return []
        return [line.split(":") for line in content.decode(errors="replace").splitlines()]
