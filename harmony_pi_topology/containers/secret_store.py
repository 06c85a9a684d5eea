"""The secrets of containers, in podman's own store, which no `podman inspect` shows.

    texts with words -> a podman secret each, whose name is bound to the words, so to the secrets' versions
                     -> made before the container, which is labelled with their ids
                     -> gone once no container has them

A value is put in here alone, as podman is given it. Whether podman's store holds what is wanted is told by
the ids: podman gives a new one to whatever takes a secret's place, and changes none. The names are on
record before anything is made, so that whatever cuts this short, nothing stays for good.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping

import attrs
from pydantic import TypeAdapter, ValidationError

from harmony_core.reconciler import Records
from harmony_core.resources import Container, resource_id
from harmony_core.secret_values import SecretValues, find_words

from .podman import Podman
from .podman_reply import FoundContainer
from .spec import RESOURCE_LABEL

__all__ = [
    "SECRETS_LABEL",
    "ContainerSecrets",
    "call_as_in_force",
    "find_secret_texts",
    "name_secret",
]

SECRETS_LABEL = "harmony.secrets"
"""With which podman secrets it was made: their ids by name."""

_NAME_CHARACTERS = 39
"""podman before 4.5 takes no name of more than 64 characters."""
_LABEL = TypeAdapter(dict[str, str])


def find_secret_texts(container: Container) -> Mapping[str, str]:
    """Return the texts of *container* that contain secret words, by the names of their podman secrets."""
    texts = [text for text in container.environment.values() if find_words(text)]
    texts += [each.content for each in container.secrets]
    return {name_secret(container.name, text): text for text in texts}


def name_secret(container: str, text: str) -> str:
    """Return the name of the podman secret for *text*, which contains secret words: another for each
    version."""
    return f"{_prefix(container)}{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def call_as_in_force(container: Container, values: SecretValues) -> Container:
    """Return *container* with the secret words that are in force, for comparison with what exists."""
    if not container.find_secret_words():
        return container
    environment = {
        name: values.call_as_in_force(text) for name, text in container.environment.items()
    }
    secrets = tuple(
        each.model_copy(update={"content": values.call_as_in_force(each.content)})
        for each in container.secrets
    )
    return container.model_copy(update={"environment": environment, "secrets": secrets})


@attrs.frozen
class ContainerSecrets:
    """Those of one podman."""

    _podman: Podman
    _records: Records
    _values: SecretValues

    def call_as_in_force(self, container: Container) -> Container:
        """Return *container* with the secret words that are in force: see the function of this name."""
        return call_as_in_force(container, self._values)

    def reveal_login(self, container: Container) -> tuple[str, str] | None:
        """Return the user name and password for fetching its image; None where there is no login. Raise
        `SecretMissing`."""
        if (login := container.login) is None:
            return None
        return login.username, self._values.reveal_text(login.password)

    async def find_altered(self, found: FoundContainer | None) -> frozenset[str]:
        """Return the names of the podman secrets of *found* that are gone, or that somebody made anew."""
        made_with = _read_label(found)
        if not made_with:
            return frozenset()
        there = await self._podman.list_secrets()
        return frozenset(name for name, each in made_with.items() if there.get(name) != each)

    async def provide(
        self, container: Container, others: Iterable[FoundContainer | None]
    ) -> Mapping[str, str]:
        """Store the secrets of *container* in podman. Return their ids by name. Raise `SecretMissing`.

        A secret that one of *others*, the containers made for it before, uses keeps the value that it had.
        """
        made_with: dict[str, str] = {}
        for other in others:
            made_with.update(_read_label(other))
        contents = {
            name: self._values.reveal(text.encode())
            for name, text in find_secret_texts(container).items()
        }
        await self._note(container.name, {*made_with, *contents} | self._read_noted(container.name))
        if not contents:
            return {}
        there = await self._podman.list_secrets()
        ids: dict[str, str] = {}
        for name, content in contents.items():
            if name in there and there[name] != made_with.get(name):
                await self._podman.remove_secret(name)
                del there[name]
            if name not in there:
                labels = {RESOURCE_LABEL: container.id}
                there[name] = await self._podman.create_secret(name, content, labels)
            ids[name] = there[name]
        return ids

    def find_left(self, container: Container, found: FoundContainer | None) -> frozenset[str]:
        """Return the names of podman secrets that were made for *container*, and that neither it wants nor
        *found*, which has its name, uses: leftovers of an interruption."""
        noted = self._read_noted(container.name)
        return noted - {*_read_label(found), *find_secret_texts(container)} if noted else noted

    async def keep_only(self, container: Container, there: Iterable[FoundContainer | None]) -> None:
        """Remove the podman secrets that were made for *container*, and that neither it wants nor one of
        *there* uses."""
        kept = {*find_secret_texts(container)}
        kept.update(*map(_read_label, there))
        await self._remove_all_but(kept, container.name)

    async def forget(self, name: str, found: FoundContainer | None) -> None:
        """Remove the secrets of the container *name*, last seen as *found*, which is gone."""
        await self._note(name, self._read_noted(name) | {*_read_label(found)})
        await self._remove_all_but(set(), name)

    async def _remove_all_but(self, kept: Collection[str], name: str) -> None:
        noted = self._read_noted(name)
        for each in sorted(noted.difference(kept)):
            await self._podman.remove_secret(each)
        if left := noted.intersection(kept):
            await self._note(name, left)
        elif noted:
            await self._records.forget(_record(name))

    def _read_noted(self, name: str) -> frozenset[str]:
        return frozenset(self._records.get(_record(name)) or ())

    async def _note(self, name: str, names: Collection[str]) -> None:
        if names:
            await self._records.put(_record(name), dict.fromkeys(sorted(names), True))


def _read_label(found: FoundContainer | None) -> Mapping[str, str]:
    """Return the ids of the podman secrets with which *found* was made, by name."""
    if found is None or not found.labels.get(SECRETS_LABEL):
        return {}
    try:
        made_with = _LABEL.validate_json(found.labels[SECRETS_LABEL])
    except ValidationError:
        return {}
    prefix = _prefix(found.labels.get(RESOURCE_LABEL, "").partition(":")[2])
    # Nobody else's is ever removed, whatever a label says.
    return {name: each for name, each in made_with.items() if name.startswith(prefix)}


def _prefix(container: str) -> str:
    fits = len(container) <= _NAME_CHARACTERS
    short = container if fits else hashlib.sha256(container.encode()).hexdigest()
    return f"harmony-{short[:_NAME_CHARACTERS]}-"


def _record(name: str) -> str:
    return f"{resource_id(Container.resource_type, name)}#secrets"
