"""docs/nats-in-production.md: its commands can be typed, and what it quotes is what is said.

What they do is run by `tests/control/test_cluster_servers.py`, `tests/control/test_cluster.py` and
`tests/control/test_sites.py`.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from harmony_control.cli.parser import parser
from harmony_control.server.cluster import parse_nodes
from harmony_control.server.leaf import GATE_ABOVE

TREE = Path(__file__).parents[2]
PAGE = (TREE / "docs" / "nats-in-production.md").read_text()
TYPED = re.findall(r"^(harmony .*)$", PAGE, re.MULTILINE)
INLINE = re.findall(r"`(harmony (?:server|enroll) [^`]*)`", PAGE)
COMMANDS = [
    # Without the address it is about whichever one has.
    shlex.split(f"{each} tls://nats-1" if each.endswith("--check") else each)
    for each in (*TYPED, *INLINE)
]


@pytest.mark.parametrize("command", COMMANDS, ids=shlex.join)
def test_every_command_can_be_typed(command: list[str]) -> None:
    assert parser().parse_args(command[1:]).module


def test_what_is_exported_has_the_ports_that_are_named() -> None:
    typed = [parser().parse_args(shlex.split(each)[1:]) for each in TYPED]
    servers = [each for each in typed if each.module == "server"]
    (named,) = (each.cluster for each in servers if each.cluster)
    nodes = parse_nodes(named)
    for each in nodes:
        assert f"| {each.at.port} | devices" in PAGE
        assert f"| {each.routes.port} ({each.routes.port - each.at.port} above" in PAGE
    assert ",".join(f"tls://{each.at.host}" for each in nodes) in [each.check for each in servers]


def test_what_is_quoted_is_said() -> None:
    said = (TREE / "harmony_control" / "server" / "buckets.py").read_text()
    for quoted in ("is behind, or not reached", "instead of"):
        assert quoted in said
        assert quoted in PAGE


def test_the_port_for_sites_is_the_one_that_is_named() -> None:
    assert f"| {4222 + GATE_ABOVE} ({GATE_ABOVE} above" in PAGE
    assert f"at port {4222 + GATE_ABOVE} ({GATE_ABOVE} above" in PAGE
    said = (TREE / "harmony_agent" / "bus" / "link.py").read_text()
    for quoted in ("the server of the site ", " does not reach the fleet's"):
        assert quoted in said
        assert quoted in PAGE
