"""Updates the agent of this device to a wheel, tries that, and takes it back where it does not come up.

Run by the device's own Python, as ``python3 -I -c SOURCE update WHEEL`` or ``look WHEEL``: nothing that is
updated runs it. It may be ended at any point, and is run again at the next boot::

    copied     /opt/harmony -> /opt/harmony.next, where pip installs the wheel and what its lock has
    tried      both change places in one step; the agent is started anew
    kept       it has been up, and connected if it was so before, for some seconds: the copy is deleted
    taken back else: both change places again, and that is noted

A mark within the directory says that it is on trial: so it changes places with it. What was taken back is not
tried again for a day, and what could not be installed not for half an hour.
"""

from __future__ import annotations

import csv
import ctypes
import fcntl
import hashlib
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

TRIED_FOR_S = 300.0
WELL_FOR_S = 20.0
ENDS_MOST = 5
NOT_TRIED_AGAIN_S = 24 * 3600.0
NOT_MADE_AGAIN_S = 30 * 60.0
"""A copy of all writes some 100 MB to a card."""
ROOM_KEPT_BYTES = 64 * 1024**2

ON_TRIAL = ".on-trial.json"
FAILED = NOTES / "failed.json"
DATABASE_BEFORE = NOTES / "database"
PACKED = NOTES / "packed"

_EXCHANGE = 2
_AT_WORKING_DIRECTORY = -100


def main(verb: str, name: str) -> int:
    """Update to the wheel *name*; or look: return whether that is not what is installed, and on no trial."""
    wheel = Path(name)
    if verb == "look":
        return int(on_trial() is not None or not is_installed(HERE, wheel))
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (trial := on_trial()) is not None:
            judge(trial)
        clean_up()
        if not is_installed(HERE, wheel):
            refuse_again(wheel)
            check(wheel)
            try:
                prepare(wheel)
                trial = switch(wheel)
            except NotMade as error:
                told = f"{error}; it is tried again after half an hour"
                note_failure(sha256(wheel), told, again_s=NOT_MADE_AGAIN_S)
                because(told)
            judge(trial)
            clean_up()
    return 0


class NotMade(Exception):
    """Why the copy could not be made, or not be used; what runs was not touched."""


def because(reason: str) -> NoReturn:
    """End, and say why."""
    sys.stderr.write(f"reason: {' '.join(reason.split())}\n")
    sys.exit(1)


# What is there


def is_installed(environment: Path, wheel: Path) -> bool:
    """Return whether what is in *environment* is what *wheel* has, by pip's own records."""
    name, wanted = read_wheel(wheel)
    found = read_record(environment, name)
    # Until it has finished, pip has written no RECORD, or has the wheel's own, which does not name it.
    return f"{name}/INSTALLER" in dict(found) and set(wanted) <= set(found)


def read_wheel(wheel: Path) -> tuple[str, list[tuple[str, str]]]:
    """Return the name of the ``.dist-info`` of *wheel*, and its files with their hashes."""
    try:
        with zipfile.ZipFile(wheel) as content:
            (record,) = (each for each in content.namelist() if each.endswith(".dist-info/RECORD"))
            return record.partition("/")[0], parse(content.read(record))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        because(f"wheel: {wheel} is no wheel of Harmony: {error}; `make wheel` makes it")


def read_record(environment: Path, name: str) -> list[tuple[str, str]]:
    """Return the files that pip has installed of *name*, with their hashes; empty where it has not."""
    for path in environment.glob(f"lib/python3*/site-packages/{name}/RECORD"):
        with suppress(OSError):
            return parse(path.read_bytes())
    return []


def parse(record: bytes) -> list[tuple[str, str]]:
    """Return the files in a RECORD, with their hashes. What has none is what is made on the device."""
    rows = csv.reader(record.decode(errors="replace").splitlines())
    return [(row[0], row[1]) for row in rows if len(row) > 1 and row[1]]


def on_trial() -> dict[str, Any] | None:
    """Return what is noted of the trial of what is installed; None where it is on none."""
    with suppress(FileNotFoundError):
        return dict(json.loads((HERE / ON_TRIAL).read_bytes()))
    return None


def refuse_again(wheel: Path) -> None:
    """End where *wheel* has failed not long ago."""
    try:
        noted = json.loads(FAILED.read_bytes())
    except FileNotFoundError:
        return
    if noted["sha256"] == sha256(wheel) and 0 <= time.time() - noted["at_s"] < noted["again_s"]:
        because(noted["why"])


def note_failure(digest: str, why: str, *, again_s: float) -> None:
    """Note that the wheel of this hash has failed, and is not tried *again* before."""
    NOTES.mkdir(parents=True, exist_ok=True)
    noted = {"sha256": digest, "at_s": time.time(), "again_s": again_s, "why": why}
    new = FAILED.with_suffix(".new")
    new.write_text(json.dumps(noted))
    new.replace(FAILED)
    os.sync()


def sha256(path: Path) -> str:
    """Return the hash of *path*, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# The copy


def check(wheel: Path) -> None:
    """End where it need not be tried."""
    if not (show(AGENT, "ExecStart").split("path=")[-1]).startswith(f"{HERE}/"):
        because(
            f"{AGENT} is not run from {HERE}, where `harmony enroll` installs it; update it by hand"
        )
    check_room(wheel)


def prepare(wheel: Path) -> None:
    """Have in NEXT what is in HERE, with *wheel* and what its lock has in place of what was there.

    Raise `NotMade`.
    """
    shutil.rmtree(NEXT, ignore_errors=True)
    run("cp", "-a", str(HERE), str(NEXT), told="it could not be copied")
    shutil.rmtree(PACKED, ignore_errors=True)
    PACKED.mkdir(parents=True)
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


def check_room(wheel: Path) -> None:
    """End where there is no room for another one beside what is there."""
    used = sum(each.lstat().st_blocks * 512 for each in HERE.rglob("*"))
    needed = used + 4 * wheel.stat().st_size + ROOM_KEPT_BYTES
    free = shutil.disk_usage(HERE.parent).free
    if free < needed:
        mega = (needed // 10**6, free // 10**6, -(-(needed - free) // 10**6))
        because("it needs {} MB, and the disk of /opt has {} MB; free {} MB".format(*mega))


def relocate() -> None:
    """Have the commands that pip has written to NEXT run what will be in HERE."""
    for each in (NEXT / "bin").iterdir():
        if each.is_file() and not each.is_symlink():
            content = each.read_bytes()
            if content.startswith(before := f"#!{NEXT}/".encode()):
                each.write_bytes(f"#!{HERE}/".encode() + content[len(before) :])


def run(*command: str, told: str) -> None:
    """Run *command* where the wheel is unpacked, to its end; raise `NotMade` where it fails."""
    done = subprocess.run(  # noqa: S603 - written here
        command, check=False, cwd=PACKED if PACKED.exists() else "/", capture_output=True, text=True
    )
    if done.returncode:
        lines = [each.strip() for each in (done.stdout + done.stderr).splitlines() if each.strip()]
        errors = [each for each in lines if each.startswith("ERROR")] or lines[-3:]
        raise NotMade(f"{told}: {'; '.join(errors) or f'exit code {done.returncode}'}"[:1000])


# The trial


def switch(wheel: Path) -> dict[str, Any]:
    """Let NEXT and HERE change places. Return what is noted of the trial. The agent runs on as it is, so that
    it does whatever becomes of this program. Raise `NotMade`."""
    trial = {
        "sha256": sha256(wheel),
        "name": wheel.name,
        "was_connected": connected(),
        "ran": show(AGENT, "InvocationID"),
    }
    (NEXT / ON_TRIAL).write_text(json.dumps(trial))
    keep_database()
    os.sync()
    try:
        exchange()
    except OSError as error:
        why = f"{HERE} cannot change places with another on this file system: {error.strerror}"
        raise NotMade(f"{why}; update by hand") from error
    return trial


def judge(trial: dict[str, Any]) -> None:
    """Keep what is on trial if it comes up well; else take it back, and end."""
    is_old = show(AGENT, "InvocationID") == trial["ran"]
    systemctl("restart" if use_unit_of_here() or is_old else "start", AGENT)
    why = watch(is_to_connect=bool(trial["was_connected"]))
    if why is None:
        (HERE / ON_TRIAL).unlink()
        FAILED.unlink(missing_ok=True)
        return
    if not NEXT.exists():  # the Score was removed meanwhile, and pushed again
        (HERE / ON_TRIAL).unlink()
        because(
            f"{trial['name']}: {why}; and what was there before it is gone: run harmony enroll again"
        )
    told = (
        f"{trial['name']} was tried on {time.strftime('%Y-%m-%d at %H:%M:%S UTC', time.gmtime())} and taken "
        f"back: {why}; it is tried again after a day, or once it is removed and pushed again"
    )
    note_failure(trial["sha256"], told, again_s=NOT_TRIED_AGAIN_S)
    exchange()
    use_unit_of_here()
    systemctl("restart", AGENT)
    clean_up()
    because(told)


def watch(*, is_to_connect: bool) -> str | None:
    """Return why the agent is not well within its time; None once it has been so for some seconds."""
    began_s = time.monotonic()
    well_since_s: float | None = None
    ran, ends_before, why = "", int(show(AGENT, "NRestarts") or 0), "it did not start"
    while time.monotonic() - began_s < TRIED_FOR_S:
        state, runs = show(AGENT, "ActiveState"), show(AGENT, "InvocationID")
        ends = int(show(AGENT, "NRestarts") or 0) - ends_before
        if ends >= ENDS_MOST:
            return f"it ended {ends} times in a row: {last_words()}"
        is_well = state == "active" and (not is_to_connect or connected())
        if state != "active":
            why = f"it did not start: {last_words()}"
        elif not is_well:
            why = "it runs, and has not connected to the control plane, as the one before had"
        if not is_well or runs != ran:
            ran, well_since_s = runs, time.monotonic() if is_well else None
        elif well_since_s is None:
            well_since_s = time.monotonic()
        elif time.monotonic() - well_since_s >= WELL_FOR_S:
            return None
        time.sleep(1)
    return why


def connected() -> bool:
    """Return whether the agent says that it is connected to its control plane."""
    return show(AGENT, "StatusText").endswith(", connected")


def last_words() -> str:
    """Return the last that the agent has written."""
    command = ["journalctl", "-q", "-u", AGENT, "_SYSTEMD_UNIT=" + AGENT, "-n", "3", "-o", "cat"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - as above
    return "; ".join(each.strip() for each in done.stdout.splitlines() if each.strip())[-500:]


def use_unit_of_here() -> bool:
    """Have systemd run the agent by the unit that what is installed brings; return whether it did not."""
    for unit in HERE.glob(f"lib/python3*/site-packages/harmony_agent/deploy/{AGENT}"):
        wanted = unit.read_bytes()
        if not UNIT.exists() or UNIT.read_bytes() != wanted:
            new = UNIT.with_name(f".{AGENT}.new")
            new.write_bytes(wanted)
            new.chmod(0o644)
            new.replace(UNIT)
            os.sync()
            systemctl("daemon-reload")
            return True
    return False


def exchange() -> None:
    """Let HERE and NEXT change places, in one step: at no moment is there none."""
    libc = ctypes.CDLL(None, use_errno=True)
    here, there = os.fsencode(HERE), os.fsencode(NEXT)
    at = _AT_WORKING_DIRECTORY
    if libc.renameat2(at, here, at, there, _EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    os.sync()


def clean_up() -> None:
    """Delete what is of no use once nothing is on trial, after a database that is too new for the agent."""
    if (before := DATABASE_BEFORE / DATABASE).exists():
        if schema(DATABASE_BEFORE) < schema(state_directory()):
            systemctl("stop", AGENT)
            for each in state_directory().glob(f"{DATABASE}*"):
                each.unlink()
            shutil.copy2(before, state_directory())
            os.sync()
            systemctl("start", AGENT)
        shutil.rmtree(DATABASE_BEFORE)
    for each in (NEXT, PACKED):
        shutil.rmtree(each, ignore_errors=True)


def state_directory() -> Path:
    """Return where the agent keeps its database."""
    said: dict[str, Any] = {}
    with suppress(OSError, tomllib.TOMLDecodeError):
        said = tomllib.loads(CONFIG.read_text())
    return Path(said.get("state_directory", "/var/lib/harmony"))


def keep_database() -> None:
    """Have a copy of the agent's database, as it is now."""
    shutil.rmtree(DATABASE_BEFORE, ignore_errors=True)
    DATABASE_BEFORE.mkdir(mode=0o700, parents=True)
    path = state_directory() / DATABASE
    if path.exists():
        with (
            closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as here,
            closing(sqlite3.connect(DATABASE_BEFORE / DATABASE)) as copy,
        ):
            here.backup(copy)


def schema(directory: Path) -> int:
    """Return the version of the tables of the database in *directory*; 0 for none."""
    path = directory / DATABASE
    if not path.exists():
        return 0
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return int(database.execute("PRAGMA user_version").fetchone()[0])


def show(unit: str, name: str) -> str:
    """Return what systemd says of *unit* under *name*."""
    command = ["systemctl", "show", "--value", "-p", name, "--", unit]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - as above
    return done.stdout.strip()


def systemctl(*words: str) -> None:
    """Have systemd do that. What fails is seen by who looks at the agent afterwards."""
    subprocess.run(["systemctl", *words], check=False, capture_output=True)  # noqa: S603, S607 - as above


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
