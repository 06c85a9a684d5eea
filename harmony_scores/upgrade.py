"""UpgradeScore: all packages of Debian are upgraded, in a window of time.

    the window begins -> a timer of systemd notes that -> the job's question: needed -> the agent runs the job
        |
    what was cut short is ended -> sources read, packages fetched; no network, or apt at work? -> tried later
        |
    upgraded: nothing removed, nothing held or excluded -> asked what is there, and what is still to be had

It is a job of the agent, and not the timer's service: so it is an event, is waited for by who would boot the
device, and holds up no PackageScore while it waits.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Protocol, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from harmony_core import HasJobs, HasSystemd, Inventory, Outcome, Score, SystemdUnit, outcome_of
from harmony_core.calendars import window_problem
from harmony_core.change import Changes, NotReady
from harmony_core.errors import HarmonyError
from harmony_core.outcome import Noop, Success
from harmony_core.resources import Finished, Job, NotNeeded
from harmony_core.room import ROOM_KEPT_BYTES
from harmony_core.unit_text import script

from ._apt import APT, make_job
from ._boots import AWAIT_BOOT
from ._unit_file import oneshot
from ._whole import refused_as_fields

__all__ = ["UpgradeHost", "UpgradeScore"]

_NOTES = "/var/lib/harmony-upgrades"
_NAME = "harmony-upgrades"
_LONGER_S = 4 * 3600.0
"""How long what was begun in the window may take: dpkg is not to be cut short."""
_THERE = f"/run/{_NAME}.there"
_TRY_AGAIN_S = 30
_FROM_BOOT_ON = (
    *("linux-image*", "raspberrypi-kernel*", "raspi-firmware", "rpi-eeprom", "firmware-*"),
    *("libc6", "dbus", "dbus-*"),
)
"""What a device runs until it is booted anew, as patterns of packages. On Debian they do not say so."""

# Written here: window, when the one that was seen last has begun and ends; done, the one that all is done
# for; why, the one that was in vain, and why; before, what there was before it; kept, what is kept back and
# since when; told, what came of the last one. Everybody may read them.
_HERE = f"""
notes={_NOTES}
begin= end=
test ! -e $notes/window || read -r begin end < $notes/window
put() {{
    cat > "$notes/.new"
    sync "$notes/.new"
    mv "$notes/.new" "$notes/$1"
}}
"""

# $1: the window. $2: how long it lasts. A clock that was set may have passed it by; so systemd is asked.
_NOTE_WINDOW = f"""{_HERE}
umask 022
mkdir -p $notes
now=$(date +%s)
at=$(systemd-analyze calendar --base-time="@$((now - $2))" "$1" |
    sed -n -E 's/^ *(Next elapse|\\(in UTC\\)): [A-Z][a-z]+ (.* UTC)$/\\2/p' | tail -n 1)
test -n "$at" || exit 0
begins=$(date -d "$at" +%s)
test "$begins" -le "$now" || exit 0
test "$begins" = "$begin" || echo "$begins $((begins + $2))" | put window
"""

# $1: the window. What it says is told with the Score.
_IS_DONE = f"""{_HERE}
cat $notes/told 2> /dev/null || echo "nothing was upgraded yet; the window is $1"
test -z "$begin" || test "$begin" = "$(cat $notes/done 2> /dev/null)"
"""

# $1: from which sources. $2: patterns of packages that are not to be upgraded.
_UPGRADE = f"""{_HERE}{APT}{AWAIT_BOOT}
# A pattern is not to become the names of files.
set -f
umask 022
root= origins=$1 excluded=$2 summary=
native=$(dpkg --print-architecture)
# While it waits, others have the log that they share.
rm -f "$log"
log=/run/{_NAME}.log preferences=/run/{_NAME}.preferences
: > "$log"
leave() {{
    cat "$log"
    rm -f "$log" "$preferences"
    test -z "$summary" || echo "$summary"
}}
test -n "$begin" || exit 0
date_of() {{ date -d "@$1" '+%Y-%m-%d %H:%M'; }}
about="in the window of $(date_of "$begin"): "
# Of an earlier try in the same window.
summary=$(grep -s "^$(date_of "$begin"): " $notes/told || :)
# What was in vain is told until the next window, and not tried again after this one.
fail_by() {{
    reasons=$(grep . | sort -u | sed "s/^/$about/")
    test -n "$reasons" || return 0
    test -z "$summary" || reasons="$reasons
$summary"
    {{ echo "$begin"; echo "$reasons"; }} | put why
    echo "$reasons" | sed 's/^/reason: /' >&2
    exit 1
}}
fail_again() {{
    test "$(head -n 1 $notes/why 2> /dev/null)" = "$begin" || return 0
    sed -e 1d -e 's/^/reason: /' $notes/why >&2
    exit 1
}}
is_over() {{ test "$(date +%s)" -ge "$end"; }}
in_a_list() {{
    awk -v most="$1" '{{ all = all (NR > most ? "" : (NR > 1 ? ", " : "") $0) }}
        END {{ if (NR > most) all = all " and " NR - most " more"; printf "%s", all }}'
}}
names() {{ cut -d ' ' -f 1; }}
mega() {{ echo "$(($1 * 1024 / 1000000)) MB"; }}
versions() {{
    dpkg-query -W -f '${{db:Status-Status}} ${{binary:Package}} ${{Version}}\\n' |
        sed -n -e "s/^\\([^ ]* [^ ]*\\):$native /\\1 /" -e 's/^installed //p'
}}
invocations() {{
    systemctl show -p Id -p ActiveState -p InvocationID '*.service' | awk -F = '
        {{ value[$1] = $2 }}
        /^$/ {{ told() }}
        END {{ told() }}
        function told() {{
            if (value["ActiveState"] == "active" && value["Id"] !~ /^harmony-job-/)
                print value["Id"], value["InvocationID"]
            delete value
        }}' | sort -u
}}
who_is_at_work() {{
    for each in /var/lib/dpkg/lock-frontend /var/lib/dpkg/lock /var/lib/apt/lists/lock; do
        is_locked "$each" || continue
        inode=$(stat -c %i "$each")
        process=$(awk -v inode=":$inode" '$6 ~ inode "$" {{ print $5; exit }}' /proc/locks)
        echo "apt or dpkg is at work: $(cat "/proc/$process/comm" 2> /dev/null) (process $process)"
        return 0
    done
}}
reasons_of() {{ sed -n 's/^E: //p' "$log" | sort -u; }}

# Lines as "name [version of now] (new version, its sources [architecture])".
due() {{ apt -o Dir::Etc::Preferences="$preferences" -s upgrade --with-new-pkgs | sed -n 's/^Inst //p'; }}
of_those_there() {{ grep -v '^[^ ]* ('; }}
kept_back() {{
    apt -s upgrade --with-new-pkgs |
        sed -n '/^The following packages have been kept back:/,/^[^ ]/s/^  *//p' |
        tr ' ' '\\n' | grep . | sort -u
}}
forbid() {{
    for each; do
        printf '\\n\\nPackage: %s\\nPin: version *\\nPin-Priority: -1\\n' "$each"
    done >> "$preferences"
}}
choose() {{
    cat /etc/apt/preferences > "$preferences" 2> /dev/null || : > "$preferences"
    forbid $excluded
    test "$origins" = all || forbid $(due | of_those_there |
        grep -vE ' Debian-Security:|/[^ ,]*-security[ ,)]' | names)
    chosen=$(due)
}}
# dpkg has both the old and the new files of one package for a while. All in KiB.
check_room() {{
    test -n "$chosen" || return 0
    was=$(echo "$chosen" | of_those_there | names |
        xargs -r dpkg-query -W -f '${{Installed-Size}}\\n' | awk '{{ sum += $1 }} END {{ print sum + 0 }}')
    exact=$(echo "$chosen" | sed -E 's/^([^ ]+) [^(]*\\(([^ ]+) .*/\\1=\\2/')
    needed=$(apt-cache show $exact | awk -v was="$was" '
        /^Size: / {{ fetched += $2 / 1024 }}
        /^Installed-Size: / {{ sum += $2; if ($2 > largest) largest = $2 }}
        END {{ grown = sum > was ? sum - was : 0; printf "%.0f", fetched + grown + largest }}')
    needed=$((needed + {ROOM_KEPT_BYTES} / 1024))
    free=$(df -Pk /usr /var/cache/apt | awk '
        NR > 1 && (least == "" || $4 < least) {{ least = $4 }}
        END {{ print least }}')
    test "$needed" -le "$free" ||
        echo "not upgraded: it takes $(mega $needed), and the disk has $(mega $free); free" \\
            "$(mega $((needed - free + 999)))" | fail_by
}}
# Sets why, where it is to be tried again. Where some sources are read, and another one is not, time and
# again, the others count.
fetch() {{
    why= unread= tries=$((tries + 1))
    if ! apt update > "$log" 2>&1; then
        unread=$(reasons_of)
        if test $tries -lt 3 || ! grep -qE '^(Hit|Get):' "$log"; then
            why=${{unread:-apt cannot read its sources}}
            return 0
        fi
    fi
    choose
    check_room
    if test -n "$chosen" && ! apt -o Dir::Etc::Preferences="$preferences" \\
        upgrade --with-new-pkgs --download-only > "$log" 2>&1; then
        why=$(reasons_of)
        why=${{why:-apt cannot fetch the packages}}
        return 0
    fi
    : > "$log"
    echo "$begin" | put fetched
}}
repair() {{
    dpkg --configure -a > "$log" 2>&1 9>&- || :
    must install --fix-broken --no-remove
}}
# What is kept back, with why and since when, as far as that is known.
note_kept() {{
    kept_back | while read -r name; do
        since=$(sed -n "s/^$name //p" $notes/kept 2> /dev/null || :)
        echo "$name ${{since:-$(date +%s)}}"
    done | put kept
    held=$(apt-mark showhold)
    while read -r name since; do
        words=
        ! echo "$held" | grep -qxF "$name" || words=' (held)'
        echo "$name$words since $(date_of "$since" | names)"
    done < $notes/kept
}}
still_run() {{
    find /proc -maxdepth 2 -path '/proc/[0-9]*/maps' 2> /dev/null |
        xargs -r grep -lE ' /(usr|lib)/.* \\(deleted\\)$' 2> /dev/null | while read -r each; do
            sed -n 's#.*/\\([^/]*[.]service\\).*#\\1#p' "${{each%maps}}cgroup" 2> /dev/null || :
        done | grep -v '^harmony-job-' | sort -u
}}
restarted() {{
    invocations | while read -r name id; do
        before=$(echo "$ran" | sed -n "s/^$name //p")
        test -z "$before" || test "$before" = "$id" || echo "$name"
    done
}}
also() {{ test -z "$2" || summary="$summary; $1: $2"; }}
tell() {{
    changed=$(versions | awk 'NR == FNR {{ old[$1] = $2; next }}
        !($1 in old) {{ print "new", $1, $2; next }}
        old[$1] != $2 {{ print "upgraded", $1, old[$1] " → " $2 }}' $notes/before -)
    upgraded=$(echo "$changed" | sed -n 's/^upgraded //p')
    kept=$(note_kept)
    : > "$preferences"
    left=$(due | of_those_there | names)
    summary="$(date_of "$begin"): $(echo "$upgraded" | grep -c . || :) upgraded"
    test -z "$upgraded" || summary="$summary: $(echo "$upgraded" | in_a_list 6)"
    also new "$(echo "$changed" | sed -n 's/^new //p' | in_a_list 3)"
    also 'kept back' "$(echo "$kept" | grep . | in_a_list 4)"
    also 'left as they are' "$(echo "$left" | grep . | in_a_list 4)"
    also 'kept as somebody has changed it, with what is new beside it (.dpkg-dist)' \\
        "$(find /etc -xdev -name '*.dpkg-dist' -cnewer $notes/before | sed 's/.dpkg-dist$//' | in_a_list 3)"
    also restarted "$(restarted | in_a_list 4)"
    also 'still run with what was replaced' "$(still_run | in_a_list 3)"
    summary=$(echo "$summary" | cut -b 1-900)
    echo "$summary" | put told
    # What was upgraded before this try, a boot may have brought already.
    for name in $({{ echo "$there"; echo; versions; }} | awk '!NF {{ later = 1; next }}
        !later {{ old[$1] = $2; next }}
        old[$1] != $2 {{ print $1 }}'); do
        case $name in
            {"|".join(_FROM_BOOT_ON)}) await_boot "$name" ;;
        esac
    done
    rm -f {_THERE}
}}
# Whatever of $chosen is left, is told by $1 and $2.
conclude() {{
    tell
    test -z "$chosen" || echo "$1 $(echo "$chosen" | names | in_a_list 6)" | fail_by
    echo "$2" | fail_by
    rm -f $notes/why
    echo "$begin" | put done
    exit 0
}}

! is_over || fail_again
tries=0 ran=$(invocations)
# As it was before all tries of this boot of which was not told yet what awaits a boot.
test -s {_THERE} || versions > {_THERE}
there=$(cat {_THERE})
test "$(head -n 1 $notes/before 2> /dev/null)" = "of $begin" ||
    {{ echo "of $begin"; versions; }} | put before
if is_over; then
    repair
    choose
    unread=
    test "$(cat $notes/fetched 2> /dev/null)" = "$begin" || unread='it was over before the sources were read'
    conclude 'it was over before all was upgraded, still to be had are' "$unread"
fi
while :; do
    why=$(who_is_at_work)
    if test -z "$why"; then
        repair
        fetch
    fi
    test -n "$why" || break
    ! is_over || echo "$why" | fail_by
    # PackageScores need not wait for it.
    flock -u 9
    sleep {_TRY_AGAIN_S}
    flock 9
    # Also where the clock has gone on meanwhile.
    ! is_over || echo "$why" | fail_by
done
if test -n "$chosen"; then
    ! is_over || echo "it was over before $(echo "$chosen" | names | in_a_list 6) could be upgraded" | fail_by
    try -o Dir::Etc::Preferences="$preferences" -o APT::Keep-Downloaded-Packages=false \\
        upgrade --with-new-pkgs --no-remove || {{
        tell
        fail_as_told
    }}
fi
choose
conclude 'not upgraded, although apt has ended well:' "$unread"
"""

# What a removal in the midst of it has cut short is ended before.
_REMOVE = f"""{APT}
test ! -d {_NOTES} || end_what_was_cut_short
rm -rf {_NOTES}
rm -f {_THERE}
"""

_PATTERN = re.compile(r"[a-z0-9*?][a-z0-9+.*?-]*", re.ASCII)


def _readable(window: str) -> str:
    if (problem := window_problem(window)) is not None:
        raise ValueError(problem)
    return window


def _pattern(text: str) -> str:
    if not _PATTERN.fullmatch(text):
        raise ValueError(
            f"{text!r} names no packages; write a name, or a pattern with * and ?, as in linux-image-*"
        )
    if not text.strip("*?"):
        raise ValueError(f"{text!r} is every package; to upgrade none, leave out this Score")
    return text


Window = Annotated[
    str, StringConstraints(max_length=256, strip_whitespace=True), AfterValidator(_readable)
]
Pattern = Annotated[str, Field(max_length=200), AfterValidator(_pattern)]


class UpgradeHost(HasJobs, HasSystemd, Protocol):
    """What it takes to upgrade a device."""


class UpgradeScore(Score[UpgradeHost]):
    """All packages that apt has newer are upgraded, once in each window of time.

    As by `apt upgrade`: packages that these need are installed, and none is removed. What is held, as by a
    PackageScore with `hold`, is kept back; a file that somebody has changed is kept, with what is new beside
    it. While there is no network, or somebody else's apt or dpkg is at work, it is tried again until the
    window ends: then it is a failure, which is told until the next one. What is begun in the window is ended,
    also after a power cut. The Score says what was upgraded, what was kept back and since when, and which
    services were restarted. A new kernel or firmware awaits a boot, which a RebootScore brings. The device
    must allow what runs as root (policy.toml: jobs = "any").
    """

    window: Window = Field(
        description="When the window begins, as systemd.time(7) has it, in the device's time zone: Sun 03:00."
    )
    lasts_s: int = Field(
        default=7200, ge=600, le=43_200, description="How long the window lasts, in seconds."
    )
    origins: Literal["all", "security"] = Field(
        default="all",
        description="security: only what comes from the security updates of Debian or Ubuntu.",
    )
    exclude: tuple[Pattern, ...] = Field(
        default=(), description="Packages that stay as they are: names, or patterns as in podman*."
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        with refused_as_fields():
            self._job()
            self._units()
        return self

    async def interpret(self, inventory: Inventory, topology: UpgradeHost) -> Outcome:  # noqa: ARG002
        # The job first: what was made first goes last, and that takes the notes away.
        try:
            looked = await topology.jobs.ensure(self._job())
        except (HarmonyError, NotReady):
            # Whatever is told of the window before: the one that is wanted now is to be noted when it begins.
            await topology.systemd.ensure(*self._units())
            raise
        changes = looked + await topology.systemd.ensure(*self._units())
        words = _last_words(changes)
        is_changed = isinstance(outcome_of(changes), Success)
        return Success(message=words) if is_changed else Noop(message=words)

    def _job(self) -> Job:
        exclude = " ".join(sorted(self.exclude))
        job = make_job(
            "upgrades",
            script(_UPGRADE, self.origins, exclude),
            unless=script(_IS_DONE, self.window),
            undo=script(_REMOVE),
            asked_when_changed=(f"{_NOTES}/window",),
            time_limit_s=self.lasts_s + _LONGER_S,
            claims=(),
        )
        return job.model_copy(update={"recurring": True})

    def _units(self) -> tuple[SystemdUnit, ...]:
        """Return two units: one notes the window that is open now, if any; the other starts it when a window
        opens and when the device boots."""
        note = oneshot(
            "Note that packages may be upgraded",
            script(_NOTE_WINDOW, self.window, str(self.lasts_s)),
        )
        # systemd counts OnActiveSec anew each time that it reads all units, too: what is noted is the same.
        timer = (
            "[Unit]\nDescription=When packages may be upgraded\n\n"
            f"[Timer]\nOnCalendar={self.window}\nOnActiveSec=1\nAccuracySec=1\n\n"
            "[Install]\nWantedBy=timers.target\n"
        )
        return (
            SystemdUnit(name=f"{_NAME}.service", content=note, enabled=None, state=None),
            SystemdUnit(name=f"{_NAME}.timer", content=timer),
        )


def _last_words(changes: Changes) -> str:
    """Return the last line of what the job, or its question, has said: the result of the last window."""
    for change in changes:
        if isinstance(change.after, Finished | NotNeeded):
            return (change.after.stdout.strip().splitlines() or [""])[-1]
    return ""
