"""KernelModuleScore: a module of the kernel, loaded now and at every boot, or kept out."""

from __future__ import annotations

from typing import Annotated, Protocol, Self

from pydantic import Field, StringConstraints, model_validator

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
from ._unit_file import oneshot
from ._whole import refused_as_fields

__all__ = ["MAKE_SO", "KernelModuleScore"]

# $1: load or keep out. $2: its name. $3: whether it may be unloaded. Then its parameters, each name=value.
# ROOT is for tests alone.
_MAKE_SO = """
what=$1 name=$2 reload=$3 root=${ROOT-}
shift 3
module=$(printf '%s' "$name" | tr - _)
here=$root/sys/module/$module kernel=$(uname -r)
because() { echo "reason: $name: $1" >&2; exit 1; }
command -v modprobe > /dev/null || because "this device has no modprobe; install the package kmod"
is_from_next_boot_on() {
    await_boot "kernel module $name"
    echo "in force from the next boot on: $1"
    exit 0
}
test -d "$root/lib/modules/$kernel" ||
    because "this device has no modules for its kernel $kernel; in a container they are the host's"
# Its file has - or _ in its name, as its author liked.
its_file=/$(printf '%s' "$module" | sed 's/_/[-_]/g')[.]ko
if grep -qs "$its_file" "$root/lib/modules/$kernel/modules.builtin"; then
    test "$what" = load || because "it is built into this kernel, and cannot be kept out"
    test $# -eq 0 || because "it is built into this kernel; give its parameters on the kernel's line, \
by a BootConfigScore with values, as $name.$1"
    exit 0
fi
if test "$what" = keep-out; then
    test -d "$here" || exit 0
    test "$reload" = yes && modprobe -r "$name" 2> /dev/null && test ! -d "$here" && exit 0
    is_from_next_boot_on "it is loaded now, and not unloaded"
fi
# The kernel loads it with a parameter that it does not know, and leaves that out.
if known=$(modinfo -p "$name" 2> /dev/null); then
    for pair in "$@"; do
        key=${pair%%=*}
        test -e "$here/parameters/$key" || echo "$known" | grep -q "^$key:" ||
            because "it has no parameter $key; modinfo -p $name lists those that it has"
    done
fi
differs() {
    for pair in "$@"; do
        key=${pair%%=*} wanted=${pair#*=}
        test -r "$here/parameters/$key" || continue
        found=$(cat "$here/parameters/$key")
        case $found:$wanted in
            Y:1|Y:y|Y:Y|Y:on|N:0|N:n|N:N|N:off) continue ;;
        esac
        test "$found" = "$wanted" || { echo "$key is $found and not $wanted"; return 0; }
    done
    return 1
}
was_loaded=no
test ! -d "$here" || was_loaded=yes
if test $was_loaded = yes && differs "$@" > /dev/null && test "$reload" = yes; then
    ! modprobe -r "$name" 2> /dev/null || was_loaded=no
fi
said=$(modprobe "$name" 2>&1) || because "${said##*FATAL: }"
test -d "$here" || because "modprobe has loaded it, and the kernel does not list it; see dmesg"
if found=$(differs "$@"); then
    test $was_loaded = yes && is_from_next_boot_on "$found"
    because "$found: the kernel makes that of it; write it as the kernel shows it"
fi
"""
MAKE_SO = AWAIT_BOOT + _MAKE_SO

_UNDO = """
test "$2" != yes || modprobe -r "$1" 2> /dev/null || true
"""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,54}$")]
Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]+$", max_length=64)]
Value = Annotated[str, StringConstraints(pattern=r"^[!#-~]+$", max_length=256)]


class HasModules(HasFiles, HasSystemd, Protocol):
    """What it takes to have a module of the kernel for good."""


class KernelModuleScore(Score[HasModules]):
    """The kernel's module ``name`` is loaded with these parameters, now and at every boot; or is kept out.

    A module that is loaded already is not unloaded unless ``reload`` says so: its new parameters are in force
    from the next boot on, and the device says RebootRequired until then. A module that the kernel does not
    have is a failure, as are parameters of one that is built in. The file in /etc/modprobe.d is read by root:
    the device's policy must allow ``jobs = "any"``. When the Score goes, the module is no longer loaded at
    boot; it may stay loaded until then.
    """

    name: Name = Field(description="The module, as in i2c-dev. - and _ are the same.")
    parameters: dict[Key, Value] = Field(
        default_factory=dict, description="Its parameters, as in index: '-2'."
    )
    blacklist: bool = Field(
        default=False,
        description="Keep it out: it is not loaded for a device that it would be for.",
    )
    reload: bool = Field(
        default=False,
        description="Whether it may be unloaded for a change. Not for what the network or a disk needs.",
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.blacklist and self.parameters:
            raise ValueError("parameters are for a module that is loaded; leave out blacklist")
        with refused_as_fields():
            self._service()
        return self

    async def interpret(self, inventory: Inventory, topology: HasModules) -> Outcome:  # noqa: ARG002
        changes = await topology.files.ensure(File(path=self._path, content=self._text.encode()))
        with in_its_own_words():
            return outcome_of(changes + await topology.systemd.ensure(self._service()))

    @property
    def _module(self) -> str:
        return self.name.replace("-", "_")

    @property
    def _path(self) -> str:
        return f"/etc/modprobe.d/harmony-{self._module}.conf"

    @property
    def _pairs(self) -> list[str]:
        return [f"{name}={value}" for name, value in sorted(self.parameters.items())]

    @property
    def _text(self) -> str:
        if self.blacklist:
            return f"blacklist {self._module}\n"
        return " ".join(["options", self._module, *self._pairs]) + "\n" if self._pairs else ""

    def _service(self) -> SystemdUnit:
        what, reload = "keep-out" if self.blacklist else "load", "yes" if self.reload else "no"
        arguments = (what, self.name, reload, *self._pairs)
        return SystemdUnit(
            name=f"harmony-module-{self._module}.service",
            content=oneshot(
                f"Kernel module: {self.name}",
                script(MAKE_SO, *arguments),
                undo=script(_UNDO, self.name, reload),
                lasting=True,
            ),
            uses=(self._path,),
            settle_s=0,
            claims=(alike(f"module:{self._module}", what),),
        )
