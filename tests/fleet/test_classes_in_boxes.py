"""Two classes on five Pis: a bad image is caught in the canary, and who was away catches up in its window."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import pytest

from tests.box import Bed, Box
from tests.fleet.ground import AGENT, SERVE, ControlPlane, Host, in_shell

_CRASHING = ("sh", "-c", "echo cannot find my database >&2; exit 1")
_OPEN = build_opener(ProxyHandler({}))


@pytest.fixture(scope="module")
def pis(boot: Callable[[], Box], plane: ControlPlane) -> list[Box]:
    """The first is the canary; the last has no web application."""
    boxes = [boot() for _ in range(5)]
    for each in boxes:
        plane.enrol(each)
    return boxes


def write_folder(folder: Path, pis: Sequence[Box], *, image: str, motd: str) -> None:
    """A fleet of two classes; the web applications may be changed around now, by each device's clock on the
    wall: not on the other side of the Earth."""
    now = datetime.now(UTC)
    window = {
        "begin": (now - timedelta(hours=2)).strftime("%H:%M"),
        "until": (now + timedelta(hours=2)).strftime("%H:%M"),
    }
    folder.mkdir(exist_ok=True)
    labels = [{"base": "yes", "role": "web"} for _ in pis]
    labels[0]["ring"] = "canary"
    labels[-1]["role"] = "sensor"
    fleet = {
        "devices": {box.name: {"labels": each} for box, each in zip(pis, labels, strict=True)},
        "classes": {
            "base": {
                "selector": "base=yes",
                "scores": ["base.yaml"],
                "rollout": {"success": "60%"},
            },
            "web": {
                "selector": "role=web",
                "scores": ["web.yaml"],
                "rollout": {
                    "canary": "ring=canary",
                    "steps": [{"upto": "1", "soak": "1s"}, "100%"],
                    "success": "60%",
                    "deadline": "90s",
                    "windows": [window],
                },
            },
        },
    }
    web = {
        "id": "web",
        "kind": "ContainerScore",
        "spec": {
            "name": "web",
            "image": image,
            "ports": [{"host": 8080, "container": 80}],
            "ready": {"probe": "http", "port": 8080, "within_s": 15},
        },
        "policy": {"on_failure": "rollback", "deadline_s": 20},
    }
    motd_score = {"id": "motd", "kind": "FileScore", "spec": {"path": "/etc/motd", "content": motd}}
    # JSON is YAML, too.
    (folder / "fleet.yaml").write_text(json.dumps(fleet))
    (folder / "web.yaml").write_text(json.dumps([web]))
    (folder / "base.yaml").write_text(json.dumps([motd_score]))


def _set_zone(box: Box, zone: str) -> None:
    """As `timedatectl set-timezone` does it."""
    box.run(["ln", "-sfn", f"/usr/share/zoneinfo/{zone}", "/etc/localtime"])


async def page_of(box: Box) -> str:
    """What its web application shows; empty while nobody answers, as between one container and the next."""

    def read() -> str:
        with suppress(OSError), _OPEN.open(f"http://{box.address}:8080/", timeout=5) as answer:
            return str(answer.read().decode())
        return ""

    return await asyncio.to_thread(read)


async def _catch_up_by_day(plane: ControlPlane, away: Box) -> None:
    """Have *away*, where it is night, wait for its window, and then let it be day there."""

    async def until(holds: Callable[[], Awaitable[bool]], within_s: float) -> None:
        try:
            async with asyncio.timeout(within_s):
                while not await holds():
                    await asyncio.sleep(0.5)
        except TimeoutError:
            told = [
                (await plane.harmony(*asked)).out
                for asked in (("status", away.name), ("rollout", "status", "web"))
            ]
            raise AssertionError("\n".join([*told, away.journal(AGENT)[-8000:]])) from None

    async def waits_for_its_window() -> bool:
        said = await plane.harmony("status", away.name)
        (line,) = [each for each in said.out.splitlines() if each.startswith("  class web  ")]
        return "Waiting" in line and "OutsideWindow: its window is closed until " in line

    # TCP asks again ever more seldom: as long as it was cut off, and once more as long.
    await until(waits_for_its_window, 300)

    # What has no window comes to it all the same.
    async def has_motd() -> bool:
        return away.read("/etc/motd") == b"two\n"

    await until(has_motd, 60)
    assert await page_of(away) == "page 1\n"
    waiting = await plane.harmony("rollout", "status", "web")
    assert "OutsideWindow" in waiting.out

    # By day, it follows. That its zone is another wakes nobody: it looks when it starts.
    _set_zone(away, "Etc/UTC")
    away.run(["systemctl", "restart", AGENT])

    async def has_page() -> bool:
        return await page_of(away) == "page 2\n"

    await until(has_page, 120)

    async def is_over() -> bool:
        return (await plane.harmony("rollout", "status", "web")).status == 0

    await until(is_over, 60)


@pytest.mark.soak
@pytest.mark.skipif(
    os.environ.get("HARMONY_SOAK") != "1",
    reason="five whole Pis want more than a shared machine of two cores: make soak",
)
@pytest.mark.timeout(600)
async def test_a_bad_image_is_caught_in_the_canary_and_who_was_away_catches_up(
    bed: Bed, plane: ControlPlane, pis: list[Box], tmp_path: Path
) -> None:
    folder, serve = tmp_path / "fleet", in_shell(SERVE)
    first, second = (
        bed.registry.push_busybox("kiosk", tag, command=serve, page=f"page {tag}\n")
        for tag in ("1", "2")
    )
    bad = bed.registry.push_busybox("kiosk", "bad", command=_CRASHING)
    canary, *others, sensor = pis
    away = others[-1]

    async def apply(image: str, motd: str) -> tuple[int, str]:
        write_folder(folder, pis, image=image, motd=motd)
        said = await plane.harmony("apply", str(folder), "--yes")
        return said.status, said.out + said.err

    status, said = await apply(first, "one\n")
    assert status == 0, said
    assert [await page_of(each) for each in (canary, *others)] == ["page 1\n"] * 4
    assert [each.read("/etc/motd") for each in pis] == [b"one\n"] * 5
    assert Host(sensor).containers() == []

    before = {each.name: Host(each).identities(containers=["web"]) for each in (canary, *others)}
    status, said = await apply(bad, "one\n")
    assert status == 1, said
    assert "RolledBack" in said
    assert "cannot find my database" in said
    assert [await page_of(each) for each in (canary, *others)] == ["page 1\n"] * 4
    after = {each.name: Host(each).identities(containers=["web"]) for each in (canary, *others)}
    touched = {name for name, web in after.items() if web != before[name]}
    # The canary, and the one that comes first anyhow.
    assert touched >= {canary.name}
    assert len(touched) <= 2

    # While it is away it comes to where it is night, and its window is shut.
    away.run(["ip", "link", "set", "eth0", "down"])
    _set_zone(away, "Etc/GMT-12")
    status, said = await apply(second, "two\n")
    here = [canary, *others[:-1]]
    assert [await page_of(each) for each in here] == ["page 2\n"] * 3
    assert [each.read("/etc/motd") for each in (*here, sensor)] == [b"two\n"] * 4
    assert away.read("/etc/motd") == b"one\n"

    away.run(["ip", "link", "set", "eth0", "up"])
    await _catch_up_by_day(plane, away)
