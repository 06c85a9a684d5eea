"""The program that updates the agent: what it takes for installed, and what it puts back. By itself, in a
folder; the whole of it, on a device: tests/fleet/test_agent_updates.py."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
import zipfile
from pathlib import Path

import pytest

from harmony_scores import _agent_update as updater

INFO = "harmony-1.0.dist-info"
RECORD = "harmony_core/__init__.py,sha256=abc,9\nharmony_agent/cli.py,sha256=def,7\n"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, path in (
        ("HERE", "opt/harmony"),
        ("NEXT", "opt/harmony.next"),
        ("NOTES", "notes"),
        ("FAILED", "notes/failed.json"),
        ("DATABASE_BEFORE", "notes/database"),
        ("PACKED", "notes/packed"),
        ("CONFIG", "agent.toml"),
    ):
        monkeypatch.setattr(updater, name, tmp_path / path)
    (tmp_path / "agent.toml").write_text(f'state_directory = "{tmp_path}/state"\n')
    for each in ("opt/harmony/bin", "opt/harmony.next/bin", "notes", "state"):
        (tmp_path / each).mkdir(parents=True)
    return tmp_path


@pytest.fixture
def wheel(place: Path) -> Path:
    path = place / "harmony-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as content:
        content.writestr(f"{INFO}/RECORD", f"{RECORD}{INFO}/RECORD,,\n")
    return path


def install(environment: Path, record: str, info: str = INFO) -> None:
    path = environment / "lib/python3.11/site-packages" / info / "RECORD"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(record)


@pytest.mark.parametrize(
    ("record", "is_so"),
    [
        (f"{RECORD}{INFO}/INSTALLER,sha256=x,4\n../../../bin/harmony,sha256=y,1\n", True),
        # pip was ended, or has not begun to write it
        (RECORD, False),
        # another build of the same version
        (f"{RECORD.replace('abc', 'other')}{INFO}/INSTALLER,sha256=x,4\n", False),
        ("", False),
    ],
    ids=["whole", "not finished", "another build", "empty"],
)
def test_installed_is_what_the_wheel_has_and_pip_has_finished(
    record: str, is_so: bool, wheel: Path
) -> None:
    install(updater.HERE, record)
    assert updater.is_installed(updater.HERE, wheel) is is_so
    assert updater.main("look", str(wheel)) == (not is_so)


def test_another_version_or_none_is_not_it(wheel: Path) -> None:
    assert not updater.is_installed(updater.HERE, wheel)
    install(updater.HERE, f"{RECORD}{INFO}/INSTALLER,sha256=x,4\n", "harmony-2.0.dist-info")
    assert not updater.is_installed(updater.HERE, wheel)


def test_what_is_on_trial_is_not_there_yet(wheel: Path) -> None:
    install(updater.HERE, f"{RECORD}{INFO}/INSTALLER,sha256=x,4\n")
    (updater.HERE / updater.ON_TRIAL).write_text("{}")
    assert updater.main("look", str(wheel)) == 1


def test_what_is_no_wheel_is_refused_by_name(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = place / "harmony-1.0-py3-none-any.whl"
    path.write_text("no zip")
    with pytest.raises(SystemExit):
        updater.is_installed(updater.HERE, path)
    assert capsys.readouterr().err.startswith(f"reason: wheel: {path} is no wheel of Harmony: ")


@pytest.mark.parametrize(
    ("ago_s", "is_refused"),
    [(60.0, True), (updater.NOT_TRIED_AGAIN_S + 60, False), (-60.0, False)],
)
def test_what_was_taken_back_is_not_tried_for_a_day(
    ago_s: float, is_refused: bool, wheel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor is it refused for ever where the clock was set back."""
    digest = updater.sha256(wheel)
    updater.note_failure(digest, "it was deaf", again_s=updater.NOT_TRIED_AGAIN_S)
    note = json.loads(updater.FAILED.read_bytes())
    updater.FAILED.write_text(json.dumps({**note, "at_s": time.time() - ago_s}))
    if is_refused:
        with pytest.raises(SystemExit):
            updater.refuse_again(wheel)
        assert capsys.readouterr().err == "reason: it was deaf\n"
    else:
        updater.refuse_again(wheel)
    updater.FAILED.write_text(json.dumps({**note, "sha256": "another"}))
    updater.refuse_again(wheel)


def test_commands_that_pip_has_written_run_what_will_be_there() -> None:
    said = f"#!{updater.NEXT}/bin/python3\nimport x\n".encode()
    binary = b"\x7fELF" + said
    (updater.NEXT / "bin/harmony-agent").write_bytes(said)
    (updater.NEXT / "bin/other").write_bytes(binary)
    (updater.NEXT / "bin/python3").symlink_to("/usr/bin/python3")
    updater.relocate()
    assert (updater.NEXT / "bin/harmony-agent").read_bytes() == said.replace(b".next/", b"/")
    assert (updater.NEXT / "bin/other").read_bytes() == binary


def test_both_change_places_in_one_step() -> None:
    (updater.HERE / "old").touch()
    (updater.NEXT / "new").touch()
    updater.exchange()
    assert (updater.HERE / "new").exists()
    assert (updater.NEXT / "old").exists()
    updater.NEXT.rename(updater.NOTES / "away")
    with pytest.raises(OSError, match="No such file"):
        updater.exchange()


TRIAL = {
    "sha256": "0" * 64,
    "name": "harmony-1.0-py3-none-any.whl",
    "was_connected": True,
    "ran": "x",
}


@pytest.fixture
def deeds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What systemd is asked to do; of the agent it says nothing."""
    asked: list[str] = []

    def systemctl(*words: str) -> None:
        asked.append(words[0])

    def show(unit: str, name: str) -> str:
        return ""

    monkeypatch.setattr(updater, "systemctl", systemctl)
    monkeypatch.setattr(updater, "show", show)
    monkeypatch.setattr(updater, "UNIT", updater.NOTES / "harmony-agent.service")
    return asked


def say_of_the_trial(monkeypatch: pytest.MonkeyPatch, why: str | None) -> None:
    def watch(*, is_to_connect: bool) -> str | None:
        assert is_to_connect
        return why

    monkeypatch.setattr(updater, "watch", watch)


def on_trial_with(place: Path, unit: str) -> None:
    for each, content in ((updater.HERE, unit), (updater.NEXT, "the unit before\n")):
        deploy = each / "lib/python3.11/site-packages/harmony_agent/deploy"
        deploy.mkdir(parents=True)
        (deploy / updater.AGENT).write_text(content)
    (updater.HERE / updater.ON_TRIAL).write_text(json.dumps(TRIAL))


def test_what_comes_up_well_is_kept(
    place: Path, deeds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_trial_with(place, "the new unit\n")
    say_of_the_trial(monkeypatch, None)
    updater.judge(TRIAL)
    assert updater.on_trial() is None
    assert updater.UNIT.read_text() == "the new unit\n"
    assert deeds == ["daemon-reload", "restart"]


def test_what_does_not_is_taken_back_with_its_unit_and_noted(
    place: Path,
    deeds: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    on_trial_with(place, "the new unit\n")
    say_of_the_trial(monkeypatch, "it is deaf")
    with pytest.raises(SystemExit):
        updater.judge(TRIAL)
    assert updater.UNIT.read_text() == "the unit before\n"
    assert updater.on_trial() is None
    assert not updater.NEXT.exists()
    assert json.loads(updater.FAILED.read_bytes())["sha256"] == TRIAL["sha256"]
    assert "taken back: it is deaf; it is tried again after a day" in capsys.readouterr().err
    assert deeds == ["daemon-reload", "restart", "daemon-reload", "restart"]


def test_what_cannot_be_taken_back_stays_and_says_so(
    place: Path,
    deeds: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    on_trial_with(place, "the new unit\n")
    shutil.rmtree(updater.NEXT)
    say_of_the_trial(monkeypatch, "it is deaf")
    with pytest.raises(SystemExit):
        updater.judge(TRIAL)
    assert "what was there before it is gone" in capsys.readouterr().err
    assert updater.HERE.exists()
    assert updater.on_trial() is None


def make_database(directory: Path, version: int) -> None:
    directory.mkdir(exist_ok=True)
    with sqlite3.connect(directory / "agent.db") as database:
        database.execute(f"PRAGMA user_version = {version}")
    database.close()


@pytest.mark.parametrize(("before", "after", "kept"), [(8, 9, 8), (9, 9, 9), (9, 8, 8)])
def test_a_database_that_is_too_new_for_the_agent_is_taken_back_and_no_other(
    before: int, after: int, kept: int, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_database(updater.DATABASE_BEFORE, before)
    make_database(place / "state", after)
    (place / "state" / "agent.db-wal").write_bytes(b"of the new one")
    asked: list[str] = []

    def systemctl(*words: str) -> None:
        asked.append(words[0])

    monkeypatch.setattr(updater, "systemctl", systemctl)
    updater.clean_up()
    assert asked == ([] if kept == after else ["stop", "start"])
    assert (place / "state" / "agent.db-wal").exists() is (kept == after)
    (place / "state" / "agent.db-wal").unlink(missing_ok=True)
    assert updater.schema(place / "state") == kept
    assert not updater.DATABASE_BEFORE.exists()
    assert not updater.NEXT.exists()


def test_without_room_for_a_second_one_it_is_not_begun(
    wheel: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (updater.HERE / "large").write_bytes(bytes(4_000_000))
    monkeypatch.setattr(updater, "ROOM_KEPT_BYTES", 1 << 60)
    with pytest.raises(SystemExit):
        updater.check_room(wheel)
    assert "and the disk of /opt has" in capsys.readouterr().err
