"""By whose order, and why: what is removed, what is drift, and what an operator insists on."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any, TypeAlias

from harmony_control.device import Device
from harmony_control.fleet import Fleet
from harmony_control.store import operator_key
from harmony_control.store.home import Home
from harmony_core.wire.envelope import generate_key
from harmony_pi_topology import PiTopology
from harmony_scores import FileScore
from tests.box import Box
from tests.fleet.ground import AGENT, ControlPlane, code_of, heard_again, until

Pi: TypeAlias = Device[PiTopology]

PATH = "/srv/ordered"


async def events(plane: ControlPlane, pi: Box, score: str) -> list[dict[str, Any]]:
    said = await plane.harmony("events", pi.name, score, "--json")
    assert said.status == 0, said.err
    return said.documents


async def test_what_is_only_reported_ends_with_1_until_an_operator_insists(
    plane: ControlPlane, device: Pi, pi: Box, tmp_path: Path
) -> None:
    spec = {"path": PATH, "content": "ours\n"}
    entry = {"id": "it", "kind": "FileScore", "spec": spec, "policy": {"drift": "report"}}
    file = tmp_path / "it.json"
    file.write_text(json.dumps([entry]))
    assert (await plane.harmony("push-score", pi.name, str(file))).status == 0
    assert (await plane.harmony("status", pi.name)).status == 0
    pi.write(PATH, "theirs\n")
    await until(device, lambda state: code_of(state, "it") == "Drifted")
    assert (await plane.harmony("status", pi.name)).status == 1
    assert (await plane.harmony("reconcile", pi.name, "it")).status == 1
    assert pi.read(PATH) == b"theirs\n"
    assert (await plane.harmony("reconcile", pi.name, "it", "--enforce")).status == 0
    assert pi.read(PATH) == b"ours\n"
    assert (await plane.harmony("status", pi.name)).status == 0
    told = [(each["why"], each["actions"]) for each in await events(plane, pi, "it")]
    assert told[:2] == [("desired", ["created"]), ("drift", ["is left so"])]
    ((why, (wrote,)),) = told[2:]
    assert (why, wrote.partition(",")[0]) == ("drift", "wrote 7 → 5 bytes")


async def test_what_is_removed_is_by_who_had_it_removed_and_not_by_who_had_it_made(
    plane: ControlPlane, device: Pi, pi: Box, tmp_path: Path
) -> None:
    ada, bob = operator_key.load_public(plane.home), generate_key()
    theirs = Home(tmp_path / "bob")
    left_out = shutil.ignore_patterns("jetstream", "*.lock", "nats.*", "operator.key")
    await asyncio.to_thread(shutil.copytree, plane.home.root, theirs.root, ignore=left_out)
    theirs.operator_key.write_text(bob.to_text() + "\n")
    theirs.operator_key.chmod(0o600)
    operator_key.trust(theirs, [ada])
    toml = "/etc/harmony/agent.toml"
    before = pi.read(toml).decode()
    both = before.replace("operator_keys = [", f'operator_keys = ["{bob.public.to_text()}", ', 1)
    assert both != before
    pi.write(toml, both, mode=0o600)
    pi.run(["systemctl", "restart", AGENT])
    try:
        await heard_again(device)
        await device.push(FileScore(path=PATH, content="ours\n"), id="made")
        async with Fleet.connect(theirs) as fleet:
            await fleet.device(pi.name).remove("made")
        await until(device, lambda state: "made" not in state.scores)
        told = [(each["why"], each["signed_by"]) for each in await events(plane, pi, "made")]
        assert told == [("desired", [ada.id]), ("removed", [bob.public.id])]
        assert pi.run(["test", "-e", PATH], check=False).returncode
    finally:
        operator_key.trust(plane.home, [bob.public])
        await device.push(FileScore(path=PATH, content="ours\n"), id="made")
        pi.write(toml, before, mode=0o600)
        pi.run(["systemctl", "restart", AGENT])
        await heard_again(device)
