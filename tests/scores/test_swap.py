"""SwapScore: what it takes, and what its programs do on a kernel that is a folder.

mkswap and blkid are the real ones; swapon and swapoff do to a file what the kernel does to /proc/swaps. On a
real kernel it is in `tests/fleet/test_mounts_and_people.py`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from harmony_agent.apply.policy import DevicePolicy
from harmony_agent.policy_toml import PolicyTable
from harmony_core.testing import FakePi, interpret_twice
from harmony_scores import SwapScore
from harmony_scores.swap import LOOK, MAKE, TAKE_AWAY

MIB = 1024**2
UNIT = "harmony-swap-var:swapfile.service"
SWAP_UNIT = "var-swapfile.swap"

# Of each: as the real one, where it is not told what else to say.
PROGRAMS = {
    "swapon": """
priority=-2
[ "$1" != -p ] || { priority=$2; shift 2; }
size=$(stat -c %s "$1")
[ ! -e "$ROOT/refused" ] || [ "$size" -le "$(cat "$ROOT/refused")" ] ||
    { echo "swapon: $1: swapon failed: Invalid argument" >&2; exit 255; }
[ ! -e "$ROOT/other-pages" ] || { rm "$ROOT/other-pages"; exit 255; }
echo "${1#"$ROOT"} file $((size / 1024 - 4)) 0 $priority" >> "$ROOT/proc/swaps"
""",
    "swapoff": """
sed -i "\\\\|^${1#"$ROOT"} |d" "$ROOT/proc/swaps"
""",
    "systemctl": """
case $1 in
    show) [ ! -e "$ROOT/fragment" ] || cat "$ROOT/fragment" ;;
    is-active) [ -e "$ROOT/active" ] ;;
    *) echo "$@" >> "$ROOT/asked" ;;
esac
""",
    "stat": """
[ "$1" = -f ] || exec /usr/bin/stat "$@"
[ "$3" = %T ] && echo "${KIND-ext2/ext3}" || echo "${FREE-1000000000} * 1"
""",
}
# Ends whoever has called it, with all that it has begun, before or after the program number AT.
KILLED = """#!/bin/sh
echo >> "$ROOT/count"
here=$(wc -l < "$ROOT/count")
[ "$here" != "${BEFORE-}" ] || kill -9 0
PROGRAM "$@"
code=$?
[ "$here" != "${AFTER-}" ] || kill -9 0
exit $code
"""
WRAPPED = ("rm", "mkswap", "sync", "mv", "fallocate", "chmod", "chown", "swapon", "swapoff")


class Kernel:
    """A folder with what the programs look at."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.chmod(0o755)
        for directory in ("proc", "run", "etc", "var", "bin", "killed"):
            (root / directory).mkdir(mode=0o755)
        self.file = root / "var/swapfile"
        self.swaps = root / "proc/swaps"
        self.swaps.write_text("Filename Type Size Used Priority\n")
        self.remember(available_kib=500_000)
        for name, text in PROGRAMS.items():
            self._add(root / "bin" / name, f"#!/bin/sh\n{text}")
        for name in WRAPPED:
            program = root / "bin" / name
            real = program if program.exists() else shutil.which(name, path="/usr/sbin:/usr/bin")
            self._add(root / "killed" / name, KILLED.replace("PROGRAM", str(real)))

    def _add(self, path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)

    def remember(self, *, available_kib: int) -> None:
        """Have so much memory available; what is free of swap is worked out."""
        lines = [each.split() for each in self.swaps.read_text().splitlines()[1:]]
        free_kib = sum(int(size) - int(used) for _, _, size, used, _ in lines)
        text = f"MemTotal: 900000 kB\nMemAvailable: {available_kib} kB\nSwapFree: {free_kib} kB\n"
        (self.root / "proc/meminfo").write_text(text)

    def swap_out(self, used_kib: int) -> None:
        self.swaps.write_text(re.sub(r" 0 (-?\d+)\n", rf" {used_kib} \1\n", self.swaps.read_text()))

    def does(
        self, text: str, mib: int = 1, priority: str = "", path: str = "/var/swapfile", **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run *text*, as its unit does."""
        killed = f"{self.root}/killed:" if {"BEFORE", "AFTER"} & more.keys() else ""
        search = f"{killed}{self.root}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        words = (path, str(mib * MIB), priority, UNIT, SWAP_UNIT)
        return subprocess.run(
            ["/bin/sh", "-eu", "-c", text, "sh", *words],
            env={"PATH": search, "ROOT": str(self.root), "LC_ALL": "C", **more},
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,
        )

    def is_refused(self, text: str = MAKE, **fields: str) -> str:
        """Return why *text* fails."""
        mib = int(fields.pop("mib", "1"))
        done = self.does(text, mib, **fields)
        assert done.returncode == 1, done
        last = done.stderr.splitlines()[-1]
        assert last.startswith("reason: path: "), done
        return last

    @property
    def listed(self) -> list[str]:
        return [each.split()[0] for each in self.swaps.read_text().splitlines()[1:]]

    def is_as(self, mib: int, priority: str = "-2") -> bool:
        """Whether the file, and nothing else, is there and is swapped to."""
        facts = self.file.stat()
        lines = self.swaps.read_text().splitlines()[1:]
        return (
            (facts.st_size, facts.st_mode & 0o7777) == (mib * MIB, 0o600)
            and facts.st_blocks * 512 >= mib * MIB
            and [each.split()[::4] for each in lines] == [["/var/swapfile", priority]]
            and os.listdir(self.root / "var") == ["swapfile"]
        )


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    if os.geteuid() != 0:
        pytest.skip("swap files are root's")
    return Kernel(tmp_path)


def test_it_is_made_whole_once_and_switched_on(kernel: Kernel) -> None:
    done = kernel.does(MAKE, 1, "10")
    assert (done.returncode, done.stderr) == (0, "")
    assert kernel.is_as(1, "10")
    before = kernel.file.stat()
    assert kernel.does(MAKE, 1, "10").returncode == 0
    assert kernel.file.stat().st_ctime_ns == before.st_ctime_ns
    assert kernel.is_as(1, "10")
    # After a boot, what was made is switched on as it is.
    kernel.does("swapoff $ROOT$1")
    assert kernel.does(MAKE, 1, "10").returncode == 0
    assert kernel.file.stat().st_ino == before.st_ino
    assert kernel.is_as(1, "10")


def test_another_size_and_another_priority_are_brought_about(kernel: Kernel) -> None:
    for mib, priority, shown in ((2, "5", "5"), (1, "5", "5"), (1, "7", "7"), (1, "", "-2")):
        assert kernel.does(MAKE, mib, priority).returncode == 0
        assert kernel.is_as(mib, shown), (mib, priority)


def test_what_is_deleted_while_it_is_in_use_is_told_until_the_device_is_rebooted(
    kernel: Kernel,
) -> None:
    """Else each time that somebody deletes it would cost the room of another one."""
    kernel.does(MAKE)
    kernel.file.unlink()
    line = kernel.swaps.read_text().replace("/var/swapfile ", r"/var/swapfile\040(deleted) ")
    kernel.swaps.write_text(line)
    (kernel.root / "active").touch()
    kernel.does(LOOK)
    assert (kernel.root / "asked").read_text() == f"--no-block stop {UNIT}\n"
    assert "was deleted while it was in use" in kernel.is_refused()
    assert not kernel.file.exists()
    assert "reboot it" in kernel.is_refused(TAKE_AWAY)
    # Of one that an agent has made beside it, what can be taken away is.
    kernel.swaps.write_text("Filename Type Size Used Priority\n")
    kernel.does(MAKE)
    with kernel.swaps.open("a") as file:
        file.write(line.splitlines()[-1] + "\n")
    assert "reboot it" in kernel.is_refused(TAKE_AWAY)
    assert not kernel.file.exists()
    assert kernel.listed == [r"/var/swapfile\040(deleted)"]
    kernel.swaps.write_text("Filename Type Size Used Priority\n")
    assert kernel.does(TAKE_AWAY).returncode == 0
    assert kernel.does(MAKE).returncode == 0
    assert kernel.is_as(1)


def test_who_may_read_it_is_put_right_while_it_is_in_use(kernel: Kernel) -> None:
    kernel.does(MAKE)
    kernel.file.chmod(0o644)
    os.chown(kernel.file, 1000, 1000)
    assert kernel.does(MAKE).returncode == 0
    assert kernel.is_as(1)
    assert kernel.file.stat().st_uid == 0


@pytest.mark.parametrize("text", [MAKE, TAKE_AWAY])
def test_what_memory_cannot_take_stays_swapped_out(kernel: Kernel, text: str) -> None:
    kernel.does(MAKE, 8)
    kernel.swap_out(5_000)
    kernel.remember(available_kib=70_000)
    why = kernel.is_refused(text)
    assert "5 MB are swapped out" in why
    assert "memory has room for 4 MB only" in why
    assert kernel.is_as(8)
    kernel.remember(available_kib=71_000)
    assert kernel.does(text).returncode == 0


def test_with_nothing_swapped_out_memory_does_not_matter(kernel: Kernel) -> None:
    kernel.does(MAKE, 2)
    kernel.remember(available_kib=1_000)
    assert kernel.does(MAKE, 1).returncode == 0
    assert kernel.is_as(1)


def test_without_room_nothing_is_touched_and_the_figures_are_told(kernel: Kernel) -> None:
    why = kernel.is_refused(mib="8", FREE="70000000")
    assert "it needs 8 MB more, and 67 MB are left free" in why
    assert "has 70 MB: free 6 MB" in why
    assert not kernel.listed
    assert not os.listdir(kernel.root / "var")
    kernel.does(MAKE, 2)
    # It grows by the difference alone; and what gives room needs none.
    assert "it needs 6 MB more" in kernel.is_refused(mib="8", FREE="70000000")
    assert kernel.is_as(2)
    assert kernel.does(MAKE, 1, FREE="0").returncode == 0
    assert kernel.is_as(1)


def test_after_a_boot_without_room_for_more_what_was_there_is_switched_on(kernel: Kernel) -> None:
    kernel.does(MAKE, 2)
    kernel.does("swapoff $ROOT$1")
    assert "it needs 6 MB more" in kernel.is_refused(mib="8", FREE="70000000", priority="3")
    assert kernel.is_as(2, "3")


def test_what_the_kernel_does_not_take_gives_back_what_was_there(kernel: Kernel) -> None:
    kernel.does(MAKE, 1, "4")
    (kernel.root / "refused").write_text(str(MIB))
    assert "swapon failed: Invalid argument" in kernel.is_refused(mib="2")
    assert kernel.is_as(1, "4")


def test_where_it_is_the_first_that_the_kernel_does_not_take_it_is_told(kernel: Kernel) -> None:
    (kernel.root / "refused").write_text("0")
    assert "swapon failed: Invalid argument" in kernel.is_refused()
    assert not kernel.listed
    kernel.does(TAKE_AWAY)
    assert not kernel.file.exists()


def test_one_made_by_a_kernel_with_other_pages_is_named_anew(kernel: Kernel) -> None:
    kernel.does(MAKE)
    kernel.does("swapoff $ROOT$1")
    (kernel.root / "other-pages").touch()
    assert kernel.does(MAKE).returncode == 0
    assert kernel.is_as(1)


def _put_file(kernel: Kernel) -> None:
    kernel.file.write_text("theirs")


def _put_swap(kernel: Kernel) -> None:
    kernel.file.write_bytes(bytes(MIB))
    subprocess.run(["mkswap", str(kernel.file)], check=True, capture_output=True)
    kernel.does("swapon $ROOT$1")


def _put_link(kernel: Kernel) -> None:
    kernel.does(MAKE, path="/etc/theirs")
    kernel.does("swapoff $ROOT/etc/theirs")
    kernel.file.symlink_to(kernel.root / "etc/theirs")


def _put_disk_with_our_label(kernel: Kernel) -> None:
    kernel.file.write_bytes(bytes(MIB))
    format_it = ["mkfs.ext4", "-q", "-F", "-L", "harmony", str(kernel.file)]
    subprocess.run(format_it, check=True, capture_output=True)


def _put_directory(kernel: Kernel) -> None:
    kernel.file.mkdir()


@pytest.mark.parametrize(
    "put", [_put_file, _put_swap, _put_link, _put_disk_with_our_label, _put_directory]
)
def test_what_somebody_else_has_made_is_never_touched(
    kernel: Kernel, put: Callable[[Kernel], None]
) -> None:
    put(kernel)
    before, listed = kernel.file.lstat().st_ctime_ns, kernel.listed
    assert "not by Harmony" in kernel.is_refused()
    assert kernel.does(TAKE_AWAY).returncode == 0
    assert (kernel.file.lstat().st_ctime_ns, kernel.listed) == (before, listed)


def test_a_place_where_it_could_be_exchanged_or_cannot_be_is_refused(kernel: Kernel) -> None:
    var, etc = kernel.root / "var", kernel.root / "etc"
    (var / "a").mkdir()
    (var / "link").symlink_to("a")
    assert "is a link" in kernel.is_refused(path="/var/link/swap")
    assert "by a DirectoryScore" in kernel.is_refused(path="/var/none/swap")
    assert "is on tmpfs" in kernel.is_refused(KIND="tmpfs")
    assert "is on overlayfs" in kernel.is_refused(KIND="overlayfs")
    assert "is on msdos" in kernel.is_refused(KIND="msdos")
    var.chmod(0o1777)
    assert "others than root may write to /var" in kernel.is_refused(path="/var/a/swap")
    var.chmod(0o775)
    assert "others than root may write to /var" in kernel.is_refused()
    var.chmod(0o755)
    os.chown(var, 1000, 0)
    assert "others than root may write to /var" in kernel.is_refused()
    assert not kernel.listed
    assert not os.listdir(etc)


def test_a_path_that_others_have_swap_at_is_refused(kernel: Kernel) -> None:
    (kernel.root / "etc/fstab").write_text("# /var/swapfile\n/var/swapfile none swap sw 0 0\n")
    assert "/etc/fstab has a line for /var/swapfile" in kernel.is_refused()
    (kernel.root / "etc/fstab").unlink()
    (kernel.root / "fragment").write_text("/run/systemd/generator/var-swapfile.swap\n")
    assert "generator/var-swapfile.swap is a unit for" in kernel.is_refused()
    (kernel.root / "fragment").unlink()
    # Neither has its file at each moment.
    (kernel.root / "sbin").mkdir()
    (kernel.root / "sbin/dphys-swapfile").touch()
    assert "file of dphys-swapfile" in kernel.is_refused(path="/var/swap")
    (kernel.root / "etc/dphys-swapfile").write_text(
        "#CONF_SWAPFILE=/x\nCONF_SWAPFILE=/var/swapfile\n"
    )
    assert "file of dphys-swapfile" in kernel.is_refused()
    (kernel.root / "sbin/dphys-swapfile").unlink()
    generators = kernel.root / "lib/systemd/system-generators"
    generators.mkdir(parents=True)
    (generators / "rpi-swap-generator").touch()
    assert "file of rpi-swap" in kernel.is_refused(path="/var/swap")
    parts = kernel.root / "etc/rpi/swap.conf.d"
    parts.mkdir(parents=True)
    (parts / "80-own.conf").write_text("[File]\nPath=/var/swapfile\n")
    assert "file of rpi-swap" in kernel.is_refused()
    assert kernel.does(MAKE, path="/var/swap").returncode == 0


def test_a_look_stops_the_service_only_where_it_is_otherwise(kernel: Kernel) -> None:
    asked, active = kernel.root / "asked", kernel.root / "active"
    kernel.does(MAKE)
    active.touch()
    assert kernel.does(LOOK).returncode == 0
    assert not asked.exists()
    # While it is being made, and where it is not there, nobody is stopped.
    active.unlink()
    assert kernel.does(LOOK, 2).returncode == 0
    assert not asked.exists()
    active.touch()
    for change in ("swapoff $ROOT$1", "chmod 0644 $ROOT$1"):
        kernel.does(MAKE)
        kernel.does(change)
        assert kernel.does(LOOK).returncode == 0
        assert asked.read_text() == f"--no-block stop {UNIT}\n"
        asked.unlink()


BEGINNINGS: tuple[tuple[int, bool], ...] = ((0, False), (2, True), (1, False), (1, True))
"""How large the file is, and whether it is on."""


@pytest.mark.parametrize("when", ["BEFORE", "AFTER"])
@pytest.mark.parametrize("text", [MAKE, TAKE_AWAY])
def test_killed_anywhere_the_next_run_ends_in_order(tmp_path: Path, text: str, when: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("swap files are root's")
    kills = 0
    for number, (mib, on) in enumerate(BEGINNINGS):
        for at in range(1, 100):
            (tmp_path / f"{number}-{at}").mkdir()
            kernel = Kernel(tmp_path / f"{number}-{at}")
            if mib:
                kernel.does(MAKE, mib)
            if mib and not on:
                kernel.does("swapoff $ROOT$1")
            killed = kernel.does(text, 1, "3", **{when: str(at)})
            if killed.returncode == 0:
                break
            assert killed.returncode == -9
            kills += 1
            done = kernel.does(text, 1, "3")
            assert (done.returncode, done.stderr) == (0, ""), (number, at)
            if text == MAKE:
                assert kernel.is_as(1, "3"), (number, at)
            else:
                assert not kernel.listed, (number, at)
                assert not os.listdir(kernel.root / "var"), (number, at)
    assert kills > (25 if text == MAKE else 8)


async def test_it_is_made_and_then_left() -> None:
    pi = FakePi()
    score = SwapScore(path="/var/swapfile", size_bytes=MIB, priority=10)
    first, second = await interpret_twice(score, pi.offers)
    third, _ = await interpret_twice(score, pi.offers)
    assert [each.status for each in (first, second, third)] == ["RUNNING", "SUCCESS", "NOOP"]
    for path in ("/var/swap-file", "/var/swap/file", "/var/swap_file"):
        await interpret_twice(SwapScore(path=path, size_bytes=MIB), pi.offers)
    assert await pi.jobs.runs(("/bin/true",)) == 4


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"path": "swapfile"}, "absolute path"),
        ({"path": "/var/a b"}, "letters, digits"),
        ({"path": "/var/a%n"}, "letters, digits"),
        ({"path": "/var/$HOME"}, "letters, digits"),
        ({"path": "/var/../swapfile"}, "'..'"),
        ({"path": "/" + "a" * 151}, "letters, digits"),
        ({"size_bytes": 1}, "1048576"),
        ({"priority": 32768}, "32767"),
        ({"priority": -1}, "0"),
    ],
)
def test_what_cannot_be_is_refused_by_its_field(fields: dict[str, object], why: str) -> None:
    spec = {"path": "/var/swapfile", "size_bytes": MIB, **fields}
    with pytest.raises(ValidationError, match=re.escape(why)):
        SwapScore.model_validate(spec)


def test_what_runs_as_root_is_the_device_s_to_allow() -> None:
    confined, anything = (
        DevicePolicy(rules=PolicyTable(preset="open", jobs=jobs)) for jobs in ("confined", "any")
    )
    for job in SwapScore(path="/var/swapfile", size_bytes=MIB)._jobs():  # pyright: ignore[reportPrivateUsage]
        assert confined.refusal(job)
        assert anything.refusal(job) is None
