"""A key for one class, or for one site's devices, from the command to the device: real NATS, real agents."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from harmony_control.bus.connection import Bucket
from harmony_control.fleet import Fleet
from harmony_control.operators import add_operator, join
from harmony_control.plan.folder import read_folder
from harmony_control.rollout.documents import ClassDocuments
from harmony_control.server.roster import publish_devices
from harmony_control.store import operator_key
from harmony_control.store.home import Home
from harmony_control.store.secrets import FleetSecrets
from harmony_core.errors import OutOfScope, UntrustedSignature, UsageError
from harmony_core.plugins import load
from harmony_core.wire.envelope import seal
from harmony_core.wire.fleet_index import FLEET_TYPE, FleetIndex
from harmony_core.wire.gate import GATE_TYPE
from tests.nats import Bus

from .ground import Said, harmony
from .rollout_scene import MOTD, Scene, serving_scene
from .test_trust import Ground, rejection
from .test_trust import ground as ground  # noqa: PLC0414 - a fixture


async def let_in(bus: Bus, root: Path, *limits: str) -> Home:
    """Let bob in, and let his key sign what *limits* say."""
    home, path = Home(root / "bob"), root / "bob.fleet"
    operator_key.create(home)
    fleet = await asyncio.to_thread(add_operator, bus.home, "bob", home.operator_pub)
    fleet.write(path)
    assert (await harmony(bus.home, "trust", "init")).status == 0
    await limit(bus, home, *limits)
    await join(home, path)
    await publish_devices(bus.home, bus.admin)
    return home


async def limit(bus: Bus, bob: Home, *limits: str, ends: int = 0) -> Said:
    said = await harmony(bus.home, "trust", "add", "bob", str(bob.operator_pub), *limits)
    assert said.status == ends, (said.out, said.err)
    return said


@pytest.mark.timeout(180)  # a dozen commands, each a process of its own
async def test_an_operator_of_a_site_reaches_its_devices_and_no_other(
    ground: Ground, tmp_path: Path
) -> None:
    bob = await let_in(ground.bus, tmp_path, "--agents", "pi-1,attic-*")
    await ground.bus.enrol("pi-2")
    path = tmp_path / "motd.json"
    spec = {"path": "/etc/motd", "content": "by bob"}
    path.write_text(json.dumps([{"id": "motd", "kind": "FileScore", "spec": spec}]))
    with ground.agent():
        await ground.until(root_version=2)
        said = await harmony(bob, "push-score", "pi-1", str(path), "--timeout", "30")
        assert said.status == 0, said.err
        assert ground.motd == "by bob"
        said = await harmony(bob, "label", "pi-1", "room=7")
        assert said.status == 0, said.err
        assert (await harmony(bob, "reconcile", "pi-1", "--enforce")).status == 0
        for arguments in (
            ("push-score", "pi-2", str(path), "--no-wait"),
            ("label", "pi-2", "role=kiosk"),
        ):
            said = await harmony(bob, *arguments)
            assert said.status == 3, said.err
            assert "what is for the device pi-2 is signed by admin; have one of them" in said.err
        assert await ground.bus.bucket("desired-state").get("pi-2") is None

        # From now on it is another site's. What bob has pushed stays, and is built upon.
        said = await limit(ground.bus, bob, "--agents", "pi-2")
        assert "all kinds, only for devices pi-2, only manifest, request" in said.out
        await ground.until(root_version=3)
        said = await harmony(bob, "reconcile", "pi-1", "--enforce")
        assert said.status == 3, said.err
        assert "may ask nothing of pi-1 by the root document" in said.err
        for command in (f"push-score pi-1 {path} --timeout 9", "rollback pi-1 --to 1 --yes"):
            said = await harmony(bob, *command.split())
            assert said.status == 3, (said.out, said.err)
            assert "what is for the device pi-1 is signed by admin" in said.err
        await ground.push("by alice")
        # Who does not ask here is refused by the device, and nobody signs it for him.
        await ground.stolen(operator_key.load(bob), "by the thief", generation=50)
        while "OutOfScope" not in rejection(await ground.state()):
            await asyncio.sleep(0.05)
        said = await ground.run("label", "pi-1", "site=attic", ends=3)
        assert "nothing is built on it" in said.err
        assert ground.motd == "by alice"
        await ground.push("by alice again", "--force")
        assert ground.motd == "by alice again"


async def test_what_a_limit_cannot_be_is_told_before_anything_is_published(
    ground: Ground, tmp_path: Path
) -> None:
    await ground.run("trust", "init")
    key = tmp_path / "ci.key"
    await ground.run("trust", "key", str(key))
    add = ("trust", "add", "ci", str(key.with_suffix(".pub")))
    for more, why in (
        (("--agents", "pi-1", "--signs", "manifest,device"), "leave `device` out of its `signs`"),
        (("--classes", "kiosk", "--signs", "manifest,request"), "or name the `agents`"),
        (("--classes", "kiosk,"), "classes"),
        (("--agents", "Pi 1"), "agents"),
    ):
        said = await ground.run(*add, *more, ends=2)
        assert why in said.err
    said = await ground.run(*add, "--classes", "kiosk", "--kinds", "ContainerScore")
    assert "ContainerScore, only for classes kiosk, only manifest" in said.out
    said = await ground.run(*add, "--classes", "kiosk", "--agents", "pi-1", "--json")
    scopes = {each["name"]: each for each in said.documents[-1]["root"]["scopes"]}
    assert scopes["ci"]["signs"] == ["manifest", "request"]
    assert "classes" not in scopes["admin"]


@pytest.fixture
async def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Scene]:
    monkeypatch.setattr("harmony_control.rollout.controller.LOOK_AGAIN_S", 0.1)
    async with serving_scene(tmp_path / "ada", 2) as scene:
        yield scene


_OTHER = "  other:\n    selector: role=kiosk\n    priority: %d\n    scores: [other.yaml]\n"
_MORE = "- {id: more, kind: FileScore, spec: {path: /etc/more, content: %s}}\n"


@pytest.mark.timeout(
    180
)  # a fleet, several rollouts, and commands that are each a process of its own
async def test_the_key_of_a_class_rolls_that_out_and_nothing_else(
    scene: Scene, tmp_path: Path
) -> None:
    scene.describe(MOTD % "one", more=_OTHER % 1)
    scene.folder.joinpath("other.yaml").write_text(_MORE % "one")
    await scene.go(await scene.apply())
    await scene.go(scene.fleet.rollout("other"))
    bob = await let_in(scene.bus, tmp_path, "--classes", "kiosk")

    async def more() -> bytes | None:
        return scene.devices["pi-1"].read("/etc/more")

    async with Fleet.connect(bob) as fleet:

        async def apply() -> None:
            folder = await asyncio.to_thread(read_folder, scene.folder, load())
            plan = await fleet.plan(folder, resolve=False)
            async for _ in fleet.apply(plan, prune=False):
                pass

        scene.describe(MOTD % "two", more=_OTHER % 1)
        await apply()
        await scene.go(fleet.rollout("kiosk"))
        assert set((await scene.content()).values()) == {b"two"}

        # The class beside it, who belongs to which, how they rank, and devices: refused before all of it.
        scene.folder.joinpath("other.yaml").write_text(_MORE % "evil")
        scene.describe(MOTD % "three", more=_OTHER % 1)
        said = await harmony(bob, "plan", str(scene.folder), "--no-resolve")
        assert said.status == 5
        assert "what is for the class other is signed by admin; have one of them" in said.out
        for other, motd, labels in (
            ("evil", _OTHER % 1, "{role: kiosk}"),
            ("one", _OTHER % 9, "{role: kiosk}"),
            ("one", _OTHER % 1, "{role: kiosk, site: x}"),
            (
                "one",
                _OTHER % 1 + "  third: {selector: '', scores: [other.yaml]}\n",
                "{role: kiosk}",
            ),
        ):
            scene.folder.joinpath("other.yaml").write_text(_MORE % other)
            scene.describe(MOTD % "three", labels=labels, more=motd)
            with pytest.raises(OutOfScope, match="is signed by admin"):
                await apply()
        for refused in (fleet.freeze(), fleet.rollout("other").order("abort", "mine")):
            with pytest.raises(OutOfScope, match="is signed by admin"):
                await refused
        assert (await fleet.rollout("other").read()).progress.gate.state == "done"
        assert await more() == b"one"
        assert set((await scene.content()).values()) == {b"two"}


async def test_nobody_signs_for_it_what_it_may_not_and_its_secrets_count_nowhere_else(
    scene: Scene, tmp_path: Path
) -> None:
    """Who also writes the buckets would have it signed by an operator who may."""
    scene.describe(MOTD % "one")
    await scene.go(await scene.apply())
    bob = await let_in(scene.bus, tmp_path, "--classes", "kiosk")
    bucket = Bucket(scene.bus.admin, "fleet")
    found = await bucket.get("index")
    assert found is not None
    index = FleetIndex(fleet="home", generation=9, issued_at=found.written_at)
    thief = operator_key.load(bob)
    await bucket.put("index", seal(index.payload(), thief, payload_type=FLEET_TYPE))
    with pytest.raises(UntrustedSignature, match="signs for less by the newest root document"):
        await scene.plan()
    await bucket.put("index", found.value)

    gates = Bucket(scene.bus.admin, "rollout")
    known = await scene.fleet.rollout("kiosk").read()
    forged = known.progress.gate.model_copy(update={"name": "other", "seq": 99})
    await gates.put("other", seal(forged.payload(), thief, payload_type=GATE_TYPE))
    documents = await ClassDocuments.open(scene.bus.home, scene.bus.admin)
    with pytest.raises(UntrustedSignature, match="holds as class:other was signed by"):
        await documents.read_gate("other", await documents.read_index())

    async with Fleet.connect(bob) as fleet:
        await fleet.roots.read_newest()
    with pytest.raises(UsageError, match="or not for every device"):
        FleetSecrets(bob).set("db", "evil")
    assert thief.public.id in FleetSecrets(scene.bus.home).find_left_out()
