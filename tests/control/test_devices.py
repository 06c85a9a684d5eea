"""Which devices there are: a mistyped id is told as that, and a device can be removed."""

from __future__ import annotations

import json

import nats.errors
import pytest

from harmony_control.bus.connection import Bucket
from harmony_control.enrol import retire
from harmony_control.server.roster import publish_devices
from harmony_control.store import operator_key
from harmony_control.store.home import Home
from harmony_control.store.invitations import Pending, save_waiting
from harmony_core.errors import BusUnreachable
from harmony_core.outcome import Noop, Success
from harmony_core.wire.device_record import open_record
from harmony_core.wire.envelope import pin_keys
from tests.nats import connected

from .ground import Ground, count_reloads
from .scripted_device import ScriptedDevice, page

NOON = "2026-01-31T12:00:00.000Z"
MOTD = "- {id: motd, kind: FileScore, spec: {path: /etc/motd, content: hello}}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("diff", "pi-7", "-"),
        ("logs", "pi-7", "motd"),
        ("events", "pi-7"),
        ("reconcile", "pi-7"),
        ("release", "pi-7", "motd"),
        ("label", "pi-7", "a=b"),
        ("label", "pi-7"),
        ("approve", "pi-7", "--yes"),
        ("history", "pi-7"),
        ("rollback", "pi-7", "--yes"),
        ("status", "pi-7"),
        ("retire", "pi-7", "--yes"),
    ],
    ids=lambda arguments: arguments[0],
)
async def test_an_id_that_is_nobodys_is_told_as_that_at_once(
    arguments: tuple[str, ...], plane: Ground
) -> None:
    said = await plane.harmony(*arguments, stdin=MOTD)
    assert said.status == 2, said
    assert "there is no device 'pi-7'; did you mean 'pi-" in said.err


async def test_a_push_to_it_is_refused_and_leaves_nothing(plane: Ground) -> None:
    said = await plane.harmony("push-score", "pi-7", "-", stdin=MOTD)
    assert said.status == 3
    assert "nothing was pushed, since there is no device 'pi-7'" in said.err
    assert "For a new device, run `harmony enroll root@pi-7` first" in said.err
    assert await plane.bus.bucket("desired-state").get("pi-7") is None
    said = await plane.harmony("push-score", "pi-7", "-", "--force", "--no-wait", stdin=MOTD)
    assert said.status == 0
    # It stands there, and both say so.
    assert (await plane.harmony("status", "pi-7")).status == 4
    assert (await plane.harmony("describe", "pi-7")).status == 0
    # Whoever did so by mistake can take it back.
    assert (await plane.harmony("retire", "pi-7", "--yes")).status == 0
    assert await plane.bus.bucket("desired-state").get("pi-7") is None


async def test_a_removed_device_is_cut_off_and_nothing_of_it_is_left(plane: Ground) -> None:
    await plane.fleet.device("pi-1").put({}, remove=())
    await plane.pi.report(plane.pi.state(1))
    await plane.pi.beat()
    seed_file = plane.home.agent_toml("pi-1")
    seed = seed_file.read_text()
    unasked = await plane.harmony("retire", "pi-1")
    assert unasked.status == 2
    assert "pass --yes to confirm" in unasked.err
    assert seed_file.exists()

    said = await plane.harmony("retire", "pi-1", "--yes")
    assert said.status == 0, said.err
    with pytest.raises(nats.errors.Error):
        await plane.pi.device.client.flush()
    for bucket in ("desired-state", "actual-state", "heartbeat"):
        assert await plane.bus.bucket(bucket).get("pi-1") is None
    assert await plane.bus.bucket("desired-state").history("pi-1") == []
    assert not seed_file.exists()
    assert not plane.home.knows("pi-1")
    listed = await plane.harmony("status", "--json")
    assert [json.loads(line)["agent_id"] for line in listed.out.splitlines()] == ["pi-2"]
    seed_file.parent.mkdir(parents=True)
    seed_file.write_text(seed)
    with pytest.raises(nats.errors.Error, match="Authorization"):
        async with connected(plane.home, "pi-1"):
            pass


async def test_a_retired_device_leaves_nothing_but_that_its_key_is_revoked(plane: Ground) -> None:
    home = plane.home
    key = home.agents()["pi-1"].nkey
    said = await plane.harmony("label", "pi-1", "site=attic", "--no-wait")
    assert said.status == 0, said.err
    pages = {"motd": page(Success(), 1), "web": page(Success(), 1)}
    await plane.pi.report(plane.pi.state(1, pages))
    await plane.pi.beat()
    assert (await plane.harmony("status", "pi-1")).status == 0  # which is remembered
    assert (await plane.harmony("invite", "pi-1", "--replace")).status == 0
    waits = Pending(
        invitation="U", agent_id="pi-1", nkey="U", mailbox="m", report_key="r", since=NOON
    )
    save_waiting(home, {"pi-1": waits})
    await publish_devices(home, plane.bus.admin)
    assert kept_of(home) >= {"agents", "manifests", "seen.db", "agents.json", "pending.json"}

    said = await plane.harmony("retire", "pi-1", "--yes", "--json")
    assert said.status == 0, said.err
    assert said.documents == [{"event": "retired", "agent": "pi-1", "scores": ["motd", "web"]}]
    assert kept_of(home) == {"revoked.json"}
    assert home.revoked() == {key: "pi-1"}
    await publish_devices(home, plane.bus.admin)
    for name in ("desired-state", "actual-state", "heartbeat"):
        assert await plane.bus.bucket(name).history("pi-1") == []
    # What is left there says, signed, that it is no device any more: else an older one could be put back.
    (record,) = await plane.bus.bucket("devices").history("pi-1")
    trusted = pin_keys([operator_key.load_public(home)])
    found = open_record(record.value, trusted=trusted, fleet="home", agent_id="pi-1")
    assert found.report_key is None
    assert (await plane.harmony("retire", "pi-1", "--yes")).status == 2


async def test_several_are_retired_together_or_none_of_them(plane: Ground) -> None:
    await plane.pi.report(plane.pi.state(1, {"motd": page(Success(), 1)}))
    before = count_reloads(plane.home)
    said = await plane.harmony("retire", "pi-1", "pi-2", "pi-7", "--yes")
    assert (said.status, "there is no device 'pi-7'" in said.err) == (2, True), said
    said = await plane.harmony("retire", "pi-1", "pi-2", "--yes", "--uninstall", "root@pi-1")
    assert (said.status, "retire each by itself" in said.err) == (2, True), said
    assert (set(plane.home.agents()), count_reloads(plane.home)) == ({"pi-1", "pi-2"}, before)

    said = await plane.harmony("retire", "pi-1", "pi-2", "--yes", "--json")
    assert said.status == 0, said.err
    assert said.documents == [
        {"event": "retired", "agent": "pi-1", "scores": ["motd"]},
        {"event": "retired", "agent": "pi-2", "scores": []},
    ]
    assert (plane.home.agents(), count_reloads(plane.home)) == ({}, before + 1)
    for each in ("pi-1", "pi-2"):
        assert await plane.bus.bucket("actual-state").get(each) is None
        assert not plane.home.knows(each)


async def test_what_broke_off_after_one_was_forgotten_is_done_again_with_the_same_ids(
    plane: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    erase = Bucket.erase

    async def erase_but_one(self: Bucket, key: str) -> None:
        if key == "pi-2":
            raise BusUnreachable("on purpose")
        await erase(self, key)

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "erase", erase_but_one)
        with pytest.raises(BusUnreachable):
            await retire(plane.home, plane.bus.admin, "pi-1", "pi-2")
    assert [plane.home.knows(each) for each in ("pi-1", "pi-2")] == [False, True]
    # One that never was is still told, and nothing done.
    said = await plane.harmony("retire", "pi-1", "pi-2", "pi-7", "--yes")
    assert (said.status, "there is no device 'pi-7'" in said.err) == (2, True), said
    assert plane.home.knows("pi-2")
    said = await plane.harmony("retire", "pi-1", "pi-2", "--yes", "--json")
    assert said.status == 0, said.err
    assert [each["agent"] for each in said.documents] == ["pi-1", "pi-2"]
    assert not plane.home.knows("pi-2")
    assert set(plane.home.revoked().values()) == {"pi-1", "pi-2"}
    said = await plane.harmony("retire", "pi-1", "pi-2", "--yes")
    assert (said.status, "there is no device 'pi-1'" in said.err) == (2, True), said


def kept_of(home: Home) -> set[str]:
    """What of *home* names pi-1, but the server's log: each file, or the directory below which it is."""
    return {
        path.relative_to(home.root).parts[0] if path.parent != home.server else path.name
        for path in home.root.rglob("*")
        if path != home.nats_log
        and home.jetstream not in path.parents
        and (b"pi-1" in (path.read_bytes() if path.is_file() else b"") or "pi-1" in path.name)
    }


async def test_retiring_a_device_is_asked_at_a_terminal_and_says_what_stays(plane: Ground) -> None:
    await plane.pi.report(plane.pi.state(1, {"motd": page(Success(), 1)}))
    said = await plane.harmony(
        "retire", "pi-1", "--yes", "--uninstall", "root@pi-1", "--ssh", "false"
    )
    assert said.status == 2, said
    assert "the agent is not removed from root@pi-1" in said.err
    assert "pi-1" in plane.home.agents()
    said = await plane.harmony(
        "retire", "pi-1", "--yes", "--uninstall", "root@pi-1", "--ssh", "true"
    )
    assert said.status == 0, said.err
    assert "What its Scores made (motd) stays on the device. The agent is gone" in said.out
    said = await plane.harmony("retire", "pi-2", "--yes")
    assert "the agent goes on with what it has, until you end it" in said.out


async def test_whoever_watches_is_not_told_of_a_removed_device(plane: Ground) -> None:
    await plane.pi.report(plane.pi.state(1))
    other = ScriptedDevice(await plane.bus.device("pi-2"))
    async with plane.fleet.watch() as states:
        assert (await anext(states)).agent_id == "pi-1"
        assert (await plane.harmony("retire", "pi-1", "--yes")).status == 0
        await other.report(other.state(1))
        assert (await anext(states)).agent_id == "pi-2"


async def test_with_prune_the_files_are_all_that_is_wanted(plane: Ground) -> None:
    device = plane.fleet.device("pi-1")
    issue = '- {id: issue, kind: FileScore, spec: {path: /etc/issue, content: "x"}}\n'
    said = await plane.harmony("push-score", "pi-1", "-", "--no-wait", stdin=MOTD + issue)
    assert said.status == 0, said.err
    pages = {"motd": page(Success(), 1), "issue": page(Noop(), 1)}
    await plane.pi.report(plane.pi.state(1, pages))
    unasked = await plane.harmony("push-score", "pi-1", "-", "--prune", stdin=MOTD)
    assert (unasked.status, unasked.out.split()) == (2, ["issue", "to", "be", "removed"])
    assert set(await device.read_desired()) == {"motd", "issue"}
    said = await plane.harmony(
        "push-score", "pi-1", "-", "--prune", "--yes", "--no-wait", stdin=MOTD
    )
    assert said.status == 0, said.err
    assert set(await device.read_desired()) == {"motd"}
    # Nothing to remove: nothing to ask.
    said = await plane.harmony("push-score", "pi-1", "-", "--prune", "--no-wait", stdin=MOTD)
    assert said.status == 0, said.err
