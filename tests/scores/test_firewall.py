"""FirewallScore: what a person writes, and what becomes of it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from harmony_core import Failure
from harmony_core.resources import FirewallRule, first_problem
from harmony_core.testing import FakePi, interpret_once, interpret_twice
from harmony_scores import FirewallScore

BASE: dict[str, Any] = {
    "name": "base",
    "input": "drop",
    "allow": [
        {"port": 22, "protocol": "tcp", "from": ["192.168.0.0/16"]},
        {"port": 80},
        {"interface": "wlan0", "port": 5353, "protocol": "udp"},
    ],
}


async def test_it_is_loaded_once_and_says_the_same_in_python_and_on_the_wire() -> None:
    pi = FakePi()
    score = FirewallScore.model_validate(BASE)
    first, second = await interpret_twice(score, pi.offers)
    assert (first.status, second.status) == ("SUCCESS", "NOOP")
    for line in ("ip saddr 192.168.0.0/16 tcp dport 22", "tcp dport 80", 'iifname "wlan0" udp'):
        assert line in (pi.firewall.table or "")
    by_name = FirewallRule(port=22, protocol="tcp", sources=("192.168.0.0/16",))
    assert score.allow[0] == by_name
    for by_alias in (False, True):
        told = score.model_dump(mode="json", by_alias=by_alias)
        assert FirewallScore.model_validate(told) == score
    assert score.model_dump(mode="json")["allow"][0]["from"] == ["192.168.0.0/16"]


async def test_what_cuts_the_device_off_is_a_failure_that_says_what_to_do() -> None:
    pi = FakePi()
    pi.firewall.cuts_off.add("dport 80 ")
    outcome = (await interpret_once(FirewallScore.model_validate(BASE), pi.offers)).outcome
    assert isinstance(outcome, Failure)
    assert outcome.error.code == "NetworkRolledBack"
    assert "correct what is allowed" in outcome.error.message
    assert pi.firewall.table is None


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ({}, "write a port, from where, or an interface"),
        ({"port": 0}, "allow.0.port: ports are 1 to 65535"),
        ({"port": 65536}, "ports are 1 to 65535"),
        ({"port": "9-3"}, "the first is not above the last"),
        ({"port": "http"}, "write a port, as in 80"),
        ({"port": True}, "write a port, as in 80"),
        ({"port": -1}, "ports are 1 to 65535"),
        ({"port": 80, "protocol": "sctp"}, "allow.0.protocol"),
        ({"interface": "eth0", "protocol": "udp"}, "write which one of udp"),
        ({"from": ["10.0.0.1/8"]}, "allow.0.from.0: write an address, or a network"),
        ({"from": ["nas.local"]}, "write an address, or a network"),
        ({"from": ["fe80::1%eth0"]}, "write an address, or a network"),
        ({"from": ["fe80::1%x accept"]}, "write an address, or a network"),
        ({"from": ["10.0.0.0/255.0.0.0\\n"]}, "write an address, or a network"),
        ({"port": 80, "interface": 'a" accept'}, "write an interface's name"),
        ({"port": 80, "interface": "*"}, "write an interface's name"),
        ({"port": 80, "interface": "eth0\n"}, "write an interface's name"),
        ({"ports": [80]}, "unknown field"),
        ({"from": [f"10.0.{n}.0/24" for n in range(201)]}, "more than 200 rules"),
    ],
)
def test_what_no_firewall_can_be_is_refused_by_its_field(rule: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError) as raised:
        FirewallScore.model_validate({"name": "base", "allow": [rule]})
    assert why in first_problem(raised.value, FirewallScore)


@pytest.mark.parametrize(
    ("port", "is_kept"), [("80", 80), ("6000-6010", "6000-6010"), ("7-7", 7), ("080", 80)]
)
def test_ports_are_kept_in_one_way(port: str, is_kept: int | str) -> None:
    assert FirewallRule(port=port).port == is_kept


@pytest.mark.parametrize("name", ["", "a b", "-a", "a" * 64, "a\n"])
def test_names_are_plain(name: str) -> None:
    with pytest.raises(ValidationError):
        FirewallScore(name=name)
