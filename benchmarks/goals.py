"""Every line that has a goal, in the order in which they are printed, and what its floor is.

Why each is what it is: docs/adr/0062-what-an-agent-may-cost.md.

A line whose goal is "at least" compares with a peer: its ratio says how many times longer the peer takes.
"""

from __future__ import annotations

from collections.abc import Iterable

from .figures import Figure, Goal, Line

__all__ = ["GOALS", "line", "unmeasured"]


_SHAPES = [f"{scores}_a_layer.{deep}_deep" for deep in (1, 3) for scores in (1, 10, 100)]


def _at_least(limit: float) -> Goal:
    return Goal(limit, "at least")


GOALS = {
    "push.noop.p50": Goal(1.3),
    "push.noop.p99": Goal(1.5),
    "push.file_changed.p50": Goal(2.1),
    "push.100_files.first": Goal(1.5),
    "push.100_files.first.cfengine": _at_least(2),
    "push.100_files.first.pyinfra": _at_least(60),
    "push.100_files.first.salt": _at_least(2),
    "push.100_files.again": Goal(2),
    "push.100_files.again.cfengine": _at_least(1.3),
    "push.100_files.again.pyinfra": _at_least(100),
    "push.100_files.again.salt": _at_least(6),
    "push.100_files.again.cpu.cfengine": _at_least(1.3),
    "push.100_files.again.cpu.pyinfra": _at_least(6),
    "push.100_files.again.cpu.salt": _at_least(6),
    "start.first_value": Goal(1.25),
    "start.first_outcome": Goal(2.5),
    "agent.rss": Goal(1.4),
    "agent.pss": Goal(1.6),
    "agent.rss.containers": Goal(1.4),
    "agent.pss.containers": Goal(1.6),
    "compose.unchanged.calls": Goal(1.5),
    "pull.image": Goal(1.05),
    "assets.upload": Goal(2),
    "assets.fetch": Goal(1.5),
    "assets.upload.resumed": Goal(1),
    "assets.fetch.resumed": Goal(1),
    "agent.idle_cpu": Goal(2.5),
    "lasting.idle_cpu.1000_resources": Goal(2.5),
    "pass.1000_resources": Goal(4),
    "idle.writes": Goal(0),
    "drift.file.p50": Goal(3),
    "drift.file.p99": Goal(2.5),
    "drift.unit": Goal(10),
    "lasting.rss": Goal(1.02),
    "lasting.descriptors": Goal(1),
    **{f"fsyncs.ledger.{shape}": Goal(3) for shape in _SHAPES},
    "secured.push.p50": Goal(1.2),
    "secured.a_score": Goal(1),
    "secured.memory": Goal(1),
    "page.first_paint": Goal(1),
    "page.fleet_drawn": Goal(1),
    "page.100_changes": Goal(1.3),
    "page.100_changes.draw": Goal(1),
    "page.10000_changes": Goal(1.3),
    "page.10000_changes.draw": Goal(1),
    "cli.help": Goal(5),
    "cli.status": Goal(1.5),
    "revoke.300": Goal(1),
    "enrol.10000": Goal(1.1),
    "revoke.10000": Goal(2.5),
    "class.10000.writes": Goal(1),
    "agents.10000": Goal(1.6),
    "serve.10000.memory": Goal(1),
}


def line(name: str, measured: Figure, floor: Figure | None = None, *, note: str = "") -> Line:
    """Return the line *name*, with its goal; one without a goal is information."""
    return Line(id=name, measured=measured, floor=floor, goal=GOALS.get(name), note=note)


def unmeasured(names: Iterable[str], why: str) -> list[Line]:
    """Return the lines *names*, each without a figure because of *why*."""
    return [Line(id=name, goal=GOALS.get(name), note=why) for name in names]
