"""SysctlScore: settings of the kernel, now and after every boot."""

from __future__ import annotations

from typing import Annotated, Protocol, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

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
from harmony_core.claims import alike
from harmony_core.unit_text import script

from ._boots import AWAIT_BOOT
from ._reasons import in_its_own_words
from ._undoing import DOES_NOTHING
from ._unit_file import oneshot
from ._whole import refused_as_fields

__all__ = ["SET", "UNSET", "SysctlScore"]

_NOTES = "/var/lib/harmony-sysctl"

# Of each setting is noted, in a directory of its name, what it was before and what it was set to. ROOT is for
# tests alone: what is below it in place of /, but for /proc/sys.
_GIVE_BACK = f"""{AWAIT_BOOT}
root=${{ROOT-}}
exec 9> "$root/run/harmony-sysctl.lock"
flock 9
all=$root{_NOTES} notes=$root{_NOTES}/$1 file=$root$2
shift 2
noted() {{
    test ! -d "$notes" || (cd "$notes" && find . -name set | sed 's,^[.]/,,; s,/set$,,')
}}
is_same() {{ test "$(cat "$1" 2>/dev/null)" = "$(cat "$2" 2>/dev/null)"; }}
# Whoever else has set it gives back what was there before us.
leave_to_another() {{
    for other in "$all"/*; do
        test "$other" != "$notes" && test -e "$other/$1/before" || continue
        ! is_same "$notes/$1/set" "$other/$1/before" || cp "$notes/$1/before" "$other/$1/before"
        return 0
    done
    return 1
}}
# Each is written twice: to write one may make another one otherwise. What the kernel does not take, such as
# the 0 of what is not in use, it has again after a boot.
give_back() {{
    due=
    for key in "$@"; do
        leave_to_another "$key" || ! is_same "$notes/$key/set" "/proc/sys/$key" || due="$due $key"
    done
    for key in $due $due; do
        (cat "$notes/$key/before" > "/proc/sys/$key") 2> /dev/null || :
    done
    for key in $due; do
        is_same "$notes/$key/before" "/proc/sys/$key" || await_boot "kernel setting $key"
    done
    for key in "$@"; do rm -r "$notes/$key"; done
}}
"""

SET = f"""{_GIVE_BACK}
is_wanted() {{
    searched=$1
    shift
    while test $# -gt 0; do
        test "$1" != "$searched" || return 0
        shift 2
    done
    return 1
}}
in_words() {{ tr -s '[:space:]' ' ' | sed 's/^ //; s/ $//'; }}
unwanted=
for key in $(noted); do is_wanted "$key" "$@" || unwanted="$unwanted $key"; done
give_back $unwanted
reasons= wrong=
because() {{
    wrong="$wrong $key "
    reasons="$reasons
reason: settings: $1"
}}
write() {{ (printf '%s\\n' "$value" > "/proc/sys/$key") 2> /dev/null; }}
is_found() {{
    found=$(in_words < "/proc/sys/$key")
    test "$found" = "$(printf '%s' "$value" | in_words)"
}}
set_it() {{
    here=$notes/$key
    test -e "/proc/sys/$key" || {{ because "this kernel has no setting $key"; return 0; }}
    mkdir -p "$here"
    if test ! -e "$here/before"; then
        cat "/proc/sys/$key" > "$here/.before" || {{
            because "what $key is cannot be read"
            rm -r "$here"
            return 0
        }}
        sync "$here/.before"
        mv "$here/.before" "$here/before"
    fi
    write || {{ because "the kernel does not take $value for $key"; return 0; }}
    cat "/proc/sys/$key" > "$here/set"
    is_found ||
        because "the kernel made $found of $value for $key; write what it can be, as the kernel shows it"
}}
# To write one may make another one otherwise, as net/ipv4/ip_forward does.
set_again() {{ is_found || write || :; }}
check() {{ is_found || because "$key is $found again once others are set"; }}
for_each() {{
    does=$1
    shift
    while test $# -gt 0; do
        key=$1 value=$2
        shift 2
        case $wrong in *" $key "*) ;; *) $does ;; esac
    done
}}
for step in set_it set_again check; do for_each $step "$@"; done
test -z "$reasons" || {{ echo "not all settings are as they are to be:$reasons" >&2; exit 1; }}
"""

# By a service of its own: systemd runs this only of one that is active, and the other one has failed where
# the kernel lacks one of several settings. Its file goes first when the Score goes. Where it is there, the
# service is stopped by somebody, or the device ends.
UNSET = f"""{_GIVE_BACK}
test ! -e "$file" || exit 0
give_back $(noted)
rm -rf "$notes"
test ! -d "$all" || rmdir --ignore-fail-on-non-empty "$all"
"""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Key = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9_]+([./][A-Za-z0-9_-]+)+$", max_length=256)
]
Value = Annotated[str, StringConstraints(pattern=r"^[!-~]([ -~]*[!-~])?$", max_length=1024)]


def _some(settings: dict[str, str]) -> dict[str, str]:
    if not settings:
        raise ValueError("give at least one setting, as in net.ipv4.ip_forward: '1'")
    seen: dict[str, str] = {}
    for key in settings:
        if (other := seen.setdefault(_below_proc(key), key)) != key:
            raise ValueError(f"{other} and {key} are one setting; give it once")
    return settings


class HasSettings(HasFiles, HasSystemd, Protocol):
    """What it takes to set the kernel's settings for good."""


class SysctlScore(Score[HasSettings]):
    """The kernel's ``settings`` have these values, from a file that is applied at every boot, too.

    A value that somebody sets by hand is put right at the next look: when the Score is pushed or asked for,
    and within some minutes anyway, since the kernel tells nobody. A setting that this kernel does not have,
    or makes something else of, is a failure, and so is one that is otherwise again once the others are set.
    When the Score is removed, what was there before comes back where nobody else has set something meanwhile.
    What the kernel does not take back, such as the 0 of vm.dirty_bytes, it has again after a reboot, and
    the device says RebootRequired until then.
    """

    name: Name = Field(description="Names the file: /etc/sysctl.d/60-harmony-NAME.conf.")
    settings: Annotated[dict[Key, Value], AfterValidator(_some)] = Field(
        description="Values by name, as in net.ipv4.ip_forward: '1'."
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        with refused_as_fields():
            self._undoing(self._path)
            self._service(self._path)
        return self

    async def interpret(self, inventory: Inventory, topology: HasSettings) -> Outcome:  # noqa: ARG002
        path = self._path
        lines = [f"{key} = {value}\n" for key, value in sorted(self.settings.items())]
        # The file last: what was made last goes first, and by that the service knows why it is stopped.
        with in_its_own_words():
            changes = await topology.systemd.ensure(self._undoing(path), self._service(path))
        return outcome_of(
            changes + await topology.files.ensure(File(path=path, content="".join(lines).encode()))
        )

    @property
    def _path(self) -> str:
        return f"/etc/sysctl.d/60-harmony-{self.name}.conf"

    def _undoing(self, path: str) -> SystemdUnit:
        """Return the service that does nothing until it is stopped, and then restores the earlier values."""
        return SystemdUnit(
            name=f"harmony-sysctl-{self.name}.undo.service",
            content=oneshot(
                f"What was there before the kernel settings: {self.name}",
                DOES_NOTHING,
                undo=script(UNSET, self.name, path),
                lasting=True,
            ),
            takes_back=True,
            settle_s=0,
        )

    def _service(self, path: str) -> SystemdUnit:
        settings = {_below_proc(key): value for key, value in sorted(self.settings.items())}
        words = [word for setting in settings.items() for word in setting]
        return SystemdUnit(
            name=f"harmony-sysctl-{self.name}.service",
            content=oneshot(
                f"Kernel settings: {self.name}",
                script(SET, self.name, path, *words),
                lasting=True,
            ),
            settings=settings,
            settle_s=0,
            claims=tuple(
                alike(f"sysctl:{path}", " ".join(value.split())) for path, value in settings.items()
            ),
        )


def _below_proc(key: str) -> str:
    """Return the path of *key* below /proc/sys. As in sysctl.d(5), the first separator decides what the other
    one means."""
    dot, slash = key.find("."), key.find("/")
    dotted = slash < 0 or 0 <= dot < slash
    return key.translate(str.maketrans("./", "/.")) if dotted else key
