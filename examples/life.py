"""``make picture``: the life of a Score, drawn as docs/life-of-a-score.svg.

Four lanes, and what goes from one to another, in order. Whatever is named by a path is a module of this
repository: a test looks that each exists.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

import attrs

__all__ = ["STEPS", "TARGET", "Step", "drawn"]

TARGET = Path(__file__).parents[1] / "docs" / "life-of-a-score.svg"
LANES = ("operator", "NATS", "agent", "device")
WIDTH, LANE, TOP, ROW = 1080, 270, 70, 46


@attrs.frozen
class Step:
    """What happens in *lane*, or goes from there *to* another; by which module."""

    lane: str
    text: str
    to: str | None = None
    module: str = ""


STEPS = (
    Step("operator", "a Python file, JSON or YAML", module="harmony_control/score_files/read.py"),
    Step(
        "operator", "needs compared with what the Pi offers", module="harmony_control/push/push.py"
    ),
    Step(
        "operator",
        "one signed manifest, generation N",
        to="NATS",
        module="harmony_control/push/push.py",
    ),
    Step(
        "NATS", "the whole value, as a hint", to="agent", module="harmony_agent/bus/deliveries.py"
    ),
    Step("agent", "signature, target, generation; stored", module="harmony_agent/store/desired.py"),
    Step(
        "agent",
        "a dry run of everything: the plan",
        to="device",
        module="harmony_agent/plan/planner.py",
    ),
    Step("agent", "claims of all, in one transaction", module="harmony_agent/store/ledger.py"),
    Step("agent", "interpret, verb by verb", to="device", module="harmony_core/stage.py"),
    Step("device", "systemd, podman, files", module="harmony_pi_topology/discovery.py"),
    Step(
        "agent",
        "what is no longer named is collected",
        to="device",
        module="harmony_agent/apply/removal.py",
    ),
    Step(
        "agent",
        "the typed Outcome, when it is news",
        to="NATS",
        module="harmony_agent/report/reporter.py",
    ),
    Step(
        "NATS",
        "SUCCESS, NOOP, RUNNING or FAILURE",
        to="operator",
        module="harmony_control/push/wait.py",
    ),
    Step(
        "device", "somebody changes something", to="agent", module="harmony_agent/drift/watcher.py"
    ),
    Step(
        "agent",
        "that Score again, and no other",
        to="device",
        module="harmony_agent/apply/queue.py",
    ),
)


def drawn() -> str:
    """Return the picture, as SVG."""
    height = TOP + ROW * len(STEPS) + 30
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            'font-family="sans-serif" font-size="14">'
        ),
        "<title>The life of a Score</title>",
        (
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" '
            'orient="auto-start-reverse"><path d="M0 0 L8 4 L0 8 z" fill="#336"/></marker></defs>'
        ),
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
    ]
    for lane in LANES:
        x = _x(lane)
        parts.append(f'<line x1="{x}" y1="{TOP - 20}" x2="{x}" y2="{height - 15}" stroke="#bbc"/>')
        parts.append(
            f'<text x="{x}" y="32" text-anchor="middle" font-weight="bold" font-size="18">{lane}</text>'
        )
    for row, step in enumerate(STEPS):
        parts += _step(step, TOP + ROW * row + 20)
    return "\n".join([*parts, "</svg>", ""])


def _step(step: Step, y: int) -> list[str]:
    begin = _x(step.lane)
    end = begin if step.to is None else _x(step.to)
    middle = (begin + end) / 2
    module = escape(step.module.rpartition("/")[2].removesuffix(".py"))
    label = (
        f'<text x="{middle:g}" y="{y - 6}" text-anchor="middle" stroke="#fff" stroke-width="5" '
        f'paint-order="stroke">{escape(step.text)}</text>'
        f'<text x="{middle:g}" y="{y + 14}" text-anchor="middle" fill="#888" font-size="11" '
        f'stroke="#fff" stroke-width="4" paint-order="stroke">{module}</text>'
    )
    if step.to is None:
        return [f'<circle cx="{begin:g}" cy="{y}" r="4" fill="#336"/>', label]
    return [
        (
            f'<line x1="{begin:g}" y1="{y}" x2="{end:g}" y2="{y}" stroke="#336" stroke-width="1.5" '
            'marker-end="url(#tip)"/>'
        ),
        label,
    ]


def _x(lane: str) -> float:
    return LANE / 2 + LANE * LANES.index(lane)


if __name__ == "__main__":
    TARGET.write_text(drawn())
    print(f"drawn: {TARGET.name}")
