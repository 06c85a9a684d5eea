"""Waiting for Outcomes: when it ends, and what is said when it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import attrs
import pytest

from harmony_control.device import Pushed
from harmony_control.push.entries import Entry
from harmony_core.change import Progress
from harmony_core.errors import NoAnswer
from harmony_core.outcome import WILL_ROLL_BACK, Noop, Outcome, Running, Success
from harmony_core.wire.actual_state import ActualState
from harmony_scores import FileScore

from .ground import Ground
from .scripted_device import failure, page

GOES_BACK = attrs.evolve(failure("ContainerFailed", "it crashes"), reason=WILL_ROLL_BACK)
ROLLED_BACK = failure("RolledBack", "it crashes; its last known good revision is effective again")
MOTD = FileScore(path="/etc/motd", content="hello\n")
FAILURE = failure("WriteFailed", "the disk is full")
BLOCKED = Running(reason="Blocked", message="waits for a")
UNHEALTHY = Running(reason="NotReady", message="nobody answers yet")
LONG_S = 20.0
SHORT_S = 0.3


class Wait:
    """One wait under way, and all that it was told."""

    def __init__(self, plane: Ground, pushed: Pushed, timeout_s: float = LONG_S) -> None:
        self.seen: list[ActualState] = []
        self._news = asyncio.Event()
        self._end = asyncio.create_task(
            plane.fleet.device("pi-1").wait(pushed, timeout_s=timeout_s, on_state=self._note)
        )

    def _note(self, state: ActualState) -> None:
        self.seen.append(state)
        self._news.set()

    async def has_seen(self, state: ActualState) -> None:
        """Until it was told *state*; fails when it has ended before."""
        async with asyncio.timeout(LONG_S):
            while state not in self.seen:
                assert not self._end.done(), self._end
                self._news.clear()
                await self._news.wait()

    @property
    def is_over(self) -> bool:
        return self._end.done()

    async def end(self) -> ActualState:
        return await self._end

    def statuses(self, name: str) -> list[str]:
        pages = [state.scores[name] for state in self.seen if name in state.scores]
        return [f"{page.outcome.status} {page.outcome.reason}" for page in pages]


async def report(
    plane: Ground,
    generation: int,
    scores: Mapping[str, Outcome] | None = None,
    *,
    observed: int | None = None,
    ready: bool = True,
    rejected: str = "",
) -> ActualState:
    """Have pi-1 say that *generation* is in force, and that *scores*, looked at under *observed*, are so."""
    observed = generation if observed is None else observed
    pages = {name: page(outcome, observed) for name, outcome in (scores or {}).items()}
    state = plane.pi.state(generation, pages, ready=ready, rejected=rejected)
    return await plane.pi.report(state)


async def _push(plane: Ground, after: Mapping[str, list[str]]) -> Pushed:
    device = plane.fleet.device("pi-1")
    return await device.put({name: Entry(MOTD, ids) for name, ids in after.items()})


async def test_running_then_success_is_seen_on_the_way(plane: Ground) -> None:
    await report(plane, 0)
    wait = Wait(plane, await _push(plane, {"a": []}))
    progress = Progress(done=1, total=3, unit="bytes")
    for outcome in (Running(reason="Progressing", progress=progress), UNHEALTHY):
        await wait.has_seen(await report(plane, 1, {"a": outcome}))
    last = await report(plane, 1, {"a": Success()})

    assert await wait.end() == last
    assert wait.statuses("a") == ["RUNNING Progressing", "RUNNING NotReady", "SUCCESS Converged"]


async def test_what_an_older_generation_came_to_settles_nothing(plane: Ground) -> None:
    await _push(plane, {"a": []})
    await report(plane, 1, {"a": FAILURE})
    wait = Wait(plane, await _push(plane, {"a": []}))
    await wait.has_seen(await report(plane, 2, {"a": FAILURE}, observed=1))
    await report(plane, 2, {"a": Noop()})

    assert isinstance((await wait.end()).scores["a"].outcome, Noop)


ENDS: dict[str, tuple[dict[str, Outcome], bool]] = {
    "a failure ends it": ({"a": FAILURE, "b": Success()}, True),
    "a failure does not end it while another is under way": ({"a": FAILURE, "b": UNHEALTHY}, False),
    "a failure does not end it while another was not looked at": ({"a": FAILURE}, False),
    "what is blocked behind a failure is not waited for": ({"a": FAILURE, "b": BLOCKED}, True),
    "what is blocked behind nothing worse is waited for": ({"a": UNHEALTHY, "b": BLOCKED}, False),
    "blocked alone is waited for": ({"a": Success(), "b": BLOCKED}, False),
    "held is waited for": ({"a": Success(), "b": Running(reason="Held")}, False),
    "what will be rolled back is waited for": ({"a": Success(), "b": GOES_BACK}, False),
    "what is blocked behind it, too": ({"a": GOES_BACK, "b": BLOCKED}, False),
    "what was rolled back ends it": ({"a": ROLLED_BACK, "b": BLOCKED}, True),
    "others on the device do not matter": (
        {"a": Success(), "b": Noop(), "c": UNHEALTHY, "d": FAILURE},
        True,
    ),
}


@pytest.mark.parametrize("case", ENDS)
async def test_when_the_waiting_ends(case: str, plane: Ground) -> None:
    outcomes, ends = ENDS[case]
    await report(plane, 0)
    wait = Wait(plane, await _push(plane, {"a": [], "b": ["a"]}))
    state = await report(plane, 1, outcomes)
    if ends:
        assert await wait.end() == state
        return
    await wait.has_seen(state)
    await wait.has_seen(await report(plane, 1, outcomes, ready=False))
    last = await report(plane, 1, {"a": Success(), "b": Success()})
    assert await wait.end() == last


async def test_what_it_waits_for_is_waited_for_too(plane: Ground) -> None:
    await _push(plane, {"base": []})
    await report(plane, 1, {"base": Success()})
    wait = Wait(plane, await _push(plane, {"top": ["base"]}))
    await wait.has_seen(await report(plane, 2, {"top": BLOCKED, "base": UNHEALTHY}))
    last = await report(plane, 2, {"top": Success(), "base": Success()})
    assert await wait.end() == last


async def test_a_removed_score_is_waited_for_until_it_is_gone(plane: Ground) -> None:
    await _push(plane, {"a": [], "b": []})
    await report(plane, 1, {"a": Success(), "b": Success()})
    pushed = await plane.fleet.device("pi-1").put({}, remove=["a"])
    wait = Wait(plane, pushed)
    removing = Running(reason="Removing")
    await wait.has_seen(await report(plane, 2, {"a": removing, "b": Noop()}))
    # Not mentioned, but under the manifest before: nothing says that it is gone.
    await wait.has_seen(await report(plane, 2, {"b": Noop()}, observed=1))
    last = await report(plane, 2, {"b": Noop()})
    assert await wait.end() == last


async def test_why_a_score_cannot_be_removed_is_told_when_the_time_is_up(plane: Ground) -> None:
    await _push(plane, {"a": []})
    await report(plane, 1, {"a": Success()})
    pushed = await plane.fleet.device("pi-1").put({}, remove=["a"])
    await report(plane, 2, {"a": Running(reason="Removing", message="1 to remove")})
    await plane.pi.beat()
    assert "a is RUNNING (Removing) 1 to remove." in await _no_answer(plane, pushed)


async def test_a_manifest_that_the_device_refuses_is_not_waited_for(plane: Ground) -> None:
    await report(plane, 0)
    wait = Wait(plane, await _push(plane, {"a": []}))
    await wait.has_seen(await report(plane, 0, ready=False))
    await report(plane, 0, rejected="WrongFleet: signed for 'home'")
    with pytest.raises(
        NoAnswer, match="pi-1 refuses what was pushed: WrongFleet: signed for 'home'"
    ):
        await wait.end()


async def _no_answer(plane: Ground, pushed: Pushed) -> str:
    with pytest.raises(NoAnswer) as error:
        await plane.fleet.device("pi-1").wait(pushed, timeout_s=SHORT_S)
    return error.value.message


async def test_of_a_silent_device_it_is_said_when_it_last_reported(plane: Ground) -> None:
    pushed = await _push(plane, {"a": []})
    begun = "pi-1 has not converged within 0.3 s: it "
    assert (await _no_answer(plane, pushed)).startswith(
        f"{begun}was never heard of. What was pushed"
    )
    await report(plane, 0)
    said = await _no_answer(plane, pushed)
    assert said.startswith(f"{begun}is offline, it has missed its heartbeats (last report: 20")
    assert " UTC). What was pushed" in said


async def test_of_a_device_that_is_alive_it_is_said_how_far_it_is(plane: Ground) -> None:
    await _push(plane, {"a": []})
    await _push(plane, {"a": []})
    pushed = await _push(plane, {"a": []})
    await plane.pi.beat()
    assert "it is online, but has not reported yet" in await _no_answer(plane, pushed)
    await report(plane, 2, {"a": Success()})
    assert "it is online, but still at generation 2 of 3" in await _no_answer(plane, pushed)
    await report(plane, 3, {"a": Success()}, observed=2)
    assert "it has not looked at these Scores yet" in await _no_answer(plane, pushed)
    await report(plane, 3, {"a": UNHEALTHY, "z": UNHEALTHY})
    said = await _no_answer(plane, pushed)
    assert "a is RUNNING (NotReady) nobody answers yet. The device goes on" in said
    assert "z is" not in said


async def test_what_has_failed_beside_what_is_under_way_is_told_with_its_reason(
    plane: Ground,
) -> None:
    pushed = await _push(plane, {"a": [], "b": []})
    await plane.pi.beat()
    await report(plane, 1, {"a": FAILURE, "b": UNHEALTHY})
    said = await _no_answer(plane, pushed)
    assert "a is FAILURE (WriteFailed) the disk is full; b is RUNNING (NotReady)" in said


async def test_of_a_report_that_cannot_be_read_it_is_said_why(plane: Ground) -> None:
    pushed = await _push(plane, {"a": []})
    await plane.pi.beat()
    await plane.pi.report_bytes(b"{}")
    assert "its report cannot be read: not a ActualState" in await _no_answer(plane, pushed)
