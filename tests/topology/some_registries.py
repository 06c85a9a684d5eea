"""What is wished for of registries, and somebody who is at it by hand: in memory, and at a box."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import trustme

from harmony_core.resources import ImageRegistry, RegistryMirror
from harmony_core.resources.image_registry import mirrors_path

__all__ = ["CA", "DIRECTORY", "HUB", "LAN", "THEIRS", "Somebody"]

CA = trustme.CA().cert_pem.bytes().decode()
DIRECTORY = "/etc/containers/registries.conf.d"
THEIRS = f"{DIRECTORY}/50-theirs.conf"
HUB = ImageRegistry(
    host="docker.io",
    mirrors=(
        RegistryMirror(location="cache.lan:5000/hub"),
        RegistryMirror(location="old.lan", insecure=True),
    ),
)
LAN = ImageRegistry(host="registry.lan:5000", ca=CA)


class Somebody(ABC):
    """At a device, by hand."""

    def identity(self, key: str) -> object | None:
        """Return what is another whenever a file of *key* is; None where there is none."""
        theirs = [THEIRS] if key == "theirs.lan" else []
        return self._identity([*ImageRegistry.paths_of(key), *theirs])

    def disturb(self, key: str) -> None:
        """Write over the file of *key*."""
        self._write(mirrors_path(key), '[[registry]]\nlocation = "docker.io"\n')

    def make_foreign(self) -> str:
        """Say something of a registry that Harmony does not know: which."""
        self._write(THEIRS, '[[registry]]\nlocation = "theirs.lan"\ninsecure = true\n')
        return "theirs.lan"

    @abstractmethod
    def _identity(self, paths: Sequence[str]) -> object | None: ...

    @abstractmethod
    def _write(self, path: str, content: str) -> None: ...
