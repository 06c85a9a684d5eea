"""Logins at registries, in a compose file: ``x-harmony-login``, by registry.

    ghcr.io: {username, password} -> the `login` of every service whose image is from there

What is said of a part of a registry goes before what is said of the whole, as podman has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, cast

import attrs
from pydantic import TypeAdapter, ValidationError

from harmony_core.images import parse_image
from harmony_core.resources import RegistryLogin, RegistryPlace, all_problems

from .keys import LOGINS
from .project import ComposeProject
from .report import Report
from .sources import Spec

__all__ = ["Logins"]

_FORM = 'write registries, as in ghcr.io: {username: me, password: "${secret.NAME}"}'
_PLACE: TypeAdapter[str] = TypeAdapter(RegistryPlace)


@attrs.frozen(slots=False)
class Logins:
    """Those of one project. What is wrong with them is reported when they are first asked for."""

    project: ComposeProject
    report: Report
    _used: set[str] = attrs.field(factory=set[str], init=False)

    def find_for(self, image: str) -> Spec | None:
        """Return the fields of the login for *image*; None where there is none."""
        try:
            found = parse_image(image)
        except ValueError:
            return None  # the container's own model says so
        name = f"{found.registry}/{found.repository}/"
        places = [each for each in self._by_place if name.startswith(f"{each}/")]
        if not places:
            return None
        place = max(places, key=len)
        self._used.add(place)
        return self._by_place[place]

    def note_unused(self) -> None:
        """Note the logins for which no service has an image."""
        for place in self._by_place.keys() - self._used:
            told = "no service has an image from there, so nothing is done with it"
            self.report.note((LOGINS, place), told)

    @cached_property
    def _by_place(self) -> Mapping[str, Spec]:
        said: Any = self.project.document.get(LOGINS)
        if said is None:
            return {}
        if not isinstance(said, dict):
            self.report.refuse((LOGINS,), _FORM)
            return {}
        found: dict[str, Spec] = {}
        for place, login in cast("Mapping[object, Any]", said).items():
            if not isinstance(login, dict):
                self.report.refuse((LOGINS, str(place)), _FORM)
                continue
            try:
                checked = RegistryLogin.model_validate(login)
                found[_PLACE.validate_python(place)] = checked.model_dump(mode="json")
            except ValidationError as error:
                for below, told in all_problems(error, RegistryLogin):
                    words = told.removeprefix(".".join(map(str, below)) + ": ")
                    self.report.refuse((LOGINS, str(place), *below), words)
        return found
