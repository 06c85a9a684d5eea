"""``harmony rollout`` and ``harmony push-score --class``: every verb as a person types it, on real agents."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import pytest

from harmony_control.rollout.documents import ClassDocuments
from harmony_control.store.gate_key import load_gate_key

from .ground import Said, harmony, running_command
from .rollout_scene import MOTD, WAVES, Scene, serving_scene


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncGenerator[Scene]:
    async with serving_scene(tmp_path, 4) as scene:
        yield scene


async def say(scene: Scene, *arguments: str) -> Said:
    return await harmony(scene.bus.home, *arguments)


async def order(scene: Scene, *arguments: str) -> Mapping[str, Any]:
    """Return the gate that the verb has come to."""
    said = await say(scene, "rollout", *arguments, "-o", "json")
    assert said.status == 0, said
    (gate,) = said.documents
    return gate


async def until_contents_are(scene: Scene, **counts: int) -> None:
    """Wait until just so many devices have each of these contents."""
    wanted = {text.encode(): count for text, count in counts.items()}
    async with asyncio.timeout(30):
        while Counter(filter(None, (await scene.content()).values())) != wanted:
            await asyncio.sleep(0.05)


async def test_a_rollout_is_paused_resumed_promoted_and_taken_back(scene: Scene) -> None:
    scene.describe(MOTD % "one")
    await (await scene.apply()).order("promote --full")
    await until_contents_are(scene, one=4)
    scene.describe(MOTD % "two", rollout=WAVES)
    await scene.apply()  # nobody opens another wave by itself: no controller runs
    await until_contents_are(scene, one=3, two=1)

    refused = await say(scene, "rollout", "resume", "kiosk")
    assert (refused.status, "it is running" in refused.err) == (2, True)
    gate = await order(scene, "pause", "kiosk", "--reason", "lunch")
    assert (gate["state"], gate["wave"], gate["reason"]) == ("paused", 1, "lunch")
    gate = await order(scene, "resume", "kiosk")
    assert (gate["state"], gate["wave"]) == ("running", 1)
    gate = await order(scene, "promote", "kiosk", "--reason", "it looks well")
    assert (gate["state"], gate["wave"], gate["reason"]) == ("running", 2, "it looks well")
    await until_contents_are(scene, one=2, two=2)
    gate = await order(scene, "abort", "kiosk", "--reason", "after all not")
    assert (gate["state"], gate["wave"]) == ("aborted", 2)
    await until_contents_are(scene, one=4)

    refused = await say(scene, "rollout", "promote", "kiosk", "--full")
    assert (refused.status, "it was aborted" in refused.err) == (2, True)
    told = (await say(scene, "rollout", "history", "kiosk", "-o", "json")).documents
    assert [each["state"] for each in told[-5:]] == [
        "running",
        "paused",
        "running",
        "running",
        "aborted",
    ]
    status = await say(scene, "rollout", "status", "kiosk", "-o", "json")
    assert (status.status, status.documents[0]["reason"]) == (1, "after all not")


async def test_a_rollout_is_promoted_to_everybody(scene: Scene) -> None:
    scene.describe(MOTD % "one", rollout=WAVES)
    await scene.apply()
    gate = await order(scene, "promote", "kiosk", "--full")
    assert (gate["state"], gate["wave"]) == ("done", 3)
    await until_contents_are(scene, one=4)
    refused = await say(scene, "rollout", "abort", "kiosk", "--full")  # no verb but promote has it
    assert (refused.status, "--full" in refused.err) == (2, True)
    assert (await scene.fleet.rollout("kiosk").history())[-1].state == "done"


async def test_a_history_is_followed_gate_by_gate(scene: Scene) -> None:
    unknown = await say(scene, "rollout", "history", "kiosk", "--follow")
    assert (unknown.status, "nothing was rolled out to a class kiosk" in unknown.err) == (
        2,
        True,
    ), unknown
    scene.describe(MOTD % "one", rollout=WAVES)
    await scene.apply()
    command = ("rollout", "history", "kiosk", "--follow", "-o", "json")
    async with running_command(scene.bus.home, *command) as process, asyncio.timeout(60):
        assert process.stdout is not None

        async def read() -> tuple[str, str]:
            assert process.stdout is not None
            gate = json.loads(await process.stdout.readline())
            return gate["state"], gate["reason"]

        assert await read() == ("running", "wave 1 of 3: 1")
        for verb, state in (("pause", "paused"), ("resume", "running"), ("abort", "aborted")):
            await order(scene, verb, "kiosk", "--reason", verb)
            assert await read() == (state, verb)
        # It goes on after the end of a rollout.
        scene.describe(MOTD % "two", rollout=WAVES)
        await scene.apply()
        assert await read() == ("running", "wave 1 of 3: 1")
        process.send_signal(signal.SIGINT)
        assert await process.stdout.read() == b""


@pytest.mark.parametrize(
    "arguments",
    [
        ("history", "kiosk", "--follow"),
        ("run", "kiosk", "--follow"),
        ("pause", "kiosk", "--full"),
        ("status", "kiosk", "--reason", "why"),
        ("list", "kiosk"),
        ("key", "kiosk"),
        ("abort",),
    ],
)
async def test_what_a_verb_does_not_heed_is_refused(arguments: tuple[str, ...]) -> None:
    assert (await harmony(None, "rollout", *arguments)).status == 2


async def test_a_class_is_pushed_to_whom_its_selector_selects_and_its_canaries_first(
    scene: Scene,
) -> None:
    for name, role, ring in (
        ("pi-1", "kiosk", "late"),
        ("pi-2", "kiosk", "late"),
        ("pi-3", "kiosk", "canary"),
        ("pi-4", "door", "canary"),
    ):
        await scene.fleet.device(name).label({"role": role, "ring": ring})
    file = scene.bus.home.root / "motd.yaml"
    await asyncio.to_thread(file.write_text, MOTD % "one")
    said = ("push-score", "--class", "kiosk", str(file), "--no-wait", "--no-resolve", "-o", "json")
    unknown = await say(scene, *said)
    assert (unknown.status, "--selector role=kiosk" in unknown.err) == (2, True)
    pushed = await say(
        scene, *said, "--selector", "role=kiosk", "--canary", "ring=canary", "--step", "0"
    )
    assert pushed.status == 0, pushed
    (told,) = pushed.documents
    assert (told["members"], told["first_wave"]) == (3, ["pi-3"])
    await until_contents_are(scene, one=1)
    assert (await scene.content())["pi-3"] == b"one"
    await order(scene, "promote", "kiosk", "--full")
    await until_contents_are(scene, one=3)
    assert (await scene.content())["pi-4"] is None


async def test_an_abort_of_which_no_device_was_told_is_told_by_whoever_looks_next(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has aborted it may have died before: devices that have begun are to go back all the same."""
    scene.describe(MOTD % "one")
    await (await scene.apply()).order("promote --full")
    await until_contents_are(scene, one=4)
    scene.describe(MOTD % "two", rollout=WAVES)
    rollout = await scene.apply()
    await until_contents_are(scene, one=3, two=1)

    async def nobody(*_: object) -> None:
        """The hints are lost."""

    with monkeypatch.context() as patch:
        patch.setattr("harmony_control.rollout.controller.hint_devices", nobody)
        await rollout.order("abort")
    await asyncio.sleep(1)
    await until_contents_are(scene, one=3, two=1)
    await scene.fleet.rollout("kiosk").step()
    await until_contents_are(scene, one=4)


async def test_a_push_to_a_class_waits_no_longer_than_it_is_told(scene: Scene) -> None:
    for name in ("pi-1", "pi-2"):
        await scene.fleet.device(name).label({"role": "kiosk"})
    file = scene.bus.home.root / "motd.yaml"
    await asyncio.to_thread(file.write_text, MOTD % "one")
    said = await say(
        scene,
        *("push-score", "--class", "kiosk", str(file), "--selector", "role=kiosk"),
        *("--step", "1:1h", "--no-resolve", "--timeout", "2"),
    )
    assert said.status == 4, said
    assert "kiosk is not rolled out within 2 s" in said.err
    assert "harmony rollout run kiosk" in said.err
    await until_contents_are(scene, one=1)  # what was begun goes on


async def test_a_key_for_gates_is_made_once_and_named_to_devices(scene: Scene) -> None:
    first = await order(scene, "key")
    again = await order(scene, "key")
    assert first == again
    key = load_gate_key(scene.bus.home)
    assert key is not None
    assert first["key"] == key.public.to_text()
    documents = await ClassDocuments.open(scene.bus.home, scene.bus.admin)
    index = await documents.read_index()
    assert index is not None
    assert index.value.gate_keys == (first["key"],)


async def test_what_the_folder_has_no_more_is_named_and_never_nothing(scene: Scene) -> None:
    scene.describe(MOTD % "one")
    await (await scene.apply()).order("promote --full")
    folder = str(scene.folder)
    file = scene.folder / "fleet.yaml"
    whole = file.read_text()
    # A device: it stays as it is, whatever is asked for.
    file.write_text(whole.replace("  pi-4: {labels: {role: kiosk}}\n", ""))
    for more in ((), ("--prune",)):
        planned = await say(scene, "plan", folder, *more)
        assert planned.status == 0
        assert planned.out.splitlines() == [
            "1 device is not in the folder, and stays as it is: pi-4",
            "nothing else differs",
        ]
    # A class: it stays, unless --prune is asked for.
    file.write_text(whole.partition("classes:")[0])
    planned = await say(scene, "plan", folder)
    assert planned.status == 0
    assert planned.out.splitlines() == [
        "class kiosk is not in the folder, and stays on 4 devices; --prune takes it away",
        "nothing else differs",
    ]
    planned = await say(scene, "plan", folder, "--prune")
    assert planned.status == 5
    assert planned.out.splitlines() == [
        "class kiosk is not in the folder, and is taken away from 4 devices:",
        "  - Score motd",
    ]
    (told,) = (await say(scene, "plan", folder, "-o", "json")).documents
    assert ([each["name"] for each in told["retired"]], told["not_in_folder"]) == (["kiosk"], [])
    file.write_text("devices: {}\n")
    (told,) = (await say(scene, "plan", folder, "--json")).documents
    assert told["not_in_folder"] == list(scene.files)
    assert (await say(scene, "plan", folder, "--prune", "--device", "pi-1")).status == 2
