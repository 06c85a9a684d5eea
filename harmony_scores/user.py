"""UserScore: a system user, and the groups that it belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from harmony_core import HasSystemd, Inventory, Outcome, Score, SystemdUnit, outcome_of
from harmony_core.paths import AbsolutePath
from harmony_core.unit_text import script

from ._reasons import in_its_own_words
from ._unit_file import OneLine, PlainPath, oneshot
from ._whole import refused_as_fields

__all__ = ["UserScore"]

_NOTES = "/var/lib/harmony-users"

# One program, so that what is looked at is what was brought about. They take turns.
_SCRIPT = f"""
does=$1 unit=$2
shift 2
exec 9> "/run/$unit.lock"
flock 9
line=$1 name=$2 number=$3 description=$4 home=$5 shell=$6
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
read_entry() {{
    entry=$(getent passwd "$name") || return 1
    IFS=: read -r _ _ its_number _ its_description its_home its_shell <<END
$entry
END
}}
differs() {{
    test -z "$2" || test "$2" = "$3" || echo "the $1 of $name is $3, not $2"
}}
differences() {{
    read_entry || {{ echo "there is no user $name"; return; }}
    test -z "$number" || test "$number" = "$its_number" || echo "uid: the number of $name is $its_number, \
not $number, and files may belong to it: change it by hand, or leave uid as it is"
    differs description "$description" "$its_description"
    differs home "$home" "$its_home"
    differs shell "$shell" "$its_shell"
    for group; do in_group "$group" || echo "$name is not in the group $group"; done
    for group in $(left_over "$@"); do echo "$name is still in the group $group"; done
}}
fail() {{
    echo "$1" | sed 's/^/reason: /' >&2
    exit 1
}}
# Whoever else has the number: sysusers would then make the user with another one.
holder_of_number() {{
    if entry=$(getent passwd "$number"); then
        test "${{entry%%:*}}" = "$name" || echo "the user ${{entry%%:*}}"
    elif ! getent group "$name" > /dev/null && entry=$(getent group "$number"); then
        echo "the group ${{entry%%:*}}"
    fi
}}
make() {{
    had_group=yes
    getent group "$name" > /dev/null || had_group=
    add "$@"
    read_entry || fail "systemd-sysusers has made no user $name: $said"
    test -n "$number" && test "$number" != "$its_number" || return 0
    userdel "$name"
    test -n "$had_group" || ! getent group "$name" > /dev/null || groupdel "$name"
    fail "uid: $number has gone to $(holder_of_number) meanwhile; give $name another, or leave uid out"
}}
# Not by a file in /etc/sysusers.d: at boot that would be read by others, who take any number.
add() {{
    for group; do
        shift
        set -- "$@" "m $name $group"
    done
    test -z "$is_new" || set -- "$line" "$@"
    test $# -eq 0 || said=$(systemd-sysusers --inline "$@" 2>&1) || fail "$said"
}}
# Called only with what is otherwise: without any option, usermod is in error.
mend() {{
    read_entry
    set --
    test -z "$description" || test "$description" = "$its_description" || set -- "$@" -c "$description"
    test -z "$home" || test "$home" = "$its_home" || set -- "$@" -d "$home"
    test -z "$shell" || test "$shell" = "$its_shell" || set -- "$@" -s "$shell"
    test $# -eq 0 || said=$(usermod "$@" "$name" 2>&1) || fail "$said"
}}
found=$(differences "$@")
test -n "$found" || exit 0
echo "$found"
test "$does" = make || exec systemctl --no-block stop "$unit"
is_new=
read_entry || is_new=yes
holder=
test -z "$is_new" || test -z "$number" || holder=$(holder_of_number)
test -z "$holder" || fail "uid: $number belongs to $holder; give $name another, or leave uid out"
mkdir -p {_NOTES}
for group; do in_group "$group" || echo "$group" >> "$notes"; done
if test -n "$is_new"; then make "$@"; else add "$@"; fi
mend
for group in $(left_over "$@"); do gpasswd -d "$name" "$group"; done
left=$(differences "$@")
test -z "$left" || fail "$left"
"""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_-]{0,30}$")]
Words = Annotated[OneLine, StringConstraints(pattern=r'^[^\t:"\\]*$', max_length=128)]


def _in_an_entry(path: str) -> str:
    if any(each in path for each in ':"\\'):
        raise ValueError(
            "may have no : and no quote or backslash in it, since /etc/passwd has no way to say it"
        )
    return path


Home = Annotated[AbsolutePath, AfterValidator(_in_an_entry)]
Shell = Annotated[PlainPath, AfterValidator(_in_an_entry)]


class UserScore(Score[HasSystemd]):
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
    home: Home | None = Field(
        default=None, description="Its home; / unless set. Neither made nor moved."
    )
    shell: Shell | None = Field(default=None, description="Its shell; nologin unless set.")
    groups: tuple[Name, ...] = Field(
        default=(),
        description="Groups that it belongs to, too; made where they are missing. It leaves those that it "
        "came into by this Score, once they are not named any more.",
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        with refused_as_fields():
            self._units()
        return self

    async def interpret(self, inventory: Inventory, topology: HasSystemd) -> Outcome:  # noqa: ARG002
        with in_its_own_words():
            return outcome_of(await topology.systemd.ensure(*self._units()))

    def _units(self) -> tuple[SystemdUnit, ...]:
        """Return the units: one makes the user, and is active as long as the user is as it was made. Another
        one looks whenever somebody changes users or groups, and stops the first if the user differs; the
        agent then repairs it."""
        name = f"harmony-user-{self.name}"
        make = oneshot(f"The user {self.name}", self._command("make"), lasting=True)
        look = oneshot(f"A look at the user {self.name}", self._command("look"))
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

    def _command(self, does: str) -> tuple[str, ...]:
        unit = f"harmony-user-{self.name}.service"
        fields = (
            "" if self.uid is None else str(self.uid),
            self.description,
            self.home,
            self.shell,
        )
        wanted = (self._line(), self.name, *(each or "" for each in fields), *self.groups)
        return script(_SCRIPT, does, unit, *wanted)

    def _line(self) -> str:
        """Return the line of sysusers.d(5) that makes this user where it does not exist yet."""
        number = "-" if self.uid is None else str(self.uid)
        description = self.description.replace("%", "%%")
        home = "-" if self.home is None else f'"{self.home.replace("%", "%%")}"'
        return f'u {self.name} {number} "{description}" {home} {self.shell or "-"}'
