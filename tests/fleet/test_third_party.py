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
