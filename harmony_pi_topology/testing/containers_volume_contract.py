"""What every container runtime must do with data that is not configuration: a part of the contract."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from harmony_core.resources import Container, Mount

if TYPE_CHECKING:
    from .containers_contract import ContainersUnderTest

__all__ = ["ContainerVolumeContract"]


class ContainerVolumeContract(ABC):
    """Needs the fixture `host`. What an image declares as a volume outlives every container made of it."""

    @abstractmethod
    def container(self, host: ContainersUnderTest, **fields: Any) -> Container: ...

    async def test_a_volume_of_its_image_goes_to_whatever_is_made_in_its_place(
        self, host: ContainersUnderTest
    ) -> None:
        of_image: dict[str, Any] = {"image": host.images.with_volume}
        await host.apply_one(self.container(host, **of_image))
        volume = await host.bystander.volume("web", "/data")
        assert volume is not None
        changed = self.container(host, **of_image, environment={"MODE": "quiet"})
        assert (await host.apply_one(changed)).actions == (
            "recreated: environment changed",
            "started",
        )
        assert await host.bystander.volume("web", "/data") == volume
        # Another image that has none, and back, as a rollback does.
        await host.apply_one(self.container(host))
        assert await host.bystander.volume("web", "/data") is None
        assert await host.bystander.has_volume(volume)
        await host.apply_one(changed)
        assert await host.bystander.volume("web", "/data") == volume
        await host.bystander.delete("web")
        await host.apply_one(changed)
        assert await host.bystander.volume("web", "/data") == volume

    async def test_a_volume_outlives_its_container_and_is_told(
        self, host: ContainersUnderTest
    ) -> None:
        desired = self.container(host, image=host.images.with_volume)
        await host.apply_one(desired)
        volume = await host.bystander.volume("web", "/data")
        assert volume is not None
        (planned,) = await host.containers.remove(["web"], apply=False)
        removed = await host.remove_one("web")
        assert not isinstance(planned, Exception)
        assert removed.actions == planned.actions
        assert removed.actions[-1].startswith(f"kept volume {volume} (/data)")
        assert await host.bystander.has_volume(volume)
        await host.apply_one(desired)
        assert await host.bystander.volume("web", "/data") == volume

    async def test_a_volume_that_a_mount_takes_the_place_of_is_kept_and_told(
        self, host: ContainersUnderTest
    ) -> None:
        of_image: dict[str, Any] = {"image": host.images.with_volume}
        await host.apply_one(self.container(host, **of_image))
        volume = await host.bystander.volume("web", "/data")
        assert volume is not None
        host.bystander.write("/srv/harmony-contract/data/there", b"")
        mount = Mount(source="/srv/harmony-contract/data", target="/data")
        mounting = self.container(host, **of_image, mounts=(mount,))
        planned = await host.plan_one(mounting)
        change = await host.apply_one(mounting)
        assert change.actions == planned.actions
        assert change.actions[:2] == ("recreated: mounts changed", "started")
        assert change.actions[2].startswith(f"kept volume {volume} (/data)")
        assert await host.bystander.has_volume(volume)
        assert await host.bystander.volume("web", "/data") is None

    async def test_two_containers_of_one_image_have_a_volume_each(
        self, host: ContainersUnderTest
    ) -> None:
        for name in ("web", "other"):
            await host.apply_one(self.container(host, image=host.images.with_volume, name=name))
        volumes = {await host.bystander.volume(name, "/data") for name in ("web", "other")}
        assert len(volumes - {None}) == 2
