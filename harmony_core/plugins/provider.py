"""One installed package's entry point, loaded: what its hooks answer, and what to call it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

import attrs
import pluggy

from harmony_core.kind_error import KindError

from . import spec

if TYPE_CHECKING:
    from harmony_core.place import Place

__all__ = ["OWN", "Provider", "load_providers"]

OWN = "harmony"
"""The package that is Harmony itself."""


@attrs.frozen(kw_only=True)
class Provider:
    """A module that a package's entry point names."""

    package: str
    """The name under which it is installed, such as harmony-udev."""
    description: str
    """How it is called where it is listed: ``udev = harmony_udev (harmony-udev 1.0)``."""
    has_capabilities: bool
    hook: Any = attrs.field(repr=False)

    def scores(self) -> list[object]:
        """Call the hook `harmony_scores`. Raises whatever it raises."""
        return [score for scores in self.hook.harmony_scores() for score in scores]

    def capabilities(self, place: Place) -> list[Mapping[object, object]]:
        """Call the hook `harmony_capabilities`. Raises whatever it raises."""
        return list(self.hook.harmony_capabilities(place=place))

    def failed(self, error: BaseException) -> KindError:
        """Say that this one provides less than it says, because of *error*."""
        return self.wrong(f"{type(error).__name__}: {error}")

    def wrong(self, reason: str) -> KindError:
        """Say that this one provides less than it says, and why."""
        return KindError(entry_point=self.description, reason=reason)


def load_providers() -> tuple[list[Provider], list[KindError]]:
    """Import what every entry point of the group ``harmony`` names, in an order that is the same everywhere.

    Harmony's own come first. One that cannot be imported is an error, and costs nothing but itself.
    """
    providers: list[Provider] = []
    errors: list[KindError] = []
    for package, description, entry_point in _entry_points():
        try:
            providers.append(_loaded(entry_point, package, description))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's package, on import
            reason = f"{type(error).__name__}: {error}"
            errors.append(KindError(entry_point=description, reason=reason))
    return providers, errors


def _entry_points() -> list[tuple[str, str, metadata.EntryPoint]]:
    """Find every entry point, with its package's name and its description, in the order of loading."""
    packages: dict[int, tuple[str, str]] = {}
    found: list[tuple[str, str, metadata.EntryPoint]] = []
    for each in metadata.entry_points(group=spec.ENTRY_POINT_GROUP):
        # A package's name and version are read from a file, and parsed, whenever they are asked for.
        if id(each.dist) not in packages:
            packages[id(each.dist)] = (each.dist.name, each.dist.version) if each.dist else ("", "")
        package, version = packages[id(each.dist)]
        in_package = f" ({package} {version})" if package else ""
        found.append((package, f"{each.name} = {each.value}{in_package}", each))
    return sorted(found, key=_order)


def _order(found: tuple[str, str, metadata.EntryPoint]) -> tuple[bool, str, str]:
    """The same on every machine. Harmony's own first: nobody takes their place by a name."""
    package, _, entry_point = found
    return (package != OWN, entry_point.value, entry_point.name)


def _loaded(entry_point: metadata.EntryPoint, package: str, description: str) -> Provider:
    manager = pluggy.PluginManager(spec.ENTRY_POINT_GROUP)
    manager.add_hookspecs(spec)
    manager.register(entry_point.load(), name=entry_point.name)
    manager.check_pending()
    has_capabilities = bool(manager.hook.harmony_capabilities.get_hookimpls())
    if not (has_capabilities or manager.hook.harmony_scores.get_hookimpls()):
        raise TypeError(
            f"{entry_point.value} provides no Score and no capability; it needs a function "
            "harmony_scores or harmony_capabilities, marked with @impl, that returns them"
        )
    return Provider(
        package=package,
        description=description,
        has_capabilities=has_capabilities,
        hook=manager.hook,
    )
