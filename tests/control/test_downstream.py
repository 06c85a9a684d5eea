"""What a push may break without naming it: found from the entries, and waited for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence

import pytest

from harmony_control.push.downstream import downstream
from harmony_core.outcome import Noop, Outcome, Running, Success
from harmony_core.wire.manifest import SerializedScore

from .ground import Ground, Said
from .scripted_device import failure, page

CONF = {"id": "conf", "kind": "FileScore", "spec": {"path": "/etc/svc/a.conf", "content": "a"}}
OTHER = {"id": "other", "kind": "FileScore", "spec": {"path": "/etc/other", "content": "a"}}
BREAKS = failure("UnitFailed", "it does not stay up")


def entry(id: str, spec: Mapping[str, object], after: Sequence[str] = ()) -> SerializedScore:
    return SerializedScore(id=id, kind="AnyScore", version=1, spec=dict(spec), after=tuple(after))


MADE = entry("made", {"path": "/etc/svc/a.conf"})


@pytest.mark.parametrize(
    ("reader", "depends"),
    [
        (entry("reader", {"uses": ["/etc/svc/a.conf"]}), True),
        (entry("reader", {"mounts": [{"source": "/etc/svc", "target": "/x"}]}), True),
        (entry("reader", {"parts": [{"uses": ["/etc/svc/a.conf"]}]}), True),
        (entry("reader", {}, after=["made"]), True),
        (entry("reader", {"mounts": [{"source": "/etc/sv", "target": "/x"}]}), False),
        (entry("reader", {"uses": ["/etc/svc/b.conf"]}), False),
        (entry("reader", {"path": "/etc/svc"}), False),
    ],
)
def test_what_reads_or_follows_what_was_changed_depends_on_it(
    reader: SerializedScore, depends: bool
) -> None:
    entries = {each.id: each for each in (MADE, reader)}
    assert downstream({"made"}, entries, {}) == ({"reader"} if depends else set())


def test_dependence_is_followed_to_its_end_and_what_was_removed_counts() -> None:
    reader = entry("reader", {"uses": ["/etc/svc/a.conf"]})
    last = entry("last", {}, after=["reader"])
    entries = {each.id: each for each in (last, reader)}
    assert downstream({"made"}, entries, {"made": MADE}) == {"reader", "last"}
    assert downstream({"made"}, entries, {}) == set()


async def report(plane: Ground, generation: int, **outcomes: tuple[Outcome, int]) -> None:
    pages = {name: page(outcome, observed) for name, (outcome, observed) in outcomes.items()}
    await plane.pi.report(plane.pi.state(generation, pages))
    await plane.pi.beat()


async def under_way(plane: Ground, *arguments: str, stdin: str = "") -> asyncio.Task[Said]:
    """A command that pushes to pi-1 and waits."""
    bucket = plane.bus.bucket("desired-state")
    before = await bucket.get("pi-1")
    running = asyncio.create_task(plane.harmony(*arguments, stdin=stdin))
    async with asyncio.timeout(20):
        while await bucket.get("pi-1") == before:
            assert not running.done(), running
            await asyncio.sleep(0.02)
    return running


@pytest.mark.parametrize(
    ("told", "status"), [({"svc": BREAKS}, 1), ({"svc": Success()}, 0), ({"svc": Noop()}, 0)]
)
async def test_a_push_ends_only_when_what_stood_before_was_looked_at_since(
    told: Mapping[str, Outcome], status: int, plane: Ground
) -> None:
    await report(plane, 0)
    first = await under_way(plane, "push-score", "pi-1", "-", stdin=json.dumps([CONF, OTHER]))
    await report(plane, 1, conf=(Success(), 1), other=(Success(), 1))
    assert (await first).status == 0
    # `other` has no word in common with `conf`: only the device knows whether it depends on it.
    svc = told["svc"]
    second = await under_way(plane, "push-score", "pi-1", "-", "--json", stdin=json.dumps([CONF]))
    await report(plane, 2, conf=(Success(), 2), other=(Success(), 1))
    again = Running(reason="Progressing", message="is looked at again")
    await report(plane, 2, conf=(Success(), 2), other=(again, 2))
    await report(plane, 2, conf=(Success(), 2), other=(svc, 2))
    said = await second
    assert said.status == status
    last = {each["id"]: each["outcome"]["status"] for each in said.documents if "id" in each}
    assert last["conf"] == "SUCCESS"
    assert last.get("other", "NOOP") == svc.status


async def test_what_was_broken_before_and_depends_on_nothing_pushed_does_not_count(
    plane: Ground,
) -> None:
    await report(plane, 0)
    first = await under_way(plane, "push-score", "pi-1", "-", stdin=json.dumps([CONF, OTHER]))
    await report(plane, 1, conf=(Success(), 1), other=(BREAKS, 1))
    assert (await first).status == 1
    second = await under_way(plane, "push-score", "pi-1", "-", stdin=json.dumps([CONF]))
    await report(plane, 2, conf=(Success(), 2), other=(BREAKS, 1))
    assert (await second).status == 0


async def test_what_another_push_has_left_hanging_keeps_nobody_else_waiting(plane: Ground) -> None:
    await report(plane, 0)
    said = await plane.harmony("push-score", "pi-1", "-", "--no-wait", stdin=json.dumps([OTHER]))
    assert said.status == 0, said.err
    second = await under_way(plane, "push-score", "pi-1", "-", stdin=json.dumps([CONF]))
    await report(plane, 2, conf=(Success(), 2))
    assert (await second).status == 0
