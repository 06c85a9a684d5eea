"""Score: what it needs is derived from the brackets, once, when the class is declared."""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar

import pytest
from pydantic import ValidationError

from harmony_core import (
    File,
    HasContainers,
    HasFiles,
    HasSystemd,
    Inventory,
    Outcome,
    Score,
    outcome_of,
)
from harmony_core.capabilities import capabilities_of
from harmony_pi_topology import PiTopology
from harmony_scores import WebAppScore


class Motd(Score[HasFiles]):
    """A Score as its author writes it."""

    text: str

    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
        file = File(path="/etc/motd", content=self.text.encode())
        return outcome_of(await topology.files.ensure(file))


class Nothing(Protocol):
    @property
    def name(self) -> str: ...


def test_needs_and_kind_come_from_the_class() -> None:
    assert Motd.requires == {"FileSystemHost"}
    assert Motd.needs is HasFiles
    assert (Motd.kind, Motd.version) == ("Motd", 1)


def test_combined_needs_are_all_required() -> None:
    assert WebAppScore.requires == {"ContainerRuntime", "FileSystemHost"}


def test_a_whole_topology_may_be_needed() -> None:
    class Everything(Score[PiTopology]):
        async def interpret(self, inventory: Inventory, topology: PiTopology) -> Outcome:
            raise NotImplementedError

    assert Everything.requires == capabilities_of(PiTopology)
    assert Everything.requires >= {"ContainerRuntime", "FileSystemHost", "SystemdHost"}


def test_an_heir_needs_what_its_parent_needs_and_is_a_kind_of_its_own() -> None:
    class Greeting(Motd):
        text: str = "hello"

    assert Greeting.requires == {"FileSystemHost"}
    assert Greeting.kind == "Greeting"


def test_a_kind_and_a_version_may_be_given() -> None:
    class Renamed(Motd):
        kind = "MotdScore"
        version = 3

    assert (Renamed.kind, Renamed.version) == ("MotdScore", 3)


def test_needs_that_are_bound_late_are_found() -> None:
    topology_contra = TypeVar("topology_contra", contravariant=True)

    class Base(Score[HasSystemd], Generic[topology_contra]):
        async def interpret(self, inventory: Inventory, topology: HasSystemd) -> Outcome:
            raise NotImplementedError

    class Concrete(Base[HasContainers]):
        pass

    assert Concrete.requires == {"SystemdHost"}


def test_a_score_without_brackets_is_refused_where_it_is_declared() -> None:
    with pytest.raises(TypeError, match=r"must derive from Score\[…\] with an offer"):

        class Bare(Score):  # type: ignore[type-arg]  # pyright: ignore[reportMissingTypeArgument, reportUnusedClass]
            async def interpret(self, inventory: Inventory, topology: Any) -> Outcome:
                raise NotImplementedError


def test_a_score_that_needs_no_capability_is_refused_where_it_is_declared() -> None:
    with pytest.raises(TypeError, match="offers no capability; put an offer such as HasFiles"):

        class Idle(Score[Nothing]):  # pyright: ignore[reportUnusedClass]
            async def interpret(self, inventory: Inventory, topology: Nothing) -> Outcome:
                raise NotImplementedError


def test_a_score_is_immutable() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Motd(text="a").text = "b"  # type: ignore[misc]


def test_an_unknown_field_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="colour"):
        Motd.model_validate({"text": "a", "colour": "red"})


def test_json_there_and_back_is_the_same_score() -> None:
    score = Motd(text="grüß Gott")
    assert Motd.model_validate(score.model_dump(mode="json")) == score
