"""A third party's package brings a kind of Score to a real Pi, and nothing of ours knows of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from harmony_control.fleet import Fleet
from tests.box import Bed, Box
from tests.box.layers import built_wheel
from tests.fleet.ground import AGENT, ControlPlane, Host, Said, until

BLINKER = Path(__file__).parents[1] / "thirdparty/harmony_blinker"
UDEV = Path(__file__).parents[1] / "thirdparty/harmony_udev"
UNIT = "harmony-blinker-ACT.service"
FILES = (
    "/usr/local/lib/harmony-blinker/blink.py",
    "/etc/harmony-blinker/ACT.json",
    f"/etc/systemd/system/{UNIT}",
)


@attrs.frozen
class Operator:
    """Somebody who has installed the package beside the `harmony` command."""

    plane: ControlPlane
    site: Path
    file: Path

    async def push(self, agent: str, *options: str) -> Said:
        return await self.plane.harmony(
            "push-score", agent, str(self.file), "--json", *options, PYTHONPATH=str(self.site)
        )


@pytest.fixture(scope="module")
def wheel(bed: Bed) -> Path:
    return built_wheel(BLINKER)


@pytest.fixture(scope="module")
def operator(
    plane: ControlPlane, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Operator:
    """The package, where the control plane finds it, and a Score file that uses it."""
    directory = tmp_path_factory.mktemp("operator")
    site, file = directory / "site", directory / "led.yaml"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    subprocess.run([*pip, "--no-deps", "--no-index", "--target", str(site), str(wheel)], check=True)
    file.write_text("- {id: led, kind: BlinkerScore, spec: {period_s: 0.5}}\n")
    return Operator(plane, site, file)


@pytest.fixture(scope="module")
def with_wheel(pi: Box, wheel: Path) -> Box:
    """The Pi, with the package in its agent."""
    pi.write(f"/root/{wheel.name}", wheel.read_bytes())
    pip = ["/opt/harmony/bin/pip", "install", "--quiet", "--no-index", "--no-deps"]
    pi.run([*pip, f"/root/{wheel.name}"])
    pi.run(["systemctl", "restart", AGENT])
    return pi


@pytest.fixture(scope="module")
def without_wheel(boot: Callable[[], Box], plane: ControlPlane) -> Box:
    box = boot()
    plane.enrol(box)
    return box


async def test_pushed_it_converges_and_pushed_again_touches_nothing(
    operator: Operator, fleet: Fleet, with_wheel: Box
) -> None:
    host = Host(with_wheel)
    device = fleet.device(with_wheel.name)
    await until(device, lambda state: "BlinkerScore" in state.kinds)
    said = await operator.push(device.id)
    assert said.status == 0, said
    assert said.documents[-1]["outcome"]["status"] == "SUCCESS"
    made = host.identities(files=FILES, units=[UNIT])
    assert host.unit(UNIT, "ActiveState") == {"ActiveState": "active"}
    assert json.loads(with_wheel.read(FILES[1])) == {"led": "ACT", "period_s": 0.5}
    assert "no LED ACT; blinking in the dark" in with_wheel.journal(UNIT)

    said = await operator.push(device.id)
    assert said.documents[-1]["outcome"]["status"] == "NOOP"
    assert host.identities(files=FILES, units=[UNIT]) == made

    await device.remove("led")
    assert not any(map(host.file, FILES))
    assert host.unit(UNIT, "ActiveState") == {"ActiveState": "inactive"}


async def test_an_agent_without_the_package_is_refused_it_and_forced_says_so(
    operator: Operator, fleet: Fleet, without_wheel: Box
) -> None:
    device = fleet.device(without_wheel.name)
    await until(device, lambda _: True)
    said = await operator.push(device.id)
    assert said.status == 3
    assert "does not know the kind BlinkerScore" in said.err
    said = await operator.push(device.id, "--force")
    assert said.status == 1
    error = said.documents[-1]["outcome"]["error"]
    assert (error["code"], error["retry_at"]) == ("UnknownKind", None)
    await device.remove("led")


async def test_what_it_made_is_removed_also_when_the_package_is_gone(
    operator: Operator, fleet: Fleet, with_wheel: Box
) -> None:
    host = Host(with_wheel)
    device = fleet.device(with_wheel.name)
    assert (await operator.push(device.id)).status == 0
    with_wheel.run(["/opt/harmony/bin/pip", "uninstall", "--quiet", "--yes", "harmony-blinker"])
    with_wheel.run(["systemctl", "restart", AGENT])
    state = await until(device, lambda state: "BlinkerScore" not in state.kinds)
    assert state.scores.keys() == {"led"}
    assert host.unit(UNIT, "ActiveState") == {"ActiveState": "active"}
    await device.remove("led")
    assert not any(map(host.file, FILES))
    assert host.unit(UNIT, "ActiveState") == {"ActiveState": "inactive"}


UDEVADM = '#!/bin/sh\necho "$@" >> /var/lib/udevadm.told\n'
"""There is no udev in a box; this notes what it would be told."""
RULE = "/etc/udev/rules.d/70-meter.rules"


@pytest.fixture
def udev(plane: ControlPlane, pi: Box, tmp_path: Path) -> Operator:
    """The package with a capability on both ends, and a Score file that uses it."""
    wheel = built_wheel(UDEV)
    site, file = tmp_path / "site", tmp_path / "meter.yaml"
    pip = ["pip", "--quiet", "--disable-pip-version-check", "install", "--no-index", "--no-deps"]
    subprocess.run([sys.executable, "-m", *pip, "--target", str(site), str(wheel)], check=True)
    spec = '{alias: meter, vendor_id: "0403", product_id: "6001"}'
    file.write_text(f"- {{id: meter, kind: SerialAliasScore, spec: {spec}}}\n")
    pi.write(f"/root/{wheel.name}", wheel.read_bytes())
    pi.run(["/opt/harmony/bin/pip", *pip[1:], f"/root/{wheel.name}"])
    pi.run(["systemctl", "restart", AGENT])
    return Operator(plane, site, file)


async def test_a_package_s_own_capability_is_refused_with_its_reason_then_offered_and_kept_so(
    udev: Operator, fleet: Fleet, pi: Box
) -> None:
    device = fleet.device(pi.name)
    state = await until(device, lambda state: "UdevHost" in state.capabilities)
    assert not state.capabilities["UdevHost"].offered
    said = await udev.push(device.id)
    assert said.status == 3
    assert "udev is not installed; run: apt install udev" in said.err

    pi.write("/usr/bin/udevadm", UDEVADM, mode=0o755)
    pi.run(["systemctl", "restart", AGENT])
    await until(device, lambda state: state.capabilities["UdevHost"].offered)
    said = await udev.push(device.id)
    assert said.status == 0, said
    assert said.documents[-1]["outcome"]["status"] == "SUCCESS"
    assert b'SYMLINK+="meter"' in pi.read(RULE)
    assert b"control --reload\n" in pi.read("/var/lib/udevadm.told")
    said = await udev.push(device.id)
    assert said.documents[-1]["outcome"]["status"] == "NOOP"

    pi.write(RULE, "# somebody was here\n")
    async with device.reconcile("meter") as looked:
        assert [each async for each in looked]
    state = await until(device, lambda state: state.scores["meter"].drift_count == 1)
    assert b'SYMLINK+="meter"' in pi.read(RULE)
    assert state.scores["meter"].resources["udevrule:70-meter"]["state"] == "RuleAt"

    await device.remove("meter")
    assert not Host(pi).file(RULE)
    pi.run(["/opt/harmony/bin/pip", "uninstall", "--quiet", "--yes", "harmony-udev"])
    pi.run(["rm", "/usr/bin/udevadm"])
