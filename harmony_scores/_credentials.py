"""Credentials of a service: files that only root can read, and that systemd alone hands to the program.

    its directory (0700) -> a file for each (0600) -> the unit, which names and uses them

So a value stands neither in the unit nor in its environment. That of ``${secret.…}`` is put in as the file is
written, as into any other. One that changes has the service restarted, which ``uses`` it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Protocol

from pydantic import AfterValidator

from harmony_core import Changes, Directory, File, HasDirectories, HasFiles, HasSystemd
from harmony_core.content import WholeText
from harmony_core.credentials import (
    CREDENTIAL_BLOCK_BYTES,
    CREDENTIALS_MAX_BYTES,
    credentials_directory,
)
from harmony_core.errors import InvalidResource
from harmony_core.resources import CredentialName, PresentAt, SystemdUnit, resource_id

__all__ = ["Credentials", "ServiceHost", "find_credentials", "provide_credentials"]


def _not_too_much(credentials: dict[str, str]) -> dict[str, str]:
    _refuse_too_much({name: len(text.encode()) for name, text in credentials.items()})
    return credentials


def _refuse_too_much(sizes: Mapping[str, int]) -> None:
    """Raise ValueError where credentials of these *sizes* in bytes, by name, are more than systemd
    accepts."""
    size_bytes = sum(len(name) + each for name, each in sizes.items())
    blocks = sum(-(-each // CREDENTIAL_BLOCK_BYTES) for each in sizes.values())
    taken_bytes = max(size_bytes, blocks * CREDENTIAL_BLOCK_BYTES)
    if taken_bytes > CREDENTIALS_MAX_BYTES:
        largest = max(sizes, key=lambda name: sizes[name])
        raise ValueError(
            f"they take {taken_bytes} bytes in all, each in whole blocks of {CREDENTIAL_BLOCK_BYTES}, and "
            f"systemd has room for {CREDENTIALS_MAX_BYTES}; the largest of {len(sizes)}, {largest!r}, has "
            f"{sizes[largest]}: give the program in a file what is so large"
        )


Credentials = Annotated[dict[CredentialName, WholeText], AfterValidator(_not_too_much)]
"""What a service has as credentials, by name."""


class ServiceHost(HasSystemd, HasFiles, HasDirectories, Protocol):
    """A host for services that have credentials."""


def find_credentials(unit: str, credentials: Mapping[str, str]) -> dict[str, str]:
    """Return the file of each of the *credentials* of *unit*, by name."""
    directory = credentials_directory(unit)
    return {name: f"{directory}/{name}" for name in sorted(credentials)}


async def provide_credentials(
    topology: ServiceHost, unit: str, credentials: Mapping[str, str]
) -> Changes:
    """Make the files of the *credentials* of *unit*. A file that is no longer one is not asked for, and so is
    removed once the unit does not need it.

    Raise `InvalidResource` where they are more than systemd accepts, once the values of secrets are put in.
    """
    if not credentials:
        return Changes()
    directory = Directory(path=credentials_directory(unit), mode=0o700)
    files = [
        File(path=path, content=credentials[name].encode(), mode=0o600)
        for name, path in find_credentials(unit, credentials).items()
    ]
    made = await topology.directories.ensure(directory)
    wrote = await topology.files.ensure(*files)
    sizes = {
        change.resource.rpartition("/")[2]: change.after.size_bytes or 0
        for change in wrote
        if isinstance(change.after, PresentAt)
    }
    try:
        _refuse_too_much(sizes)
    except ValueError as error:
        rid = resource_id(SystemdUnit.resource_type, unit)
        raise InvalidResource(f"credentials: {error}", resource=rid) from error
    return made + wrote
