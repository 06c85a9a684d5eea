"""Credentials of a service on a real device: its program reads each byte, and nobody else has any."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from harmony_control.device import Device
from harmony_pi_topology import PiTopology
from tests.box import Box
from tests.fleet.ground import AGENT, ControlPlane, Host, Said, heard_again, until
from tests.fleet.test_secrets import holders_of

Spec = dict[str, Any]
Pi = Device[PiTopology]

UNIT = "api.service"
PLACE = f"/etc/harmony-credentials/{UNIT}"
FILE = f"{PLACE}/db-password"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
HOSTILE = (
    '$HOME ${HOME} $$ %n %% "it\'s" \\n \\ `id` $(id) äöü \U0001f600\t#;\r\n\n[Service]\nUser=x\n '
)
OLD, NEW = "hunter2-of-old", "correct-horse-of-new"
PLAIN = "in-clear-in-its-score"
BULK = HOSTILE * 1400
BY_PATH = f"/run/credentials/{UNIT}/db-password"
SEEN = (
    'cat "${DB_PASSWORD_FILE:-/dev/null}" > /var/lib/seen/by-path; '
    'for each in "$CREDENTIALS_DIRECTORY"/*; do cat "$each" > "/var/lib/seen/${each##*/}.new"; '
    'mv "/var/lib/seen/${each##*/}.new" "/var/lib/seen/${each##*/}"; done; exec sleep 86399'
)


def service(**fields: Any) -> Spec:
    spec: Spec = {
        "name": UNIT,
        "exec_start": ["/bin/sh", "-euc", SEEN],
        "user": "daemon",
        "settle_s": 0.2,
        "environment": {"DB_PASSWORD_FILE": BY_PATH},
        "credentials": {"db-password": "${secret.db}", "bulk": BULK, "plain": PLAIN},
        **fields,
    }
    return {"id": "api", "kind": "SystemdServiceScore", "spec": spec}


class Operator:
    """Works with the `harmony` command, and remembers all that it has said."""

    def __init__(self, plane: ControlPlane, pi: Box) -> None:
        self._plane = plane
        self._pi = pi
        self.told: list[Said] = []

    async def harmony(self, *words: str, stdin: str = "") -> Said:
        said = await self._plane.harmony(*words, stdin=stdin)
        self.told.append(said)
        assert said.status == 0, said
        return said

    async def push(self, *entries: Spec) -> None:
        await self.harmony("push-score", self._pi.name, "-", stdin=json.dumps(entries))

    async def set(self, value: str) -> None:
        await self.harmony("secret", "set", "db", stdin=value)


@pytest.fixture
async def operator(plane: ControlPlane, pi: Box, device: Pi) -> AsyncGenerator[Operator]:
    """Whatever is put on the device is gone afterwards, without a trace."""
    before = paths(pi)
    pi.run(["mkdir", "-m", "1777", "/var/lib/seen"])
    yield Operator(plane, pi)
    state = await device.state()
    if state is not None and state.scores:
        await device.remove(*state.scores)
        await until(device, lambda state: not state.scores)
    pi.run(["rm", "-rf", "/var/lib/seen"])
    assert paths(pi) == before


def paths(pi: Box) -> list[str]:
    """All that Scores could leave on the device."""
    places = ("/etc", "/usr/local", "/srv", "/run/credentials")
    found = pi.run(["find", *places, "-xdev"], check=False).stdout.decode().split("\n")
    return sorted(each for each in found if not each.startswith("/etc/harmony/"))


def seen(pi: Box, name: str = "db-password") -> bytes:
    path = f"/var/lib/seen/{name}"
    pi.wait_for((pi.root / path[1:]).exists)
    return pi.read(path)


def await_seen(pi: Box, value: str, name: str = "db-password") -> None:
    pi.wait_for(lambda: seen(pi, name) == value.encode(), timeout_s=60)


def may_read(pi: Box, path: str) -> bool:
    words = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "ls", path]
    return pi.run(words, check=False).returncode == 0


def holders(pi: Box, value: str) -> list[str]:
    """The files in which *value* stands, but for where the program has it from, and what that wrote."""
    return [
        each
        for each in holders_of(pi, value)
        if not each.startswith((f"/run/credentials/{UNIT}/", "/var/lib/seen/"))
    ]


async def test_the_program_alone_reads_each_byte_and_a_new_value_starts_it_anew(
    operator: Operator, device: Pi, host: Host, pi: Box
) -> None:
    await operator.set(OLD + HOSTILE)
    await operator.push(service())
    assert seen(pi) == (OLD + HOSTILE).encode()
    assert seen(pi, "by-path") == seen(pi)
    assert seen(pi, "bulk") == BULK.encode()
    assert len(BULK.encode()) > 100_000
    assert seen(pi, "plain") == PLAIN.encode()
    assert holders(pi, OLD) == [FILE]
    assert pi.text("stat", "-c", "%a %U %G", PLACE, FILE).split("\n")[:2] == [
        "700 root root",
        "600 root root",
    ]
    assert not may_read(pi, PLACE)
    assert not may_read(pi, FILE)
    assert may_read(pi, UNIT_FILE)
    assert f'"db-password" "{FILE}"' in pi.text(
        *("busctl", "get-property", "org.freedesktop.systemd1"),
        "/org/freedesktop/systemd1/unit/api_2eservice",
        *("org.freedesktop.systemd1.Service", "LoadCredential"),
    )

    before = host.unit(UNIT, "InvocationID")
    await operator.push(service())
    assert host.unit(UNIT, "InvocationID") == before
    await operator.set(NEW + HOSTILE)
    await operator.push(service())
    await_seen(pi, NEW + HOSTILE)
    assert host.unit(UNIT, "InvocationID") != before
    assert holders(pi, NEW) == [FILE]
    assert holders_of(pi, OLD) == []

    await operator.set(NEW)
    for words in (
        ("diff", pi.name, "-"),
        ("describe", pi.name),
        ("events", pi.name),
        ("history", pi.name),
        ("status", pi.name),
    ):
        stdin = json.dumps([service()]) if "-" in words else ""
        await operator.harmony(*words, stdin=stdin)
    shown = "".join(each.out + each.err for each in operator.told)
    shown += pi.text("journalctl", "--no-pager", "-q") + pi.text("ps", "-ef")
    shown += pi.text("systemctl", "show", UNIT) + pi.text("systemctl", "cat", UNIT)
    shown += pi.text("systemctl", "status", UNIT, AGENT)
    for value in (OLD, NEW):
        assert value not in shown
    assert "<secret" not in pi.text("systemctl", "cat", UNIT)

    # One less: the line goes and the file, and the service goes on without it.
    before = host.unit(UNIT, "InvocationID")
    await operator.push(service(credentials={"plain": PLAIN}, environment={}))
    assert host.unit(UNIT, "InvocationID") != before
    assert pi.text("ls", PLACE).split() == ["plain"]
    assert holders_of(pi, NEW) == ["/var/lib/seen/db-password"]
    assert pi.read(UNIT_FILE).count(b"LoadCredential") == 1


async def test_at_a_boot_it_has_them_before_the_agent_runs(
    operator: Operator, device: Pi, host: Host, pi: Box
) -> None:
    await operator.set(OLD)
    await operator.push(service())
    assert seen(pi) == OLD.encode()
    pi.run(["systemctl", "disable", AGENT])
    pi.run(["rm", "/var/lib/seen/db-password"])
    await asyncio.to_thread(pi.reboot)
    await_seen(pi, OLD)
    assert host.unit(UNIT, "ActiveState") == {"ActiveState": "active"}
    assert host.unit(AGENT, "ActiveState") == {"ActiveState": "inactive"}
    before = host.unit(UNIT, "InvocationID")
    pi.run(["systemctl", "start", AGENT])
    await heard_again(device)
    await until(device, lambda state: state.scores["api"].outcome.status in {"SUCCESS", "NOOP"})
    assert host.unit(UNIT, "InvocationID") == before
    pi.run(["systemctl", "enable", AGENT])


async def test_what_somebody_does_to_a_file_is_put_right_and_does_not_stay_with_the_service(
    operator: Operator, device: Pi, host: Host, pi: Box
) -> None:
    await operator.set(OLD)
    await operator.push(service())
    assert seen(pi) == OLD.encode()
    right = pi.text("stat", "-c", "%a %U", FILE)
    before = host.unit(UNIT, "InvocationID")
    for harm in (
        f"echo mine > {FILE}",
        f"rm {FILE}",
        f"rm -r {PLACE}",
        f"chmod 0644 {FILE}",
        f"chmod 0755 {PLACE}",
    ):
        pi.run(["sh", "-c", harm])
        pi.wait_for(
            lambda: (
                pi.run(["cat", FILE], check=False).stdout == OLD.encode()
                and pi.text("stat", "-c", "%a %U", FILE) == right
                and pi.text("stat", "-c", "%a", PLACE).strip() == "700"
            )
        )
    await until(device, lambda state: state.scores["api"].outcome.status in {"SUCCESS", "NOOP"})
    # It has its own copy, of which nothing was changed.
    assert host.unit(UNIT, "InvocationID") == before

    pi.run(["systemctl", "stop", AGENT])
    pi.write(FILE, "mine", mode=0o600)
    pi.run(["systemctl", "restart", UNIT])
    await_seen(pi, "mine")
    pi.run(["systemctl", "start", AGENT])
    await_seen(pi, OLD)
    assert pi.read(FILE) == OLD.encode()


async def test_a_run_of_a_timer_reads_what_its_credential_is_then(
    operator: Operator, device: Pi, host: Host, pi: Box
) -> None:
    score: Spec = {
        "id": "tick",
        "kind": "TimerScore",
        "spec": {
            "name": "tick",
            "every_s": 1,
            "exec_start": [
                *("/bin/sh", "-euc"),
                'cd /var/lib/seen; cat "$CREDENTIALS_DIRECTORY/token" > new; mv new token',
            ],
            "credentials": {"token": "Bearer ${secret.db}"},
        },
    }
    for value in (OLD, NEW):
        await operator.set(value)
        await operator.push(score)
        await_seen(pi, f"Bearer {value}", "token")
    assert NEW not in pi.text("systemctl", "cat", "tick.service", "tick.timer")
    await device.remove("tick")
    assert holders_of(pi, NEW) == ["/var/lib/seen/token"]


async def test_an_appliance_that_lists_the_unit_needs_no_path_for_them(
    operator: Operator, plane: ControlPlane, device: Pi, pi: Box
) -> None:
    kinds = '["SystemdServiceScore", "FileScore"]'
    pi.write(
        "/etc/harmony/policy.toml", f'preset = "appliance"\nkinds = {kinds}\nunits = ["{UNIT}"]\n'
    )
    pi.run(["systemctl", "restart", AGENT])
    await heard_again(device)
    await operator.set(OLD)
    await operator.push(service())
    assert seen(pi) == OLD.encode()
    for path in ("/etc/other", "/etc/harmony-credentials/other.service/x"):
        entry = {"id": "other", "kind": "FileScore", "spec": {"path": path, "content": ""}}
        said = await plane.harmony("push-score", pi.name, "-", stdin=json.dumps([entry]))
        assert said.status == 3, said
    await device.remove("api")
    assert holders(pi, OLD) == []
    pi.run(["rm", "/etc/harmony/policy.toml"])
    pi.run(["systemctl", "restart", AGENT])
    await heard_again(device)


async def test_more_than_systemd_takes_is_refused_by_name(
    operator: Operator, plane: ControlPlane, pi: Box, host: Host
) -> None:
    await operator.set("x" * 16_384)
    many = service(credentials={"a": "${secret.db}" * 40, "b": "${secret.db}" * 25})
    said = await plane.harmony("push-score", pi.name, "-", stdin=json.dumps([many]))
    assert said.status != 0
    assert "credentials: they take 1064962 bytes in all" in said.out + said.err
    assert host.units("api") == []
    assert not (pi.root / PLACE[1:]).exists()
