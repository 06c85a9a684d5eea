"""Whatever becomes of as many Scores as a manifest may have, the report on them fits into one message."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from harmony_agent.report.reporter import MOST_BYTES, fit
from harmony_core.errors import InvalidManifest
from harmony_core.outcome import ErrorInfo, Failure, Noop, Outcome, Running
from harmony_core.plugins import Registry
from harmony_core.testing import FakeFiles
from harmony_core.wire.actual_state import ActualState, Drift, ScoreStatus, from_json
from harmony_core.wire.envelope import generate_key
from harmony_core.wire.manifest import SCORES_MOST

from .rig import Note, Rig, entry, status
from .virtual import VirtualDevice

NOW = "2026-01-31T12:00:00.000Z"
LONG = "\x1b[31m what a log may be full of\n" * 60
FAILED = Failure(
    error=ErrorInfo(
        code="JobAttemptFailed", message=LONG, resource="file:/" + "x" * 400, retry_at=NOW
    ),
    message=LONG,
)


def state(outcome: Outcome, count: int) -> ActualState:
    page = ScoreStatus(
        kind="AKindWithAName" * 4,
        version=1_000,
        observed_generation=2**53 - 1,
        since=NOW,
        outcome=outcome,
        attempts=10_000,
        drift_count=10_000,
        last_drift=Drift(at=NOW, resource="file:/x", before=LONG, after=LONG),
        resources={f"file:/{n}": {"state": "PresentAt"} for n in range(30)},
        resources_total=1_000,
        resources_ready=1_000,
    )
    return ActualState(
        agent_id="a" * 63,
        agent_version="1.0.0",
        boot_id="b" * 36,
        generation=2**53 - 1,
        observed_generation=2**53 - 1,
        scores={f"{n:03}-{'x' * 59}": page for n in range(count)},
    )


@pytest.mark.parametrize(
    "outcome", [FAILED, Running(reason="Progressing", message=LONG), Noop()], ids=repr
)
def test_it_fits_and_names_every_score(outcome: Outcome) -> None:
    data = fit(state(outcome, SCORES_MOST))
    assert len(data) <= MOST_BYTES
    told = from_json(data, ActualState)
    assert told.truncated
    assert len(told.scores) == SCORES_MOST
    for page in told.scores.values():
        assert page.outcome.status == outcome.status
        assert page.resources_total == 1_000


async def test_a_device_with_as_many_as_it_may_have_is_heard(rig: Rig) -> None:
    entries = [entry(Note(path=f"/etc/{n}"), f"note-{n}") for n in range(SCORES_MOST)]
    async with rig.agent():
        await rig.put(1, *entries)
        assert set(status(await rig.seen(1)).values()) == {"SUCCESS"}
    with pytest.raises(InvalidManifest, match="401 are more than the 400"):
        rig.sealed(2, *entries, entry(Note(path="/etc/one-more"), "one-more"))


@pytest.mark.looptime
async def test_who_was_killed_tells_of_no_older_generation_than_it_has_before(
    tmp_path: Path,
) -> None:
    """Killed in the very moment in which it has told of a newer one."""
    offers = {"FileSystemHost": FakeFiles()}
    device = VirtualDevice(tmp_path, generate_key(), Registry([Note]), offers)
    reports: list[ActualState] = []
    device.bus.on_told = reports.append
    await device.start()
    await asyncio.sleep(1)
    device.push([entry(Note(), "note")])
    while reports[-1].generation == 0:
        await asyncio.sleep(0)
    await device.kill()
    await device.start()
    await asyncio.sleep(10)
    assert reports[-1].observed_generation == 1
    generations = [each.generation for each in reports]
    assert generations == sorted(generations)
    await device.kill()
    device.close()
