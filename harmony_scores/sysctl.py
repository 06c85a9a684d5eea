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

from ._reasons import in_its_own_words
from ._unit_file import oneshot
from ._whole import refused_as_fields

__all__ = ["SysctlScore"]

_NOTES = "/var/lib/harmony-sysctl"

# Of each setting is noted, in a directory of its name, what it was before and what it was set to.
_GIVE_BACK = f"""
exec 9> /run/harmony-sysctl.lock
flock 9
notes={_NOTES}/$1 file=$2
shift 2
noted() {{
    test ! -d "$notes" || (cd "$notes" && find . -name set | sed 's,^[.]/,,; s,/set$,,')
}}
is_same() {{ test "$(cat "$1" 2>/dev/null)" = "$(cat "$2" 2>/dev/null)"; }}
give_back() {{
    for other in {_NOTES}/*; do
        test "$other" != "$notes" && test -e "$other/$1/before" || continue
        ! is_same "$notes/$1/set" "$other/$1/before" || cp "$notes/$1/before" "$other/$1/before"
        rm -r "$notes/$1"
        return
    done
    ! is_same "$notes/$1/set" "/proc/sys/$1" || cat "$notes/$1/before" > "/proc/sys/$1"
    rm -r "$notes/$1"
}}
"""

_SET = f"""{_GIVE_BACK}
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
for key in $(noted); do is_wanted "$key" "$@" || give_back "$key"; done
reasons=
because() {{
    reasons="$reasons
reason: settings: $1"
}}
while test $# -gt 0; do
    key=$1 value=$2 here=$notes/$1
    shift 2
    test -e "/proc/sys/$key" || {{ because "this kernel has no setting $key"; continue; }}
    mkdir -p "$here"
    if test ! -e "$here/before"; then
        cat "/proc/sys/$key" > "$here/.before" || {{
            because "what $key is cannot be read"
            rm -r "$here"
            continue
        }}
        sync "$here/.before"
        mv "$here/.before" "$here/before"
    fi
    (printf '%s\\n' "$value" > "/proc/sys/$key") 2> /dev/null ||
        {{ because "the kernel does not take $value for $key"; continue; }}
    cat "/proc/sys/$key" > "$here/set"
    found=$(in_words < "$here/set")
    test "$found" = "$(printf '%s' "$value" | in_words)" ||
        because "the kernel made $found of $value for $key; write what it can be, as the kernel shows it"
done
test -z "$reasons" || {{ echo "not all settings are as they are to be:$reasons" >&2; exit 1; }}
"""

# Its file goes first when the Score goes. Where it is there, the service is restarted, or the device ends.
_UNSET = f"""{_GIVE_BACK}
test ! -e "$file" || exit 0
for key in $(noted); do give_back "$key"; done
rm -rf "$notes"
rmdir --ignore-fail-on-non-empty {_NOTES}
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
    or makes something else of, is a failure. When the Score is removed, what was there before comes back
    where nobody else has set something meanwhile.
    """

    name: Name = Field(description="Names the file: /etc/sysctl.d/60-harmony-NAME.conf.")
    settings: Annotated[dict[Key, Value], AfterValidator(_some)] = Field(
        description="Values by name, as in net.ipv4.ip_forward: '1'."
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        with refused_as_fields():
            self._service(self._path)
        return self

    async def interpret(self, inventory: Inventory, topology: HasSettings) -> Outcome:  # noqa: ARG002
        path = self._path
        lines = [f"{key} = {value}\n" for key, value in sorted(self.settings.items())]
        # The file last: what was made last goes first, and by that the service knows why it is stopped.
        with in_its_own_words():
            changes = await topology.systemd.ensure(self._service(path))
        return outcome_of(
            changes + await topology.files.ensure(File(path=path, content="".join(lines).encode()))
        )

    @property
    def _path(self) -> str:
        return f"/etc/sysctl.d/60-harmony-{self.name}.conf"

    def _service(self, path: str) -> SystemdUnit:
        settings = {_below_proc(key): value for key, value in sorted(self.settings.items())}
        words = [word for setting in settings.items() for word in setting]
        return SystemdUnit(
            name=f"harmony-sysctl-{self.name}.service",
            content=oneshot(
                f"Kernel settings: {self.name}",
                ("/bin/sh", "-eu", "-c", _SET, "sh", self.name, path, *words),
                undo=("/bin/sh", "-eu", "-c", _UNSET, "sh", self.name, path),
                lasting=True,
            ),
            settings=settings,
            settle_s=0,
            claims=tuple(
                alike(f"sysctl:{path}", " ".join(value.split())) for path, value in settings.items()
            ),
        )


def _below_proc(key: str) -> str:
    """Its path below /proc/sys: as in sysctl.d(5), the first separator says what the other one is not."""
    dot, slash = key.find("."), key.find("/")
    dotted = slash < 0 or 0 <= dot < slash
    return key.translate(str.maketrans("./", "/.")) if dotted else key
