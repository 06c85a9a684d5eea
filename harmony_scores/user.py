"""UserScore: a system user, and the groups that it belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Protocol

from pydantic import Field, StringConstraints

from harmony_core import (
    File,
    HasFiles,
    HasSystemd,
    Inventory,
    Outcome,
    Score,
    SystemdUnit,
    outcome_of,
)
from harmony_core.paths import AbsolutePath

from ._unit_file import PlainPath, oneshot

__all__ = ["UserScore"]

_LINES = "/etc/sysusers.d/harmony-{}.conf"
_NOTES = "/var/lib/harmony-users"

# One program, so that what is looked at is what was brought about. They take turns.
_SCRIPT = f"""
does=$1 unit=$2
shift 2
exec 9> "/run/$unit.lock"
flock 9
lines=$1 name=$2 number=$3 description=$4 home=$5 shell=$6
shift 6
notes={_NOTES}/$name
in_group() {{
    case " $(id -nG "$name" 2>/dev/null) " in *" $1 "*) return 0 ;; esac
    return 1
}}
is_wanted() {{
    searched=$1
    shift
    for each; do test "$each" != "$searched" || return 0; done
    return 1
}}
left_over() {{
    test -e "$notes" || return 0
    for group in $(cat "$notes"); do
        is_wanted "$group" "$@" || ! in_group "$group" || echo "$group"
    done
}}
differs() {{
    test -z "$2" || test "$2" = "$3" || echo "the $1 of $name is $3, not $2"
}}
differences() {{
    if ! entry=$(getent passwd "$name"); then
        echo "there is no user $name"
        return
    fi
    IFS=: read -r _ _ its_number _ its_description its_home its_shell <<END
$entry
END
    test -z "$number" || test "$number" = "$its_number" || echo "the number of $name is $its_number, not \
$number, and files may belong to it: change it by hand, or leave uid as it is"
    differs description "$description" "$its_description"
    differs home "$home" "$its_home"
    differs shell "$shell" "$its_shell"
    for group; do in_group "$group" || echo "$name is not in the group $group"; done
    for group in $(left_over "$@"); do echo "$name is still in the group $group"; done
}}
found=$(differences "$@")
test -n "$found" || exit 0
echo "$found"
test "$does" = make || exec systemctl --no-block stop "$unit"
mkdir -p {_NOTES}
for group; do in_group "$group" || echo "$group" >> "$notes"; done
systemd-sysusers "$lines"
usermod ${{description:+-c "$description"}} ${{home:+-d "$home"}} ${{shell:+-s "$shell"}} "$name"
for group in $(left_over "$@"); do gpasswd -d "$name" "$group"; done
left=$(differences "$@")
test -z "$left" || {{ echo "$left" >&2; exit 1; }}
"""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_-]{0,30}$")]
Words = Annotated[str, StringConstraints(pattern=r'^[^\x00-\x1f\x7f:"\\]*$', max_length=128)]


class HasUsers(HasFiles, HasSystemd, Protocol):
    """What it takes to make users."""


class UserScore(Score[HasUsers]):
    """There is a user ``name`` that is as the fields say; one that is made gets a group of its own, and is
    locked for logging in with a password.

    What is otherwise is changed, also when somebody else changes it later, but for its number. Fields that
    are not set are left as they are. When the Score is removed the user stays, with its groups: files may
    belong to it, and its number must not be given to somebody else.
    """

    name: Name = Field(description="The user's name.")
    uid: Annotated[int, Field(ge=1, le=60_000)] | None = Field(
        default=None,
        description="Its number; a free one below 1000 unless set. That of one who is there stays.",
    )
    description: Words = Field(default="", description="Who or what it is, for people.")
    home: AbsolutePath | None = Field(
        default=None, description="Its home; / unless set. Neither made nor moved."
    )
    shell: PlainPath | None = Field(default=None, description="Its shell; nologin unless set.")
    groups: tuple[Name, ...] = Field(
        default=(),
        description="Groups that it belongs to, too; made where they are missing. It leaves those that it "
        "came into by this Score, once they are not named any more.",
    )

    async def interpret(self, inventory: Inventory, topology: HasUsers) -> Outcome:  # noqa: ARG002
        path = _LINES.format(self.name)
        content = "".join(f"{line}\n" for line in self._lines())
        written = await topology.files.ensure(File(path=path, content=content.encode()))
        return outcome_of(written + await topology.systemd.ensure(*self._units(path)))

    def _units(self, path: str) -> tuple[SystemdUnit, ...]:
        """One makes the user, and is active as long as it is as it was made. Whenever somebody changes users
        or groups, another one looks, and stops the first where it is not: to mend it is then the agent's."""
        name = f"harmony-user-{self.name}"
        make = oneshot(f"The user {self.name}", self._command("make", path), lasting=True)
        look = oneshot(f"A look at the user {self.name}", self._command("look", path))
        watch = (
            f"[Unit]\nDescription=Changes of the user {self.name}\n\n"
            "[Path]\nPathChanged=/etc/passwd\nPathChanged=/etc/group\n"
            f"Unit={name}.look.service\n\n"
            "[Install]\nWantedBy=multi-user.target\n"
        )
        return (
            SystemdUnit(
                name=f"{name}.service",
                content=make,
                uses=(path,),
                settle_s=0,
                claims=tuple(self._claims()),
            ),
            SystemdUnit(name=f"{name}.look.service", content=look, enabled=None, state=None),
            SystemdUnit(name=f"{name}.path", content=watch),
        )

    def _claims(self) -> Iterator[str]:
        yield f"user:{self.name}"
        if self.uid is not None:  # its own group has the same number
            yield f"uid:{self.uid}"
            yield f"gid:{self.uid}"

    def _command(self, does: str, path: str) -> tuple[str, ...]:
        unit = f"harmony-user-{self.name}.service"
        fields = (
            "" if self.uid is None else str(self.uid),
            self.description,
            self.home,
            self.shell,
        )
        wanted = (path, self.name, *(each or "" for each in fields), *self.groups)
        return ("/bin/sh", "-eu", "-c", _SCRIPT, "sh", does, unit, *wanted)

    def _lines(self) -> Iterator[str]:
        number = "-" if self.uid is None else str(self.uid)
        home = "-" if self.home is None else f'"{self.home}"'
        yield f'u {self.name} {number} "{self.description.replace("%", "%%")}" {home} {self.shell or "-"}'
        for group in self.groups:
            yield f"m {self.name} {group}"
