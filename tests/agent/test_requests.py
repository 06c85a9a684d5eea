"""An agent that is asked: what it answers, whom, how much of it, and what it never answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from harmony_agent.rpc.dispatch import ANSWERED_AT_ONCE
from harmony_agent.rpc.stream import ANSWER_MOST_BYTES
from harmony_control.store import operator_key
from harmony_core.errors import CapabilityUnavailable
from harmony_core.wire.envelope import SigningKey, seal
from harmony_core.wire.manifest import ScorePolicy
from harmony_core.wire.replies import Alive, End, Failed, Item
from harmony_core.wire.requests import (
    REQUEST_TYPE,
    Diff,
    Events,
    Logs,
    Reconcile,
    Release,
    Volumes,
    seal_request,
)
from tests.agent.asking import Asker, LoggingFiles, asker
from tests.agent.rig import Note, Rig, Several, entry, status
from tests.nats import serving

NOTE, OTHER = "/etc/note", "/etc/other"


@pytest.fixture
def logging() -> LoggingFiles:
    return LoggingFiles()


@pytest.fixture
async def rig(tmp_path: Path, logging: LoggingFiles) -> AsyncGenerator[Rig]:
    async with serving(tmp_path, "pi-1") as bus:
        yield Rig(bus, tmp_path, operator_key.load(bus.home), logging)


@pytest.fixture
async def device(rig: Rig) -> AsyncGenerator[Asker]:
    """A device with two Scores, a note each."""
    async with rig.agent():
        await rig.put(1, entry(Note(), "note"), entry(Note(path=OTHER), "other"))
        await rig.seen(1)
        yield await asker(rig)


async def test_what_was_changed_is_told_with_who_wanted_it(device: Asker, rig: Rig) -> None:
    answer = await device.ask(Events())
    assert isinstance(answer.frames[0], Alive)
    assert sorted(each["resource"] for each in answer.items) == [f"file:{NOTE}", f"file:{OTHER}"]
    first = answer.items[0]
    assert (first["generation"], first["signed_by"]) == (1, [rig.key.public.id])
    assert first["after"]["state"] == "PresentAt"


async def test_only_what_was_asked_for_is_told_of_what_was_changed(device: Asker) -> None:
    (one,) = (await device.ask(Events(score="note"))).items
    assert one["score"] == "note"
    first, second = (await device.ask(Events())).items
    assert (await device.ask(Events(lines=1))).items == [second]
    assert (await device.ask(Events(after=first["seq"]))).items == [second]
    assert (await device.ask(Events(after=second["seq"]))).items == []
    later = datetime.now(UTC) + timedelta(minutes=1)
    assert (await device.ask(Events(since=later))).items == []


async def test_what_is_changed_is_told_as_it_happens(device: Asker, rig: Rig) -> None:
    async with device.listening(Events(follow=True, score="note")) as answer:
        before = await answer.item()
        await rig.put(2, entry(Note(text="new"), "note"), entry(Note(path=OTHER, text="new"), "o"))
        now = await answer.item()
    assert (before["generation"], now["generation"], now["score"]) == (1, 2, "note")
    assert now["seq"] > before["seq"]


async def test_a_diff_tells_what_would_change_and_changes_nothing(device: Asker, rig: Rig) -> None:
    wanted = (entry(Note(text="new"), "note"), entry(Note(path="/etc/third"), "third"))
    items = (await device.ask(Diff(entries=wanted))).items
    told = {each["score"]: each["status"] for each in items if "status" in each}
    assert told == {"note": "SUCCESS", "other": "NOOP", "third": "SUCCESS"}
    changes = {each["resource"]: each for each in items if "resource" in each}
    assert changes.keys() == {f"file:{NOTE}", "file:/etc/third"}
    assert "+new" in changes[f"file:{NOTE}"]["diff"]
    assert changes["file:/etc/third"]["before"] is None
    assert not any(each["removed"] for each in changes.values())
    assert status(await rig.seen(1)) == {"note": "SUCCESS", "other": "SUCCESS"}
    assert await rig.files.observe("/etc/third") is None


async def test_a_diff_of_all_that_is_wanted_tells_what_would_go(device: Asker, rig: Rig) -> None:
    items = (await device.ask(Diff(entries=(entry(Note(), "note"),), whole=True))).items
    assert [(each["score"], each["status"]) for each in items if "status" in each] == [
        ("note", "NOOP"),
        ("other", "GONE"),
    ]
    (change,) = [each for each in items if "resource" in each]
    assert (change["score"], change["resource"], change["removed"]) == (
        "other",
        f"file:{OTHER}",
        True,
    )
    assert await rig.files.observe(OTHER) is not None


async def test_a_diff_tells_what_would_be_refused(device: Asker) -> None:
    broken = entry(Note(), "note").model_copy(update={"kind": "NeverHeardOf"})
    items = (await device.ask(Diff(entries=(broken,)))).items
    (refused,) = [each for each in items if each["score"] == "note"]
    assert (refused["status"], refused["error"]["code"]) == ("FAILURE", "UnknownKind")
    waiting = entry(Note(), "note", after=("nobody",))
    assert (await device.ask(Diff(entries=(waiting,)))).code == "UnknownDependency"


async def test_a_diff_tells_whose_a_thing_is_already(device: Asker, rig: Rig) -> None:
    rival = entry(Note(text="mine"), "rival")
    items = (await device.ask(Diff(entries=(rival,)))).items
    (refused,) = [each for each in items if each["score"] == "rival"]
    assert (refused["status"], refused["error"]["code"]) == ("FAILURE", "OwnershipConflict")
    assert "Score 'note'" in refused["error"]["message"]


async def test_a_diff_tells_what_would_be_held_back(device: Asker, rig: Rig) -> None:
    many = entry(Several(paths=tuple(f"/etc/many/{n}" for n in range(20))), "many")
    kept = (entry(Note(), "note"), entry(Note(path=OTHER), "other"))
    await rig.put(2, many, *kept)
    await rig.seen(2)
    few = (await device.ask(Diff(entries=(many,), whole=True))).items
    assert not any(each["held"] for each in few if "status" in each)
    items = (await device.ask(Diff(entries=kept, whole=True))).items
    assert {each["score"]: each["held"] for each in items if "status" in each} == {
        "many": True,
        "note": False,
        "other": False,
    }


async def test_a_score_is_looked_at_now_and_what_it_came_to_is_told(
    device: Asker, rig: Rig
) -> None:
    (told,) = (await device.ask(Reconcile(score="note"))).items
    assert told["score"] == "note"
    assert told["state"]["outcome"]["status"] == "SUCCESS"
    assert told["state"]["resources"] == {}
    assert told["state"]["resources_total"] == 1
    both = (await device.ask(Reconcile())).items
    assert sorted(each["score"] for each in both) == ["note", "other"]


async def test_what_waits_for_its_retry_is_tried_at_once(rig: Rig, logging: LoggingFiles) -> None:
    logging.full = True
    async with rig.agent():
        await rig.put(1, entry(Note(), "note"))
        await rig.seen(1)
        device = await asker(rig)
        (told,) = (await device.ask(Reconcile(score="note"))).items
        assert told["state"]["outcome"]["error"]["code"] == "WriteFailed"
        assert told["state"]["attempts"] >= 2
        logging.full = False
        (told,) = (await device.ask(Reconcile(score="note"))).items
        assert told["state"]["outcome"]["status"] == "SUCCESS"


async def test_what_is_only_told_to_have_drifted_is_put_right_once_by_request(rig: Rig) -> None:
    async with rig.agent():
        await rig.put(1, entry(Note(), "note", policy=ScorePolicy(drift="report")))
        await rig.seen(1)
        await asyncio.sleep(0.6)
        device = await asker(rig)
        rig.files.write(NOTE, b"theirs")
        (told,) = (await device.ask(Reconcile(score="note"))).items
        assert told["state"]["outcome"]["error"]["code"] == "Drifted"
        assert rig.files.read(NOTE) == b"theirs"
        (told,) = (await device.ask(Reconcile(score="note", enforce=True))).items
        assert told["state"]["outcome"]["status"] == "SUCCESS"
        assert told["state"]["drift_count"] == 1
        assert rig.files.read(NOTE) == b"hello"
        (event,) = [e for e in (await device.ask(Events())).items if e["actions"] == ["is left so"]]
        assert event["why"] == "drift"


async def test_what_it_does_not_know_it_says(device: Asker) -> None:
    for ask in (Reconcile(score="nosuch"), Logs(score="nosuch"), Release(score="nosuch")):
        answer = await device.ask(ask)
        assert answer.code == "UnknownScore"
        assert isinstance(answer.frames[-1], Failed)
        assert "there are: note, other" in answer.frames[-1].error.message


async def test_where_there_are_no_volumes_none_are_listed(device: Asker) -> None:
    assert (await device.ask(Volumes())).code == "RequestFailed"


async def test_nothing_is_released_that_is_not_held(device: Asker) -> None:
    assert (await device.ask(Release(score="note"))).code == "NotHeld"


async def test_what_a_score_has_logged_is_told_in_order_of_time(
    rig: Rig, logging: LoggingFiles
) -> None:
    begun = datetime.now(UTC)
    async with rig.agent():
        await rig.put(1, entry(Several(paths=("/a", "/b")), "two"))
        await rig.seen(1)
        device = await asker(rig)
        for n in range(6):
            logging.log("/a" if n % 2 else "/b", f"line {n}", at=begun + timedelta(seconds=n))
        logging.log("/c", "not ours")
        told = (await device.ask(Logs(score="two"))).items
        newest = (await device.ask(Logs(score="two", lines=2))).items
        late = (await device.ask(Logs(score="two", since=begun + timedelta(seconds=5)))).items
        more = await device.ask(Logs(score="two", after={"file:/a": "c=1", "file:/b": "c=2"}))
    assert [each["text"] for each in told] == [f"line {n}" for n in range(6)]
    assert told[1]["resource"] == "file:/a"
    assert newest == told[-2:]
    assert late == told[-1:]
    assert more.items == told[-1:]


async def test_what_is_logged_is_told_as_it_comes_and_nothing_twice(
    device: Asker, logging: LoggingFiles
) -> None:
    logging.log(NOTE, "before")
    async with device.listening(Logs(score="note", follow=True)) as answer:
        assert (await answer.item())["text"] == "before"
        logging.log(NOTE, "one", "two")
        assert (await answer.item())["text"] == "one"
        last = await answer.item()
    logging.log(NOTE, "three")
    again = Logs(score="note", follow=True, after={last["resource"]: last["cursor"]})
    async with device.listening(again) as answer:
        assert (await answer.item())["text"] == "three"


async def test_what_has_no_log_is_told_as_that(rig: Rig) -> None:
    rig.files = type(rig.files).__mro__[1]()  # files that log nothing
    async with rig.agent():
        await rig.put(1, entry(Note(), "note"))
        await rig.seen(1)
        device = await asker(rig)
        assert (await device.ask(Logs(score="note"))).code == "NothingLogged"


async def test_what_the_device_cannot_do_is_told_with_its_code(
    device: Asker, logging: LoggingFiles
) -> None:
    logging.error = CapabilityUnavailable("the daemon is away", resource="file:/etc/note")
    answer = await device.ask(Logs(score="note"))
    assert answer.code == "CapabilityUnavailable"
    assert isinstance(answer.frames[-1], Failed)
    assert answer.frames[-1].error.resource == "file:/etc/note"


async def test_a_defect_ends_one_answer_and_nothing_else(
    device: Asker, logging: LoggingFiles
) -> None:
    logging.error = ZeroDivisionError("oh")
    assert (await device.ask(Logs(score="note"))).code == "Defect"
    logging.error = None
    assert (await device.ask(Logs(score="note"))).items == []


async def test_what_hangs_keeps_no_score_waiting(
    device: Asker, rig: Rig, logging: LoggingFiles
) -> None:
    logging.hangs = True
    async with device.listening(Logs(score="note")) as answer:
        assert isinstance(await answer.frame(), Alive)
        await rig.put(2, entry(Note(text="new"), "note"))
        await rig.seen(2)
        # It says that it is still there.
        assert isinstance(await answer.frame(), Alive)


async def test_a_flood_is_cut_off_and_told_as_that(device: Asker, logging: LoggingFiles) -> None:
    logging.log(NOTE, *("x" * 8_000 for _ in range(ANSWER_MOST_BYTES // 8_000 + 10)))
    answer = await device.ask(Logs(score="note", lines=10_000))
    assert answer.code == "AnswerTooLarge"
    assert len(answer.told) > 1_000


async def test_too_many_at_once_are_refused_and_what_is_followed_makes_way(
    device: Asker, logging: LoggingFiles
) -> None:
    async with device.listening(Events(follow=True)) as followed:
        await followed.item()
        logging.hangs = True
        hanging = [
            asyncio.create_task(device.ask(Logs(score="note"))) for _ in range(ANSWERED_AT_ONCE)
        ]
        assert isinstance((await followed.rest()).frames[-1], End)
        assert (await device.ask(Events())).code == "TooManyRequests"
        for each in hanging:
            each.cancel()


async def test_no_answer_is_given_to_whom_it_does_not_know(device: Asker) -> None:
    stranger = Asker(device.rig, SigningKey(bytes(32)))
    requests = [
        stranger.request(Events()),
        device.request(Events(), target="agent:pi-2"),
        device.request(Events(), fleet="away"),
    ]
    for request, key in zip(requests, (stranger.key, device.key, device.key), strict=True):
        async with device.waiting(request.nonce) as answer:
            await device.send(seal_request(request, key))
            assert (await device.ask(Events())).items  # by then it would have come
            assert answer.subscription.pending_msgs == 0


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff" * 1000, b"[" * 100_000])
async def test_garbage_is_dropped(device: Asker, data: bytes) -> None:
    await device.send(data)
    assert (await device.ask(Events())).items


async def test_a_manifest_is_no_request(device: Asker, rig: Rig) -> None:
    await device.send(rig.sealed(2))
    assert (await device.ask(Events())).items
    assert status(await rig.seen(1)) == {"note": "SUCCESS", "other": "SUCCESS"}


async def test_a_request_is_answered_once_only(device: Asker) -> None:
    request = device.request(Events())
    envelope = seal_request(request, device.key)
    async with device.waiting(request.nonce) as answer:
        await device.send(envelope)
        assert (await answer.rest()).items
        await device.send(envelope)
        assert (await device.ask(Events())).items
        assert answer.subscription.pending_msgs == 0


async def test_what_comes_too_late_is_told_with_the_device_s_time(device: Asker) -> None:
    then = datetime.now(UTC) - timedelta(minutes=5)
    times = {"issued_at": then, "expires_at": then + timedelta(minutes=1)}
    answer = await device.ask(Events(), **times)
    assert answer.code == "RequestExpired"
    assert [type(frame) for frame in answer.frames] == [Failed]


async def test_what_was_asked_before_it_started_is_not_answered(rig: Rig) -> None:
    async with rig.agent():
        device = await asker(rig)
        earlier = datetime.now(UTC) - timedelta(seconds=30)
        times = {"issued_at": earlier, "expires_at": earlier + timedelta(minutes=1)}
        assert (await device.ask(Events(), **times)).code == "RequestExpired"


async def test_what_is_not_known_is_told_to_who_asks(device: Asker) -> None:
    assert (await device.ask(Events(), verb="shell")).code == "UnknownVerb"
    assert (await device.ask(Events(), args={"colour": "red"})).code == "InvalidRequest"
    payload = device.request(Events()).payload().replace(b'"verb"', b'"word"')
    await device.send(seal(payload, device.key, payload_type=REQUEST_TYPE))
    assert (await device.ask(Events())).items


async def test_it_listens_again_after_it_was_cut_off(device: Asker, rig: Rig) -> None:
    async with device.listening(Events(follow=True)) as answer:
        assert isinstance(await answer.item(), dict)
        await rig.bus.enrol("pi-2")  # the server goes on; then the agent's key is no longer known
        agents = rig.bus.home.agents()
        rig.bus.home.save_agents({})
        await rig.bus.server.reload()
        rig.bus.home.save_agents(agents)
        await rig.bus.server.reload()
    async with asyncio.timeout(20):
        while True:
            async with device.listening(Events()) as answer:
                try:
                    first = await answer.frame(within_s=0.5)
                except TimeoutError:
                    continue
                assert isinstance(first, Alive | Item)
                return
