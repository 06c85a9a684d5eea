"""Firewalls in memory: the contract, and what can be wished for."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from harmony_core.change import Change
from harmony_core.claims import names_of
from harmony_core.errors import CapabilityUnavailable, DidNotStick, NetworkRolledBack
from harmony_core.resources import File, Firewall, FirewallRule, SystemdUnit
from harmony_core.testing import FakeFirewall, FirewallHostContract, FirewallUnderTest
from harmony_pi_topology.firewall.listening import read_listening
from harmony_pi_topology.firewall.reconciler import Listed
from harmony_pi_topology.firewall.rules import TABLE, UNIT, make_rules
from harmony_pi_topology.testing.firewall_contract import KEY, make_firewall


class _Bystander:
    """A `FirewallBystander` of a fake."""

    def __init__(self, fake: FakeFirewall) -> None:
        self._fake = fake

    async def look(self) -> str | None:
        return self._fake.table

    async def flush(self) -> None:
        self._fake.table = None

    async def add(self) -> None:
        self._fake.table = f"{self._fake.table}# theirs\n"

    async def make_table(self) -> None:
        self._fake.table = f"table {TABLE} {{\n}}\n"

    async def cut_off(self, port: int) -> None:
        self._fake.cuts_off.add(f"dport {port} ")

    async def silence(self, silent: bool) -> None:
        self._fake.is_silent = silent

    async def is_kept(self) -> bool:
        return f"/etc/systemd/system/{UNIT}" in self._fake.fake_units.files


class _Impatient(FakeFirewall):
    """One whose trials end at the next look, where the control plane is not reached."""

    _looks = 0

    async def reachable(self) -> bool:
        is_reached = await super().reachable()
        self._looks += 1
        if not is_reached and self._looks > 2:
            self._looks = 0
            self.run_out()
        return is_reached


@pytest.fixture
def fake() -> FakeFirewall:
    return FakeFirewall(patient=False)


@pytest.mark.looptime
class TestFakeFirewall(FirewallHostContract):
    @pytest.fixture
    def host(self) -> FirewallUnderTest:
        fake = _Impatient(patient=False)
        return FirewallUnderTest(
            firewall=fake,
            bystander=_Bystander(fake),
            reopen=fake.reopen,
            records=(fake.records, fake.unit_records),
        )

    async def test_nothing_is_begun_that_could_not_be_confirmed(
        self, host: FirewallUnderTest
    ) -> None:
        await host.bystander.silence(True)
        error = await host.expect_failure(make_firewall(22))
        assert isinstance(error, CapabilityUnavailable)
        assert await host.bystander.look() is None
        await host.bystander.silence(False)
        await host.apply_one(make_firewall(22))


async def _look(fake: FakeFirewall, wish: Firewall) -> Change | Exception:
    return (await fake.converge([wish], apply=True))[0]


async def test_killed_before_a_trial_is_noted_it_is_begun_anew_and_nobody_is_blamed(
    fake: FakeFirewall, monkeypatch: pytest.MonkeyPatch
) -> None:
    wish = make_firewall(22)
    begin = fake.filter.begin

    async def be_killed(rules: str, within_s: int) -> str:
        await begin(rules, within_s)
        raise KeyboardInterrupt

    monkeypatch.setattr(fake.filter, "begin", be_killed)
    with pytest.raises(KeyboardInterrupt):
        await fake.converge([wish], apply=True)
    monkeypatch.undo()
    assert fake.table is not None
    again = fake.reopen()
    for _ in range(2):
        assert isinstance(await _look(again, wish), Change)
    assert not getattr(await _look(again, wish), "steps")  # noqa: B009 - of either class
    fake.run_out()
    assert fake.table is not None


async def test_killed_right_after_the_commit_it_is_confirmed(
    fake: FakeFirewall, monkeypatch: pytest.MonkeyPatch
) -> None:
    wish = make_firewall(22)
    await _look(fake, wish)
    commit = fake.filter.commit

    async def be_killed(trial: str) -> bool:
        await commit(trial)
        raise KeyboardInterrupt

    monkeypatch.setattr(fake.filter, "commit", be_killed)
    with pytest.raises(KeyboardInterrupt):
        await fake.converge([wish], apply=True)
    monkeypatch.undo()
    again = fake.reopen()
    again.is_silent = True
    change = await _look(again, wish)
    assert isinstance(change, Change)
    assert "confirmed" in str(change.actions)


async def test_what_is_in_force_without_ever_having_been_proven_is_not_confirmed(
    fake: FakeFirewall,
) -> None:
    wish = make_firewall(22)
    await _look(fake, wish)
    in_force = fake.table
    fake.run_out()
    fake.table = in_force  # whoever has loaded it
    fake.is_silent = True
    assert isinstance(await _look(fake, wish), NetworkRolledBack)
    assert f"/etc/systemd/system/{UNIT}" not in fake.fake_units.files


async def test_a_device_that_loses_its_power_in_a_trial_comes_back_as_it_was_and_tries_once_more(
    fake: FakeFirewall,
) -> None:
    """What the rules have done to it may be why it was booted anew."""
    wish = make_firewall(22)
    await _look(fake, wish)
    fake.reboot()
    assert fake.table is None
    again = fake.reopen()
    tried = await _look(again, wish)
    assert isinstance(tried, Change)
    assert tried.pending is not None
    again.reboot()
    error = await _look(fake.reopen(), wish)
    assert isinstance(error, NetworkRolledBack)
    assert "booted anew" in error.message
    assert "cut this device off" not in error.message
    assert fake.table is None
    for each in (make_firewall(80), wish):
        await _look(fake, each)
        assert isinstance(await _look(fake, each), Change)
    fake.reboot()
    assert isinstance(await _look(fake, wish), Change)


async def test_one_that_a_boot_has_cut_short_and_that_then_cuts_off_is_told_so(
    fake: FakeFirewall,
) -> None:
    wish = make_firewall(22)
    await _look(fake, wish)
    fake.reboot()
    await _look(fake, wish)
    fake.is_silent = True
    fake.run_out()
    error = await _look(fake, wish)
    assert isinstance(error, NetworkRolledBack)
    assert "cut this device off" in error.message


async def test_what_the_kernel_does_not_take_is_put_back_and_told(fake: FakeFirewall) -> None:
    wish = make_firewall(22)
    await _look(fake, wish)
    fake.table = "something else"
    error = await _look(fake, wish)
    assert isinstance(error, DidNotStick)
    assert error.resource == wish.id
    assert await fake.observe(KEY) is None
    fake.filter.ignores = True
    await _look(fake, wish)
    assert isinstance(await _look(fake, wish), DidNotStick)


async def test_one_that_is_taken_back_while_it_is_looked_at_is_told_as_that(
    fake: FakeFirewall, monkeypatch: pytest.MonkeyPatch
) -> None:
    wish = make_firewall(22)
    await _look(fake, wish)
    look = fake.filter.look

    async def be_late(rules: str | None) -> Listed:
        fake.run_out()
        return await look(rules)

    monkeypatch.setattr(fake.filter, "look", be_late)
    assert isinstance(await _look(fake, wish), NetworkRolledBack)


async def test_two_firewalls_are_one_thing() -> None:
    assert make_firewall(22).id == make_firewall(80, name="edge").id


def test_its_unit_is_nobody_else_s() -> None:
    other = SystemdUnit(name=UNIT, content="[Service]\nExecStart=/bin/true\n")
    file = File(path=f"/etc/systemd/system/{UNIT}", content=b"")
    for resource in (other, file):
        claims = {*names_of(resource.id), *resource.exclusive}
        assert claims & make_firewall(22).exclusive, resource


def test_equal_rules_are_one_text_and_each_network_has_its_own_rule() -> None:
    wish = Firewall.model_validate(
        {
            "name": "base",
            "allow": [
                {"port": 22, "from": ["192.168.0.0/16", "2001:db8::/32"]},
                {"port": "6000-6010", "protocol": "udp", "interface": "wg*"},
                {"interface": "wlan0"},
            ],
        }
    )
    rules = make_rules(wish)
    for line in (
        "ip saddr 192.168.0.0/16 tcp dport 22 accept",
        "ip6 saddr 2001:db8::/32 tcp dport 22 accept",
        'iifname "wg*" udp dport 6000-6010 accept',
        'iifname "wlan0" accept',
    ):
        assert f"\n{line}\n" in rules
    assert make_rules(Firewall.model_validate_json(wish.model_dump_json())) == rules


async def test_a_plan_names_the_ports_that_would_be_shut_though_something_listens() -> None:
    fake = FakeFirewall()
    with (
        socket.create_server(("0.0.0.0", 0)) as shut,
        socket.create_server(("::", 0), family=socket.AF_INET6) as shut6,
        socket.create_server(("0.0.0.0", 0)) as allowed,
        socket.create_server(("127.0.0.1", 0)) as own,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as own6,
    ):
        fake.filter.listening = read_listening(Path("/proc/self/net"))
        ports = [each.getsockname()[1] for each in (shut, shut6, allowed, own, own6)]
    assert fake.filter.listening.issuperset(ports[:3])
    assert not fake.filter.listening.intersection(ports[3:])
    allow = [
        FirewallRule(port=f"{ports[2]}-{ports[2]}"),
        FirewallRule(port=ports[0], protocol="udp"),
    ]
    (change,) = await fake.converge([Firewall(name="base", allow=tuple(allow))], apply=False)
    assert isinstance(change, Change)
    told = str(change.steps[1])
    assert told.startswith("lets nobody in to ")
    assert f"{ports[0]}/tcp" in told
    assert f"{ports[1]}/tcp" in told
    assert f"{ports[2]}/tcp" not in told

    for everything in (FirewallRule(port="1-65535"), FirewallRule(sources=("10.0.0.0/8",))):
        (change,) = await fake.converge([Firewall(name="base", allow=(everything,))], apply=False)
        assert isinstance(change, Change)
        assert "listens" not in f"{change.steps}"
