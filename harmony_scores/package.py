"""PackageScore: packages of Debian that are installed.

A privileged job of apt. It notes on the device which packages were not there before it, and those alone
are removed when they are no longer asked for: never one that was there before, never a configuration file.
What two of them name is in the notes of both, and goes with the later one.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from harmony_core import HasJobs, Inventory, Job, Outcome, Score, outcome_of
from harmony_core.claims import alike
from harmony_core.resources import JobName, Seconds

__all__ = ["PackageScore"]

_NOTES = "/var/lib/harmony-packages"
_LOCK = "/run/harmony-packages.lock"
_SOURCES = "/run/harmony-packages.sources"
"""Of what sources apt knows by now: read again after each boot, once something is to be installed."""
_LOCK_WITHIN_S = 120
_ADDRESS_SPACE_BYTES = 4 * 1024**3
"""For what packages run when they are installed: some reserve a lot more than they use."""
_OUTPUT_BYTES = 1024 * 1024

_PACKAGE = re.compile(r"(?P<name>[a-z0-9][a-z0-9+.-]+)(=[A-Za-z0-9.+:~-]+)?")


def _exact(package: str) -> str:
    """Refuse what apt takes for something else than the package of this very name."""
    found = _PACKAGE.fullmatch(package)
    if found is None:
        raise ValueError(
            f"{package!r} is no package's name; write it as Debian does, with =VERSION where it is to be "
            "that one, as in nginx or nginx=1.26.3-3"
        )
    name = found["name"]
    if name.endswith("-"):
        raise ValueError(f"{package!r}: apt would remove that; name only what is to be installed")
    if name.endswith("+") and not name.endswith("++"):
        raise ValueError(f"{package!r}: the + at its end is a word to apt; leave it out")
    return package


Package = Annotated[str, Field(max_length=200), AfterValidator(_exact)]

_INSTALLED = """
is_installed() {
    case $1 in
        *=*) versions_of "${1%%=*}" | grep -qxF "${1#*=}" ;;
        *) test -n "$(versions_of "$1")" ;;
    esac
}
versions_of() {
    dpkg-query -W -f '${db:Status-Status} ${Version}\\n' "$1" 2>/dev/null | sed -n 's/^installed //p'
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

_NOTES_OF_ALL = f"""
notes={_NOTES}/$1
is_noted() {{ grep -qsxF "$1" "$notes"; }}
others_noted() {{
    for each in {_NOTES}/*; do
        test "$each" = "$notes" || ! grep -qsxF "$1" "$each" || return 0
    done
    return 1
}}
"""

# Also due where it has yet to be noted that another one has brought what is there: it would go with that.
_IN_ORDER = f"""{_INSTALLED}{_WANTED}{_NOTES_OF_ALL}
shift
# Where somebody's apt or dpkg is at work (the kernel lists its lock), it may yet come into order: 75.
be_due() {{
    inode=$(stat -c %i /var/lib/dpkg/lock-frontend 2> /dev/null) || exit 1
    ! grep -qs ":$inode " /proc/locks || {{ echo "reason: apt or dpkg is at work" >&2; exit 75; }}
    exit 1
}}
for package; do
    is_installed "$package" || be_due
    ! others_noted "${{package%%=*}}" || is_noted "${{package%%=*}}" || be_due
done
test ! -e "$notes" || for name in $(cat "$notes"); do is_wanted "$name" "$@" || be_due; done
"""

_APT = f"""
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
exec 9> {_LOCK}
flock 9
log=/run/harmony-packages.log
trap 'cat "$log"; rm "$log"' EXIT
: > "$log"
apt() {{
    apt-get -q -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout={_LOCK_WITHIN_S} \\
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \\
        -o APT::Update::Error-Mode=any --no-install-recommends --allow-downgrades "$@" 9>&-
}}
try() {{
    apt "$@" > "$log" 2>&1 || return 1
    cat "$log"
    : > "$log"
}}
# Fails with each line that it is given as a reason, if there is one.
fail_by() {{
    reasons=$(grep . || :)
    test -z "$reasons" || {{ echo "$reasons" | sed 's/^/reason: packages: /' >&2; exit 1; }}
}}
# Does what apt is told to, or fails with the sentences in which apt, or dpkg below it, says why not.
must() {{
    ! try "$@" || return 0
    fail_by <<END
$(sed -n 's/^E: //p' "$log" | sort -u)
$(sed -n '/^dpkg: error/{{N;s/\\n */ /p}}' "$log")
$(sed -n '/^The following packages will be REMOVED:/,/^[^ ]/s/^  */would be removed: /p' "$log")
END
    exit 1
}}
# Of what is gone, dpkg has its configuration at most.
is_gone() {{
    ! dpkg-query -W -f '${{db:Status-Status}}\\n' "$1" 2>/dev/null | grep -qvxE 'config-files|not-installed'
}}
still_there() {{
    for each; do
        is_gone "$each" || echo "$each is still there, although apt has ended well; dpkg has" \\
            "$(dpkg-query -W -f '${{Version}}, ${{Status}}\\n' "$each")"
    done
}}
take_away() {{
    there=
    for name; do
        others_noted "$name" || is_gone "$name" || there="$there $name"
    done
    test -n "$there" || return 0
    more=
    for name in $(apt -s remove $there | sed -n 's/^Remv \\([^ ]*\\).*/\\1/p'); do
        is_wanted "$name" $there || more="$more $name"
    done
    if test -n "$more"; then
        echo "not removed:$there; by now others depend on it, and would go with it:$more" | fail_by
        exit 1
    fi
    must remove $there
    still_there $there | fail_by
}}
"""

# apt takes a name that it does not know for a pattern, and a virtual package for the one that provides it.
# So it is asked for nothing but packages of the very name. What it knows is read anew where its sources have
# changed since, and where it does not know one of them.
_INSTALL = f"""{_INSTALLED}{_WANTED}{_NOTES_OF_ALL}{_APT}
sources() {{
    find /etc/apt/sources.list /etc/apt/sources.list.d -type f -exec cat {{}} + 2> /dev/null | sha256sum
}}
read_sources() {{
    must update
    sources > {_SOURCES}
}}
names() {{ for each; do echo "${{each%%=*}}"; done; }}
known() {{
    apt-cache policy $(names "$@") |
        awk '/^[^ ].*:$/ {{ name = substr($0, 1, length($0) - 1) }}
            /^  Candidate: / && $2 != "(none)" {{ print name }}'
}}
unknown() {{
    known=$(known "$@")
    for each; do
        is_installed "$each" || echo "$known" | grep -qxF "${{each%%=*}}" || echo "${{each%%=*}}"
    done
}}
who_provides() {{
    apt-cache showpkg "$1" | sed -n '/^Reverse Provides:/,$s/^\\([a-z0-9][^ ]*\\) .*/ \\1/p' |
        sort -u | tr -d '\\n'
}}
not_to_be_had() {{
    for name in $(unknown "$@"); do
        others=$(who_provides "$name")
        if test -n "$others"; then
            echo "$name is no package itself; name one that provides it:$others"
        else
            echo "Unable to locate package $name in the sources of this device"
        fi
    done
}}
not_there() {{
    for each; do
        is_installed "$each" || echo "$each is not installed, although apt has ended well; dpkg has" \\
            "$(versions_of "${{each%%=*}}" | grep . || echo none)"
    done
}}
shift
mkdir -p {_NOTES}
dpkg --configure -a 9>&-
test "$(sources)" = "$(cat {_SOURCES} 2>/dev/null)" || read_sources
test -z "$(unknown "$@")" || read_sources
not_to_be_had "$@" | fail_by
touch "$notes"
for package; do
    name=${{package%%=*}}
    is_noted "$name" || {{ is_installed "$name" && ! others_noted "$name"; }} || echo "$name" >> "$notes"
done
sync "$notes"
try install --no-remove "$@" || {{
    ! grep -q '^E: .*\\(fetch\\|not found\\)' "$log" || read_sources
    must install --no-remove "$@"
}}
not_there "$@" | fail_by
unwanted=
for name in $(cat "$notes"); do is_wanted "$name" "$@" || unwanted="$unwanted $name"; done
test -n "$unwanted" || exit 0
take_away $unwanted
for name in $(cat "$notes"); do ! is_wanted "$name" "$@" || echo "$name"; done > {_NOTES}/.new
mv {_NOTES}/.new "$notes"
"""

_REMOVE = f"""{_INSTALLED}{_WANTED}{_NOTES_OF_ALL}{_APT}
test -e "$notes" || exit 0
dpkg --configure -a 9>&-
take_away $(cat "$notes")
rm "$notes"
rmdir --ignore-fail-on-non-empty {_NOTES}
"""


def _different(packages: tuple[str, ...]) -> tuple[str, ...]:
    names = [each.partition("=")[0] for each in packages]
    if len(set(names)) != len(names):
        raise ValueError("a package is named twice")
    return tuple(sorted(packages))


class PackageScore(Score[HasJobs]):
    """The packages of these very names are installed, from the sources that the device knows; without what
    they recommend.

    Looked at when the Score is pushed or asked for, after each boot, and whenever dpkg notes a change: what
    somebody has removed is installed again, once no other apt or dpkg is at work. When it goes, those
    packages are removed that were not there before it and that no other PackageScore names, and nothing else:
    what they brought along stays, and their configuration. Nothing is installed in place of what is
    there, and nothing removed that something else depends on by now: that is a failure, which names it.
    """

    name: Annotated[JobName, Field(max_length=54)] = Field(
        description="A name for them together; of at most 54 characters."
    )
    packages: Annotated[tuple[Package, ...], Field(min_length=1), AfterValidator(_different)] = (
        Field(description="Their names, each with =VERSION where it is to be that one.")
    )
    time_limit_s: Seconds = Field(
        default=1800.0, description="How long it may take before it is ended, in seconds."
    )

    async def interpret(self, inventory: Inventory, topology: HasJobs) -> Outcome:  # noqa: ARG002
        job = Job(
            name=f"packages-{self.name}",
            command=("/bin/sh", "-eu", "-c", _INSTALL, "sh", self.name, *self.packages),
            unless=("/bin/sh", "-eu", "-c", _IN_ORDER, "sh", self.name, *self.packages),
            asked_when_changed=("/var/lib/dpkg/status",),
            undo=("/bin/sh", "-eu", "-c", _REMOVE, "sh", self.name),
            privileged=True,
            network=True,
            retry=True,
            time_limit_s=self.time_limit_s,
            memory_bytes=_ADDRESS_SPACE_BYTES,
            output_bytes=_OUTPUT_BYTES,
            claims=tuple(
                alike(f"package:{name}", version or "any version")
                for name, _, version in (each.partition("=") for each in self.packages)
            ),
        )
        return outcome_of(await topology.jobs.ensure(job))
