"""harmony-udev in a folder, with a udevadm that notes what it is told."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from harmony_udev import RuleAt, SerialAliasScore, UdevRule
from harmony_udev.reconciler import UdevRules

from harmony_core import Failure, Noop, Success
from harmony_core.errors import CapabilityUnavailable
from harmony_core.reconciler import MemoryRecords
from harmony_core.testing import (
    CapabilityContract,
    CapabilityUnderTest,
    FakePi,
    interpret_once,
    interpret_twice,
)

RULES = "etc/udev/rules.d"
METER = SerialAliasScore(alias="meter", vendor_id="0403", product_id="6001")


@attrs.frozen
class Udev:
    """A folder with rules, and who works there by hand."""

    root: Path
    records: MemoryRecords = attrs.field(factory=MemoryRecords)

    def rules(self) -> UdevRules:
        return UdevRules(root=self.root, records=self.records, udevadm=str(self.root / "udevadm"))

    def told(self) -> list[str]:
        return (self.root / "told").read_text().splitlines()

    def breaks(self) -> None:
        (self.root / "udevadm").write_text("#!/bin/sh\necho no udev >&2\nexit 1\n")

    def path(self, key: str) -> Path:
        return self.root / RULES / f"{key}.rules"

    def identity(self, key: str) -> object | None:
        path = self.path(key)
        return (path.stat().st_ino, path.read_text()) if path.is_file() else None

    def disturb(self, key: str) -> None:
        self.path(key).write_text("# nothing\n")

    def make_foreign(self) -> str:
        self.path("99-theirs").write_text("# theirs\n")
        return "99-theirs"


@pytest.fixture
def udev(tmp_path: Path) -> Udev:
    program = tmp_path / "udevadm"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/told\n')
    program.chmod(0o755)
    (tmp_path / RULES / "60-there.rules").mkdir(parents=True)
    return Udev(tmp_path)


class TestUdevRules(CapabilityContract[UdevRule]):
    @pytest.fixture
    def host(self, udev: Udev) -> CapabilityUnderTest[UdevRule]:
        return CapabilityUnderTest(
            reconciler=udev.rules(),
            restarted=udev.rules,
            wish=UdevRule(name="70-it", content="# one\n"),
            changed=UdevRule(name="70-it", content="# two\n"),
            beside=UdevRule(name="71-beside", content="# three\n"),
            refused=UdevRule(name="60-there", content="# four\n"),
            outsider=udev,
        )


async def test_interpreted_twice_it_is_success_then_noop_and_udev_is_told_once(udev: Udev) -> None:
    first, second = await interpret_twice(METER, {**FakePi().offers, "UdevHost": udev.rules()})
    assert isinstance(first, Success)
    assert second == Noop()
    assert udev.told() == ["control --reload"]
    assert 'SYMLINK+="meter"' in udev.path("70-meter").read_text()


async def test_what_udev_did_not_read_is_told_and_read_the_next_time(udev: Udev) -> None:
    works = (udev.root / "udevadm").read_text()
    udev.breaks()
    outcome = (await interpret_once(METER, {"UdevHost": udev.rules()})).outcome
    assert isinstance(outcome, Failure)
    assert "no udev; look at: systemctl status systemd-udevd" in outcome.error.message
    found = await udev.rules().observe("70-meter")
    assert isinstance(found, RuleAt)
    assert not found.is_ready
    (udev.root / "udevadm").write_text(works)
    assert isinstance((await interpret_once(METER, {"UdevHost": udev.rules()})).outcome, Success)
    assert udev.told() == ["control --reload"]


async def test_whether_udev_answers_is_asked_of_it(udev: Udev) -> None:
    assert (await udev.rules().availability()).available
    udev.breaks()
    answer = await udev.rules().availability()
    assert not answer.available
    assert "no udev" in answer.reason


async def test_a_program_that_is_gone_is_unavailable(udev: Udev) -> None:
    (udev.root / "udevadm").unlink()
    rule = UdevRule(name="70-it", content="# one\n")
    (error,) = await udev.rules().converge([rule], apply=True)
    assert isinstance(error, CapabilityUnavailable)


@pytest.mark.parametrize(
    ("content", "runs"),
    [
        ('SUBSYSTEM=="tty", SYMLINK+="a"', False),
        ('SUBSYSTEM=="tty", RUN+="/bin/sh"', True),
        ('PROGRAM="/bin/sh"', True),
        ('IMPORT{program}="/bin/sh"', True),
    ],
)
def test_a_rule_that_runs_a_program_says_so(content: str, *, runs: bool) -> None:
    rule = UdevRule(name="70-it", content=content)
    assert rule.privileges == (frozenset({"run-as-root"}) if runs else frozenset())
