"""Which capabilities the installed packages offer on this device: each asked alone, ours like anybody else's.

    provider.capabilities(place) -> {name: reconciler, or the reason why not} -> checked -> Offering

Of two that claim one capability, or one resource type, the first keeps it, and ours come first; the device's
owner may give a capability to another package (`[topology.use]` in agent.toml). Whoever is named there and
does not offer it leaves it unoffered: nothing of ours steps in for it unseen.
"""

from __future__ import annotations

import errno
import inspect
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeGuard

import attrs

from harmony_core.kind_error import KindError
from harmony_core.reconciler import AnyReconciler
from harmony_core.resources import Resource

from .provider import Provider

if TYPE_CHECKING:
    from harmony_core.place import Place

__all__ = ["Offering", "offered"]

_VERBS = ("converge", "observe", "remove", "availability", "watch", "close")
_USED_UP = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_RESOURCE_TYPE = re.compile(r"[a-z][a-z0-9_-]{0,62}")


@attrs.frozen(kw_only=True)
class Offering:
    """What is offered, why the rest is not, and which packages offer less than they say."""

    offers: Mapping[str, AnyReconciler]
    missing: Mapping[str, str]
    errors: tuple[KindError, ...]
    unused: tuple[AnyReconciler, ...]
    """Reconcilers that were made and are not used; they are closed like the others."""


def offered(
    providers: Iterable[Provider], place: Place, use: Mapping[str, str] | None = None
) -> Offering:
    """Ask every provider what it offers at *place*.

    *use* says of which package a capability is to be taken, by the capability's name, where it is not the
    first that offers it. Raises nothing for what a stranger's hook does; `OSError` where the device has no
    descriptors or memory left, so that who begins anew finds all of it.
    """
    chosen = use or {}
    found = _Found(chosen)
    for provider in providers:
        if not provider.has_capabilities:
            continue
        try:
            answers = [dict(answer) for answer in provider.capabilities(place)]
        except (Exception, SystemExit) as error:
            if isinstance(error, OSError) and error.errno in _USED_UP:
                raise  # the device has none left for anybody: nothing is known of what is offered here
            found.errors.append(provider.failed(error))
            continue
        for answer in answers:
            for name, value in answer.items():
                found.take(provider, name, value)
    for name, package in chosen.items():
        if name not in found.by:
            reason = (
                f"agent.toml says that it comes from the package {package}, which does not offer it "
                f"here; install it, or take {name} out of [topology.use]"
            )
            found.missing.setdefault(name, reason)
    return Offering(
        offers=found.offers,
        missing=found.missing,
        errors=tuple(found.errors),
        unused=tuple(found.unused),
    )


class _Found:
    def __init__(self, chosen: Mapping[str, str]) -> None:
        self.offers: dict[str, AnyReconciler] = {}
        self.missing: dict[str, str] = {}
        self.errors: list[KindError] = []
        self.unused: list[AnyReconciler] = []
        self.by: dict[str, Provider] = {}
        self._chosen = chosen

    def take(self, provider: Provider, name: object, value: object) -> None:
        """Offer *value* as the capability *name*, unless it is another's or something is wrong with it."""
        if not isinstance(name, str) or not name.isidentifier():
            problem = (
                f"{name!r} names no capability; write its Protocol's name, as in 'FileSystemHost'"
            )
            self._refuse(provider, problem, value)
        elif self._chosen.get(name, provider.package) != provider.package:
            self._leave(value)  # the device's owner wants another's: no error of this one
        elif (holder := self.by.get(name)) is not None:
            problem = (
                f"{name} is already provided by {holder.description}; to have it from "
                f'{provider.package}, write {name} = "{provider.package}" under [topology.use] in '
                "/etc/harmony/agent.toml"
            )
            self._refuse(provider, problem, value)
        elif (unfit := self._unfit(name, value)) is not None:
            self._refuse(provider, unfit, value)
            self.missing.setdefault(name, f"{provider.description} fails to offer it: {unfit}")
        else:
            self.by[name] = provider
            self.missing.pop(name, None)
            if isinstance(value, str):
                self.missing[name] = value
            elif _is_reconciler(value):
                self.offers[name] = value

    def _refuse(self, provider: Provider, problem: str, value: object) -> None:
        self.errors.append(provider.wrong(problem))
        self._leave(value)

    def _leave(self, value: object) -> None:
        if _is_reconciler(value):
            self.unused.append(value)

    def _unfit(self, name: str, value: object) -> str | None:
        """Return why *value* cannot be the capability *name*."""
        if isinstance(value, str):
            return None if value.strip() else f"{name}: an empty reason says nothing; write why"
        if not _is_reconciler(value):
            return (
                f"{name}: {value!r} is neither a reconciler nor the reason why there is none; "
                f"a reconciler has {', '.join(_VERBS)}"
            )
        resource_class: object = getattr(value, "resource_class", None)
        if not inspect.isclass(resource_class) or not issubclass(resource_class, Resource):
            return f"{name}: its resource_class is {resource_class!r}, not a class derived from Resource"
        resource_type: object = getattr(resource_class, "resource_type", None)
        if not isinstance(resource_type, str) or not _RESOURCE_TYPE.fullmatch(resource_type):
            return (
                f"{name}: {resource_class.__name__}.resource_type is {resource_type!r}; write a word of "
                "lower-case letters, digits and hyphens"
            )
        for other, reconciler in self.offers.items():
            if other != name and reconciler.resource_class.resource_type == resource_type:
                return (
                    f"{name}: the resource type {resource_type!r} is {other}'s, of "
                    f"{self.by[other].description}; choose another word"
                )
        return None


def _is_reconciler(value: object) -> TypeGuard[AnyReconciler]:
    return not inspect.isclass(value) and all(callable(getattr(value, v, None)) for v in _VERBS)
