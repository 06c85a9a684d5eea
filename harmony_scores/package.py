"""PackageScore: packages of Debian that are installed, held, or absent.

A privileged job of apt. It notes on the device which packages were not there before it, and those alone
are removed when they are no longer asked for: never one that was there before, never a configuration file.
What two of them name is in the notes of both, and goes with the later one. The same for what was not held.
What a device needs (`harmony_core.needed_packages`) stays, whoever has brought it.
"""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from harmony_core import HasJobs, Inventory, Outcome, Score, outcome_of
from harmony_core.claims import NO_VERSION, alike
from harmony_core.needed_packages import NEEDED_PACKAGES
from harmony_core.resources import JobName, Seconds
from harmony_core.unit_text import script

from ._apt import APT, IS_LOCKED, SOURCES, make_job

__all__ = ["PackageScore"]

_NOTES = "/var/lib/harmony-packages"
_HOLDS = "/var/lib/harmony-package-holds"
_SOURCES = "/run/harmony-packages.sources"
"""Of what sources apt knows by now: read again after each boot, once something is to be installed."""

_PACKAGE = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9+.-]+)(:[a-z0-9]+(-[a-z0-9]+)*)?(=[A-Za-z0-9.+:~-]+)?"
)


def _exact(package: str) -> str:
    """Refuse a name that apt takes for something else than the package of this name."""
    found = _PACKAGE.fullmatch(package)
    if found is None:
        raise ValueError(
            f"{package!r} is no package's name; write it as Debian does, with =VERSION where it is to be "
            "that one, as in nginx or nginx=1.26.3-3"
        )
    name = found["name"]
    if name.endswith("-"):
        raise ValueError(
            f"{package!r}: apt would remove that; have it in absent, without the - at its end"
        )
    if name.endswith("+") and not name.endswith("++"):
        raise ValueError(f"{package!r}: the + at its end is a word to apt; leave it out")
    return package


def _without_version(package: str) -> str:
    if "=" in package:
        raise ValueError(
            f"{package!r}: no version of it is to be there; leave out what follows the ="
        )
    return package


def _different(packages: tuple[str, ...]) -> tuple[str, ...]:
    names = [each.partition("=")[0] for each in packages]
    if len(set(names)) != len(names):
        raise ValueError("a package is named twice")
    return tuple(sorted(packages))


Package = Annotated[str, Field(max_length=200), AfterValidator(_exact)]
AbsentPackage = Annotated[Package, AfterValidator(_without_version)]

# $1: the Score's name. $2: hold, or nothing. $3: what is to be absent. Then what is to be there. A name with
# this device's own architecture is the name without it; dpkg takes that one for those of others, too.
_ARGUMENTS = f"""
notes={_NOTES}/$1 holds={_HOLDS}/$1
native=$(dpkg --print-architecture)
plain() {{
    for each; do
        name=${{each%%=*}}
        echo "${{name%":$native"}}${{each#"$name"}}"
    done
}}
hold=${{2-}} absent=$(plain ${{3-}})
shift $(($# < 3 ? $# : 3))
set -- $(plain "$@")
held=
test -z "$hold" || held=$*
"""

_DPKG_HAS = """
# $1: a package. $2: what is asked for, as dpkg-query has it.
query() {
    dpkg-query -W -f "$2\\t\\${Architecture}\\n" "$1" 2> /dev/null |
        case $1 in
            *:*) cat ;;
            *) grep -E "\t($native|all)\\$" ;;
        esac | cut -f 1
}
versions_of() { query "$1" '${db:Status-Status} ${Version}' | sed -n 's/^installed //p'; }
is_installed() {
    case $1 in
        *=*) versions_of "${1%%=*}" | grep -qxF "${1#*=}" ;;
        *) test -n "$(versions_of "$1")" ;;
    esac
}
# Of what is gone, dpkg has its configuration at most.
is_gone() { ! query "$1" '${db:Status-Status}' | grep -qvxE 'config-files|not-installed'; }
is_held() { query "$1" '${db:Status-Want}' | grep -qx hold; }
"""

_WANTED = """
is_wanted() {
    searched=$1
    shift
    for each; do test "${each%%=*}" != "$searched" || return 0; done
    return 1
}
"""

# Whether a name is in the notes of this Score, or of others. $2: those of holds, where not of packages.
_NOTED = """
is_noted() { grep -qsxF "$1" "${2-$notes}"; }
others_noted() {
    own=${2-$notes}
    for each in "${own%/*}"/*; do
        test "$each" = "$own" || ! grep -qsxF "$1" "$each" || return 0
    done
    return 1
}
read_notes() { test ! -e "$1" || cat "$1"; }
"""

_BASE = f"{_ARGUMENTS}{_DPKG_HAS}{_WANTED}{_NOTED}"

# Also due where it has yet to be noted that another one has brought what is there: it would go with that.
_IN_ORDER = f"""{_BASE}{IS_LOCKED}
# Where somebody's apt or dpkg is at work, it may yet come into order: 75.
be_due() {{
    ! is_locked /var/lib/dpkg/lock-frontend || {{ echo "reason: apt or dpkg is at work" >&2; exit 75; }}
    exit 1
}}
for package; do
    is_installed "$package" || be_due
    ! others_noted "${{package%%=*}}" || is_noted "${{package%%=*}}" || be_due
done
for name in $absent; do is_gone "$name" || be_due; done
for package in $held; do
    is_held "${{package%%=*}}" || be_due
    ! others_noted "${{package%%=*}}" "$holds" || is_noted "${{package%%=*}}" "$holds" || be_due
done
for name in $(read_notes "$notes"); do is_wanted "$name" "$@" || be_due; done
for name in $(read_notes "$holds"); do is_wanted "$name" $held || be_due; done
"""

_NEEDED = f"""
is_needed() {{ case ${{1%%:*}} in {"|".join(NEEDED_PACKAGES)}) ;; *) false ;; esac; }}
"""

_TAKE_AWAY = """
about='packages: '
note() { is_noted "$1" "$2" || echo "$1" >> "$2"; }
keep_noted() {
    kept=$1
    shift
    for name in $(cat "$kept"); do ! is_wanted "$name" "$@" || echo "$name"; done > "${kept%/*}/.new"
    mv "${kept%/*}/.new" "$kept"
}
still_there() {
    for each; do
        is_gone "$each" || echo "$each is still there, although apt has ended well; dpkg has" \\
            "$(query "$each" '${Version}, ${Status}')"
    done
}
# $going goes by what apt is told to, and nothing else does.
check_going() {
    for name in $going; do
        ! query "$name" '${Essential} ${Protected}' | grep -qw yes ||
            echo "not removed: $name is essential to this device"
        ! is_held "$name" || echo "not removed: $name is held; let it go by apt-mark unhold $name"
    done | fail_by
    more=
    for name in $(apt -s "$@" | sed -n 's/^Remv \\([^ ]*\\).*/\\1/p'); do
        is_wanted "$name" $going || more="$more $name"
    done
    test -z "$more" ||
        echo "not removed: $going; by now others depend on it, and would go with it:$more" | fail_by
}
# So that all stays in order, apt would also install another one in its place.
remove() {
    going=$*
    test -n "$going" || return 0
    check_going remove $going
    instead=$(apt -s remove $going | sed -n 's/^Inst \\([^ ]*\\).*/ \\1/p' | tr -d '\\n')
    test -z "$instead" ||
        echo "not removed: $going; apt would install in its place:$instead" | fail_by
    must remove $going
    still_there $going | fail_by
}
# What the device needs by now is not taken away, although it was not there before.
take_away() {
    there=
    for name; do
        is_needed "$name" || others_noted "$name" || is_gone "$name" || there="$there $name"
    done
    remove $there
}
# What is held by somebody else stays so.
release_holds() {
    for name in $(read_notes "$holds"); do
        is_wanted "$name" $held || others_noted "$name" "$holds" || ! is_held "$name" || mark unhold "$name"
    done
    test ! -e "$holds" || keep_noted "$holds" $held
}
"""

# apt takes a name that it does not know for a pattern, and a virtual package for the one that provides it.
# So it is asked for nothing but packages of the very name. What it knows is read anew where its sources have
# changed since, and where it does not know one of them.
_INSTALL = f"""{_BASE}{APT}{_NEEDED}{_TAKE_AWAY}
sources() {{
    find /etc/apt/sources.list {SOURCES} -type f -exec cat {{}} + 2> /dev/null | sha256sum
}}
read_sources() {{
    await_lock /var/lib/apt/lists/lock
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
of_no_architecture() {{
    taken=$(echo $native $(dpkg --print-foreign-architectures))
    for name in $(names "$@"); do
        case $name in
            *:*) is_wanted "${{name#*:}}" $taken || echo "$name: this device takes packages of $taken;" \\
                "dpkg --add-architecture ${{name#*:}} has it take those, too" ;;
        esac
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
# A hold of ours is lifted for the while; it is back whatever becomes of this.
lifted=
leave() {{
    cat "$log"
    rm "$log"
    test -z "$lifted" || apt-mark hold $lifted > /dev/null
}}
lift_holds() {{
    for package; do
        name=${{package%%=*}}
        is_held "$name" && ! is_installed "$package" || continue
        if is_noted "$name" "$holds" || others_noted "$name" "$holds"; then
            lifted="$lifted $name"
            mark unhold "$name"
        else
            echo "$package: $(versions_of "$name" | grep . || echo none) is held, and not by Harmony;" \\
                "let it be changed by apt-mark unhold $name" | fail_by
        fi
    done
}}
put_on_hold() {{
    for name in $(names "$@"); do
        {{ is_held "$name" && ! others_noted "$name" "$holds"; }} || note "$name" "$holds"
    done
    sync "$holds"
    for name in $(names "$@"); do
        is_held "$name" || mark hold "$name"
        is_held "$name" || echo "$name is not held, although apt-mark has ended well" | fail_by
    done
}}
get() {{
    lift_holds "$@"
    try install --no-remove "$@" || if test -n "$going" && grep -q 'remove is disabled' "$log"; then
        check_going install "$@" $(printf '%s- ' $going)
        must install "$@" $(printf '%s- ' $going)
    else
        ! grep -q '^E: .*\\(fetch\\|not found\\)' "$log" || read_sources
        must install --no-remove "$@"
    fi
    not_there "$@" | fail_by
}}
install() {{
    test "$(sources)" = "$(cat {_SOURCES} 2>/dev/null)" || read_sources
    test -z "$(unknown "$@")" || read_sources
    not_to_be_had "$@" | fail_by
    for package; do
        name=${{package%%=*}}
        {{ is_installed "$name" && ! others_noted "$name"; }} || note "$name" "$notes"
    done
    sync "$notes"
    # apt would have the newest of those that are there. What is to be held stays as it is.
    missing=$(for package; do test -n "$hold" && is_installed "$package" || echo "$package"; done)
    test -z "$missing" || get $missing
}}
still_to_go() {{ for name in $absent; do is_gone "$name" || echo "$name"; done; }}
mkdir -p {_NOTES} {_HOLDS}
end_what_was_cut_short
of_no_architecture "$@" $absent | fail_by
touch "$notes" "$holds"
release_holds
# What is to be absent goes with what takes its place, where both cannot be.
going=$(echo $(still_to_go))
test $# -eq 0 || install "$@"
test -z "$held" || put_on_hold $held
for name in $lifted; do is_held "$name" || mark hold "$name"; done
lifted=
unwanted=
for name in $(cat "$notes"); do is_wanted "$name" "$@" || unwanted="$unwanted $name"; done
take_away $unwanted
keep_noted "$notes" "$@"
remove $(still_to_go)
"""

_REMOVE = f"""{_BASE}{APT}{_NEEDED}{_TAKE_AWAY}
test -e "$notes" || exit 0
end_what_was_cut_short
release_holds
rm -f "$holds"
take_away $(cat "$notes")
rm "$notes"
rmdir --ignore-fail-on-non-empty {_NOTES}
test ! -e {_HOLDS} || rmdir --ignore-fail-on-non-empty {_HOLDS}
"""


class PackageScore(Score[HasJobs]):
    """The packages of these very names are installed, from the sources that the device knows, without what
    they recommend; those in ``absent`` are not.

    Looked at when the Score is pushed or asked for, after each boot, and whenever dpkg notes a change: what
    somebody has removed is installed again, once no other apt or dpkg is at work. When it goes, those
    packages are removed that were not there before it and that no other PackageScore names, and nothing else:
    what they brought along stays, their configuration too, and what was to be absent is not installed again.
    What the device needs, such as its network, sshd or podman, stays then, whoever has brought it.
    Nothing is installed in place of what is there, and nothing removed that something else depends on, that
    the device needs or that somebody holds: that is a failure, which names it.
    """

    name: Annotated[JobName, Field(max_length=54)] = Field(
        description="A name for them together; of at most 54 characters."
    )
    packages: Annotated[tuple[Package, ...], AfterValidator(_different)] = Field(
        default=(),
        description="Their names, each with =VERSION where it is to be that one; NAME:ARCHITECTURE for one "
        "of another architecture that dpkg knows.",
    )
    absent: Annotated[tuple[AbsentPackage, ...], AfterValidator(_different)] = Field(
        default=(),
        exclude_if=lambda given: not given,
        description="Packages that are not to be there.",
    )
    hold: bool = Field(
        default=False,
        exclude_if=lambda given: not given,
        description="Whether `packages` stay as they are when somebody upgrades the device (apt-mark hold).",
    )
    time_limit_s: Seconds = Field(
        default=1800.0, description="How long it may take before it is ended, in seconds."
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if not self.packages and not self.absent:
            raise ValueError("name what is to be there in packages, or what is not in absent")
        if self.hold and not self.packages:
            raise ValueError("hold is for packages, and none is named")
        if both := {_split(each)[0] for each in self.packages} & {*self.absent}:
            raise ValueError(f"{min(both)} is in packages and in absent; leave out one of them")
        return self

    async def interpret(self, inventory: Inventory, topology: HasJobs) -> Outcome:  # noqa: ARG002
        job = make_job(
            f"packages-{self.name}",
            self._run(_INSTALL),
            unless=self._run(_IN_ORDER),
            undo=script(_REMOVE, self.name),
            asked_when_changed=("/var/lib/dpkg/status",),
            time_limit_s=self.time_limit_s,
            claims=(
                *(_claim(*_split(each)) for each in self.packages),
                *(_claim(each, NO_VERSION) for each in self.absent),
            ),
        )
        return outcome_of(await topology.jobs.ensure(job))

    def _run(self, text: str) -> tuple[str, ...]:
        hold = "hold" if self.hold else ""
        return script(text, self.name, hold, " ".join(self.absent), *self.packages)


def _split(package: str) -> tuple[str, str]:
    """Return the name of *package*, and the version that is wanted."""
    name, _, version = package.partition("=")
    return name, version or "any version"


def _claim(name: str, wish: str) -> str:
    """Return the claim of a package: by its name alone, since the device's own architecture is not known
    before."""
    return alike(f"package:{name.partition(':')[0]}", wish)
