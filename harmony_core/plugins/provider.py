"""One installed package's entry point, loaded: what its hooks answer, and what to call it.

A package is called what its metadata says, and anybody can write there that it is Harmony. Harmony itself
is the one that brought the very file from which `harmony_core` was loaded; others of that name are refused:

    its list of installed files (RECORD) has that file  as installers of wheels write it
    it is installed to be edited, from that folder      as `make setup` does
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

import attrs
import pluggy

from harmony_core.kind_error import KindError

from . import spec

if TYPE_CHECKING:
    from harmony_core.place import Place

__all__ = ["OWN", "Provider", "load_providers"]

OWN: Final = "harmony"
"""The package that is Harmony itself."""
_OWN_FILE: Final = "harmony_core/__init__.py"
_LOADED_FROM: Final = Path(__file__).parents[2]


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
        """Note that this provider offers less than it announces, because of *error*."""
        return self.wrong(f"{type(error).__name__}: {error}")

    def wrong(self, reason: str) -> KindError:
        """Note that this provider offers less than it announces, and why."""
        return KindError(entry_point=self.description, reason=reason)


def load_providers() -> tuple[list[Provider], list[KindError]]:
    """Import what every entry point of the group ``harmony`` names, in an order that is the same everywhere.

    Harmony's own come first. One that cannot be imported is an error, and costs nothing but itself.
    """
    providers: list[Provider] = []
    errors: list[KindError] = []
    own: dict[tuple[str, str], _Package] = {}
    for package, entry_point in sorted(_packages(), key=_order):
        description = f"{entry_point.name} = {entry_point.value} ({package.name} {package.version})"
        known = (entry_point.name, entry_point.value)
        refused = package.why_refused(own.get(known))
        if package.is_own:
            own.setdefault(known, package)
        if refused is not None:
            errors.append(KindError(entry_point=description, reason=refused))
            continue
        try:
            providers.append(_loaded(entry_point, package.name, description))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's package, on import
            reason = f"{type(error).__name__}: {error}"
            errors.append(KindError(entry_point=description, reason=reason))
    return providers, errors


@attrs.frozen(kw_only=True, eq=False)
class _Package:
    """An installed package that has entry points for Harmony."""

    name: str
    version: str
    directory: Path
    is_own: bool

    def why_refused(self, same: _Package | None) -> str | None:
        """Return why an entry point of it is not loaded; None if it is. *same* is Harmony in another version,
        where that has the same entry point."""
        if self.is_own and same is not None:
            return (
                f"Harmony is installed twice in {self.directory}, as {same.version} and as {self.version}, "
                "such as by an update that was interrupted; delete the .dist-info directory of the one that "
                "was replaced, or install Harmony anew in an empty environment"
            )
        if not self.is_own and _normalize(self.name) == OWN:
            return (
                f"the package in {self.directory} calls itself {self.name}, and Harmony itself was loaded "
                f"from {_LOADED_FROM}; uninstall that package, or have it made under another name"
            )
        return None


def _packages() -> Iterator[tuple[_Package, metadata.EntryPoint]]:
    """Find every entry point, with its package.

    Of two packages of one name Python takes the first. Which one is Harmony itself is told by more than the
    name, so all of that name are found.
    """
    names: set[str] = set()
    for each in metadata.distributions():
        entry_points = each.entry_points.select(group=spec.ENTRY_POINT_GROUP)
        if not entry_points:
            continue
        # A package's name and version are read from a file, and parsed, whenever they are asked for.
        name = each.name
        normalized = _normalize(name)
        if normalized in names:
            continue
        if normalized != OWN:
            names.add(normalized)
        package = _Package(
            name=name,
            version=each.version,
            directory=Path(str(each.locate_file(""))),
            is_own=normalized == OWN and _has_brought_us(each),
        )
        yield from ((package, entry_point) for entry_point in entry_points)


def _order(found: tuple[_Package, metadata.EntryPoint]) -> tuple[bool, str, str]:
    """Return the key to sort by: the same on every machine, and Harmony's own first, so that nobody takes
    their place by a name."""
    package, entry_point = found
    return (not package.is_own, entry_point.value, entry_point.name)


def _normalize(name: str) -> str:
    """Return the form in which names of packages are compared, as the specification of packages says."""
    return re.sub(r"[-_.]+", "-", name or "").lower()


def _has_brought_us(package: metadata.Distribution) -> bool:
    """Return whether *package* installed the file from which this code was loaded."""
    files = package.read_text("RECORD") or ""
    if any(line.startswith(f"{_OWN_FILE},") for line in files.splitlines()):
        there = Path(str(package.locate_file(_OWN_FILE)))
        if there.exists() and there.samefile(_LOADED_FROM / _OWN_FILE):
            return True
    return _edited_in(package) == _LOADED_FROM.resolve()


def _edited_in(package: metadata.Distribution) -> Path | None:
    """Return the folder from which *package* is installed as editable."""
    try:
        origin: Any = json.loads(package.read_text("direct_url.json") or "{}")
        if origin["dir_info"]["editable"]:
            return Path(unquote(urlsplit(str(origin["url"])).path)).resolve()
    except (KeyError, TypeError, ValueError):
        pass
    return None


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
