"""The rules of a firewall, as nft(8) reads them: one table of our own, loaded in one transaction.

    prerouting   before anything is sent on to a container (dstnat): what is for an address of the device
    input        what is for all at once, by broadcast or multicast
    forward      what is sent to a container's own address from outside
       -> incoming: it belongs to what is there already, IP needs it, or it is allowed; else it is dropped

A port that a container publishes is judged as the device's own: the address of what is for it is changed only
afterwards. What comes from containers is inside, as the device itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from harmony_core.resources import FIREWALL_UNIT, Filtering, Firewall, FirewallRule, SystemdUnit
from harmony_core.resources.container_network import CONTAINERS_INTERFACES
from harmony_core.unit_text import command_line, script

__all__ = ["DELETE", "LOAD", "TABLE", "UNIT", "make_rules", "make_state", "make_unit"]

TABLE = "inet harmony"
UNIT = FIREWALL_UNIT
# A table that is made is there, or was; so it can be deleted, whatever there was.
DELETE = f"table {TABLE}\ndelete table {TABLE}\n"
LOAD = 'printf %s "$1" | nft -f -'
"""The script that loads the rules in ``$1``."""

_NEIGHBOURS = (
    "nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, nd-redirect, "
    "mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report"
)
_ERRORS = "echo-request, destination-unreachable, time-exceeded, parameter-problem"
_ALWAYS = (
    "ct state { established, related } accept",
    # Before what is invalid: the kernel keeps no connections of these.
    f"icmpv6 type {{ {_NEIGHBOURS} }} accept",
    "ct state invalid drop",
    f"icmp type {{ {_ERRORS} }} accept",
    f"icmpv6 type {{ {_ERRORS}, packet-too-big }} accept",
    "ip protocol igmp accept",
    "udp sport 67 udp dport 68 accept",
    "ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept",
)
_FROM_INSIDE = ("iif lo accept", *(f'iifname "{each}*" accept' for each in CONTAINERS_INTERFACES))
_TO_CONTAINERS = tuple(f'oifname "{each}*" goto incoming' for each in CONTAINERS_INTERFACES)


def make_rules(firewall: Firewall) -> str:
    """Return the rules of *firewall*, which replace what is there. Equal firewalls give equal rules."""
    allowed = [line for rule in firewall.allow for line in _allow(rule)]
    lines = [
        f"table {TABLE} {{",
        *_chain("incoming", *_ALWAYS, *allowed, firewall.input),
        *_chain(
            "prerouting",
            "type filter hook prerouting priority dstnat - 10; policy accept;",
            *_FROM_INSIDE,
            "fib daddr type local goto incoming",
        ),
        *_chain(
            "input",
            "type filter hook input priority filter; policy accept;",
            *_FROM_INSIDE,
            "fib daddr type != local goto incoming",
        ),
        *_chain(
            "forward",
            "type filter hook forward priority filter; policy accept;",
            *_FROM_INSIDE,
            # What was for a published port was judged before its address was changed.
            "ct status dnat accept",
            *_TO_CONTAINERS,
        ),
        "}",
    ]
    return DELETE + "".join(f"{line}\n" for line in lines)


def make_unit(firewall: Firewall, rules: str) -> SystemdUnit:
    """Return the unit that loads *rules* at boot, and again after nftables.service has deleted them."""
    load = command_line(script(LOAD, rules))
    return SystemdUnit(
        name=UNIT,
        content=(
            f"[Unit]\nDescription=Harmony's firewall {firewall.name}\n"
            "DefaultDependencies=no\nConflicts=shutdown.target\n"
            "Wants=network-pre.target\nBefore=network-pre.target shutdown.target\n"
            "After=nftables.service\nPartOf=nftables.service\nReloadPropagatedFrom=nftables.service\n"
            f"[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart={load}\nExecReload={load}\n"
            "[Install]\nWantedBy=sysinit.target nftables.service\n"
        ),
        settle_s=0,
    )


def make_state(listing: str) -> Filtering:
    """Return the state of the kernel from what it lists."""
    lines = [line.strip() for line in listing.splitlines()]
    rules = [
        line for line in lines if line and not line.startswith(("type ", "chain ", "table ", "}"))
    ]
    return Filtering(rules=len(rules), sha256=hashlib.sha256(listing.encode()).hexdigest())


def _chain(name: str, *lines: str) -> Iterator[str]:
    yield f"chain {name} {{"
    yield from lines
    yield "}"


def _allow(rule: FirewallRule) -> Iterator[str]:
    interface = "" if rule.interface is None else f'iifname "{rule.interface}" '
    port = "" if rule.transport is None else f"{rule.transport} dport {rule.port} "
    for source in rule.sources or ("",):
        family = "ip6" if ":" in source else "ip"
        origin = f"{family} saddr {source} " if source else ""
        yield f"{interface}{origin}{port}accept"
