"""Containers on real podman, in a box: the contract, and what only a real one can show."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from harmony_core.testing import ContainerRuntimeContract, ContainersUnderTest, ImagesUnderTest
from tests.box import Bed, Box
from tests.topology.box_containers import emptied, pushed_images, under_test


@pytest.fixture(scope="module")
def images(bed: Bed) -> ImagesUnderTest:
    return pushed_images(bed.registry)


@pytest.fixture
async def host(pi: Box, images: ImagesUnderTest) -> AsyncGenerator[ContainersUnderTest]:
    emptied(pi)
    host, bystander = under_test(pi, images)
    yield host
    await bystander.close()


class TestPodmanInABox(ContainerRuntimeContract):
    @pytest.fixture
    async def host(self, pi: Box, images: ImagesUnderTest) -> AsyncGenerator[ContainersUnderTest]:
        emptied(pi)
        host, bystander = under_test(pi, images)
        yield host
        await bystander.close()
