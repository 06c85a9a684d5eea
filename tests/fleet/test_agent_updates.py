"""The agent of a device is updated by a Score: tried, and taken back where it does not come up."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from harmony_control.device import Device
from harmony_core.outcome import Failure
from harmony_pi_topology import PiTopology
from tests.box import Box
from tests.box.layers import built_wheel
from tests.fleet.ground import AGENT, TREE, ControlPlane, Said, allowed, code_of, until
from tests.soak import runs, seed

Edits = Mapping[str, tuple[tuple[str, str], ...]]
UPDATER = "harmony_scores/_agent_update.py"
ON_TRIAL = "/opt/harmony/.on-trial.json"
QUICKER: Edits = {
    UPDATER: (
        ("TRIED_FOR_S = 300.0", "TRIED_FOR_S = 40.0"),
        ("WELL_FOR_S = 100.0", "WELL_FOR_S = 15.0"),
    )
}
"""A device of the tests gets it, too: who has begun a trial judges it."""
CRASHES: Edits = {
    "harmony_agent/startup.py": (("    with alone(", "    raise OSError('no')\n    with alone("),)
}
IS_DEAF: Edits = {
    "harmony_agent/bus/link.py": (
        ("        refusals = 0\n", "        raise OSError('deaf')\n        refusals = 0\n"),
    )
}


@pytest.fixture(scope="module")
def wheel() -> Path:
    return built_wheel(TREE)


def repacked(wheel: Path, directory: Path, version: str, edits: Edits) -> Path:
    """Return *wheel* as another *version* of itself, with *edits* in its files."""
    _, before, *rest = wheel.name.split("-")
    made = directory / "-".join(["harmony", version, *rest])
    rows: list[str] = []
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            if name.endswith("/RECORD"):
                continue
            text = old.read(name)
            for before_it, after_it in edits.get(name, ()):
                assert before_it.encode() in text
                text = text.replace(before_it.encode(), after_it.encode())
            if name.endswith("/METADATA"):
                text = text.replace(
                    f"\nVersion: {before}\n".encode(), f"\nVersion: {version}\n".encode()
                )
            named = name.replace(f"harmony-{before}.dist-info", f"harmony-{version}.dist-info")
            digest = base64.urlsafe_b64encode(hashlib.sha256(text).digest()).decode().rstrip("=")
            rows.append(f"{named},sha256={digest},{len(text)}\n")
            new.writestr(named, text)
        record = f"harmony-{version}.dist-info/RECORD"
        new.writestr(record, "".join([*rows, f"{record},,\n"]))
    return made


@pytest.fixture
def pi(boot: Callable[[], Box], plane: ControlPlane) -> Box:
    """A device with the agent in a place where two directories can change places: none of a lower layer."""
    pi = boot()
    pi.run(
        ["sh", "-c", "cp -a /opt/harmony /opt/h && rm -rf /opt/harmony && mv /opt/h /opt/harmony"]
    )
    (program,) = (pi.root / "opt/harmony/lib").glob(f"python3*/site-packages/{UPDATER}")
    for edit in QUICKER[UPDATER]:
        program.write_text(program.read_text().replace(*edit))
    plane.enrol(pi)
    pi.write("/etc/pip.conf", "[global]\nno-index = true\n")
    return pi


async def push(plane: ControlPlane, pi: Box, wheel: Path) -> Said:
    scores = wheel.parent / "agent.yaml"
    scores.write_text(f"- {{id: agent, kind: AgentScore, spec: {{wheel_from: ./{wheel.name}}}}}\n")
    return await plane.harmony("push-score", pi.name, str(scores), "--timeout", "300")


@pytest.mark.timeout(400)
async def test_it_is_updated_and_nothing_else_is_touched(
    plane: ControlPlane, device: Device[PiTopology], pi: Box, wheel: Path, tmp_path: Path
) -> None:
    await allowed(pi, device, "any")
    ran = pi.text("systemctl", "show", "-p", "InvocationID", AGENT)
    newer = repacked(wheel, tmp_path, "9.9.9", QUICKER)
    said = await push(plane, pi, newer)
    assert said.status == 0, said.out + said.err
    state = await until(device, lambda state: state.agent_version == "9.9.9")
    assert pi.text("systemctl", "show", "-p", "InvocationID", AGENT) != ran
    assert not pi.text("sh", "-c", "ls -d /opt/harmony.* /var/lib/harmony-update/database || true")
    # The commands run what is there now, and not where it was made.
    assert pi.text("head", "-n", "1", "/opt/harmony/bin/harmony-agent").startswith(
        "#!/opt/harmony/bin/"
    )
    assert pi.run(["/opt/harmony/bin/harmony-agent", "--help"]).returncode == 0
    again = await push(plane, pi, newer)
    assert (again.status, "unchanged" in again.out) == (0, True), again.out
    assert state.agent_version == "9.9.9"


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("edits", "why"),
    [
        (CRASHES, "it ended 5 times in a row: "),
        (IS_DEAF, "it runs, and has not connected to the control plane, as the one before had"),
    ],
    ids=["crashes", "is deaf"],
)
async def test_one_that_does_not_come_up_is_taken_back_and_told(
    plane: ControlPlane,
    device: Device[PiTopology],
    pi: Box,
    wheel: Path,
    tmp_path: Path,
    edits: Edits,
    why: str,
) -> None:
    await allowed(pi, device, "any")
    said = await push(plane, pi, repacked(wheel, tmp_path, "9.9.9", {**edits, **QUICKER}))
    assert said.status == 1, said.out + said.err
    assert "harmony-9.9.9-py3-none-any.whl was tried on " in said.out
    assert why in said.out
    state = await until(device, lambda state: "agent" in state.scores)
    assert state.agent_version != "9.9.9"
    assert isinstance(state.scores["agent"].outcome, Failure)
    assert not pi.text("sh", "-c", "ls -d /opt/harmony.* || true")
    told = await plane.harmony("push-score", pi.name, "-", stdin=MOTD)
    assert pi.read("/etc/motd") == b"hello\n", told
    removed = await plane.harmony("remove-score", pi.name, "agent")
    assert removed.status == 0, removed.out + removed.err
    assert not pi.text("sh", "-c", "ls -d /var/lib/harmony-update /opt/harmony.* || true")


MOTD = '- {id: motd, kind: FileScore, spec: {path: /etc/motd, content: "hello\\n"}}\n'


@pytest.mark.timeout(400)
async def test_a_power_cut_in_a_trial_ends_in_the_new_one(
    plane: ControlPlane, device: Device[PiTopology], pi: Box, wheel: Path, tmp_path: Path
) -> None:
    await allowed(pi, device, "any")
    pushing = asyncio.create_task(push(plane, pi, repacked(wheel, tmp_path, "9.9.9", QUICKER)))
    await asyncio.to_thread(
        pi.wait_for, ["test", "-e", "/opt/harmony/.on-trial.json"], timeout_s=120
    )
    await asyncio.to_thread(pi.power_cut)
    await asyncio.to_thread(pi.power_on)
    said = await pushing
    assert said.status == 0, said.out + said.err
    state = await until(device, lambda state: state.agent_version == "9.9.9")
    assert state.agent_version == "9.9.9"
    assert not pi.text("sh", "-c", "ls -d /opt/harmony.* /opt/harmony/.on-trial.json || true")


@pytest.mark.soak
@pytest.mark.timeout(400)
async def test_killed_again_and_again_it_is_updated_all_the_same(
    plane: ControlPlane, device: Device[PiTopology], pi: Box, wheel: Path, tmp_path: Path
) -> None:
    await allowed(pi, device, "any")
    dice, in_trial = random.Random(seed()), 0
    pushing = asyncio.create_task(push(plane, pi, repacked(wheel, tmp_path, "9.9.9", QUICKER)))
    for _ in range(runs(20, part=4)):
        await asyncio.to_thread(
            pi.wait_for, lambda: state_of(pi) in {"activating", "active"}, timeout_s=60
        )
        await asyncio.sleep(dice.uniform(0.05, 5))
        in_trial += pi.run(["test", "-e", ON_TRIAL], check=False).returncode == 0
        if in_trial > 2:
            break  # an agent with which a device went down three times is rightly taken back
        pi.run(["systemctl", "kill", "-s", "KILL", "harmony-update"], check=False)
        # At no moment is there no agent that could be started.
        assert pi.run(["/opt/harmony/bin/harmony-agent", "--help"]).returncode == 0
    await until(
        device,
        lambda state: (
            state.agent_version == "9.9.9" and code_of(state, "agent") in {"SUCCESS", "NOOP"}
        ),
        within_s=240,
    )
    await pushing
    assert not pi.text("sh", "-c", f"ls -d /opt/harmony.* {ON_TRIAL} || true")


def state_of(pi: Box) -> str:
    return pi.text("systemctl", "show", "--value", "-p", "ActiveState", "harmony-update")
