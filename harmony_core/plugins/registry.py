"""Which kinds of Score can be read here: collected from every installed package's entry point.

Each entry point is loaded on its own, so that one broken package costs only its own kinds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeGuard

from pydantic import BaseModel, ValidationError

from harmony_core.close_names import did_you_mean
from harmony_core.errors import InvalidScore, UnknownKind, UnsupportedVersion
from harmony_core.former_spec import FormerSpec
from harmony_core.kind_error import KindError
from harmony_core.resources import first_problem
from harmony_core.score import AnyScore
from harmony_core.wire.manifest import SerializedScore

from .deferred import DeferredScore
from .provider import Provider, load_providers
from .usable import is_score, versions_of, why_unusable

__all__ = ["Registry", "load"]


class Registry:
    """The kinds of Score that are installed, by name."""

    def __init__(
        self,
        scores: Iterable[type[AnyScore] | DeferredScore] = (),
        *,
        errors: Iterable[KindError] = (),
        providers: Iterable[Provider] = (),
    ) -> None:
        self._by_kind = {score.kind: score for score in scores}
        self.errors = tuple(errors)
        self.providers = tuple(providers)
        """The packages that were loaded; what else they offer is asked for on a device: see `offered`."""

    def with_errors(self, errors: Iterable[KindError]) -> Registry:
        """Return a registry of the same kinds, which has *errors* beside those that are known."""
        scores = self._by_kind.values()
        return Registry(scores, errors=(*self.errors, *errors), providers=self.providers)

    @property
    def kinds(self) -> Mapping[str, tuple[int, ...]]:
        """Every kind, with the versions of its specification that can be read."""
        return {
            kind: score.versions if isinstance(score, DeferredScore) else versions_of(score)
            for kind, score in sorted(self._by_kind.items())
        }

    def __iter__(self) -> Iterator[type[AnyScore]]:
        """Yield every class; one that was deferred is imported."""
        return (self.find(kind) for kind in self._by_kind)

    def find(self, kind: str) -> type[AnyScore]:
        """Return the class of *kind*, or `UnknownKind`."""
        try:
            found = self._by_kind[kind]
        except KeyError:
            known = ", ".join(sorted(self._by_kind)) or "none"
            hint = did_you_mean(kind, self._by_kind)
            raise UnknownKind(
                f"no installed package provides the kind {kind!r}{hint} (known: {known}); "
                "install the package that does, here and on the device"
            ) from None
        if isinstance(found, DeferredScore):
            found = self._by_kind[kind] = found.load()
        return found

    def decode(self, entry: SerializedScore) -> AnyScore:
        """Return the Score that *entry* describes; `UnknownKind`, `UnsupportedVersion` or `InvalidScore`."""
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


def _of_version(score: type[AnyScore], entry: SerializedScore) -> type[BaseModel]:
    """Return the class as which an entry of that version is read."""
    if entry.version == score.version:
        return score
    for former in score.formers:
        if former.version == entry.version:
            return former
    known = " and ".join(map(str, versions_of(score)))
    raise UnsupportedVersion(
        f"{entry.kind} version {entry.version} is not known here, only {known}; "
        "update the package that provides it"
    )


def _upgrade(read: BaseModel) -> BaseModel:
    while _is_former(read):
        read = read.upgrade()
    return read


def _is_former(read: BaseModel) -> TypeGuard[FormerSpec[BaseModel]]:
    return isinstance(read, FormerSpec)


def _is_of(read: BaseModel, score: type[AnyScore]) -> TypeGuard[AnyScore]:
    return isinstance(read, score)


def load() -> Registry:
    """Collect what every installed entry point in the group ``harmony`` provides."""
    found: dict[str, tuple[type[AnyScore] | DeferredScore, str]] = {}
    providers, errors = load_providers()
    for provider in providers:
        try:
            scores = provider.scores()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's hook
            errors.append(provider.failed(error))
            continue
        if not (scores or provider.has_capabilities):
            errors.append(
                provider.wrong("provides no Score; its function harmony_scores must return them")
            )
        for score in scores:
            reason = None if isinstance(score, DeferredScore) else why_unusable(score)
            if reason is not None or not (isinstance(score, DeferredScore) or is_score(score)):
                errors.append(provider.wrong(reason or f"{score!r} is no Score"))
            elif score.kind in found:
                holder = found[score.kind][1]
                errors.append(
                    provider.wrong(f"{score.kind} is already provided by {holder}; keep one")
                )
            else:
                found[score.kind] = (score, provider.description)
    return Registry((score for score, _ in found.values()), errors=errors, providers=providers)
