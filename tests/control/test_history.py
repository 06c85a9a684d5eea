"""What was wanted of a device before, and wanting it again: on a real bus, with a whole agent."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import attrs
import pytest

from harmony_control.device import Device
from harmony_control.fleet import Fleet
from harmony_control.push.history import Generation, History
from harmony_control.push.push import Contents, push
from harmony_core import plugins
from harmony_core.errors import RevisionConflict, UsageError
from harmony_core.outcome import Success
from harmony_core.testing import FakeFiles
from harmony_core.wire.envelope import generate_key, seal
from harmony_core.wire.manifest import Manifest, SerializedScore, target_of
from harmony_core.wire.times import parse_rfc3339
from harmony_pi_topology import PiTopology
from harmony_scores import FileScore
from tests.control.ground import Said, harmony
from tests.device import running_agent
from tests.nats import Bus, serving


def motd(text: str) -> FileScore:
    return FileScore(path="/etc/motd", content=text)


ISSUE = FileScore(path="/etc/issue", content="issue\n")


@attrs.frozen
class Place:
    bus: Bus
    files: FakeFiles
    pi: Device[PiTopology]

    async def harmony(self, *arguments: str) -> Said:
        return await harmony(self.bus.home, *arguments)


def working(bus: Bus, root: Path, files: FakeFiles) -> AbstractAsyncContextManager[object]:
    """The agent, until the block ends."""
    return running_agent(
        bus.home,
        "pi-1",
        root / "agent",
        registry=plugins.load(),
        offers={"FileSystemHost": files},
        missing={"SystemdHost": "this is a test"},
    )


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Place]:
    files = FakeFiles()
    async with (
        serving(tmp_path, "pi-1") as bus,
        Fleet.connect(bus.home) as fleet,
        working(bus, tmp_path, files),
    ):
        yield Place(bus, files, fleet.device("pi-1"))


async def test_what_the_device_allows_no_more_is_not_gone_back_to(tmp_path: Path) -> None:
    """What works would be replaced by a failure. Who goes back all the same is told what became of it."""
    files = FakeFiles()
    async with serving(tmp_path, "pi-1") as bus, Fleet.connect(bus.home) as fleet:
        pi = fleet.device("pi-1")
        async with working(bus, tmp_path, files):
            await pi.put_and_wait({"app": FileScore(path="/opt/app", content="one\n")})
            await pi.put_and_wait({"app": FileScore(path="/srv/app", content="two\n")})
        policy = bus.home.agent_toml("pi-1").parent / "policy.toml"
        policy.write_text('preset = "appliance"\nkinds = ["FileScore"]\npaths = ["/srv"]\n')
        policy.chmod(0o644)
        async with working(bus, tmp_path, files):
            async with asyncio.timeout(10), pi.watch() as states:
                async for state in states:
                    if state.policy == "appliance":
                        break
            said = await harmony(bus.home, "rollback", "pi-1", "--yes")
            assert said.status == 3, said
            assert f'{policy}, line 3: paths = ["/srv"]; to allow it, add "/opt/app"' in said.err
            assert (await pi.history()).generations[-1].number == 2
            said = await harmony(bus.home, "rollback", "pi-1", "--yes", "--force")
            assert said.status == 1, said
            assert "PolicyRefused" in said.out
            assert files.read("/opt/app") is None
            assert files.read("/srv/app") == b"two\n"


async def test_each_generation_tells_what_it_changed_and_which_is_in_force(place: Place) -> None:
    await place.pi.put_and_wait({"motd": motd("one\n")})
    await place.pi.put_and_wait({"motd": motd("two\n"), "issue": ISSUE})
    await place.pi.remove("issue")
    said = await place.harmony("history", "pi-1", "--json")
    told = [
        (each["generation"], each["added"], each["replaced"], each["removed"], each["device"])
        for each in said.documents
    ]
    assert told == [
        (3, [], [], ["issue"], "converged"),
        (2, ["issue"], ["motd"], [], ""),
        (1, [], [], [], ""),
    ]
    people = (await place.harmony("history", "pi-1")).out.splitlines()
    assert "-issue  (applied on the device)" in people[0]
    assert "+issue ~motd" in people[1]
    assert "oldest revision kept" in people[2]


async def test_a_device_that_nothing_was_pushed_to_has_no_history(place: Place) -> None:
    said = await place.harmony("history", "pi-1")
    assert (said.status, said.out) == (0, "nothing was pushed to pi-1 from here\n")
    said = await place.harmony("rollback", "pi-1", "--yes")
    assert said.status == 2
    assert "nothing that was pushed to pi-1 can be read" in said.err


async def test_rolled_back_the_device_is_as_it_was_in_a_new_generation(place: Place) -> None:
    assert isinstance(await place.pi.push(motd("one\n"), id="motd"), Success)
    await place.pi.put_and_wait({"motd": motd("two\n"), "issue": ISSUE})
    await place.pi.put_and_wait({"motd": motd("two\n")})  # the same once more
    said = await place.harmony("rollback", "pi-1", "--yes")
    assert said.status == 0, said.err
    assert said.out.startswith("rolling back to revision 1 (")
    assert "reverts: ~motd -issue\n" in said.out
    assert "pushed to pi-1: generation 4, 1 Score\n" in said.out
    assert place.files.read("/etc/motd") == b"one\n"
    assert place.files.read("/etc/issue") is None
    # And forward again, by number.
    pushed = await place.pi.rollback(to=2)
    assert pushed.generation == 5
    await place.pi.wait(pushed)
    assert place.files.read("/etc/motd") == b"two\n"
    assert place.files.read("/etc/issue") == b"issue\n"


async def test_what_a_device_does_without_and_the_order_of_its_scores_are_gone_back_to_one_by_one(
    place: Place,
) -> None:
    await place.pi.put_and_wait({"a": ISSUE, "b": motd("old\n")})
    await place.pi.put_and_wait({"b": motd("new\n")})

    async def change(how: Callable[[Contents], Contents]) -> None:
        await push(place.bus.home, place.bus.admin, "pi-1", how)

    await change(lambda found: attrs.evolve(found, without=["door"]))
    await change(lambda found: attrs.evolve(found, scores=dict([*found.scores.items()][::-1])))
    told = (await place.harmony("history", "pi-1", "--json")).documents[:2]
    assert [(each["left_out"], each["without"], each["reordered"]) for each in told] == [
        ([], ["door"], True),
        (["door"], ["door"], False),
    ]
    said = await place.harmony("rollback", "pi-1", "--yes")
    assert (said.status, "reverts: order\n" in said.out) == (0, True), said
    assert (await place.pi.history()).target(2).number == 2
    said = await place.harmony("rollback", "pi-1", "--to", "2", "--yes")
    assert (said.status, "reverts: -without:door\n" in said.out) == (0, True), said
    newest = (await place.pi.history()).generations[-1].manifest
    assert ([each.id for each in newest.scores], newest.without) == (["a", "b"], ())
    assert place.files.read("/etc/motd") == b"new\n"


async def test_an_order_that_came_meanwhile_is_not_undone(place: Place) -> None:
    await place.pi.put_and_wait({"a": ISSUE, "b": motd("old\n")})
    await place.pi.put_and_wait({"b": motd("new\n")})
    shown = await place.pi.history()
    await push(
        place.bus.home,
        place.bus.admin,
        "pi-1",
        lambda found: attrs.evolve(found, scores=dict([*found.scores.items()][::-1])),
    )
    with pytest.raises(RevisionConflict, match=r"generation 3 was pushed meanwhile.* \(order\)"):
        await place.pi.rollback(shown=shown)


async def test_where_nobody_can_be_asked_nothing_is_rolled_back(place: Place) -> None:
    await place.pi.push(motd("one\n"), id="motd")
    await place.pi.push(motd("two\n"), id="motd")
    said = await place.harmony("rollback", "pi-1")
    assert said.status == 2
    assert "pass --yes to confirm" in said.err
    assert place.files.read("/etc/motd") == b"two\n"


async def test_our_own_store_reaches_further_than_the_bucket(place: Place) -> None:
    for n in range(1, 12):
        await place.pi.put({"motd": motd(f"{n}\n")})
    history = await place.pi.history()
    assert [each.number for each in history.generations] == list(range(1, 12))
    shutil.rmtree(place.bus.home.root / "manifests" / "pi-1")
    history = await place.pi.history()
    assert [each.number for each in history.generations] == list(range(4, 12))
    with pytest.raises(
        UsageError, match=r"3 of pi-1 cannot be read any more; choose .*: 4, 5, .*, 10$"
    ):
        await place.pi.rollback(to=3)
    with pytest.raises(UsageError, match="revision 11 of pi-1 is the same as the newest, 11"):
        await place.pi.rollback(to=11)


async def test_the_store_keeps_no_more_than_the_last_fifty(place: Place) -> None:
    (past := place.bus.home.root / "manifests" / "pi-1").mkdir(parents=True)
    for n in range(1000, 1060):
        (past / f"{n:016}.json").write_bytes(b"old")
    await place.pi.put({"motd": motd("new\n")})
    assert len(list(past.iterdir())) == 50


async def test_what_a_stranger_wrote_into_the_bucket_is_never_gone_back_to(place: Place) -> None:
    await place.pi.push(motd("one\n"), id="motd")
    await place.pi.push(motd("two\n"), id="motd")
    bucket = place.bus.bucket("desired-state")
    ours = await bucket.get("pi-1")
    assert ours is not None
    stranger = Manifest(
        fleet="home",
        target=target_of("pi-1"),
        generation=9,
        issued_at=parse_rfc3339("2026-01-31T12:00:00.000Z"),
    )
    await bucket.put("pi-1", seal(stranger.payload(), generate_key()))
    await bucket.put("pi-1", ours.value)
    history = await place.pi.history()
    assert [each.number for each in history.generations] == [1, 2]
    assert history.strangers == 1
    said = await place.harmony("history", "pi-1")
    assert "skipped: unknown signer" in said.err


def test_of_several_epochs_the_one_that_is_meant_has_to_be_said() -> None:
    def generation(epoch: int, number: int, text: str) -> Generation:
        entry = SerializedScore(id="motd", kind="FileScore", version=1, spec={"content": text})
        manifest = Manifest(
            fleet="home",
            target=target_of("pi-1"),
            epoch=epoch,
            generation=number,
            issued_at=parse_rfc3339("2026-01-31T12:00:00.000Z"),
            scores=(entry,),
        )
        return Generation(manifest=manifest, signed_by=())

    before, after, newest = generation(0, 5, "a"), generation(1, 5, "b"), generation(1, 6, "c")
    history = History(agent_id="pi-1", generations=(before, after, newest))
    with pytest.raises(UsageError, match=r"in more than one epoch; choose one of: 0:5, 1:5$"):
        history.target(5)
    assert history.target((0, 5)) is before
    assert history.target((1, 5)) is after
    assert [history.name_of(each) for each in history.generations] == ["0:5", "1:5", "1:6"]
    with pytest.raises(UsageError, match="revision 6 of pi-1 is the same as the newest, 1:6"):
        history.target(6)
    with pytest.raises(UsageError, match="revision 0:6 of pi-1 cannot be read any more"):
        history.target((0, 6))
    one = History(agent_id="pi-1", generations=(after, newest))
    assert (one.target(5), one.name_of(after)) == (after, "5")
