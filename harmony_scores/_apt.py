"""Shell by which privileged jobs have apt do something, one at a time, and say why it could not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harmony_core import Job

__all__ = ["APT", "IS_LOCKED", "LOCK_WITHIN_S", "SOURCES", "make_job"]

LOCK_WITHIN_S = 120
ADDRESS_SPACE_BYTES = 4 * 1024**3
"""For what packages run when they are installed: some reserve a lot more than they use."""
OUTPUT_BYTES = 1024 * 1024

SOURCES = "/etc/apt/sources.list.d"

# The kernel lists who has a lock, which apt and dpkg have while they are at work.
IS_LOCKED = """
is_locked() {
    inode=$(stat -c %i "$1" 2> /dev/null) && grep -qs ":$inode " /proc/locks
}
"""

APT = f"""{IS_LOCKED}
about=
export DEBIAN_FRONTEND=noninteractive
exec 9> /run/harmony-packages.lock
flock 9
log=/run/harmony-packages.log
leave() {{
    cat "$log"
    rm "$log"
}}
trap leave EXIT
: > "$log"
# apt itself waits for one of its locks, and not for the others.
await_lock() {{
    left={LOCK_WITHIN_S}
    while test "$left" -gt 0 && is_locked "$1"; do
        sleep 1
        left=$((left - 1))
    done
}}
apt() {{
    apt-get -q -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout={LOCK_WITHIN_S} \\
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \\
        -o APT::Update::Error-Mode=any --no-install-recommends --allow-downgrades "$@" 9>&-
}}
try() {{
    apt "$@" > "$log" 2>&1 || return 1
    cat "$log"
    : > "$log"
}}
# Fails with each line that it is given as a reason, if there is one. $about: what they are about.
fail_by() {{
    reasons=$(grep . || :)
    test -z "$reasons" || {{ echo "$reasons" | sed "s/^/reason: $about/" >&2; exit 1; }}
}}
# Fails with the sentences in which apt, or dpkg below it, says why it could not.
fail_as_told() {{
    fail_by <<END
$(sed -n -e 's/^E: //p' -e 's/^W: \\(GPG error\\|OpenPGP signature\\)/\\1/p' "$log" | sort -u)
$(sed -n '/^dpkg: error/{{N;s/\\n */ /p}}' "$log")
$(sed -n '/^The following packages will be REMOVED:/,/^[^ ]/s/^  */would be removed: /p' "$log")
END
    exit 1
}}
end_what_was_cut_short() {{
    await_lock /var/lib/dpkg/lock-frontend
    dpkg --configure -a 9>&-
}}
must() {{ try "$@" || fail_as_told; }}
mark() {{
    await_lock /var/lib/dpkg/lock-frontend
    apt-mark "$@" > "$log" 2>&1 9>&- || fail_as_told
}}
"""


def make_job(
    name: str,
    command: Sequence[str],
    *,
    unless: Sequence[str],
    undo: Sequence[str],
    asked_when_changed: Sequence[str],
    time_limit_s: float,
    claims: Iterable[str],
) -> Job:
    """Return a job that has apt do something, and is undone with the notes that it keeps on the device."""
    return Job(
        name=name,
        command=tuple(command),
        unless=tuple(unless),
        undo=tuple(undo),
        # Those of before, where the agent has lost its state.
        undo_always=True,
        asked_when_changed=tuple(asked_when_changed),
        privileged=True,
        network=True,
        retry=True,
        time_limit_s=time_limit_s,
        memory_bytes=ADDRESS_SPACE_BYTES,
        output_bytes=OUTPUT_BYTES,
        claims=tuple(claims),
    )
