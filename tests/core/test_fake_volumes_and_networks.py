"""Volumes and networks in memory pass the contracts of the real ones, and containers find them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from harmony_core import Container, ContainerNetwork, NetworkAttachment, Volume, VolumeMount
from harmony_core.errors import ContainerNetworkMissing, VolumeMissing
from harmony_core.reconciler import AnyReconciler, MemoryRecords
from harmony_core.testing import (
    ContainerNetworkHostContract,
    ContainerNetworksUnderTest,
    FakeContainerNetworks,
    FakePi,
    FakeVolumes,
    VolumeHostContract,
    VolumesUnderTest,
)
from harmony_pi_topology.containers.podman_reply import FoundNetwork, FoundVolume
from harmony_pi_topology.testing.fake_containers import FakeAttachments

THEIR_VOLUME = FoundVolume(name="theirs", labels={}, created_at=datetime(2020, 1, 1, tzinfo=UTC))
THEIR_NETWORK = FoundNetwork(
    name="theirs",
    labels={},
    driver="bridge",
    subnets=("10.210.0.0/24",),
    internal=False,
    has_dns=True,
)
IMAGE = f"docker.io/library/busybox:1@sha256:{'0' * 64}"


class Somebody:
    """At a device in memory; what a volume holds is what it is told."""

    def __init__(self, pi: FakePi) -> None:
        self._pi = pi
        self._data: dict[object, str] = {}

    @property
    def _device(self) -> FakeAttachments:
        return self._pi.containers.attachments

    def write(self, name: str, content: str) -> None:
        self._data[self._device.volumes[name].created_at] = content

    def read(self, name: str) -> str:
        return self._data.get(self._device.volumes[name].created_at, "")

    def release(self, name: str) -> None:
        del self._device.made[f"on-{name}"]


class AtVolumes(Somebody):
    def identity(self, key: str) -> object | None:
        return self._device.volumes.get(key)

    def disturb(self, key: str) -> None:
        del self._device.volumes[key]

    def make_foreign(self) -> str:
        self._device.volumes["theirs"] = THEIR_VOLUME
        return "theirs"

    def use(self, name: str) -> None:
        self._pi.containers.make_beside(f"on-{name}", volume=name, ours=True)


class AtNetworks(Somebody):
    def identity(self, key: str) -> object | None:
        return self._device.networks.get(key)

    def disturb(self, key: str) -> None:
        found = self._device.networks[key]
        self._device.networks[key] = attrs.evolve(found, internal=not found.internal)

    def make_foreign(self) -> str:
        self._device.networks["theirs"] = THEIR_NETWORK
        return "theirs"

    def use(self, name: str, *, ours: bool) -> None:
        self._pi.containers.make_beside(f"on-{name}", network=name, ours=ours)


class TestFakeVolumes(VolumeHostContract):
    @pytest.fixture
    def host(self) -> VolumesUnderTest:
        pi, records = FakePi(), MemoryRecords()

        def again() -> AnyReconciler:
            return FakeVolumes(pi.containers.attachments, records=records)

        outsider = AtVolumes(pi)
        outsider.make_foreign()
        return VolumesUnderTest(
            reconciler=again(),
            restarted=again,
            wish=Volume(name="it", labels={"com.acme.of": "it"}, delete_data=True),
            changed=Volume(name="it", labels={"com.acme.of": "it"}),
            beside=Volume(name="beside", delete_data=True),
            refused=Volume(name="theirs"),
            outsider=outsider,
        )


class TestFakeContainerNetworks(ContainerNetworkHostContract):
    @pytest.fixture
    def host(self) -> ContainerNetworksUnderTest:
        pi, records = FakePi(), MemoryRecords()

        def again() -> AnyReconciler:
            return FakeContainerNetworks(pi.containers.attachments, records=records)

        outsider = AtNetworks(pi)
        outsider.make_foreign()
        return ContainerNetworksUnderTest(
            reconciler=again(),
            restarted=again,
            wish=ContainerNetwork(name="it", subnets=("10.211.0.0/24",)),
            changed=ContainerNetwork(name="it", subnets=("10.212.0.0/24",), internal=True),
            beside=ContainerNetwork(name="beside"),
            refused=ContainerNetwork(name="theirs"),
            outsider=outsider,
        )


async def test_a_container_names_volumes_and_networks_that_are_there(pi: FakePi) -> None:
    web = Container(
        name="web",
        image=IMAGE,
        volumes=(VolumeMount(volume="data", target="/data"),),
        networks=(NetworkAttachment(network="back", aliases=("site",)),),
    )
    (planned,) = await pi.containers.converge([web], apply=False)
    assert not isinstance(planned, Exception)
    (error,) = await pi.containers.converge([web], apply=True)
    assert isinstance(error, VolumeMissing)
    await pi.volumes.converge([Volume(name="data")], apply=True)
    (error,) = await pi.containers.converge([web], apply=True)
    assert isinstance(error, ContainerNetworkMissing)
    await pi.container_networks.converge([ContainerNetwork(name="back")], apply=True)
    (made,) = await pi.containers.converge([web], apply=True)
    assert not isinstance(made, Exception)
    assert await pi.containers.volume("web", "/data") == "data"
    (again,) = await pi.containers.converge([web], apply=True)
    assert not isinstance(again, Exception)
    assert not again.changed


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"volumes": [{"volume": "data", "target": "/data:ro"}]}, "mount options"),
        ({"volumes": [{"volume": "data", "target": "/a,b"}]}, "mount options"),
        ({"networks": [{"network": "back", "aliases": ["d" * 64]}]}, "no more than 63"),
        ({"networks": [{"network": "back", "aliases": ["a..b"]}]}, "between dots"),
        ({"name": "w" * 64, "networks": [{"network": "back"}]}, "DNS takes 1 to 63"),
        ({"name": "w..b", "networks": [{"network": "back"}]}, "DNS takes 1 to 63"),
    ],
)
def test_what_could_not_be_mounted_or_looked_up_is_refused(
    fields: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        Container.model_validate({"name": "web", "image": IMAGE, **fields})
    longest = {"networks": [{"network": "back", "aliases": ["d" * 63, "a_b.c"]}]}
    Container.model_validate({"name": "w" * 63, "image": IMAGE, **longest})


async def test_a_network_that_is_made_anew_takes_its_containers_along(pi: FakePi) -> None:
    web = Container(name="web", image=IMAGE, networks=(NetworkAttachment(network="back"),))
    await pi.container_networks.converge([ContainerNetwork(name="back")], apply=True)
    await pi.containers.converge([web], apply=True)
    await pi.container_networks.converge([ContainerNetwork(name="back", internal=True)], apply=True)
    (healed,) = await pi.containers.converge([web], apply=True)
    assert not isinstance(healed, Exception)
    assert healed.actions == ("recreated: networks changed", "started")


@pytest.fixture
def pi() -> FakePi:
    return FakePi()
