"""Data of a volume goes only where its Score has said so, and somebody has approved it; and a network that is
made anew takes along the containers on it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import attrs
import pytest

from harmony_agent.rpc.volumes import DeviceVolumes
from harmony_core.errors import RequestFailed
from harmony_core.outcome import Running
from harmony_core.plugins import Registry
from harmony_core.reconciler import JsonRecord, Offers
from harmony_core.testing import FakePi, FakeVolumes
from harmony_core.wire.envelope import generate_key
from harmony_core.wire.manifest import SerializedScore
from harmony_scores import ContainerNetworkScore, ContainerScore, VolumeScore

from .rig import Note, entry, status
from .virtual import VirtualDevice

pytestmark = pytest.mark.looptime
IMAGE = f"docker.io/library/busybox:1@sha256:{'0' * 64}"


class DeviceRecords:
    """The records of a device, whichever agent runs there."""

    device: VirtualDevice

    def get(self, resource_id: str) -> JsonRecord | None:
        return self.device.ledger.get(resource_id)

    async def put(self, resource_id: str, record: JsonRecord) -> None:
        await self.device.ledger.put(resource_id, record)

    async def forget(self, resource_id: str) -> None:
        await self.device.ledger.forget(resource_id)


@pytest.fixture
def pi() -> FakePi:
    return FakePi()


@pytest.fixture
async def device(tmp_path: Path, pi: FakePi) -> AsyncGenerator[VirtualDevice]:
    records = DeviceRecords()
    volumes = FakeVolumes(pi.containers.attachments, records=records)
    kinds = Registry([Note, VolumeScore, ContainerScore, ContainerNetworkScore])
    it = VirtualDevice(tmp_path, generate_key(), kinds, {**pi.offers, "VolumeHost": volumes})
    records.device = it
    yield it
    await it.kill()
    it.close()


def volume(*, delete_data: bool, id_: str = "data") -> SerializedScore:
    return entry(VolumeScore(name="data", delete_data=delete_data), id_)


def container() -> SerializedScore:
    web = ContainerScore.model_validate(
        {"name": "web", "image": IMAGE, "volumes": ({"volume": "data", "target": "/data"},)}
    )
    return entry(web, "web", after=("data",))


async def test_data_that_is_to_go_waits_for_approval_over_a_kill_and_then_goes(
    device: VirtualDevice, pi: FakePi
) -> None:
    volumes = pi.containers.attachments.volumes
    await device.start()
    wanted = [volume(delete_data=True), container()]
    assert status(await device.pages(wanted)) == {"data": "SUCCESS", "web": "SUCCESS"}
    planned = {plan.score: plan for plan in await device.agent.controller.preview.preview([])}
    assert planned["data"].held
    for again in range(2):
        pages = await device.pages([])
        outcome = pages["data"].outcome
        assert isinstance(outcome, Running)
        assert outcome.reason == "Held"
        assert "with all data of volume:data; see them and allow it" in outcome.message
        assert "data" in volumes
        if not again:
            await device.kill()
            await device.start()
    assert not await device.pages([], removals_allowed=2)
    assert "data" not in volumes
    assert not pi.containers.attachments.made


async def test_without_it_nothing_is_asked_and_the_data_stays(
    device: VirtualDevice, pi: FakePi
) -> None:
    volumes = pi.containers.attachments.volumes
    await device.start()
    await device.pages([volume(delete_data=False), container()])
    before = volumes["data"]
    assert not await device.pages([])
    assert volumes["data"] == before
    # It is found again, also by a Score of another name, which moves it.
    await device.pages([volume(delete_data=False)])
    assert status(await device.pages([volume(delete_data=False, id_="renamed")])) == {
        "renamed": "NOOP"
    }
    assert volumes["data"] == before


async def test_all_volumes_are_listed_with_who_has_them(device: VirtualDevice, pi: FakePi) -> None:
    await device.start()
    await device.pages([volume(delete_data=False), container()])
    attachments = pi.containers.attachments
    attachments.volumes["theirs"] = attrs.evolve(attachments.volumes["data"], name="theirs")
    offers: Offers = {"VolumeHost": FakeVolumes(attachments)}
    listed = await DeviceVolumes(offers=offers, ledger=device.ledger).read()
    assert [(each.name, each.used_by, each.scores) for each in listed] == [
        ("data", ("web",), ("data",)),
        ("theirs", (), ()),
    ]
    with pytest.raises(RequestFailed, match="podman is not installed"):
        await DeviceVolumes(offers={}, ledger=device.ledger).read()


async def test_whoever_renames_a_score_is_not_asked_since_nothing_goes(
    device: VirtualDevice, pi: FakePi
) -> None:
    await device.start()
    await device.pages([volume(delete_data=True)])
    before = pi.containers.attachments.volumes["data"]
    pages = await device.pages([volume(delete_data=True, id_="renamed")])
    assert status(pages) == {"renamed": "NOOP"}
    assert pi.containers.attachments.volumes["data"] == before


@pytest.mark.parametrize("after", [("back",), ()])
async def test_a_network_that_is_made_anew_takes_along_the_containers_on_it(
    device: VirtualDevice, pi: FakePi, after: tuple[str, ...]
) -> None:
    def wanted(*, internal: bool) -> list[SerializedScore]:
        web = ContainerScore.model_validate(
            {"name": "web", "image": IMAGE, "networks": ({"network": "back"},)}
        )
        network = ContainerNetworkScore(name="back", internal=internal)
        return [entry(network, "back"), entry(web, "web", after=after)]

    await device.start()
    await device.pages(wanted(internal=False)[:1])
    assert status(await device.pages(wanted(internal=False)))["web"] == "SUCCESS"
    before = await pi.containers.identity("web")
    pages = await device.pages(wanted(internal=True))
    assert status(pages)["back"] == "SUCCESS"
    assert await pi.containers.identity("web") != before
    assert pi.containers.attachments.users_of_network("back") == {"web": True}
