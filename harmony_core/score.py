"""Score: desired state, and how to reach it on any topology that can do what it needs.

::

    class MotdScore(Score[HasFiles]):
        text: str

        async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
            return outcome_of(await topology.files.ensure(File(path="/etc/motd", content=self.text.encode())))

A Score is *contravariant* in what it needs: one that needs less runs wherever one that needs more does.
So `list[Score[PiTopology]]` holds Scores of different needs, while a type checker refuses to push one
that needs what a Pi cannot offer. From the same annotation `requires` is derived for the checks at run
time, on the control plane and on the device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict

from .capabilities import capabilities_of
from .former_spec import FormerSpec
from .inventory import Inventory
from .outcome import Outcome

__all__ = ["AnyScore", "Score"]

TopologyT_contra = TypeVar("TopologyT_contra", contravariant=True)


class Score(BaseModel, ABC, Generic[TopologyT_contra]):
    """What somebody wants of a device. Subclass with the needs in brackets, fields, and `interpret`."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    kind: ClassVar[str]
    """The name on the wire: the class's own, unless the class says otherwise."""
    version: ClassVar[int] = 1
    """The version of the fields. Raise it when a field changes its meaning, or goes."""
    formers: ClassVar[tuple[type[FormerSpec[Any]], ...]] = ()
    """The earlier versions of the fields that can still be read: see `FormerSpec`."""
    needs: ClassVar[type]
    """The offer Protocol in the brackets."""
    requires: ClassVar[frozenset[str]] = frozenset()
    """The names of the capabilities needed, derived from the brackets; never written by hand."""

    @abstractmethod
    async def interpret(self, inventory: Inventory, topology: TopologyT_contra) -> Outcome:
        """Make the device match this Score, through *topology* only, and return what happened.

        Must be idempotent and must not wait: the capability raises for what is not ready yet, which becomes
        RUNNING, and the Score is interpreted again. May be cancelled between any two verbs.
        """

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if cls.__pydantic_generic_metadata__["origin"] is not None:
            return  # `Score[X]` itself, made by the annotation; not a Score that anybody wrote
        cls.needs = _needs(cls)
        cls.requires = capabilities_of(cls.needs)
        if "kind" not in cls.__dict__:
            cls.kind = cls.__name__
        if not cls.requires:
            raise TypeError(
                f"{cls.__name__} needs a topology that offers no capability; "
                "put an offer such as HasFiles in Score[…]"
            )


AnyScore: TypeAlias = Score[Any]


def _needs(score: type[AnyScore]) -> type:
    """Return ``X`` of the ``Score[X]`` that *score* derives from."""
    for base in score.__mro__:
        metadata = base.__dict__.get("__pydantic_generic_metadata__")
        if metadata and metadata["origin"] is Score:
            (needs,) = metadata["args"]
            if isinstance(needs, type):
                return needs
    raise TypeError(
        f"{score.__name__} must derive from Score[…] with an offer, not from bare Score"
    )
