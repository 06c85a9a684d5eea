"""PackageScore: packages of Debian that are installed.

A privileged job of apt. It notes on the device which packages were not there before it, and those alone
are removed when they are no longer asked for: never one that was there before, never a configuration file.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from harmony_core import HasJobs, Inventory, Job, Outcome, Score, outcome_of
from harmony_core.resources import JobName, Seconds

__all__ = ["PackageScore"]

_NOTES = "/var/lib/harmony-packages"
_LOCK_WITHIN_S = 120

Package = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9][a-z0-9+.-]+(=[A-Za-z0-9.+:~-]+)?$", max_length=200),
]

_INSTALLED = """
is_installed() {
    found=$(dpkg-query -W -f '${db:Status-Status} ${Version}' "${1%%=*}" 2>/dev/null) || return 1
    case $1 in
        *=*) test "$found" = "installed ${1#*=}" ;;
        *) test "${found%% *}" = installed ;;
    esac
}
"""

_WANTED = """
is_wanted() {
    searched=$1
    shift
    for each; do test "${each%%=*}" != "$searched" || return 0; done
    return 1
}
"""

_IN_ORDER = f"""{_INSTALLED}{_WANTED}
notes={_NOTES}/$1
shift
for package; do is_installed "$package" || exit 1; done
test ! -e "$notes" || for name in $(cat "$notes"); do is_wanted "$name" "$@" || exit 1; done
"""

_APT = f"""
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
apt() {{
    apt-get -q -y -o DPkg::Lock::Timeout={_LOCK_WITHIN_S} -o Dpkg::Options::=--force-confdef \\
        -o Dpkg::Options::=--force-confold --no-install-recommends --allow-downgrades "$@"
}}
"""

_INSTALL = f"""{_INSTALLED}{_WANTED}{_APT}
notes={_NOTES}/$1
shift
mkdir -p {_NOTES}
touch "$notes"
dpkg --configure -a
for package; do
    name=${{package%%=*}}
    is_installed "$name" || grep -qxF "$name" "$notes" || echo "$name" >> "$notes"
done
sync "$notes"
apt install "$@" || {{ apt update && apt install "$@"; }}
for name in $(cat "$notes"); do
    ! is_wanted "$name" "$@" || continue
    apt remove "$name"
    grep -vxF "$name" "$notes" > "$notes.new" || true
    mv "$notes.new" "$notes"
done
"""

_REMOVE = f"""{_APT}
notes={_NOTES}/$1
test -e "$notes" || exit 0
dpkg --configure -a
test ! -s "$notes" || apt remove $(cat "$notes")
rm "$notes"
rmdir --ignore-fail-on-non-empty {_NOTES}
"""


def _different(packages: tuple[str, ...]) -> tuple[str, ...]:
    names = [each.partition("=")[0] for each in packages]
    if len(set(names)) != len(names):
        raise ValueError("a package is named twice")
    return tuple(sorted(packages))


class PackageScore(Score[HasJobs]):
    """These packages are installed, from the sources that the device knows; without what they recommend.

    Looked at when the Score changes, and once after each boot. When it goes, those packages are removed that
    were not there before it, and nothing else: what they brought along stays, and their configuration.
    """

    name: JobName = Field(description="A name for them together.")
    packages: Annotated[tuple[Package, ...], Field(min_length=1), AfterValidator(_different)] = (
        Field(description="Their names, each with =VERSION where it is to be that one.")
    )
    time_limit_s: Seconds = Field(
        default=1800.0, description="How long it may take before it is ended, in seconds."
    )

    async def interpret(self, inventory: Inventory, topology: HasJobs) -> Outcome:  # noqa: ARG002
        job = Job(
            name=f"packages-{self.name}"[:63].rstrip("-"),
            command=("/bin/sh", "-eu", "-c", _INSTALL, "sh", self.name, *self.packages),
            unless=("/bin/sh", "-eu", "-c", _IN_ORDER, "sh", self.name, *self.packages),
            undo=("/bin/sh", "-eu", "-c", _REMOVE, "sh", self.name),
            privileged=True,
            network=True,
            retry=True,
            time_limit_s=self.time_limit_s,
        )
        return outcome_of(await topology.jobs.ensure(job))
