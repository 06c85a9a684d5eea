"""The program that updates the agent: what it takes for installed, and what it puts back. By itself, in a
folder; the whole of it, on a device: tests/fleet/test_agent_updates.py."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import sqlite3
import time
import zipfile
from contextlib import closing
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
        ("PROGRAM", "notes/program.py"),
        ("LOCK", "lock"),
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


@pytest.mark.parametrize(("ago_s", "is_refused"), [(60.0, True), (3_660.0, False), (-60.0, True)])
def test_what_has_failed_is_not_tried_before_its_time(
    ago_s: float, is_refused: bool, wheel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the clock begins with an old time, as of a device that has none of its own."""
    updater.note_failure(updater.sha256(wheel), "it was deaf", again_s=3_600.0)
    note = json.loads(updater.FAILED.read_bytes())
    updater.FAILED.write_text(json.dumps({**note, "at_s": time.time() - ago_s}))
    if is_refused:
        with pytest.raises(SystemExit):
            updater.refuse_again(wheel)
        assert capsys.readouterr().err == "reason: it was deaf\n"
    else:
        updater.refuse_again(wheel)
    if ago_s < 0:
        assert json.loads(updater.FAILED.read_bytes())["at_s"] <= time.time()
    updater.FAILED.write_text(json.dumps({**note, "sha256": "another"}))
    updater.refuse_again(wheel)
    updater.FAILED.write_text("")
    updater.refuse_again(wheel)


def test_commands_that_pip_has_written_run_what_will_be_there_by_its_records_too() -> None:
    said = f"#!{updater.NEXT}/bin/python3\nimport x\n".encode()
    binary = b"\x7fELF" + said
    (updater.NEXT / "bin/harmony-agent").write_bytes(said)
    (updater.NEXT / "bin/other").write_bytes(binary)
    (updater.NEXT / "bin/python3").symlink_to("/usr/bin/python3")
    more = "../../../bin/harmony-agent,sha256=old,1\n../../../bin/other,sha256=o,2\n"
    install(updater.NEXT, RECORD + more)
    updater.relocate()
    now = (updater.NEXT / "bin/harmony-agent").read_bytes()
    assert now == said.replace(b".next/", b"/")
    assert (updater.NEXT / "bin/other").read_bytes() == binary
    digest = base64.urlsafe_b64encode(hashlib.sha256(now).digest()).decode().rstrip("=")
    rows = dict(updater.read_record(updater.NEXT, INFO))
    assert rows["../../../bin/harmony-agent"] == f"sha256={digest}"
    assert rows["../../../bin/other"] == "sha256=o"
    assert rows["harmony_agent/cli.py"] == "sha256=def"


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
    "judged": 0,
}


@pytest.fixture
def deeds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What systemd is asked to do; of the agent it says nothing."""
    asked: list[str] = []

    def systemctl(*words: str) -> None:
        asked.append(words[0])

    def show(name: str) -> str:
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


def make_database(path: Path, version: int, oldest: int) -> None:
    path.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(path)) as database:
        database.executescript(
            f"CREATE TABLE reader (oldest INTEGER); INSERT INTO reader VALUES ({oldest}); "
            f"PRAGMA user_version = {version};"
        )


def put_on_trial(place: Path, **more: object) -> None:
    for each, content in ((updater.HERE, "the new unit\n"), (updater.NEXT, "the unit before\n")):
        deploy = each / "lib/python3.11/site-packages/harmony_agent/deploy"
        deploy.mkdir(parents=True)
        (deploy / updater.AGENT).write_text(content)
    (updater.HERE / updater.ON_TRIAL).write_text(json.dumps({**TRIAL, **more}))
    make_database(place / "state/agent.db", 9, 9)
    make_database(updater.DATABASE_BEFORE / "agent.db", 8, 3)


def schema_now(place: Path) -> int:
    return updater.read_schema(place / "state/agent.db")


def is_as_before(place: Path) -> bool:
    """Whether the agent of before runs by its own unit, with its own database, and nothing is left."""
    assert updater.read_mark(updater.HERE) is None
    assert not updater.NEXT.exists()
    assert not updater.DATABASE_BEFORE.exists()
    return updater.UNIT.read_text() == "the unit before\n" and schema_now(place) == 8


def test_what_comes_up_well_is_kept_with_its_database(
    place: Path, deeds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put_on_trial(place)
    say_of_the_trial(monkeypatch, None)
    assert updater.finish() is None
    assert updater.read_mark(updater.HERE) is None
    assert updater.UNIT.read_text() == "the new unit\n"
    assert deeds == ["daemon-reload", "restart"]
    assert schema_now(place) == 9
    assert not updater.NEXT.exists()
    assert not updater.DATABASE_BEFORE.exists()


def test_what_does_not_is_taken_back_with_unit_and_database_and_noted(
    place: Path, deeds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put_on_trial(place)
    say_of_the_trial(monkeypatch, "it is deaf")
    (place / "state/agent.db-wal").write_bytes(b"of the new one")
    ended = updater.finish()
    assert ended is not None
    assert "taken back: it is deaf; it is tried again after a day" in ended[1]
    assert is_as_before(place)
    assert not (place / "state/agent.db-wal").exists()
    assert json.loads(updater.FAILED.read_bytes())["sha256"] == TRIAL["sha256"]
    assert deeds == ["daemon-reload", "restart", "stop", "daemon-reload", "start"]


def test_a_database_that_the_agent_of_before_reads_stays(
    place: Path, deeds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put_on_trial(place)
    (place / "state/agent.db").unlink()
    make_database(place / "state/agent.db", 9, 8)
    say_of_the_trial(monkeypatch, "it is deaf")
    assert updater.finish() is not None
    assert schema_now(place) == 9


def test_what_was_cut_short_after_it_was_taken_back_is_ended(place: Path, deeds: list[str]) -> None:
    put_on_trial(place, judged=1)
    updater.UNIT.write_text("the new unit\n")
    updater.exchange()
    assert updater.finish() is None
    assert is_as_before(place)
    assert deeds == ["stop", "daemon-reload", "start"]


def test_what_was_cut_short_before_they_changed_places_leaves_all_as_it_is(
    place: Path, deeds: list[str]
) -> None:
    """Also the database, which somebody may have had changed since, by hand."""
    put_on_trial(place)
    updater.exchange()
    assert updater.finish() is None
    assert deeds == []
    assert schema_now(place) == 9
    assert not updater.DATABASE_BEFORE.exists()


def test_one_that_takes_the_device_down_again_and_again_is_taken_back(
    place: Path, deeds: list[str]
) -> None:
    put_on_trial(place, judged=updater.TRIES_MOST)
    updater.UNIT.write_text("the new unit\n")
    ended = updater.finish()
    assert ended is not None
    assert "the device has gone down 3 times while it was tried" in ended[1]
    assert is_as_before(place)


def test_a_disk_that_takes_nothing_any_more_takes_it_back_all_the_same(
    place: Path, deeds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put_on_trial(place)

    def write_durably(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(updater, "write_durably", write_durably)
    ended = updater.finish()
    assert ended is not None
    assert "No space left on device" in ended[1]
    assert updater.read_mark(updater.HERE) is None
    assert deeds[-1] == "start"


def test_what_cannot_be_taken_back_stays_and_says_so(
    place: Path,
    deeds: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    put_on_trial(place)
    shutil.rmtree(updater.NEXT)
    say_of_the_trial(monkeypatch, "it is deaf")
    with pytest.raises(SystemExit):
        updater.finish()
    assert "what was there before it is gone" in capsys.readouterr().err
    assert updater.HERE.exists()
    assert updater.read_mark(updater.HERE) is None


def test_a_mark_that_cannot_be_read_is_one() -> None:
    (updater.HERE / updater.ON_TRIAL).write_text("")
    mark = updater.read_mark(updater.HERE)
    assert mark is not None
    assert mark["was_connected"]


def test_the_database_is_kept_as_it_is_while_it_is_used(place: Path) -> None:
    make_database(place / "state/agent.db", 8, 3)
    with closing(sqlite3.connect(place / "state/agent.db")) as used:
        used.executescript("PRAGMA journal_mode = WAL; CREATE TABLE more (x);")
        updater.keep_database()
    kept = updater.DATABASE_BEFORE / "agent.db"
    assert updater.read_schema(kept) == 8
    assert updater.ask_database(kept, "SELECT count(*) FROM more") == 0
    assert updater.DATABASE_BEFORE.stat().st_mode & 0o777 == 0o700


def test_without_room_for_a_second_one_it_is_not_begun(
    wheel: Path,
    deeds: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def show(name: str) -> str:
        return f"{{ path={updater.HERE}/bin/harmony-agent ; argv[]= }}"

    monkeypatch.setattr(updater, "show", show)
    monkeypatch.setattr(updater, "ROOM_KEPT_BYTES", 1 << 60)
    with pytest.raises(SystemExit):
        updater.check(wheel)
    assert f"and the disk of {updater.HERE.parent} has" in capsys.readouterr().err


def test_one_that_is_elsewhere_is_left_to_its_owner(
    wheel: Path, deeds: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        updater.check(wheel)
    assert "update it by hand" in capsys.readouterr().err
