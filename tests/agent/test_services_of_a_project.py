"""The services of a project under an agent: one without its image keeps back no other, and one that is no
longer named goes, while volumes stay."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from harmony_core.outcome import Failure
from harmony_core.testing import FakePi
from harmony_core.wire.actual_state import ActualState
from harmony_scores import ComposeScore

from .rig import code, entry, status
from .virtual import VirtualDevice, running_device

pytestmark = pytest.mark.looptime

FIRST, SECOND, MISSING = (f"registry.test/web@sha256:{digit * 64}" for digit in "123")


def shop(**services: dict[str, Any]) -> ComposeScore:
    made = {
        name: {"name": f"shop-{name}-1", "image": FIRST, **each} for name, each in services.items()
    }
    return ComposeScore.model_validate({"services": made, "volumes": [{"name": "shop_data"}]})


async def settled(device: VirtualDevice, score: ComposeScore) -> ActualState:
    device.push([entry(score, "shop")])
    await asyncio.sleep(60)
    assert device.bus.told is not None
    return device.bus.told


async def test_an_image_that_is_not_there_keeps_back_its_service_and_those_that_depend_on_it(
    tmp_path: Path,
) -> None:
    pi = FakePi()
    pi.containers.missing_images = {MISSING}
    async with running_device(tmp_path, pi.offers, ComposeScore) as it:
        state = await settled(
            it, shop(web={}, app={"image": MISSING}, admin={"depends_on": {"app": {}}})
        )
        outcome = state.scores["shop"].outcome
        assert code(state.scores["shop"]) == "ImageNotFound"
        assert isinstance(outcome, Failure)
        assert outcome.message == (
            f"container:shop-app-1: the registry has no image {MISSING}; "
            "admin waits for app to be started"
        )
        assert await pi.containers.identity("shop-web-1") is not None
        assert await pi.containers.identity("shop-admin-1") is None
        web = await pi.containers.identity("shop-web-1")
        state = await settled(it, shop(web={}, app={}, admin={"depends_on": {"app": {}}}))
        assert status(state.scores) == {"shop": "SUCCESS"}
        assert await pi.containers.identity("shop-web-1") == web


async def test_a_service_that_is_no_longer_named_goes_and_the_volume_stays(tmp_path: Path) -> None:
    pi = FakePi()
    async with running_device(tmp_path, pi.offers, ComposeScore) as it:
        await settled(it, shop(web={}, app={}))
        web = await pi.containers.identity("shop-web-1")
        assert status((await settled(it, shop(web={}))).scores) == {"shop": "SUCCESS"}
        assert await pi.containers.identity("shop-app-1") is None
        assert await pi.containers.identity("shop-web-1") == web
        it.push([])
        await asyncio.sleep(60)
        assert await pi.containers.identity("shop-web-1") is None
        assert "shop_data" in pi.containers.attachments.volumes
