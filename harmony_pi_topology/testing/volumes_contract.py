"""What every host of volumes must do: `VolumeHost`, as tests."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

import attrs
import pytest

from harmony_core.errors import InUse, InvalidResource, NotOurs
from harmony_core.resources import Volume
from harmony_core.testing.capability_contract import CapabilityContract, CapabilityUnderTest
from harmony_core.testing.capability_contract import Outsider as AnyOutsider

__all__ = ["VolumeHostContract", "VolumeOutsider", "VolumesUnderTest"]


class VolumeOutsider(AnyOutsider, Protocol):
    """Somebody else at the same place, who knows how to use podman."""

    def write(self, name: str, content: str) -> None:
        """Put *content* into the volume."""

    def read(self, name: str) -> str:
        """Return what is in it; "" where nothing is."""
        ...

    def use(self, name: str) -> None:
        """Make a container that has it, and does not run."""

    def release(self, name: str) -> None:
        """Remove that container."""


@attrs.frozen(kw_only=True)
class VolumesUnderTest(CapabilityUnderTest[Volume]):
    """As `CapabilityUnderTest`, of volumes whose data goes with them."""

    outsider: VolumeOutsider


class VolumeHostContract(CapabilityContract[Volume]):
    """Subclass with a name that pytest collects, and a fixture `host`."""

    @pytest.fixture
    @abstractmethod
    def host(self) -> VolumesUnderTest:
        """Return a place where nothing was made yet."""
        raise NotImplementedError

    async def test_a_dry_run_of_a_change_changes_nothing_either(
        self, host: CapabilityUnderTest[Volume]
    ) -> None:
        """What may change is only whether the data goes with it, and the volume stays."""
        await host.applied(host.wish)
        identity = host.outsider.identity(host.wish.key)
        planned = await host.planned(host.changed)
        assert planned.actions == ("delete_data yes → no",)
        assert (await host.applied(host.changed)).actions == planned.actions
        assert not (await host.applied(host.changed)).changed
        assert host.outsider.identity(host.wish.key) == identity
        await host.applied(host.wish)

    @pytest.mark.parametrize("turns", [0, 1, 3, 8])
    async def test_cut_short_at_any_turn_it_is_made_whole_by_the_next_call(
        self, host: CapabilityUnderTest[Volume], turns: int
    ) -> None:
        same = attrs.evolve(host, changed=host.wish)
        await super().test_cut_short_at_any_turn_it_is_made_whole_by_the_next_call(same, turns)

    async def test_other_labels_are_refused_since_its_data_would_go(
        self, host: VolumesUnderTest
    ) -> None:
        await host.applied(host.wish)
        host.outsider.write(host.wish.name, "data")
        other = host.wish.model_copy(update={"labels": {"com.acme.of": "another"}})
        for apply in (False, True):
            (error,) = await host.reconciler.converge([other], apply=apply)
            assert isinstance(error, InvalidResource)
        assert host.outsider.read(host.wish.name) == "data"

    async def test_without_delete_data_its_data_outlives_it_and_is_found_again(
        self, host: VolumesUnderTest
    ) -> None:
        await host.applied(host.changed)
        host.outsider.write(host.wish.name, "data")
        (planned,) = await host.reconciler.remove([host.wish.key], apply=False)
        kept = await host.removed(host.wish.key)
        assert not isinstance(planned, Exception)
        assert kept.actions == planned.actions
        assert kept.actions[0].startswith(f"kept volume {host.wish.name} and its data")
        assert host.outsider.read(host.wish.name) == "data"
        assert not (await host.removed(host.wish.key)).changed
        assert not (await host.applied(host.changed)).changed
        assert host.outsider.read(host.wish.name) == "data"

    async def test_with_delete_data_the_plan_says_that_it_goes(
        self, host: VolumesUnderTest
    ) -> None:
        await host.applied(host.wish)
        told = f"deleted volume {host.wish.name} with all its data"
        (planned,) = await host.reconciler.remove([host.wish.key], apply=False)
        assert not isinstance(planned, Exception)
        assert planned.actions == (told,)
        assert (await host.removed(host.wish.key)).actions == (told,)

    async def test_what_a_container_has_is_not_deleted(self, host: VolumesUnderTest) -> None:
        await host.applied(host.wish)
        host.outsider.write(host.wish.name, "data")
        host.outsider.use(host.wish.name)
        (error,) = await host.reconciler.remove([host.wish.key], apply=True)
        assert isinstance(error, InUse)
        assert host.outsider.read(host.wish.name) == "data"
        host.outsider.release(host.wish.name)
        assert (await host.removed(host.wish.key)).changed
        assert host.outsider.identity(host.wish.key) is None

    async def test_a_strangers_is_neither_taken_nor_changed(self, host: VolumesUnderTest) -> None:
        name = host.outsider.make_foreign()
        identity = host.outsider.identity(name)
        (error,) = await host.reconciler.converge([Volume(name=name)], apply=True)
        assert isinstance(error, NotOurs)
        assert host.outsider.identity(name) == identity
