"""Containers in memory pass the contract of containers."""

from __future__ import annotations

import pytest

from harmony_core.change import Change
from harmony_core.errors import CapabilityUnavailable, ContainerFailed, ImageNotFound
from harmony_core.resources import Container, RegistryLogin, Running
from harmony_core.secret_values import secret_word
from harmony_pi_topology.testing.containers_contract import (
    CLAIMED_LABELS,
    PROGRAMS,
    ContainerRuntimeContract,
    ContainersUnderTest,
    ImagesUnderTest,
)
from harmony_pi_topology.testing.fake_containers import FakeContainers, Program


def image(letter: str, registry: str = "registry.test") -> str:
    return f"{registry}/web:1@sha256:{letter * 64}"


IMAGES = ImagesUnderTest(
    first=image("1"),
    second=image("2"),
    third=image("3"),
    with_volume=image("4"),
    missing=image("0"),
    unreachable=image("1", "down.test"),
)


class TestFakeContainers(ContainerRuntimeContract):
    @pytest.fixture
    def host(self) -> ContainersUnderTest:
        containers = FakeContainers(patient=False)
        containers.programs.update(PROGRAMS)
        containers.image_volumes[IMAGES.with_volume] = ("/data",)
        containers.missing_images.add(IMAGES.missing)
        containers.image_labels[IMAGES.with_volume] = CLAIMED_LABELS
        containers.unreachable_registries.add("down.test")
        return ContainersUnderTest(
            containers=containers,
            bystander=containers,
            images=IMAGES,
            reopen=lambda: containers,
            secret_values=containers.secret_values,
        )


WEB = Container(name="web", image=IMAGES.first)


async def test_unless_told_otherwise_a_container_has_settled_at_the_first_look() -> None:
    (change,) = await FakeContainers().converge([WEB], apply=True)
    assert isinstance(change, Change)
    assert isinstance(change.after, Running)
    assert change.pending is None


async def test_what_a_command_does_is_said_beforehand() -> None:
    containers = FakeContainers()
    containers.programs[("crash",)] = Program(exit_code=3, log=("out of cheese",))
    crashing = WEB.model_copy(update={"command": ("crash",)})
    (error,) = await containers.converge([crashing], apply=True)
    assert isinstance(error, ContainerFailed)
    assert error.message.endswith("\nout of cheese")


async def test_a_pull_may_take_several_looks() -> None:
    containers = FakeContainers()
    containers.looks_at_a_pull = 2
    for done in (0, 1000):
        (change,) = await containers.converge([WEB], apply=True)
        assert isinstance(change, Change)
        assert change.pending is not None
        assert change.pending.reason == "Progressing"
        assert change.pending.progress is not None
        assert (change.pending.progress.done, change.pending.progress.total) == (done, 2000)
    (change,) = await containers.converge([WEB], apply=True)
    assert isinstance(change, Change)
    assert change.actions == ("pulled", "created", "started")


async def test_a_fault_is_the_answer_to_everything_about_its_container() -> None:
    containers = FakeContainers()
    containers.faults["web"] = CapabilityUnavailable("podman does not answer")
    broken, fine = await containers.converge(
        [WEB, WEB.model_copy(update={"name": "second"})], apply=True
    )
    assert isinstance(broken, CapabilityUnavailable)
    assert isinstance(fine, Change)
    with pytest.raises(CapabilityUnavailable):
        await containers.observe("web")


async def test_an_empty_disk_holds_and_remembers_nothing() -> None:
    containers = FakeContainers()
    await containers.converge([WEB], apply=True)
    containers.forget_everything()
    assert await containers.observe("web") is None
    assert not await containers.has_image(WEB.image)


async def test_a_registry_may_want_a_login() -> None:
    containers, word = FakeContainers(), secret_word("app", "registry", "0" * 16)
    containers.logins["registry.test"] = ("boxes", "hunter2")
    containers.secret_values.put(word, "hunter2")
    (error,) = await containers.converge([WEB], apply=True)
    assert isinstance(error, ImageNotFound)
    login = RegistryLogin(username="boxes", password=word)
    (change,) = await containers.converge([WEB.model_copy(update={"login": login})], apply=True)
    assert isinstance(change, Change)
    (change,) = await containers.converge([WEB], apply=True)
    assert isinstance(change, Change)
    assert not change.changed
