"""KernelModuleScore: what it writes, and what its service does on a kernel that is a folder.

No test can load a module: the kernel that this runs on is not theirs. So modprobe is a small script that does
to the folder what the kernel does to /sys/module, and the box shows what is said where there are no modules.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import ValidationError

from harmony_core.testing import FakePi, interpret_twice
from harmony_scores import KernelModuleScore
from harmony_scores.kernel_module import MAKE_SO
from tests.box import Box

MODPROBE = """#!/bin/sh
here=$ROOT/sys/module
if [ "$1" = -r ]; then [ ! -e "$here/$2/in-use" ] && rm -r "$here/$2"; exit; fi
[ -e "$ROOT/lib/modules/$1" ] || { echo "modprobe: FATAL: Module $1 not found in directory" >&2; exit 1; }
[ -d "$here/$1" ] && exit
mkdir -p "$here/$1/parameters"
printf %s "${FRESH-16}" > "$here/$1/parameters/size"
printf Y > "$here/$1/parameters/quiet"
"""
MODINFO = """#!/bin/sh
[ -e "$ROOT/lib/modules/$2" ] || { echo "modinfo: ERROR: Module $2 not found." >&2; exit 1; }
printf '%s\\n' 'size:how large (int)' 'quiet: (bool)' 'write_only:not seen in /sys (int)'
"""


class Kernel:
    """A folder with what the script looks at."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.modules = root / "lib/modules" / os.uname().release
        self.modules.mkdir(parents=True)
        (root / "lib/modules/snd").touch()
        (root / "run").mkdir()
        (root / "bin").mkdir()
        for name, text in (("modprobe", MODPROBE), ("modinfo", MODINFO)):
            (root / "bin" / name).write_text(text)
            (root / "bin" / name).chmod(0o755)

    def does(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.root}/bin:/usr/bin:/bin"
        return subprocess.run(
            ["/bin/sh", "-eu", "-c", MAKE_SO, "sh", *arguments],
            env={"PATH": path, "ROOT": str(self.root), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def load(self, size: str, *, in_use: bool = False) -> None:
        parameters = self.root / "sys/module/snd/parameters"
        parameters.mkdir(parents=True)
        (parameters / "size").write_text(f"{size}\n")
        if in_use:
            (parameters.parent / "in-use").touch()

    @property
    def is_loaded(self) -> bool:
        return (self.root / "sys/module/snd").exists()

    @property
    def awaited(self) -> str:
        path = self.root / "run/reboot-required.pkgs"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


def test_it_is_loaded_and_its_parameters_looked_at(kernel: Kernel) -> None:
    done = kernel.does("load", "snd", "no", "quiet=1", "size=16")
    assert (done.returncode, done.stderr, kernel.awaited) == (0, "", "")
    assert kernel.is_loaded
    assert kernel.does("load", "snd", "no", "size=16").returncode == 0


def test_a_parameter_that_only_the_module_itself_knows_is_taken(kernel: Kernel) -> None:
    assert kernel.does("load", "snd", "no", "write_only=1").returncode == 0
    assert kernel.does("keep-out", "usb", "no").returncode == 0


def test_with_a_parameter_that_it_does_not_have_nothing_is_loaded(kernel: Kernel) -> None:
    assert kernel.does("load", "snd", "no", "sise=16").returncode == 1
    assert not kernel.is_loaded


def test_one_that_is_loaded_otherwise_awaits_a_boot(kernel: Kernel) -> None:
    kernel.load("8")
    done = kernel.does("load", "snd", "no", "size=16")
    assert done.returncode == 0
    assert "size is 8 and not 16" in done.stdout
    assert kernel.awaited == "kernel module snd\n"
    assert (kernel.root / "run/reboot-required").exists()


@pytest.mark.parametrize(("in_use", "awaited"), [(False, ""), (True, "kernel module snd\n")])
def test_where_it_may_be_it_is_loaded_anew_unless_it_is_in_use(
    kernel: Kernel, in_use: bool, awaited: str
) -> None:
    kernel.load("8", in_use=in_use)
    assert kernel.does("load", "snd", "yes", "size=16").returncode == 0
    assert kernel.awaited == awaited


@pytest.mark.parametrize(
    ("reload", "awaited", "left"),
    [("no", "kernel module snd\n", True), ("yes", "", False)],
)
def test_one_that_is_kept_out(kernel: Kernel, reload: str, awaited: str, left: bool) -> None:
    assert kernel.does("keep-out", "snd", reload).returncode == 0
    assert kernel.awaited == ""
    kernel.load("8")
    assert kernel.does("keep-out", "snd", reload).returncode == 0
    assert (kernel.awaited, kernel.is_loaded) == (awaited, left)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("load", "none", "no"), "none: Module none not found in directory"),
        (("load", "built", "no", "size=16"), "as built.size=16"),
        (("keep-out", "built", "no"), "cannot be kept out"),
        (("keep-out", "usb_storage", "no"), "cannot be kept out"),
        (("keep-out", "usb-storage", "no"), "cannot be kept out"),
        (("keep-out", "a_b_c", "no"), "cannot be kept out"),
        (("load", "snd", "no", "sise=16"), "it has no parameter sise"),
        (("load", "snd", "no", "write=1"), "it has no parameter write"),
        (
            ("load", "snd", "no", "size=0x10"),
            "size is 16 and not 0x10: the kernel makes that of it",
        ),
    ],
)
def test_what_cannot_be_is_told(kernel: Kernel, arguments: Sequence[str], why: str) -> None:
    (kernel.modules / "modules.builtin").write_text(
        "kernel/drivers/built.ko\nkernel/drivers/usb/usb-storage.ko\nkernel/drivers/a_b-c.ko\n"
    )
    done = kernel.does(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("reason: ")
    assert why in done.stderr
    assert kernel.awaited == ""
    assert kernel.does("load", "built", "no").returncode == 0


async def test_the_score_writes_one_file_and_one_service() -> None:
    pi = FakePi()
    score = KernelModuleScore(name="snd-usb-audio", parameters={"index": "-2", "nrpacks": "1"})
    first, second = await interpret_twice(score, pi.offers)
    assert (first.status, second.status) == ("SUCCESS", "NOOP")
    text = pi.files.read("/etc/modprobe.d/harmony-snd_usb_audio.conf")
    assert text == b"options snd_usb_audio index=-2 nrpacks=1\n"
    await interpret_twice(KernelModuleScore(name="bluetooth", blacklist=True), pi.offers)
    assert pi.files.read("/etc/modprobe.d/harmony-bluetooth.conf") == b"blacklist bluetooth\n"


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "../x"},
        {"name": "a b"},
        {"name": "a", "parameters": {"b": "1 install=x"}},
        {"name": "a", "parameters": {"b\n": "1"}},
        {"name": "a", "parameters": {"b": "1\ninstall a /bin/x"}},
        {"name": "a", "parameters": {"b": "1"}, "blacklist": True},
    ],
)
def test_what_is_no_module_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        KernelModuleScore.model_validate(fields)


async def test_a_real_device_without_modules_says_so(pi: Box) -> None:
    done = await asyncio.to_thread(
        pi.run, ["/bin/sh", "-eu", "-c", MAKE_SO, "sh", "load", "i2c-dev", "no"], check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(b"reason: i2c-dev: this device has no mod")
