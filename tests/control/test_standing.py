"""How things stand: no old report as if it were of now, no old generation as if it were the newest."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from harmony_control.bus.reports import Presence, Seen
from harmony_control.fleet_view.device_status import conditions
from harmony_core.outcome import Noop
from harmony_core.wire.actual_state import Condition

from .ground import Ground, Said
from .scripted_device import NOON, page

MOTD = "- {id: motd, kind: FileScore, spec: {path: /etc/motd, content: hello}}\n"


async def describe_outcome(plane: Ground, *arguments: str) -> tuple[Said, dict[str, Condition]]:
    """What `status` says of pi-1, and its conditions by type."""
    said = await plane.harmony("status", "pi-1", "--json")
    (document,) = said.documents
    found = [Condition(**each) for each in document["conditions"]]
    return said, {each.type: each for each in found}


async def pushed_twice(plane: Ground) -> None:
    for content in ("hello", "bye"):
        file = MOTD.replace("hello", content)
        said = await plane.harmony("push-score", "pi-1", "-", "--no-wait", stdin=file)
        assert said.status == 0, said.err


async def test_a_device_that_has_not_taken_in_the_newest_is_not_ready(plane: Ground) -> None:
    await pushed_twice(plane)
    await plane.pi.report(plane.pi.state(1, {"motd": page(Noop(), 1)}))
    await plane.pi.beat()
    said, found = await describe_outcome(plane)
    assert said.status == 4
    assert (found["Ready"].status, found["Ready"].reason) == ("False", "Behind")
    assert "generation 2 is wanted, and the device has taken in 1" in found["Ready"].message
    (document,) = said.documents
    generations = ("generation", "observed_generation", "wanted_generation")
    assert [document[name] for name in generations] == [1, 1, 2]
    for arguments in (("status",), ("status", "pi-1")):
        assert "1 of 2" in (await plane.harmony(*arguments)).out
    await plane.pi.report(plane.pi.state(2, {"motd": page(Noop(), 2)}))
    said, found = await describe_outcome(plane)
    assert (said.status, found["Ready"].status) == (0, "True")


async def test_of_a_device_that_is_offline_every_condition_is_unknown(plane: Ground) -> None:
    await pushed_twice(plane)
    await plane.pi.report(plane.pi.state(2, {"motd": page(Noop(), 2)}))
    said, found = await describe_outcome(plane)
    assert said.status == 4
    assert {each.status for each in found.values()} == {"Unknown"}
    assert "it said True AllConverged then" in found["Ready"].message
    shown = (await plane.harmony("status", "pi-1")).out
    assert shown.startswith("pi-1  offline, last seen ")
    assert "as it was when it was seen last" in shown
    assert "Unknown" in (await plane.harmony("status")).out


async def test_one_that_refuses_what_was_pushed_is_not_ready(plane: Ground) -> None:
    await pushed_twice(plane)
    await plane.pi.report(
        plane.pi.state(1, {"motd": page(Noop(), 1)}, rejected="WrongFleet: signed for 'attic'")
    )
    await plane.pi.beat()
    said, found = await describe_outcome(plane)
    assert said.status == 4
    assert (found["Ready"].status, found["Ready"].reason) == ("False", "ManifestRejected")


async def test_one_that_never_reported_tells_what_is_wanted_of_it(plane: Ground) -> None:
    await pushed_twice(plane)
    said = await plane.harmony("status", "pi-1")
    assert "no report yet; generation 2 is wanted" in said.out
    assert "- of 2" in (await plane.harmony("status")).out


@pytest.mark.parametrize("presence", ["Silent", "Offline"])
def test_what_was_said_last_is_told_as_that(presence: Presence, plane_free: Seen) -> None:
    seen = Seen(
        agent_id="pi-1", presence=presence, at=datetime.now(UTC), state=plane_free.state, wanted=7
    )
    assert {each.status for each in conditions(seen)} == {"Unknown"}


@pytest.fixture
def plane_free() -> Seen:
    from harmony_core.wire.actual_state import ActualState

    ready = Condition(
        type="Ready", status="True", reason="AllConverged", message="", last_transition_time=NOON
    )
    state = ActualState(
        agent_id="pi-1",
        agent_version="1",
        boot_id="b",
        generation=6,
        observed_generation=6,
        conditions=(ready,),
    )
    return Seen(agent_id="pi-1", presence="Heard", state=state)
