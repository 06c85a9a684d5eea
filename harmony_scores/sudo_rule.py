"""SudoRuleScore: what a user, or a group, may do as another."""

from __future__ import annotations

import re
from typing import Annotated, Protocol, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from harmony_core import (
    File,
    HasFiles,
    HasJobs,
    HasSystemd,
    Inventory,
    Job,
    Outcome,
    Score,
    SystemdUnit,
    outcome_of,
)
from harmony_core.resources import UserName
from harmony_core.unit_text import script

from ._reasons import in_its_own_words
from ._text import FIRST_LINE
from ._undoing import undone_by
from ._unit_file import oneshot
from ._whole import refused_as_fields
from .user import Name

__all__ = ["SudoRuleScore"]

_DIRECTORY = "/etc/sudoers.d"
_NOTES = "/var/lib/harmony-sudo"

_HERE = f"""
file={_DIRECTORY}/$1 note={_NOTES}/$1 unit=$2 text=$3
is_ours() {{ test -e "$note" || test "$(head -n 1 "$file" 2>/dev/null)" = '{FIRST_LINE}'; }}
is_there() {{ test -e "$file" || test -L "$file"; }}
is_right() {{
    test ! -L "$file" && test -f "$file" &&
        test "$(stat -c '%a %u %g' "$file")" = '440 0 0' &&
        test "$(cat "$file")" = "$text"
}}
"""

# Checked by sudo's own program before it is in place, and with all else afterwards: of two files that are
# good, both together may not be.
_WRITE = f"""{_HERE}
exec 9> /run/harmony-sudo.lock
flock 9
fail() {{
    echo "$1" | sed 's/^/reason: /' >&2
    exit 1
}}
! is_right || exit 0
command -v visudo > /dev/null || fail "this device has no sudo; install it, by a PackageScore of sudo"
! is_there || is_ours || fail "name: $file is there, and not by Harmony; take it away, or choose another name"
new={_DIRECTORY}/.harmony.$1.tmp
put() {{
    rm -f "$new"
    (umask 0377 && printf '%s\n' "$1" > "$new")
    chmod 0440 "$new"
    sync "$new"
}}
trap 'rm -f "$new"' EXIT
check() {{ said=$(visudo -c "$@" 2>&1); }}
put "$text"
check -f "$new" || fail "sudo does not take this rule: $said"
was_good=
! check || was_good=yes
before=
! is_ours || before=$(cat "$file")
mv "$new" "$file"
sync {_DIRECTORY}
test -n "$was_good" || exit 0
if ! check; then
    if test -n "$before"; then
        put "$before"
        mv "$new" "$file"
    else
        rm "$file"
    fi
    fail "with this rule, sudo does not take its files any more, so it was taken back: $said"
fi
"""

_LOOK = f"""{_HERE}
is_right || exec systemctl --no-block stop "$unit"
"""

# The note goes first when the Score goes. Where it is there, the service is restarted, or the device ends.
_UNDO = f"""{_HERE}
test ! -e "$note" || exit 0
! is_ours || rm "$file"
sync {_DIRECTORY}
"""

# When the Score goes, whatever became of the service by then. A file without our first line is somebody
# else's, unless it has the rule.
_TAKE_AWAY = f"""{_HERE}
exec 9> /run/harmony-sudo.lock
flock 9
! is_there || is_ours || grep -qsxF "${{text#*
}}" "$file" || exit 0
rm -f "$file"
sync {_DIRECTORY}
! is_there || {{ echo "reason: $file is still there" >&2; exit 1; }}
"""

_COMMAND = re.compile(r"(/[^\s,:=\\\"'!*?\[\]()#]+)(?: (.*))?")
_SAFE_ARGUMENTS = re.compile(r"[A-Za-z0-9_./@%+:=, -]*|\"\"")


def _check_name(name: str) -> str:
    if "." in name or name.endswith("~"):
        raise ValueError(
            "sudo ignores files with a dot in their name, or a ~ at its end; leave it out"
        )
    return name


def _check_command(command: str) -> str:
    if command == "ALL":
        return command
    found = _COMMAND.fullmatch(command)
    if found is None or _SAFE_ARGUMENTS.fullmatch(found[2] or "") is None:
        raise ValueError(
            "write a program by its absolute path, and its arguments, without wildcards and quotes, or ALL; "
            'with "" for none, as in /usr/bin/systemctl restart web'
        )
    if found[1].endswith("/"):
        raise ValueError("all programs of a directory are not named here; name each")
    return command


RuleName = Annotated[
    str,
    AfterValidator(_check_name),
    StringConstraints(pattern=r"^[a-z0-9][a-z0-9._~-]{0,62}$"),
]
Command = Annotated[str, Field(max_length=1024), AfterValidator(_check_command)]


class HasSudo(HasFiles, HasJobs, HasSystemd, Protocol):
    """What it takes to say who may do what by sudo."""


class SudoRuleScore(Score[HasSudo]):
    """A user, or the members of a group, may run these ``commands`` as another, by sudo.

    Written to /etc/sudoers.d once sudo's own program (visudo) has found it good, and taken back where it is
    not good together with what else is there. What somebody changes is put back. It goes with the Score. The
    device must allow what runs as root (policy.toml: jobs = "any").
    """

    name: RuleName = Field(description="Names the file: /etc/sudoers.d/NAME. No dots, and no ~.")
    user: Name | None = Field(default=None, description="Who may; or group.")
    group: Name | None = Field(default=None, description="The group whose members may; or user.")
    commands: Annotated[tuple[Command, ...], Field(min_length=1)] = Field(
        description="Programs by their absolute paths, each with its very arguments, or with any where it "
        "has none; or ALL."
    )
    run_as: UserName = Field(default="root", description="As whom.")
    password: bool = Field(default=True, description="Whether sudo asks for the user's password.")

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if (self.user is None) == (self.group is None):
            raise ValueError("give exactly one of user and group")
        with refused_as_fields():
            self._units()
            self._undoing()
            self._note()
        return self

    async def interpret(self, inventory: Inventory, topology: HasSudo) -> Outcome:  # noqa: ARG002
        # The note last: what was made last goes first, and by that the service knows why it is stopped.
        undoing = await topology.jobs.ensure(self._undoing())
        with in_its_own_words():
            changes = await topology.systemd.ensure(*self._units())
        return outcome_of(undoing + changes + await topology.files.ensure(self._note()))

    def _text(self) -> str:
        who = self.user or f"%{self.group}"
        run_as = f"#{self.run_as}" if self.run_as.isdecimal() else self.run_as
        tag = "PASSWD" if self.password else "NOPASSWD"
        commands = ", ".join(_escape(each) for each in self.commands)
        return f"{FIRST_LINE}\n{who} ALL=({run_as}) {tag}: {commands}"

    def _note(self) -> File:
        return File(path=f"{_NOTES}/{self.name}", content=f"{self._text()}\n".encode(), mode=0o440)

    def _undoing(self) -> Job:
        return undone_by(f"harmony-sudo-{self.name}", self._run(_TAKE_AWAY))

    def _run(self, text: str) -> tuple[str, ...]:
        return script(text, self.name, f"harmony-sudo-{self.name}.service", self._text())

    def _units(self) -> tuple[SystemdUnit, ...]:
        """Return the units: one writes the file, and is active as long as the file is as it was written.
        Another one looks whenever the file changes, and stops the first if the file differs; the agent then
        repairs it."""
        name, run = f"harmony-sudo-{self.name}", self._run
        make = oneshot(f"The sudo rule {self.name}", run(_WRITE), undo=run(_UNDO), lasting=True)
        watch = (
            f"[Unit]\nDescription=Changes of the sudo rule {self.name}\n\n"
            f"[Path]\nPathChanged={_DIRECTORY}/{self.name}\nUnit={name}.look.service\n\n"
            "[Install]\nWantedBy=multi-user.target\n"
        )
        return (
            SystemdUnit(
                name=f"{name}.service",
                content=make,
                settle_s=0,
                gives_root=True,
                claims=(f"path:{_DIRECTORY}/{self.name}",),
            ),
            SystemdUnit(
                name=f"{name}.look.service",
                content=oneshot(f"A look at the sudo rule {self.name}", run(_LOOK)),
                enabled=None,
                state=None,
            ),
            SystemdUnit(name=f"{name}.path", content=watch),
        )


def _escape(command: str) -> str:
    """Return *command* in the form of sudoers(5), with its special characters escaped."""
    return command if command == "ALL" else re.sub(r"([,:=])", r"\\\1", command)
