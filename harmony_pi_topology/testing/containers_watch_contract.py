"""What every container runtime must tell of what changes: a part of `ContainerRuntimeContract`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import pytest

from harmony_core.resources import Container, Mount

from .hearing import Hearer

if TYPE_CHECKING:
    from .containers_contract import ContainersUnderTest

__all__ = ["ContainerWatchContract"]


class ContainerWatchContract(ABC):
    """Needs the fixture `host`. That one ends is told, and that a file changes that it uses."""

    @abstractmethod
    def container(self, host: ContainersUnderTest, **fields: Any) -> Container: ...

    @pytest.fixture
    def hearer(self) -> Hearer:
        return Hearer()

    @pytest.mark.parametrize("deed", ["kill", "stop", "delete"])
    @pytest.mark.parametrize("restart", ["no", "always"])
    async def test_one_that_a_bystander_ends_is_told(
        self, host: ContainersUnderTest, hearer: Hearer, deed: str, restart: str
    ) -> None:
        await host.apply_one(self.container(host, restart=restart))
        await host.containers.watch(["web"], hearer)
        await getattr(host.bystander, deed)("web")
        await hearer.hears("web")

    async def test_what_becomes_of_a_file_that_one_uses_is_told(
        self, host: ContainersUnderTest, hearer: Hearer
    ) -> None:
        path = "/srv/harmony-contract/web.conf"
        await host.apply_one(self.container(host, uses=(path,)))
        await host.containers.watch(["web"], hearer)
        for n in range(10):
            host.bystander.write(path, b"%d" % n)
            await hearer.hears("web")

    async def test_what_becomes_of_a_file_that_one_has_mounted_is_told(
        self, host: ContainersUnderTest, hearer: Hearer
    ) -> None:
        path = "/srv/harmony-contract/web.conf"
        host.bystander.write(path, b"one")
        mount = Mount(source=path, target="/etc/web.conf")
        await host.apply_one(self.container(host, mounts=(mount,)))
        await host.containers.watch(["web"], hearer)
        host.bystander.write(path, b"two")
        await hearer.hears("web")

    async def test_one_that_was_started_again_is_told_again(
        self, host: ContainersUnderTest, hearer: Hearer
    ) -> None:
        desired = self.container(host, restart="no")
        await host.apply_one(desired)
        await host.containers.watch(["web"], hearer)
        for _ in range(3):
            await host.bystander.kill("web")
            await hearer.hears("web")
            await host.apply_one(desired)
            await hearer.is_at_rest()
            hearer.heard.clear()

    async def test_one_that_the_runtime_started_again_is_told_again(
        self, host: ContainersUnderTest, hearer: Hearer
    ) -> None:
        desired = self.container(host, restart="always")
        await host.apply_one(desired)
        await host.containers.watch(["web"], hearer)
        for _ in range(2):
            await host.bystander.kill("web")
            await hearer.hears("web")
            await host.apply_one(desired)
            await hearer.is_at_rest()
            hearer.heard.clear()

    async def test_one_that_another_agent_started_is_told(
        self, host: ContainersUnderTest, hearer: Hearer
    ) -> None:
        """As after a restart: nothing is known of it but its name."""
        await host.apply_one(self.container(host, restart="no"))
        again = host.reopen()
        await again.watch(["web"], hearer)
        await host.bystander.kill("web")
        await hearer.hears("web")
        await again.close()

    async def test_one_that_we_make_anew_or_remove_is_told(
        self, host: ContainersUnderTest, hearer: Hearer
    ) -> None:
        await host.apply_one(self.container(host))
        await host.containers.watch(["web"], hearer)
        await host.apply_one(self.container(host, environment={"MODE": "quiet"}))
        await hearer.hears("web")
        await hearer.is_at_rest()
        hearer.heard.clear()
        await host.remove_one("web")
        await hearer.hears("web")

    async def test_one_that_is_not_watched_any_more_is_not_told(
        self, host: ContainersUnderTest, hearer: Hearer
    ) -> None:
        await self._two_run(host)
        await host.containers.watch(["web", "other"], hearer)
        await host.containers.watch(["other"], hearer)
        await host.bystander.kill("web")
        await host.bystander.kill("other")
        await hearer.hears("other", never="web")

    async def test_looking_at_one_is_not_told(
        self, host: ContainersUnderTest, hearer: Hearer
    ) -> None:
        await self._two_run(host)
        await host.containers.watch(["web", "other", "absent"], hearer)
        await host.containers.observe("web")
        await host.plan_one(self.container(host, restart="no"))
        await host.bystander.kill("other")
        await hearer.hears("other", never="web")

    async def test_an_end_between_two_calls_is_not_lost(
        self, host: ContainersUnderTest, hearer: Hearer
    ) -> None:
        await self._two_run(host)
        await host.containers.watch(["web"], hearer)
        await host.bystander.kill("web")
        await host.containers.watch(["web", "other"], hearer)
        await hearer.hears("web")

    async def test_once_closed_it_tells_of_none(
        self, host: ContainersUnderTest, hearer: Hearer
    ) -> None:
        await self._two_run(host)
        await host.containers.watch(["web"], hearer)
        await host.containers.close()
        await host.bystander.kill("web")
        await hearer.is_at_rest()
        assert hearer.heard == []
        await host.containers.close()

    async def _two_run(self, host: ContainersUnderTest) -> None:
        await host.apply_one(self.container(host, restart="no"))
        await host.apply_one(self.container(host, restart="no", name="other"))
