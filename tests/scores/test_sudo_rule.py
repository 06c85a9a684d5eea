"""SudoRuleScore: which rules it takes, and what a device lets it do."""

from __future__ import annotations

import asyncio
import re
import subprocess
from pathlib import Path

import pytest
from pydantic import ValidationError

from harmony_agent.apply.policy import DevicePolicy
from harmony_agent.policy_toml import PolicyTable
from harmony_core import SystemdUnit
from harmony_core.testing import FakePi, interpret_twice
from harmony_scores import SudoRuleScore

RESTART = "/usr/bin/systemctl restart web"


async def test_it_is_written_once() -> None:
    pi = FakePi()
    score = SudoRuleScore(name="web", user="pi", commands=(RESTART,), password=False)
    first, second = await interpret_twice(score, pi.offers)
    third, _ = await interpret_twice(score, pi.offers)
    assert [each.status for each in (first, second, third)] == ["RUNNING", "SUCCESS", "NOOP"]
    note = (pi.files.read("/var/lib/harmony-sudo/web") or b"").decode()
    assert note.splitlines()[1] == f"pi ALL=(root) NOPASSWD: {RESTART}"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"name": "10.web"}, "sudo ignores"),
        ({"name": "web~"}, "sudo ignores"),
        ({"name": "../x"}, "sudo ignores"),
        ({"name": "a/b"}, "pattern"),
        ({"user": None}, "exactly one"),
        ({"group": "adm"}, "exactly one"),
        ({"user": "ALL"}, "pattern"),
        ({"commands": ()}, "at least 1"),
        ({"commands": ("systemctl",)}, "absolute path"),
        ({"commands": ("/usr/bin/",)}, "name each"),
        ({"commands": ("/usr/bin/*",)}, "absolute path"),
        ({"commands": ("/bin/a\nada ALL=(ALL) ALL",)}, "absolute path"),
        ({"commands": ("/bin/a x, ALL",)}, None),
        ({"commands": ("/bin/a !x",)}, "absolute path"),
        ({"commands": ("/bin/a\\",)}, "absolute path"),
        ({"commands": ("/bin/a #x",)}, "absolute path"),
        ({"run_as": "ALL"}, "name"),
    ],
)
def test_what_sudo_would_read_otherwise_is_refused(
    fields: dict[str, object], why: str | None
) -> None:
    spec = {"name": "web", "user": "pi", "commands": (RESTART,), **fields}
    if why is None:  # a comma is an argument's, and is escaped
        (unit, *_) = SudoRuleScore.model_validate(spec)._units()  # pyright: ignore[reportPrivateUsage]
        assert r"/bin/a x\\, ALL" in (unit.content or "")
        return
    with pytest.raises(ValidationError, match=re.escape(why)):
        SudoRuleScore.model_validate(spec)


def test_who_may_do_what_is_root_s_to_allow() -> None:
    unit = SystemdUnit(name="harmony-sudo-web.service", content="[Service]\n", gives_root=True)
    policy = DevicePolicy(rules=PolicyTable(preset="open", jobs="confined"))
    assert "as root" in (policy.refusal(unit) or "")
    assert DevicePolicy(rules=PolicyTable(preset="open", jobs="any")).refusal(unit) is None


HEADER = "# Written by Harmony, which puts it back where somebody changes it.\n"
RULE = f"pi ALL=(root) PASSWD: {RESTART}\n"


@pytest.mark.parametrize(
    ("found", "left"),
    [
        (HEADER + RULE, False),
        (f"{HEADER}{RULE}ada ALL=(ALL) ALL\n", False),
        (f"ada ALL=(ALL) ALL\n{RULE}", False),
        ("ada ALL=(ALL) ALL\n", True),
        (None, False),
    ],
)
async def test_it_is_taken_away_whatever_became_of_its_service(
    tmp_path: Path, found: str | None, left: bool
) -> None:
    pi = FakePi()
    score = SudoRuleScore(name="web", user="pi", commands=(RESTART,))
    await interpret_twice(score, pi.offers)
    file = tmp_path / "sudoers.d" / "web"
    file.parent.mkdir()
    if found is not None:
        file.write_text(found)
    await pi.systemd.remove(
        ["harmony-sudo-web.path", "harmony-sudo-web.service", "harmony-sudo-web.look.service"],
        apply=True,
    )
    before = len(pi.jobs.begun)
    await pi.jobs.remove(["harmony-sudo-web"], apply=True)
    (undo,) = pi.jobs.begun[before:]
    moved = [
        each.replace("/etc/sudoers.d", str(file.parent))
        .replace("/run/harmony-sudo.lock", str(tmp_path / "lock"))
        .replace("/var/lib/harmony-sudo", str(tmp_path / "notes"))
        for each in undo
    ]
    for _ in "as often as it is tried":
        done = await asyncio.to_thread(subprocess.run, moved, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
    assert file.exists() is left


async def test_two_rules_have_two_jobs_that_take_them_away() -> None:
    pi = FakePi()
    for name in ("a_b", "a-b", "a" * 50, "a" * 49 + "_"):
        await interpret_twice(SudoRuleScore(name=name, user="pi", commands=(RESTART,)), pi.offers)
    assert len(pi.jobs.begun) == 4
