"""What becomes of secrets: a part of the contract of every container runtime."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import pytest

from harmony_core.errors import ContainerFailed, SecretMissing
from harmony_core.resources import Container, ContainerSecret, PublishedPort, Running
from harmony_core.secret_values import secret_word

if TYPE_CHECKING:
    from harmony_core.change import Change

    from .containers_contract import ContainersUnderTest

__all__ = ["ContainerSecretContract"]

TARGET = "/run/secrets/db"
OLD, NEW = "swordfish of then", "battery\nstaple of $NOW"
FIRST, SECOND, THIRD = (secret_word("app", "db", f"{n:016x}") for n in (1, 2, 3))
NOWHERE = (PublishedPort(host=18081, container=80, address="1.2.3"),)
"""With these, nothing can be created."""


class ContainerSecretContract(ABC):
    """Needs the fixture `host`."""

    @abstractmethod
    def container(self, host: ContainersUnderTest, **fields: Any) -> Container: ...

    def with_secret(self, host: ContainersUnderTest, word: str, **fields: Any) -> Container:
        for each, value in ((FIRST, OLD), (SECOND, NEW)):
            host.secret_values.put(each, value)
        secret = ContainerSecret(content=word, target=TARGET, mode=0o440)
        environment = {"GREETING": "hello", "DB": f"postgres://me:{word}@db"}
        return self.container(host, environment=environment, secrets=(secret,), **fields)

    async def test_secrets_are_seen_inside_and_nowhere_else(
        self, host: ContainersUnderTest
    ) -> None:
        await self._expect(host, FIRST, OLD)
        assert await host.bystander.read_environment("web", "GREETING") == "hello"

    async def test_what_has_its_secrets_stays_as_it_is(self, host: ContainersUnderTest) -> None:
        desired = self.with_secret(host, FIRST)
        await host.apply_one(desired)
        identity = await host.bystander.identity("web")
        assert not (await host.plan_one(desired)).steps
        assert not (await host.apply_one(desired)).steps
        again = host.reopen()
        (change,) = await again.converge([desired], apply=True)
        assert getattr(change, "steps", None) == ()
        assert await host.bystander.identity("web") == identity

    async def test_a_preview_tells_the_same_version_from_another(
        self, host: ContainersUnderTest
    ) -> None:
        await host.apply_one(self.with_secret(host, FIRST))
        same = host.secret_values.lend(FIRST, "a guess")
        assert not (await host.plan_one(self.with_secret(host, same))).steps
        other = host.secret_values.lend(SECOND, NEW)
        steps = (await host.plan_one(self.with_secret(host, other))).actions
        assert steps == ("recreated: environment, secrets changed", "started")
        host.secret_values.take_back([same, other])
        assert await host.bystander.read_inside("web", TARGET) == OLD

    async def test_another_value_makes_it_anew_and_the_old_one_is_gone_and_comes_back(
        self, host: ContainersUnderTest
    ) -> None:
        before = await self._expect(host, FIRST, OLD)
        changed = await self._expect(host, SECOND, NEW)
        assert changed == before
        await self._expect(host, FIRST, OLD)

    async def test_with_the_container_its_secrets_go(self, host: ContainersUnderTest) -> None:
        await host.apply_one(self.with_secret(host, FIRST))
        await self._remove(host)
        assert not await host.bystander.list_secrets()

    async def test_a_container_without_them_leaves_none(self, host: ContainersUnderTest) -> None:
        await host.apply_one(self.with_secret(host, FIRST))
        await host.apply_one(self.container(host))
        assert not await host.bystander.list_secrets()
        assert await host.bystander.read_environment("web", "DB") is None

    async def test_one_that_somebody_deletes_or_makes_anew_is_drift(
        self, host: ContainersUnderTest
    ) -> None:
        desired = self.with_secret(host, FIRST)
        await host.apply_one(desired)
        for is_made_anew in (False, True):
            name = (await host.bystander.list_secrets())[0]
            await host.bystander.delete_secret(name)
            if is_made_anew:
                await host.bystander.make_secret(name, "somebody else's")
            planned = await host.plan_one(desired)
            assert planned.actions[0] == f"recreated: podman secret {name} changed"
            await self._expect(host, FIRST, OLD)

    async def test_what_cannot_be_made_leaves_what_runs_with_its_secrets(
        self, host: ContainersUnderTest
    ) -> None:
        names = await self._expect(host, FIRST, OLD)
        identity = await host.bystander.identity("web")
        error = await host.expect_failure(self.with_secret(host, SECOND, ports=NOWHERE))
        assert isinstance(error, ContainerFailed)
        assert NEW not in repr(error)
        assert await host.bystander.identity("web") == identity
        assert len(await host.bystander.list_secrets()) > names
        desired = self.with_secret(host, FIRST)
        assert (await host.apply_one(desired)).actions
        assert len(await host.bystander.list_secrets()) == names
        assert await host.bystander.identity("web") == identity
        assert not (await host.apply_one(desired)).actions

    async def test_without_its_value_nothing_is_made(self, host: ContainersUnderTest) -> None:
        error = await host.expect_failure(self.with_secret(host, THIRD))
        assert isinstance(error, SecretMissing)
        assert await host.containers.observe("web") is None
        assert not await host.bystander.list_secrets()

    async def _expect(self, host: ContainersUnderTest, word: str, value: str) -> int:
        """Have it made with *value*, look that it has it, and that nobody else is told; return of how many
        podman secrets."""
        change: Change = await host.apply_one(self.with_secret(host, word))
        assert isinstance(change.after, Running)
        assert await host.bystander.read_inside("web", TARGET) == value
        assert await host.bystander.read_environment("web", "DB") == f"postgres://me:{value}@db"
        told = repr(change) + repr(change.actions) + await host.bystander.tell_all("web")
        for line in (*OLD.splitlines(), *NEW.splitlines()):
            assert line not in told
        names = await host.bystander.list_secrets()
        assert all(each in told for each in names)
        return len(names)

    async def _remove(self, host: ContainersUnderTest) -> None:
        for _ in range(100):
            (change,) = await host.containers.remove(["web"], apply=True)
            if isinstance(change, Exception):
                pytest.fail(repr(change))
            if change.pending is None:
                return
            await host.bystander.pass_time(change.pending.look_again_s)
