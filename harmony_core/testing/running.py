"""Running a Score in a test: on whatever it is given, under a real Stage.

::

    first, second = await interpret_twice(MotdScore(text="hello"), {"FileSystemHost": FakeFiles()})
    assert (first.status, second.status) == ("SUCCESS", "NOOP")

What an agent adds is left out: nothing is refused by policy, nothing is claimed in a ledger, and the
audit is a list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from harmony_core.change import Change
from harmony_core.interpretation import Verdict, interpret
from harmony_core.inventory import Facts, Inventory
from harmony_core.outcome import Outcome
from harmony_core.reconciler import Offers
from harmony_core.resources import Resource
from harmony_core.score import AnyScore
from harmony_core.stage import Policy, Stage

__all__ = [
    "PI_4",
    "AllowAll",
    "ListAudit",
    "NoClaims",
    "interpret_once",
    "interpret_twice",
    "inventory",
    "make_stage",
]

PI_4 = Facts(
    model="Raspberry Pi 4 Model B Rev 1.4",
    architecture="aarch64",
    memory_bytes=4 * 1024**3,
    os="Debian GNU/Linux 13 (trixie)",
    kernel="6.12.47+rpt-rpi-v8",
    hostname="pi-1",
    agent_version="0",
    kinds={},
)
"""A Raspberry Pi 4 with Debian. For another device: ``attrs.evolve(PI_4, memory_bytes=None)``."""


class AllowAll:
    """A policy that refuses nothing."""

    def refusal(self, resource: Resource) -> str | None:  # noqa: ARG002 - the Protocol's
        return None

    def removal_refusal(
        self,
        resource_id: str,  # noqa: ARG002 - the Protocol's
        resource_class: type[Resource],  # noqa: ARG002 - the Protocol's
    ) -> str | None:
        return None


class NoClaims:
    """A ledger that is kept in two lists: the ids claimed, and those released."""

    def __init__(self) -> None:
        self.claimed: list[str] = []
        self.released: list[str] = []

    async def claim(
        self,
        resources: Sequence[Resource],
        identities: Mapping[str, frozenset[str]] = MappingProxyType({}),  # noqa: ARG002
    ) -> None:
        self.claimed += [resource.id for resource in resources]

    async def may_remove(self, resource_ids: Sequence[str]) -> None:
        """Allow every removal."""

    async def release(self, resource_ids: Sequence[str]) -> None:
        self.released += resource_ids


class ListAudit:
    """Every change that was applied, in order."""

    def __init__(self) -> None:
        self.changes: list[Change] = []

    def record(self, change: Change) -> None:
        self.changes.append(change)


def make_stage(
    offers: Offers,
    *,
    apply: bool = True,
    policy: Policy | None = None,
    claims: NoClaims | None = None,
    audit: ListAudit | None = None,
    awaits_changes: bool = False,
) -> Stage:
    """Return a real Stage over *offers*. ``apply=False`` makes it a dry run; *awaits_changes* says whether
    anything is to be changed before that run."""
    return Stage(
        offers=offers,
        policy=policy or AllowAll(),
        claims=claims or NoClaims(),
        audit=audit or ListAudit(),
        apply=apply,
        awaits_changes=awaits_changes,
    )


def inventory(labels: Mapping[str, str] = MappingProxyType({}), facts: Facts = PI_4) -> Inventory:
    """Return what a Score is told about its device."""
    return Inventory(agent_id="pi-1", facts=facts, labels=labels)


async def interpret_once(
    score: AnyScore, offers: Offers, *, about: Inventory | None = None, apply: bool = True
) -> Verdict:
    """Interpret *score* once, on a Stage of its own, and judge it as an agent would."""
    return await interpret(score, about or inventory(), make_stage(offers, apply=apply))


async def interpret_twice(
    score: AnyScore, offers: Offers, *, about: Inventory | None = None
) -> tuple[Outcome, Outcome]:
    """Interpret *score* twice and return both Outcomes: SUCCESS and NOOP for a correct Score."""
    first = await interpret_once(score, offers, about=about)
    second = await interpret_once(score, offers, about=about)
    return first.outcome, second.outcome
