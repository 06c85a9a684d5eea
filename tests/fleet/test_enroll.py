"""A bare Pi becomes a device of the fleet by one command over ssh, and comes with a key of its own."""

from __future__ import annotations

import asyncio
import random
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harmony_control.enrol import add_agent
from tests.box import Box
from tests.box.layers import built_wheel, packages
from tests.fleet.ground import AGENT, TREE, URL, ControlPlane
from tests.soak import runs, seed


@pytest.fixture(scope="module")
def wheel() -> Path:
    return built_wheel(TREE)


@pytest.fixture
def bare(boot: Callable[[], Box]) -> Box:
    """A Pi on which nothing of ours was ever started."""
    pi = boot()
    pi.run(["rm", "-f", f"/etc/systemd/system/{AGENT}"])
    return pi


def ssh_to(pi: Box, directory: Path) -> str:
    """A command that is to *pi* what ssh is to a Pi on the network."""
    path = directory / "ssh"
    path.write_text(f'#!/bin/sh\nexec {shlex.join(pi.inside(["sh", "-c"]))} "$2"\n')
    path.chmod(0o755)
    return str(path)


def serve_packages(pi: Box) -> None:
    """Have pip in *pi* find what it would find on the network."""
    for path in filter(Path.is_file, packages().iterdir()):
        pi.write(f"/srv/wheels/{path.name}", path.read_bytes())
    pi.write("/etc/pip.conf", "[global]\nno-index = true\nfind-links = /srv/wheels\n")


def seed_of(pi: Box, path: str = "/etc/harmony/agent.toml") -> str:
    return pi.text("sed", "-n", 's/^seed = "\\(.*\\)"/\\1/p', path)


@pytest.mark.parametrize("is_installed", [True, False])
async def test_one_command_installs_lets_in_and_starts(
    plane: ControlPlane,
    bare: Box,
    wheel: Path,
    tmp_path: Path,
    is_installed: bool,
) -> None:
    if not is_installed:
        bare.run(["rm", "-r", "/opt/harmony"])
        serve_packages(bare)
    ssh = ssh_to(bare, tmp_path)
    said = await plane.harmony(
        *("enroll", f"root@{bare.name}", "--url", URL, "--ssh", ssh, "--wheel", str(wheel))
    )
    assert said.status == 0, said.err + said.out
    assert f"{bare.name} is enrolled and online" in said.out
    assert bare.text("systemctl", "is-enabled", AGENT) == "enabled"
    told = await plane.harmony("push-score", bare.name, "-", stdin=MOTD)
    assert told.status == 0, told.err
    assert bare.read("/etc/motd") == b"hello\n"
    seed = seed_of(bare)
    assert seed.startswith("SU")
    kept = [path for path in plane.home.root.rglob("*") if path.is_file()]
    assert [path for path in kept if seed.encode() in path.read_bytes()] == []


MOTD = '- {id: motd, kind: FileScore, spec: {path: /etc/motd, content: "hello\\n"}}\n'


async def test_one_command_takes_the_agent_away_again_from_that_device_and_no_other(
    plane: ControlPlane, bare: Box, wheel: Path, tmp_path: Path
) -> None:
    ssh, reached = ssh_to(bare, tmp_path), tmp_path / "ssh-to-one"
    reached.write_text(f'#!/bin/sh\n[ "$1" = root@{bare.name} ] || exit 255\nexec {ssh} "$@"\n')
    reached.chmod(0o755)
    # Beside one that is away, which keeps no other waiting.
    hosts = ("root@pi-away", f"root@{bare.name}")
    said = await plane.harmony(
        *("enroll", *hosts, "--url", URL, "--ssh", str(reached), "--wheel", str(wheel))
    )
    assert said.status == 4, said.err + said.out
    assert "1 of 2 are enrolled and online; not pi-away:" in said.out
    bare.write("/etc/harmony/policy.toml", b'preset = "open"\n')
    told = await plane.harmony("push-score", bare.name, "-", stdin=MOTD)
    assert told.status == 0, told.err
    over_ssh = ("--yes", "--uninstall", f"root@{bare.name}", "--ssh", ssh)
    other = "another"
    await asyncio.to_thread(add_agent, plane.home, other)
    said = await plane.harmony("retire", other, *over_ssh)
    assert said.status == 2
    assert f"this is another device than {other}" in said.err
    assert bare.text("systemctl", "is-active", AGENT) == "active"
    assert other in plane.home.agents()

    said = await plane.harmony("retire", bare.name, *over_ssh)
    assert said.status == 0, said.err + said.out
    assert bare.name not in plane.home.agents()
    gone = ("/opt/harmony", "/var/lib/harmony", "/run/harmony", "/etc/harmony/agent.toml")
    assert [path for path in (*gone, f"/etc/systemd/system/{AGENT}") if there(bare, path)] == []
    assert there(bare, "/etc/harmony/policy.toml")
    assert bare.read("/etc/motd") == b"hello\n"


def there(pi: Box, path: str) -> bool:
    return pi.text("sh", "-c", f"test -e {path} && echo there || echo gone") == "there"


def ssh_that_ends(pi: Box, directory: Path, step: str, killed: str) -> str:
    """`ssh_to`, but instead of the line *step* of install.sh it runs *killed*, and is then gone at once."""
    line, ends = f"\n{step}\n", f"\n{killed}\nkill -KILL $$\n"
    path = directory / "ending-ssh"
    path.write_text(
        f"#!{sys.executable}\n"
        "import os, shlex, sys\n"
        "*command, script = shlex.split(sys.argv[2])\n"
        f"before, after = script.split({line!r})\n"
        f"script = before + {ends!r} + after\n"
        f"inside = {pi.inside(['sh', '-c'])!r}\n"
        "os.execvp(inside[0], [*inside, shlex.join(['env', *command, script])])\n"
    )
    path.chmod(0o755)
    return str(path)


SCRIPT = (TREE / "harmony_control" / "install.sh").read_text()
STEPS = re.findall(r"^(?![ #]|for ).+$", SCRIPT[SCRIPT.index("exec 9>") :], re.MULTILINE)
"""The lines of install.sh that do something, from the lock on. A loop is its last line."""
INSTALLS = '$pip --no-build-isolation -r "$directory/agent.lock"'
LETS_IN = '/opt/harmony/bin/harmony-agent enroll $OPTIONS @"$directory/invitation"'
ENDS = [
    *((step, step) for step in STEPS[: STEPS.index(INSTALLS)]),
    # Within pip, wherever it is then.
    *((INSTALLS, f"{INSTALLS} & sleep {s}; kill -KILL $! || :") for s in (1.0, 2.0, 3.0, 4.0)),
    *((step, step) for step in STEPS[STEPS.index(INSTALLS) : STEPS.index(LETS_IN)]),
    # When the key was kept and asked for, and nobody can say whether it was let in.
    (
        LETS_IN,
        f"{LETS_IN} & until [ -e /etc/harmony/agent.toml.new ]; do :; done; kill -KILL $! || :",
    ),
    (
        LETS_IN,
        f"{LETS_IN} & until [ -e /etc/harmony/agent.toml.new ]; do :; done; sleep 0.2; kill -KILL $! || :",
    ),
    *((step, step) for step in STEPS[STEPS.index(LETS_IN) :]),
]


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_ended_at_each_step_and_run_again_it_finishes_with_the_first_key(
    plane: ControlPlane, bare: Box, wheel: Path, tmp_path: Path
) -> None:
    assert len(STEPS) > 12
    count = runs(len(ENDS), part=4)
    chosen = sorted(random.Random(seed()).sample(range(len(ENDS)), count))
    bare.run(["rm", "-r", "/opt/harmony"])
    serve_packages(bare)
    enroll = ("enroll", f"root@{bare.name}", "--url", URL, "--wheel", str(wheel), "--ssh")
    seeds: list[str] = []
    for step, killed in (ENDS[each] for each in chosen):
        ended = await plane.harmony(*enroll, ssh_that_ends(bare, tmp_path, step, killed))
        assert ended.status != 0, f"{step}: {ended.out}"
        assert "status -9" in ended.err or "status 137" in ended.err, f"{step}: {ended.err}"
        found = [f"/etc/harmony/agent.toml{end}" for end in ("", ".new")]
        seeds += [
            seed_of(bare, each)
            for each in found
            if bare.run(["test", "-e", each], check=False).returncode == 0
        ]
    said = await plane.harmony(*enroll, ssh_to(bare, tmp_path))
    assert said.status == 0, said.err + said.out
    assert f"{bare.name} is enrolled and online" in said.out
    # Once a key was made, it is the only one there ever was.
    assert set(seeds) <= {seed_of(bare)}
    assert count < len(ENDS) or len(seeds) > 5
    assert bare.run(["/opt/harmony/bin/pip", "check"]).returncode == 0
    assert bare.text("systemctl", "is-enabled", AGENT) == "enabled"


async def test_what_was_damaged_is_put_right_and_nothing_else_changes(
    plane: ControlPlane, bare: Box, wheel: Path, tmp_path: Path
) -> None:
    enroll = ("enroll", f"root@{bare.name}", "--url", URL, "--wheel", str(wheel))
    ssh = ("--ssh", ssh_to(bare, tmp_path))
    assert (await plane.harmony(*enroll, *ssh)).status == 0
    before, agents = bare.read("/etc/harmony/agent.toml"), plane.home.agents()
    serve_packages(bare)
    # One from a wheel, and one that pip builds.
    for package in ("nats/aio/client.py", "nkeys/__init__.py"):
        bare.run(["sh", "-c", f"truncate -s 0 /opt/harmony/lib/python3*/site-packages/{package}"])
    bare.run(["sh", "-c", f"echo >> /etc/systemd/system/{AGENT}; systemctl disable --now {AGENT}"])
    said = await plane.harmony(*enroll, *ssh)
    assert said.status == 0, said.err + said.out
    assert sorted(re.findall("installing (.*) anew", said.out)) == [
        each.replace("==", "-").replace("nats-py", "nats_py")
        for each in re.findall(r"^(?:nats-py|nkeys)==[^ ]+", LOCK, re.MULTILINE)
    ]
    assert bare.text("systemctl", "is-active", AGENT) == "active"
    assert bare.text("systemctl", "is-enabled", AGENT) == "enabled"
    assert bare.read("/etc/harmony/agent.toml") == before
    assert plane.home.agents() == agents


LOCK = (TREE / "requirements" / "agent.lock").read_text()


async def test_a_device_with_another_key_is_refused_until_it_may_replace(
    plane: ControlPlane, bare: Box, wheel: Path, tmp_path: Path
) -> None:
    command = (
        *("enroll", f"root@{bare.name}", "--url", URL, "--ssh", ssh_to(bare, tmp_path)),
        *("--wheel", str(wheel)),
    )
    assert (await plane.harmony(*command)).status == 0
    before, agents = bare.read("/etc/harmony/agent.toml"), plane.home.agents()
    bare.run(["rm", "/etc/harmony/agent.toml"])
    said = await plane.harmony(*command)
    assert said.status == 2
    assert f"another device is enrolled as {bare.name}" in said.err
    assert plane.home.agents() == agents
    assert (await plane.harmony(*command, "--replace")).status == 0
    assert bare.read("/etc/harmony/agent.toml") != before


async def test_what_cannot_be_reached_is_said_by_ssh_and_by_us(
    plane: ControlPlane, wheel: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "ssh"
    broken.write_text("#!/bin/sh\necho 'ssh: no route to host' >&2\nexit 255\n")
    broken.chmod(0o755)
    said = await plane.harmony(
        *("enroll", "root@pi-away", "--url", URL, "--ssh", str(broken), "--wheel", str(wheel))
    )
    assert said.status == 4
    assert "no route to host" in said.err
    assert "root@pi-away cannot be reached" in said.err


async def test_of_several_each_is_told_and_the_gravest_is_the_exit_code(
    plane: ControlPlane, wheel: Path, tmp_path: Path
) -> None:
    ssh = tmp_path / "ssh-to-each"
    ssh.write_text('#!/bin/sh\n[ "$1" = root@pi-full ] && exit 7\nexit 255\n')
    ssh.chmod(0o755)
    rest = ("--url", URL, "--ssh", str(ssh), "--wheel", str(wheel))
    hosts = [f"root@{each}" for each in ("pi-away", "pi-full", "pi-gone")]
    twice = await plane.harmony("enroll", *hosts, "admin@pi-full.local", *rest)
    assert twice.status == 2
    assert "would both be pi-full" in twice.err
    assert "cannot be reached" not in twice.err
    said = await plane.harmony("enroll", *hosts, *rest)
    assert said.status == 2, said.err + said.out
    assert "root@pi-away cannot be reached" in said.err
    assert "root@pi-full is not enrolled (status 7)" in said.err
    assert "root@pi-gone cannot be reached" in said.err
    assert said.out == (
        "0 of 3 are enrolled and online; not pi-away, pi-full, pi-gone: what is wrong is above; "
        "run it again\n"
    )
    told = await plane.harmony("enroll", hosts[0], hosts[2], "--json", *rest)
    assert told.status == 4
    summary = {"event": "summary", "enrolled": [], "not_enrolled": ["pi-away", "pi-gone"]}
    assert told.documents == [summary]


async def test_a_device_without_what_is_needed_says_what(
    plane: ControlPlane, bare: Box, wheel: Path, tmp_path: Path
) -> None:
    bare.run(["sh", "-c", "rm /usr/bin/python3"])
    said = await plane.harmony(
        *("enroll", f"root@{bare.name}", "--url", URL, "--ssh", ssh_to(bare, tmp_path)),
        *("--wheel", str(wheel)),
    )
    assert said.status == 2
    assert "python3 is older than 3.11, or missing" in said.err
