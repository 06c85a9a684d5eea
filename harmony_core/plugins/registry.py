"""Which kinds of Score can be read here: collected from every installed package's entry point.

Each entry point is loaded on its own, so that one broken package costs only its own kinds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from types import MappingProxyType
from typing import TypeGuard

import pluggy
from pydantic import BaseModel, ValidationError

from harmony_core.close_names import did_you_mean
from harmony_core.errors import InvalidScore, UnknownKind, UnsupportedVersion
from harmony_core.former_spec import FormerSpec
from harmony_core.kind_error import KindError
from harmony_core.resources import first_problem
from harmony_core.score import AnyScore
from harmony_core.wire.manifest import SerializedScore

from . import spec
from .usable import why_unusable

__all__ = ["Registry", "load"]


_OWN = "harmony"


class Registry:
    """The kinds of Score that are installed, by name."""

    def __init__(
        self, scores: Iterable[type[AnyScore]] = (), *, errors: Iterable[KindError] = ()
    ) -> None:
        self._by_kind: Mapping[str, type[AnyScore]] = MappingProxyType(
            {score.kind: score for score in scores}
        )
        self.errors = tuple(errors)

    @property
    def kinds(self) -> Mapping[str, tuple[int, ...]]:
        """Every kind, with the versions of its specification that can be read."""
        return {kind: _versions(score) for kind, score in sorted(self._by_kind.items())}

    def __iter__(self) -> Iterator[type[AnyScore]]:
        return iter(self._by_kind.values())

    def find(self, kind: str) -> type[AnyScore]:
        """The class of *kind*, or `UnknownKind`."""
        try:
            return self._by_kind[kind]
        except KeyError:
            known = ", ".join(sorted(self._by_kind)) or "none"
            hint = did_you_mean(kind, self._by_kind)
            raise UnknownKind(
                f"no installed package provides the kind {kind!r}{hint} (known: {known}); "
                "install the package that does, here and on the device"
            ) from None

    def decode(self, entry: SerializedScore) -> AnyScore:
        """The Score that *entry* describes; `UnknownKind`, `UnsupportedVersion` or `InvalidScore`."""
        score = self.find(entry.kind)
        written_as = _of_version(score, entry)
        try:
            read = _upgrade(written_as.model_validate(entry.spec))
        except ValidationError as error:
            raise InvalidScore(f"{entry.kind}: {first_problem(error, written_as)}") from error
        except Exception as error:
            # A stranger's validator may raise anything.
            raise InvalidScore(f"{entry.kind}: {type(error).__name__}: {error}") from error
        if _is_of(read, score):
            return read
        raise InvalidScore(
            f"{entry.kind} version {entry.version} is upgraded to a {type(read).__name__}; "
            "its package must answer with the Score itself"
        )


def _versions(score: type[AnyScore]) -> tuple[int, ...]:
    return tuple(sorted({*(former.version for former in score.formers), score.version}))


def _of_version(score: type[AnyScore], entry: SerializedScore) -> type[BaseModel]:
    """What an entry of that version is read as."""
    if entry.version == score.version:
        return score
    for former in score.formers:
        if former.version == entry.version:
            return former
    known = " and ".join(map(str, _versions(score)))
    raise UnsupportedVersion(
        f"{entry.kind} version {entry.version} is not known here, only {known}; "
        "update the package that provides it"
    )


def _upgrade(read: BaseModel) -> BaseModel:
    while _is_former(read):
        read = read.upgraded()
    return read


def _is_former(read: BaseModel) -> TypeGuard[FormerSpec[BaseModel]]:
    return isinstance(read, FormerSpec)


def _is_of(read: BaseModel, score: type[AnyScore]) -> TypeGuard[AnyScore]:
    return isinstance(read, score)


def load() -> Registry:
    """Collect the Scores of every installed entry point in the group ``harmony``."""
    found: dict[str, tuple[type[AnyScore], str]] = {}
    errors: list[KindError] = []
    for entry_point in sorted(metadata.entry_points(group=spec.ENTRY_POINT_GROUP), key=_order):
        name = _describe(entry_point)
        try:
            provided = _provided_kinds(entry_point)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's package, on import
            errors.append(KindError(entry_point=name, reason=f"{type(error).__name__}: {error}"))
            continue
        for score in provided:
            reason = why_unusable(score)
            if reason is None and score.kind in found:
                reason = f"{score.kind} is already provided by {found[score.kind][1]}; keep one"
            if reason is None:
                found[score.kind] = (score, name)
            else:
                errors.append(KindError(entry_point=name, reason=reason))
    return Registry((score for score, _ in found.values()), errors=errors)


def _order(entry_point: metadata.EntryPoint) -> tuple[bool, str, str]:
    """The same on every machine. Harmony's own first: nobody takes their place by a name."""
    is_own = entry_point.dist is not None and entry_point.dist.name == _OWN
    return (not is_own, entry_point.value, entry_point.name)


def _provided_kinds(entry_point: metadata.EntryPoint) -> list[type[AnyScore]]:
    manager = pluggy.PluginManager(spec.ENTRY_POINT_GROUP)
    manager.add_hookspecs(spec)
    manager.register(entry_point.load(), name=entry_point.name)
    manager.check_pending()
    provided: list[Iterable[type[AnyScore]]] = manager.hook.harmony_scores()
    scores = [score for scores in provided for score in scores]
    if not scores:
        raise TypeError(
            f"{entry_point.value} provides no Score; "
            "it needs a function harmony_scores, marked with @impl, that returns them"
        )
    return scores


def _describe(entry_point: metadata.EntryPoint) -> str:
    package = f" ({entry_point.dist.name} {entry_point.dist.version})" if entry_point.dist else ""
    return f"{entry_point.name} = {entry_point.value}{package}"
