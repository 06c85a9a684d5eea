"""Updates the agent of this device to a wheel, tries that, and takes it back where it does not come up.

Run by the device's own Python, as ``python3 -I -c SOURCE update WHEEL``, ``look WHEEL`` or ``remove``:
nothing that is updated runs it. It may be ended at any point, and is run again at the next boot::

    copied     /opt/harmony -> /opt/harmony.next, where pip installs the wheel and what its lock has
    tried      both change places in one step; the agent is started anew
    kept       it has been up, and connected if it was so before, for some time: the copy is deleted
    taken back else: both change places again; unit and database are put back, and that is noted

A mark lies in the directory that is on trial, and changes places with it: in HERE, the trial goes on; in
NEXT, once it has begun, it was taken back, and the rest of that is still to be done. The program that has
begun a trial is kept, and judges it: the new agent brings another one.
"""

from __future__ import annotations

import base64
import csv
import ctypes
import fcntl
import hashlib
import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
import tomllib
import zipfile
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NoReturn

HERE = Path("/opt/harmony")
NEXT = Path("/opt/harmony.next")
NOTES = Path("/var/lib/harmony-update")
AGENT = "harmony-agent.service"
UNIT = Path("/etc/systemd/system") / AGENT
DATABASE = "agent.db"
CONFIG = Path("/etc/harmony/agent.toml")
LOCK = Path("/run/harmony-install.lock")

CONNECTS_WITHIN_S = 120.0
INSTALLED_WITHIN_S = 2400.0
TRIED_FOR_S = 300.0
WELL_FOR_S = 100.0
"""Longer than the agent's watchdog waits, and than it takes to say three times that it is connected."""
ENDS_MOST = 5
TRIES_MOST = 3
NOT_TRIED_AGAIN_S = 24 * 3600.0
NOT_MADE_AGAIN_S = 30 * 60.0
"""A copy of all writes some 100 MB to a card."""
ROOM_KEPT_BYTES = 64 * 1024**2

ON_TRIAL = ".on-trial.json"
FAILED = NOTES / "failed.json"
DATABASE_BEFORE = NOTES / "database"
PACKED = NOTES / "packed"
PROGRAM = NOTES / "program.py"

_EXCHANGE = 2
_AT_WORKING_DIRECTORY = -100
_KEPT = "HARMONY_UPDATE_KEPT"


def main(verb: str, name: str = "") -> int:
    """Update to the wheel *name*; or return whether it is not what is installed, or is on trial (look); or
    remove all that is kept."""
    wheel = Path(name)
    if verb == "look":
        return int(read_mark(HERE) is not None or not is_installed(HERE, wheel))
    run_the_program_that_began()
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = finish()
        if verb == "remove":
            shutil.rmtree(NOTES, ignore_errors=True)
        else:
            # Of another wheel, it says nothing of this one.
            if ended is not None and ended[0] == sha256(wheel):
                fail(ended[1])
            if not is_installed(HERE, wheel):
                update(wheel)
    return 0


def update(wheel: Path) -> None:
    """Install *wheel*, and try it. End where that fails."""
    refuse_again(wheel)
    check(wheel)
    was_connected = wait_connected()
    try:
        prepare(wheel)
        switch(wheel, was_connected=was_connected)
    except (NotMade, OSError, sqlite3.Error, KeyError, zipfile.BadZipFile) as error:
        clean_up()
        again_s = min(2 * read_wait_s(wheel) or NOT_MADE_AGAIN_S, NOT_TRIED_AGAIN_S)
        told = f"{error}; it is tried again after {again_s / 60:.0f} minutes"
        note_failure(sha256(wheel), told, again_s=again_s)
        fail(told)
    if (ended := finish()) is not None:
        fail(ended[1])


class NotMade(Exception):
    """Why the copy could not be made, or not be used; what runs was not touched."""


def fail(reason: str) -> NoReturn:
    """End, and say why."""
    sys.stderr.write(f"reason: {' '.join(reason.split())}\n")
    sys.exit(1)


def run_the_program_that_began() -> None:
    """Run the program that has begun a trial in place of this one, if something is on trial."""
    is_begun = read_mark(HERE) is not None or read_mark(NEXT) is not None
    if is_begun and PROGRAM.exists() and _KEPT not in os.environ:
        words = [sys.executable, "-I", str(PROGRAM), *sys.argv[1:]]
        os.execve(sys.executable, words, {**os.environ, _KEPT: "1"})  # noqa: S606 - kept by itself


def read_own_source() -> str:
    """Return the text of this program."""
    return Path(__file__).read_text() if "__file__" in globals() else sys.orig_argv[3]


# What is there


def is_installed(environment: Path, wheel: Path) -> bool:
    """Return whether *environment* contains what *wheel* has, by pip's own records."""
    name, wanted = read_wheel(wheel)
    found = read_record(environment, name)
    # Until it has finished, pip has written no RECORD, or has the wheel's own, which does not name it.
    return f"{name}/INSTALLER" in dict(found) and set(wanted) <= set(found)


def read_wheel(wheel: Path) -> tuple[str, list[tuple[str, str]]]:
    """Return the name of the ``.dist-info`` of *wheel*, and its files with their hashes."""
    try:
        with zipfile.ZipFile(wheel) as content:
            (record,) = (each for each in content.namelist() if each.endswith(".dist-info/RECORD"))
            return record.partition("/")[0], parse_record(content.read(record))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        fail(f"wheel: {wheel} is no wheel of Harmony: {error}; `make wheel` makes it")


def read_record(environment: Path, name: str) -> list[tuple[str, str]]:
    """Return the files that pip has installed of *name*, with their hashes; empty where it has not."""
    for path in environment.glob(f"lib/python3*/site-packages/{name}/RECORD"):
        with suppress(OSError):
            return parse_record(path.read_bytes())
    return []


def parse_record(record: bytes) -> list[tuple[str, str]]:
    """Return the files in a RECORD, with their hashes. Files without a hash are made on the device."""
    rows = csv.reader(record.decode(errors="replace").splitlines())
    return [(row[0], row[1]) for row in rows if len(row) > 1 and row[1]]


def read_mark(directory: Path) -> dict[str, Any] | None:
    """Return the mark of a trial in *directory*; None where there is none."""
    mark: dict[str, Any] = {
        "sha256": "",
        "name": "it",
        "was_connected": True,
        "ran": "",
        "judged": 0,
    }
    try:
        return {**mark, **json.loads((directory / ON_TRIAL).read_bytes())}
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return mark


def read_failure(wheel: Path) -> dict[str, Any] | None:
    """Return what is noted of the last failure of *wheel*; None where nothing is, or it cannot be read."""
    with suppress(OSError, ValueError):
        noted = dict(json.loads(FAILED.read_bytes()))
        if noted.get("sha256") == sha256(wheel) and {"at_s", "again_s", "why"} <= noted.keys():
            return noted
    return None


def read_wait_s(wheel: Path) -> float:
    """Return for how many seconds *wheel* was not tried after its last failure; 0 for none."""
    noted = read_failure(wheel)
    return 0.0 if noted is None else float(noted["again_s"])


def refuse_again(wheel: Path) -> None:
    """End where *wheel* has failed not long ago."""
    if (noted := read_failure(wheel)) is None:
        return
    ago_s = time.time() - noted["at_s"]
    if ago_s < 0:  # a device without a clock of its own begins with an old time
        note_failure(noted["sha256"], noted["why"], again_s=noted["again_s"])
    if ago_s < noted["again_s"]:
        fail(noted["why"])


def note_failure(digest: str, why: str, *, again_s: float) -> None:
    """Note that the wheel of this hash has failed, and is not tried again before *again_s* have passed."""
    noted = {"sha256": digest, "at_s": time.time(), "again_s": again_s, "why": why}
    with suppress(OSError):  # on a full disk, that it failed is told all the same
        write_durably(FAILED, json.dumps(noted))


def write_durably(path: Path, text: str) -> None:
    """Write *text* to *path*, whole or not at all, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    with new.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    os.sync()


def sha256(path: Path) -> str:
    """Return the hash of *path*, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# The copy


def check(wheel: Path) -> None:
    """End where the wheel need not be tried."""
    runs_from_here = show("ExecStart").split("path=")[-1].startswith(f"{HERE}/")
    if HERE.is_symlink() or not runs_from_here:
        fail(
            f"{AGENT} is not run from {HERE}, where `harmony enroll` installs it; update it by hand"
        )
    used = sum(each.lstat().st_blocks * 512 for each in HERE.rglob("*"))
    needed = used + ROOM_KEPT_BYTES
    for directory, bytes_needed in (
        (HERE.parent, needed),
        (NOTES, 8 * wheel.stat().st_size + ROOM_KEPT_BYTES),
    ):
        free = shutil.disk_usage(directory).free
        if free < bytes_needed:
            lacking = -(-(bytes_needed - free) // 10**6)
            fail(
                f"it needs {bytes_needed // 10**6} MB, and the disk of {directory} has {free // 10**6} MB; "
                f"free {lacking} MB"
            )


def prepare(wheel: Path) -> None:
    """Make NEXT from HERE, with *wheel* and what its lock contains in place of what was there.

    Raise `NotMade`.
    """
    shutil.rmtree(NEXT, ignore_errors=True)
    shutil.rmtree(PACKED, ignore_errors=True)
    PACKED.mkdir(parents=True)
    run("cp", "-aT", str(HERE), str(NEXT), told="it could not be copied")
    shutil.copy(wheel, PACKED)
    version = read_wheel(wheel)[0].removesuffix(".dist-info").partition("-")[2]
    with zipfile.ZipFile(wheel) as content:
        ours = (
            f"--find-links .\nharmony=={version} \\\n    --hash=sha256:{sha256(wheel)}\n".encode()
        )
        locks = "harmony_agent/deploy"
        (PACKED / "agent.lock").write_bytes(ours + content.read(f"{locks}/agent.lock"))
        (PACKED / "build.lock").write_bytes(content.read(f"{locks}/build.lock"))
        (PACKED / "whole.py").write_bytes(content.read("harmony_control/_forget_broken.py"))
    run(sys.executable, "-I", "whole.py", str(NEXT), wheel.name, told="it could not be looked at")
    pip = [
        f"{NEXT}/bin/python",
        "-I",
        "-m",
        "pip",
        "--quiet",
        "--disable-pip-version-check",
        "install",
    ]
    for options in (["-r", "build.lock"], ["--no-build-isolation", "-r", "agent.lock"]):
        run(*pip, "--require-hashes", *options, told="pip could not install it")
    relocate()
    if not is_installed(NEXT, wheel):
        raise NotMade(f"pip has ended well, and {wheel.name} is not what it has installed")
    run(
        *(f"{NEXT}/bin/python", "-I", "-c", "import harmony_agent.startup, harmony_agent.wiring"),
        told="it cannot be loaded",
    )
    shutil.rmtree(PACKED)


def relocate() -> None:
    """Let the commands that pip has written to NEXT run what will be in HERE, and correct pip's records,
    too."""
    written: dict[str, bytes] = {}
    for each in (NEXT / "bin").iterdir():
        if each.is_file() and not each.is_symlink():
            content = each.read_bytes()
            if content.startswith(before := f"#!{NEXT}/".encode()):
                written[f"../../../bin/{each.name}"] = content = (
                    f"#!{HERE}/".encode() + content[len(before) :]
                )
                each.write_bytes(content)
    for record in NEXT.glob("lib/python3*/site-packages/*.dist-info/RECORD"):
        rows = [*csv.reader(record.read_text().splitlines())]
        if not any(row and row[0] in written for row in rows):
            continue
        text = io.StringIO()
        for row in rows:
            if row and (now := written.get(row[0])) is not None:
                digest = base64.urlsafe_b64encode(hashlib.sha256(now).digest()).decode()
                row[1:] = [f"sha256={digest.rstrip('=')}", str(len(now))]
            csv.writer(text, lineterminator="\n").writerow(row)
        record.write_text(text.getvalue())


def run(*command: str, told: str) -> None:
    """Run *command* where the wheel is unpacked, to its end; raise `NotMade` where it fails."""
    environment = {**os.environ, "TMPDIR": str(PACKED)}
    try:
        done = subprocess.run(  # noqa: S603 - written here
            command,
            check=False,
            cwd=PACKED,
            env=environment,
            capture_output=True,
            text=True,
            timeout=INSTALLED_WITHIN_S,
        )
    except subprocess.TimeoutExpired:
        raise NotMade(f"{told} within {INSTALLED_WITHIN_S / 60:.0f} minutes") from None
    if done.returncode:
        lines = [each.strip() for each in (done.stdout + done.stderr).splitlines() if each.strip()]
        errors = [each for each in lines if each.startswith("ERROR")] or lines[-3:]
        raise NotMade(f"{told}: {'; '.join(errors) or f'exit code {done.returncode}'}"[:1000])


# The trial


def switch(wheel: Path, *, was_connected: bool) -> None:
    """Exchange NEXT and HERE. The agent keeps running, so that there is one whatever happens to this program.
    Raise `NotMade`."""
    keep_database()
    write_durably(PROGRAM, read_own_source())
    mark = {
        "sha256": sha256(wheel),
        "name": wheel.name,
        "was_connected": was_connected,
        "ran": show("InvocationID"),
        "judged": 0,
    }
    write_durably(NEXT / ON_TRIAL, json.dumps(mark))
    try:
        exchange()
    except OSError as error:
        why = f"{HERE} cannot change places with another on this file system: {error.strerror}"
        raise NotMade(f"{why}; update by hand") from error


def finish() -> tuple[str, str] | None:
    """Finish whatever was begun. Return of which wheel, and why, where it was rolled back."""
    ended: tuple[str, str] | None = None
    if (mark := read_mark(HERE)) is not None and (why := judge(mark)) is not None:
        if not NEXT.exists():
            (HERE / ON_TRIAL).unlink()
            fail(
                f"{mark['name']}: {why}; and what was there before it is gone: run harmony enroll again"
            )
        ended = (mark["sha256"], take_back(mark, why))
    mark = read_mark(NEXT)
    if ended is not None or (mark is not None and mark["judged"]):
        restore_agent()
    clean_up()
    return ended


def judge(mark: dict[str, Any]) -> str | None:
    """Start what is in HERE. Return why it does not come up well, or None where it does."""
    begun = mark["judged"] + 1
    if begun > TRIES_MOST:
        return f"the device has gone down {TRIES_MOST} times while it was tried"
    try:
        write_durably(HERE / ON_TRIAL, json.dumps({**mark, "judged": begun}))
        is_old = begun == 1 or show("InvocationID") == mark["ran"]
        systemctl("restart" if install_unit() or is_old else "start", AGENT)
        if (why := watch(is_to_connect=bool(mark["was_connected"]))) is None:
            (HERE / ON_TRIAL).unlink()
            FAILED.unlink(missing_ok=True)
            os.sync()
    except OSError as error:
        return f"{error.filename or HERE}: {error.strerror}"
    return why


def take_back(mark: dict[str, Any], why: str) -> str:
    """Exchange what was there before with what is on trial. Return what is reported of it."""
    exchange()
    told = (
        f"{mark['name']} was tried on {time.strftime('%Y-%m-%d at %H:%M:%S UTC', time.gmtime())} and taken "
        f"back: {why}; it is tried again after a day, or once it is removed and pushed again"
    )
    note_failure(mark["sha256"], told, again_s=NOT_TRIED_AGAIN_S)
    return told


def restore_agent() -> None:
    """Run the earlier agent with its own unit, with a database that it reads."""
    systemctl("stop", AGENT)
    try:
        with suppress(OSError):
            install_unit()
        restore_database()
    finally:
        systemctl("start", AGENT)


def wait_connected() -> bool:
    """Return whether the agent is connected; wait for it for a while, as after a boot."""
    until_s = time.monotonic() + CONNECTS_WITHIN_S
    while not (found := is_connected()) and time.monotonic() < until_s:
        time.sleep(2)
    return found


def watch(*, is_to_connect: bool) -> str | None:
    """Return why the agent is not well in time; None once it has been well for long enough."""
    began_s = time.monotonic()
    well_since_s: float | None = None
    ran, ends_before, why = "", int(show("NRestarts") or 0), "it did not start"
    while well_since_s is not None or time.monotonic() - began_s < TRIED_FOR_S:
        state, runs = show("ActiveState"), show("InvocationID")
        ends = int(show("NRestarts") or 0) - ends_before
        if ends >= ENDS_MOST:
            return f"it ended {ends} times in a row: {read_last_words()}"
        if state != "active":
            why, well_since_s = f"it did not start: {read_last_words()}", None
        elif is_to_connect and not is_connected():
            why = "it runs, and has not connected to the control plane, as the one before had"
            well_since_s = None
        elif well_since_s is None or runs != ran:
            why, well_since_s = "it did not stay up", time.monotonic()
        elif time.monotonic() - well_since_s >= WELL_FOR_S:
            return None
        ran = runs
        time.sleep(1)
    return why


def is_connected() -> bool:
    """Return whether the agent says that it is connected to its control plane."""
    return show("StatusText").endswith(", connected")


def read_last_words() -> str:
    """Return the last lines that the agent has written."""
    command = ["journalctl", "-q", "-u", AGENT, "_SYSTEMD_UNIT=" + AGENT, "-n", "3", "-o", "cat"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - as above
    return "; ".join(each.strip() for each in done.stdout.splitlines() if each.strip())[-500:]


def install_unit() -> bool:
    """Have systemd run the agent with the unit of what is installed. Return whether it did not."""
    for unit in HERE.glob(f"lib/python3*/site-packages/harmony_agent/deploy/{AGENT}"):
        wanted = unit.read_text()
        if not UNIT.exists() or UNIT.read_text() != wanted:
            write_durably(UNIT, wanted)
            UNIT.chmod(0o644)
            systemctl("daemon-reload")
            return True
    return False


def exchange() -> None:
    """Exchange HERE and NEXT in one step: at no moment is HERE missing."""
    libc = ctypes.CDLL(None, use_errno=True)
    here, there = os.fsencode(HERE), os.fsencode(NEXT)
    at = _AT_WORKING_DIRECTORY
    if libc.renameat2(at, here, at, there, _EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    os.sync()


def clean_up() -> None:
    """Delete what is not needed once nothing is on trial."""
    for each in (DATABASE_BEFORE, PACKED, NEXT):
        shutil.rmtree(each, ignore_errors=True)
    PROGRAM.unlink(missing_ok=True)


def state_directory() -> Path:
    """Return where the agent keeps its database."""
    said: dict[str, Any] = {}
    with suppress(OSError, tomllib.TOMLDecodeError):
        said = tomllib.loads(CONFIG.read_text())
    return Path(said.get("state_directory", "/var/lib/harmony"))


def keep_database() -> None:
    """Make a copy of the agent's database, as it is now."""
    shutil.rmtree(DATABASE_BEFORE, ignore_errors=True)
    DATABASE_BEFORE.mkdir(mode=0o700, parents=True)
    path = state_directory() / DATABASE
    if path.exists():
        with (
            closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as here,
            closing(sqlite3.connect(DATABASE_BEFORE / DATABASE)) as copy,
        ):
            here.backup(copy)


def restore_database() -> None:
    """Restore the copy in place of a database that the earlier agent does not read. The agent does not run
    now."""
    before, now = DATABASE_BEFORE / DATABASE, state_directory() / DATABASE
    if not before.exists() or read_schema(before) >= read_oldest_reader(now):
        return
    new = now.with_name(f"{DATABASE}.before")
    shutil.copyfile(before, new)
    new.chmod(now.stat().st_mode & 0o777 if now.exists() else 0o600)
    with new.open("rb") as file:
        os.fsync(file.fileno())
    for each in ("-wal", "-shm"):
        now.with_name(DATABASE + each).unlink(missing_ok=True)
    new.replace(now)
    os.sync()


def read_schema(path: Path) -> int:
    """Return the version of the tables of the database *path*; 0 for none."""
    return ask_database(path, "PRAGMA user_version") or 0


def read_oldest_reader(path: Path) -> int:
    """Return the oldest version of tables whose agents read the database *path*; 0 for none."""
    return ask_database(path, "SELECT oldest FROM reader") or read_schema(path)


def ask_database(path: Path, question: str) -> int | None:
    """Return the one number that the database *path* answers; None where it does not."""
    if not path.exists():
        return None
    with (
        suppress(sqlite3.Error),
        closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database,
    ):
        found = database.execute(question).fetchone()
        return None if found is None else int(found[0])
    return None


def show(name: str) -> str:
    """Return what systemd says of the agent under *name*; empty where it says nothing."""
    command = ["systemctl", "show", "--value", "-p", name, "--", AGENT]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - as above
    return done.stdout.strip()


def systemctl(*words: str) -> None:
    """Have systemd do that. A failure is seen when the agent is looked at afterwards."""
    subprocess.run(["systemctl", *words], check=False, capture_output=True)  # noqa: S603, S607 - as above


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
