"""Rollouts on a real bus, of real agents over made-up files: from a folder to each device, and back again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path

import attrs
import pytest

from harmony_control.bus.connection import Bucket
from harmony_control.fleet import Fleet
from harmony_control.plan.folder import read_folder
from harmony_control.push.push import push
from harmony_core.errors import (
    HarmonyError,
    RevisionConflict,
    ScoreFileError,
    UnknownClass,
    UntrustedSignature,
    UsageError,
)
from harmony_core.plugins import load
from harmony_core.wire.envelope import generate_key, seal
from harmony_core.wire.fleet_index import FLEET_TYPE, FleetIndex
from harmony_scores import FileScore

from .ground import harmony
from .rollout_scene import MOTD, WAVES, Scene, serving_scene

BAD = "- {id: motd, kind: FileScore, spec: {path: /etc/harmony/agent.toml, content: no}}\n"
"""What every device refuses for good."""


@pytest.fixture
async def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Scene]:
    monkeypatch.setattr("harmony_control.rollout.controller.LOOK_AGAIN_S", 0.1)
    async with serving_scene(tmp_path, 5) as scene:
        yield scene


async def test_a_folder_comes_to_every_device_and_then_nothing_differs(scene: Scene) -> None:
    scene.describe(MOTD % "one", rollout=WAVES)
    plan = await scene.plan()
    assert [each.id for each in plan.devices] == list(scene.files)
    (change,) = plan.classes
    assert (change.is_new, change.scores.added, len(change.members)) == (True, ["motd"], 5)

    looks = await scene.go(await scene.apply())
    assert set((await scene.content()).values()) == {b"one"}
    steps = [each.next.step for each in looks if each.next and each.next.state == "running"]
    assert steps == [1, 2]
    assert not await scene.plan()
    state = await scene.fleet.device("pi-1").state()
    assert state is not None
    assert state.scores["motd"].layer == "class:kiosk"


async def test_what_fails_in_its_first_wave_is_taken_back_and_touches_nobody_else(
    scene: Scene,
) -> None:
    scene.describe(MOTD % "one")
    await scene.go(await scene.apply())
    scene.describe(BAD, rollout=WAVES)
    looks = await scene.go(await scene.apply())
    assert looks[-1].next is not None
    assert looks[-1].next.state == "aborted"
    assert "PolicyRefused" in looks[-1].next.reason
    async with asyncio.timeout(20):
        while set((await scene.content()).values()) != {b"one"}:
            await asyncio.sleep(0.05)
    states = [await scene.fleet.device(name).state() for name in scene.files]
    phases = [state.layers["class:kiosk"].phase for state in states if state]
    assert phases.count("RolledBack") <= 1

    # The folder still wants what was aborted, and says so; then it is corrected.
    assert (await scene.plan()).classes
    scene.describe(MOTD % "three", rollout=WAVES)
    looks = await scene.go(await scene.apply())
    assert looks[-1].progress.gate.state == "done" or looks[-1].next
    async with asyncio.timeout(20):
        while set((await scene.content()).values()) != {b"three"}:
            await asyncio.sleep(0.05)


async def test_what_came_since_it_was_planned_is_not_undone(scene: Scene) -> None:
    scene.describe(MOTD % "one")
    await scene.go(await scene.apply())
    scene.describe(MOTD % "two", labels="{role: kiosk, site: attic}")
    plan = await scene.plan()
    await scene.fleet.push_class("kiosk", {"note": FileScore(path="/etc/note", content="theirs")})
    await scene.go(scene.fleet.rollout("kiosk"))
    await scene.fleet.device("pi-2").label({"site": "cellar"})

    done: list[str] = []
    with pytest.raises(RevisionConflict, match="pi-2 has generation"):
        done += [each[0] async for each in scene.fleet.apply(plan) if isinstance(each, tuple)]
    without_devices = attrs.evolve(plan, devices=())
    with pytest.raises(RevisionConflict, match="class kiosk has generation 2"):
        [each async for each in scene.fleet.apply(without_devices)]
    assert set((await scene.content()).values()) == {b"one"}
    assert all(files.read("/etc/note") == b"theirs" for files in scene.files.values())

    # Planned anew, it says what it takes away.
    (change,) = (await scene.plan()).classes
    assert change.scores.removed == ["note"]
    await scene.go(await scene.apply())
    assert set((await scene.content()).values()) == {b"two"}


async def test_labels_alone_are_written_whatever_else_came_to_the_device(scene: Scene) -> None:
    scene.describe(MOTD % "one")
    await scene.go(await scene.apply())
    scene.describe(MOTD % "one", labels="{role: kiosk, site: attic}")
    plan = await scene.plan()
    await scene.fleet.device("pi-2").put({"own": FileScore(path="/etc/own", content="kept")})
    assert len([each async for each in scene.fleet.apply(plan)]) == 5
    assert set(await scene.fleet.device("pi-2").read_desired()) == {"own"}


async def test_who_was_switched_off_while_its_last_word_still_counts_stops_no_rollout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fleet on thin lines: each device says when it is quiet that this counts for half an hour."""
    monkeypatch.setattr("harmony_agent.report.heartbeat.BUSY_FOR_S", 0.5)
    monkeypatch.setattr("harmony_agent.report.heartbeat.BUSY_EVERY_S", 0.2)
    monkeypatch.setattr("harmony_control.rollout.controller.LOOK_AGAIN_S", 0.1)
    monkeypatch.setattr("harmony_control.rollout.judge.REFRESH", timedelta(seconds=3))
    async with serving_scene(tmp_path, 4, heartbeat_s=600) as scene:
        scene.describe(MOTD % "one", rollout="    rollout: {steps: [2], deadline: 5}\n")
        async with asyncio.timeout(30):
            for each in scene.files:
                while not await _counts_for_long(scene, each):
                    await asyncio.sleep(0.05)
        # What ends it has it say nothing more: as the power that is gone.
        scene.agents["pi-4"].cancel()
        await asyncio.sleep(4)

        looks = await scene.go(await scene.apply())

        assert [each.next.state for each in looks if each.next][-1] == "done"
        last = {each.member.id: each.state for each in looks[-1].progress.judged}
        assert last == {"pi-1": "Ready", "pi-2": "Ready", "pi-3": "Ready", "pi-4": "Away"}
        assert (await scene.content())["pi-4"] is None
        (off,) = [each for each in await scene.fleet.agents() if each.agent_id == "pi-4"]
        assert off.presence == "Heard", "its last word still counts"


async def _counts_for_long(scene: Scene, agent_id: str) -> bool:
    beat = await scene.bus.bucket("heartbeat").get(agent_id)
    return beat is not None and beat.lifetime_s == 1_800


async def test_two_controllers_open_each_wave_once(scene: Scene) -> None:
    scene.describe(MOTD % "one", rollout="    rollout:\n      steps: [1, 2, 3, 4]\n")
    await scene.apply()
    async with Fleet.connect(scene.bus.home) as other:
        await asyncio.gather(
            scene.go(scene.fleet.rollout("kiosk")), scene.go(other.rollout("kiosk"))
        )
    gates = await scene.fleet.rollout("kiosk").history()
    opened = [(each.state, each.step) for each in gates]
    assert opened == [*(("running", at) for at in range(5)), ("done", 4)]


async def _find_accepted(scene: Scene, gate: tuple[int, int]) -> list[str]:
    """Return which devices have accepted that gate."""
    return [
        each.agent_id
        for each in await scene.fleet.agents()
        if each.state
        and (layer := each.state.layers.get("class:kiosk")) is not None
        and layer.gate == gate
        and layer.phase == "Applied"
    ]


async def test_a_server_that_lost_its_newest_gates_is_outrun(scene: Scene) -> None:
    scene.describe(MOTD % "one", rollout=WAVES)
    await scene.apply()
    bucket = Bucket(scene.bus.admin, "rollout")
    first = await bucket.get("kiosk")
    assert first is not None
    rollout = scene.fleet.rollout("kiosk")
    async with asyncio.timeout(60):
        while (await rollout.step()).progress.gate.step < 1:
            await asyncio.sleep(0.1)
        # Until a device says that it has accepted what will be lost.
        while not await _find_accepted(scene, (1, 2)):
            await asyncio.sleep(0.05)
    await bucket.put("kiosk", first.value)  # as after a power cut without a flush

    await scene.go(rollout)
    gates = await rollout.history()
    assert gates[-1].state == "done"
    assert max(each.term for each in gates) > 1
    assert set((await scene.content()).values()) == {b"one"}


async def test_a_key_for_gates_opens_what_an_operator_has_signed(scene: Scene) -> None:
    await scene.fleet.allow_gate_key()
    await scene.fleet.allow_gate_key()
    scene.describe(MOTD % "one", rollout=WAVES)
    await scene.go(await scene.apply())
    assert set((await scene.content()).values()) == {b"one"}


async def test_who_belongs_to_a_class_changes_with_its_waves(scene: Scene) -> None:
    scene.describe(MOTD % "one")
    await scene.go(await scene.apply())
    text = (scene.folder / "fleet.yaml").read_text()
    (scene.folder / "fleet.yaml").write_text(
        text.replace("selector: role=kiosk", "selector: role=kiosk,!spare").replace(
            "pi-5: {labels: {role: kiosk}}", "pi-5: {labels: {role: kiosk, spare: 'yes'}}"
        )
    )
    (change,) = (await scene.plan()).classes
    assert (change.leaving, change.joining) == (["pi-5"], [])
    await scene.go(await scene.apply())
    async with asyncio.timeout(20):
        while (await scene.content())["pi-5"] is not None:
            await asyncio.sleep(0.05)
    assert (await scene.content())["pi-1"] == b"one"


async def test_a_class_that_the_folder_has_no_more_is_named_and_taken_away_when_asked(
    scene: Scene,
) -> None:
    scene.describe(MOTD % "one")
    await scene.go(await scene.apply())
    text = (scene.folder / "fleet.yaml").read_text()
    (scene.folder / "fleet.yaml").write_text(text[: text.index("classes:")])
    plan = await scene.plan()
    assert not plan
    assert [each.name for each in plan.retired] == ["kiosk"]
    await scene.go(await scene.apply(prune=True))
    async with asyncio.timeout(20):
        while set((await scene.content()).values()) != {None}:
            await asyncio.sleep(0.05)
    assert not (await scene.plan()).retired


async def test_a_priority_reaches_all_devices_past_the_waves_and_that_is_said_before(
    scene: Scene,
) -> None:
    other = "  other:\n    selector: role=kiosk\n    priority: 1\n    scores: [other.yaml]\n"
    scene.describe(MOTD % "kiosk", more=other)
    scene.folder.joinpath("other.yaml").write_text(MOTD % "other")
    rollout = await scene.apply()
    await scene.go(rollout)
    await scene.go(scene.fleet.rollout("other"))
    assert set((await scene.content()).values()) == {b"other"}
    scene.describe(MOTD % "kiosk", rollout=f"    priority: 5\n{WAVES}", more=other)
    said = await harmony(scene.bus.home, "plan", str(scene.folder))
    assert (
        "  ~ priority 0 -> 5: on all its devices at once, past the waves; an abort does not undo it\n"
    ) in said.out
    rollout = await scene.apply()
    async with asyncio.timeout(30):
        while set((await scene.content()).values()) != {b"kiosk"}:
            await asyncio.sleep(0.05)
    gate = (await rollout.read()).progress.gate
    assert (gate.state, gate.step) == ("running", 0)


async def test_an_apply_waits_for_the_rollout_before_it(scene: Scene) -> None:
    scene.describe(MOTD % "one", rollout=WAVES)
    rollout = await scene.apply()
    scene.describe(MOTD % "two", rollout=WAVES)
    with pytest.raises(UsageError, match="is being rolled out"):
        await scene.apply()
    await rollout.order("abort", "not that")
    await scene.go(await scene.apply())
    assert set((await scene.content()).values()) == {b"two"}


async def test_what_nobody_trusted_has_signed_is_not_built_upon(scene: Scene) -> None:
    scene.describe(MOTD % "one")
    await scene.go(await scene.apply())
    bucket = Bucket(scene.bus.admin, "fleet")
    found = await bucket.get("index")
    assert found is not None
    index = FleetIndex(fleet="home", generation=9, issued_at=found.written_at)
    await bucket.put("index", seal(index.payload(), generate_key(), payload_type=FLEET_TYPE))
    with pytest.raises(UntrustedSignature):
        await scene.plan()
    with pytest.raises(UntrustedSignature):
        await scene.fleet.rollout("kiosk").read()


@pytest.mark.timeout(180)  # a dozen commands, each a process of its own
async def test_the_commands(scene: Scene) -> None:
    scene.describe(MOTD % "one", rollout=WAVES)
    home, folder = scene.bus.home, str(scene.folder)
    planned = await harmony(home, "plan", folder, "--no-resolve")
    assert planned.status == 5
    assert "class kiosk is new, on 5 devices:\n  + Score motd" in planned.out
    applied = await harmony(home, "apply", folder, "--no-resolve", "--yes")
    assert applied.status == 0, applied
    assert set((await scene.content()).values()) == {b"one"}
    assert (await harmony(home, "plan", folder, "--no-resolve")).status == 0

    status = await harmony(home, "rollout", "status", "kiosk")
    assert status.status == 0
    assert "class kiosk, generation 1: done" in status.out
    (told,) = (await harmony(home, "--json", "rollout", "status", "kiosk")).documents
    assert told["counts"]["Ready"] == 5
    assert (await harmony(home, "rollout", "list")).out.startswith("kiosk")
    assert (await harmony(home, "rollout", "pause", "kiosk")).status == 2
    assert (await harmony(home, "rollout", "status", "door")).status == 2
    assert len((await harmony(home, "rollout", "history", "kiosk")).out.splitlines()) == 4

    file = scene.folder / "more.yaml"
    file.write_text(MOTD.replace("motd", "note") % "more")
    pushed = await harmony(
        home, "push-score", "--class", "kiosk", str(file), "--step", "1", "--no-resolve"
    )
    assert pushed.status == 0, pushed
    assert all(files.read("/etc/note") == b"more" for files in scene.files.values())
    # The folder does not have it.
    (told,) = (await harmony(home, "--json", "plan", folder, "--no-resolve")).documents
    assert told["classes"][0]["scores"]["removed"] == ["note"]


async def test_a_plan_names_who_cannot_follow_and_why(scene: Scene) -> None:
    link = "- {id: link, kind: DirectoryScore, spec: {path: /srv/x}}\n"
    scene.describe(MOTD % "one" + link, rollout=WAVES)
    # One of them does without what it does not know.
    described = scene.folder / "fleet.yaml"
    text = described.read_text().replace("pi-2: {", "pi-2: {without: [link], ")
    described.write_text(text)
    (change,) = (await scene.plan()).classes
    assert sorted(change.unable) == ["pi-1", "pi-3", "pi-4", "pi-5"]
    assert {each.code for each in change.unable.values()} == {"UnknownKind"}

    planned = await harmony(scene.bus.home, "plan", str(scene.folder), "--no-resolve")
    assert "  ! 4 devices cannot follow:\n" in planned.out
    assert "pi-3 does not know the kind DirectoryScore" in planned.out
    assert "--force" not in planned.out
    command = ("--json", "plan", str(scene.folder), "--no-resolve")
    (told,) = (await harmony(scene.bus.home, *command)).documents
    assert told["classes"][0]["unable"]["pi-1"]["code"] == "UnknownKind"


async def test_each_device_is_looked_at_for_conflicts_of_its_classes(scene: Scene) -> None:
    door = "  door:\n    selector: role\n    scores: [door.yaml]\n"
    scene.describe(MOTD % "one", more=door)
    (scene.folder / "door.yaml").write_text(MOTD % "another")
    described = scene.folder / "fleet.yaml"
    devices = {each: f"  {each}: {{labels: {{role: kiosk}}}}\n" for each in scene.files}
    apart = {each: text.replace("}}", "}, without: [motd]}") for each, text in devices.items()}
    text = described.read_text()
    described.write_text(text.replace(devices["pi-1"], apart["pi-1"]))
    with pytest.raises(UsageError, match="have the same priority, both select pi-2"):
        await scene.plan()
    for each in scene.files:
        text = text.replace(devices[each], apart[each])
    described.write_text(text)
    await scene.apply()
    # What is signed counts for a device that the folder does not have.
    described.write_text(text.replace(apart["pi-1"], ""))
    assert not await scene.plan()
    pi = scene.fleet.device("pi-1")
    await push(scene.bus.home, scene.bus.admin, pi.id, lambda was: attrs.evolve(was, without=()))
    with pytest.raises(UsageError, match="have the same priority, both select pi-1"):
        await scene.plan()


async def test_a_plan_names_who_joins_a_class_that_does_not_change_and_cannot_follow_it(
    scene: Scene,
) -> None:
    link = "- {id: link, kind: DirectoryScore, spec: {path: /srv/x}}\n"
    door = "  door:\n    selector: door\n    scores: [door.yaml]\n"
    scene.describe(MOTD % "one", more=door)
    (scene.folder / "door.yaml").write_text(link)
    await scene.apply()
    assert not await scene.plan()
    described = scene.folder / "fleet.yaml"
    text = described.read_text()
    for name, more in (("pi-1", "}"), ("pi-2", "}, without: [link]"), ("pi-3", "}")):
        old = f"{name}: {{labels: {{role: kiosk}}"
        text = text.replace(old, f"{name}: {{labels: {{role: kiosk, door: front{more}")
    described.write_text(text.replace("pi-3: {", "pi-3: {scores: [own.yaml], "))
    (scene.folder / "own.yaml").write_text((MOTD % "mine").replace("id: motd", "id: link"))
    plan = await scene.plan()
    assert plan.classes == []
    found = {each.id: each.unable.code if each.unable else "" for each in plan.devices}
    assert found == {"pi-1": "UnknownKind", "pi-2": "", "pi-3": ""}
    planned = await harmony(scene.bus.home, "plan", str(scene.folder), "--no-resolve")
    assert "  ! it cannot follow: link: pi-1 does not know the kind Dir" in planned.out


async def test_a_plan_names_nobody_for_a_score_that_an_upper_layer_has(scene: Scene) -> None:
    link = "- {id: link, kind: DirectoryScore, spec: {path: /srv/x}}\n"
    door = "  door:\n    selector: role\n    priority: 1\n    scores: [door.yaml]\n"
    mine = (MOTD % "mine").replace("id: motd", "id: link")
    scene.describe(link)
    described = scene.folder / "fleet.yaml"
    described.write_text(described.read_text().replace("pi-2: {", "pi-2: {scores: [own.yaml], "))
    (scene.folder / "own.yaml").write_text(mine)
    (change,) = (await scene.plan()).classes
    assert sorted(change.unable) == ["pi-1", "pi-3", "pi-4", "pi-5"]
    described.write_text(f"{described.read_text()}{door}")
    (scene.folder / "door.yaml").write_text(mine)
    assert [(each.name, each.unable) for each in (await scene.plan()).classes] == [
        ("door", {}),
        ("kiosk", {}),
    ]


async def test_a_plan_says_how_to_see_all_who_cannot_follow(tmp_path: Path) -> None:
    async with serving_scene(tmp_path, 6) as scene:
        scene.describe("- {id: link, kind: DirectoryScore, spec: {path: /srv/x}}\n")
        command = ("plan", str(scene.folder), "--no-resolve")
        planned = await harmony(scene.bus.home, *command)
        _, _, rest = planned.out.partition("… and 1 more; all of them: ")
        (told,) = (await harmony(scene.bus.home, *command, *rest.split())).documents
        assert sorted(told["classes"][0]["unable"]) == list(scene.files)


async def test_a_plan_names_a_device_that_has_not_what_its_own_score_needs(scene: Scene) -> None:
    scene.describe(MOTD % "one", more="")
    described = scene.folder / "fleet.yaml"
    described.write_text(described.read_text().replace("pi-2: {", "pi-2: {scores: [own.yaml], "))
    unit = (
        "- {id: x, kind: SystemdServiceScore, spec: {name: x.service, exec_start: [/bin/true]}}\n"
    )
    scene.folder.joinpath("own.yaml").write_text(unit)
    found = {each.id: each.unable for each in (await scene.plan()).devices}
    assert {name for name, error in found.items() if error} == {"pi-2"}
    planned = await harmony(scene.bus.home, "plan", str(scene.folder), "--no-resolve")
    assert "  ! it cannot follow: x: pi-2 does not know the kind SystemdServiceScore" in planned.out


async def test_a_folder_to_begin_with_can_be_planned_as_it_is(scene: Scene, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    assert (await harmony(None, "init", str(folder))).status == 0
    assert (await harmony(None, "init", str(folder))).status == 2
    planned = await harmony(scene.bus.home, "plan", str(folder), "--no-resolve")
    assert planned.status == 5
    assert "class kiosk is new, on 0 devices" in planned.out


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "must be an object"),
        ("[]", "must be an object"),
        ("devices: 1", "devices"),
        ("device: {}", "did you mean 'devices'"),
        ("devices:\n  PI 1: {}", "devices"),
        ("devices:\n  pi-1: {lables: {}}", "(line 2)"),
        ("devices:\n  pi-1: {labels: {a b: c}}", "a label's name"),
        (
            "devices:\n  pi-1: {labels: {slot: b}}",
            "devices.pi-1.labels: slot: a slot is a whole number",
        ),
        ("devices:\n  pi-1: {labels: {slot: '1 '}}", "not '1 '"),
        ("devices:\n  pi-1: {labels: {slot: ''}}", "not ''"),
        ("devices:\n  pi-1: {scores: [nowhere.yaml]}", "nowhere.yaml"),
        ("classes:\n  kiosk: {}", "selector: is missing"),
        ("classes:\n  kiosk: {selector: '=='}", "cannot be read from character"),
        ("classes:\n  kiosk: {selector: a, priority: 2000}", "priority"),
        ("classes:\n  kiosk: {selector: a, rollout: {steps: [{soak: 5m}]}}", "upto"),
        (
            "classes:\n  kiosk: {selector: a, rollout: {steps: [{upto: 1%, soak: soon}]}}",
            "how long",
        ),
        ("classes:\n  kiosk: {selector: a, rollout: {success: most}}", "success"),
        ("classes:\n  kiosk: {selector: a, rollout: {success: 101%}}", "success"),
        ("classes:\n  kiosk: {selector: a, rollout: {windows: [{begin: 9, until: 10}]}}", "begin"),
        ("classes:\n  kiosk: {selector: a, rollout: {on_stop: cry}}", "on_stop"),
        ("a: &x [*x]", "anchor"),
        ("devices: {pi-1: {}, pi-1: {}}", "pi-1"),
        ("\x00", "fleet.yaml"),
    ],
)
def test_a_bad_folder_is_refused_with_all_that_is_wrong(
    tmp_path: Path, text: str, told: str
) -> None:
    (tmp_path / "fleet.yaml").write_text(text)
    with pytest.raises(HarmonyError) as caught:
        read_folder(tmp_path, load())
    assert told in caught.value.message


def test_a_folder_without_a_file_says_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(ScoreFileError, match="harmony init"):
        read_folder(tmp_path, load())


async def test_a_folder_that_cannot_be_is_refused_before_anything_is_written(scene: Scene) -> None:
    scene.describe(MOTD % "one", more="  door:\n    selector: role\n    scores: [door.yaml]\n")
    (scene.folder / "door.yaml").write_text(MOTD % "another")
    with pytest.raises(UsageError, match="have the same priority, both select pi-1"):
        await scene.plan()
    scene.describe(MOTD % "one")
    text = (scene.folder / "fleet.yaml").read_text()
    (scene.folder / "fleet.yaml").write_text(text.replace("pi-1:", "pi-l:"))
    with pytest.raises(UsageError, match="there is no device pi-l"):
        await scene.plan()
    (scene.folder / "fleet.yaml").write_text(f"fleet: office\n{text}")
    with pytest.raises(UsageError, match="of the fleet 'office'"):
        await scene.plan()
    with pytest.raises(UnknownClass):
        await scene.fleet.rollout("kiosk").read()
