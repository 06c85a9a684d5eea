"""Registries in memory: podman's files are those of a `FakeFiles`, read by the real rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harmony_core.errors import CapabilityUnavailable
from harmony_core.reconciler import MemoryRecords, Records
from harmony_core.resources import ImageRegistry
from harmony_core.resources.image_registry import certificates_directory
from harmony_pi_topology.containers.podman_reply import FoundRegistry
from harmony_pi_topology.registries.configuration import Configuration, read_registries
from harmony_pi_topology.registries.reconciler import Registries

from .fake_files import FakeFiles
from .fake_reconciler import FakeReconciler

__all__ = ["FakePodman", "FakeRegistries"]

_MAIN = "/etc/containers/registries.conf"
_DIRECTORY = f"{_MAIN}.d/"
_OTHER_CERTIFICATES = "/etc/docker/certs.d"


class FakeRegistries(FakeReconciler, Registries):
    """A `RegistryHost`'s reconciler."""

    def __init__(self, files: FakeFiles | None = None, *, records: Records | None = None) -> None:
        FakeReconciler.__init__(self)
        self.disk = files or FakeFiles()
        self.podman = FakePodman(self.disk)
        Registries.__init__(self, self.disk, self.podman, records or MemoryRecords())
        self.disk.listen(self._hear)

    def _hear(self, path: str) -> None:
        if path.startswith((_MAIN, _DIRECTORY, _OTHER_CERTIFICATES)):
            self._watch.tell_all()
        else:
            self._watch.tell_where(
                lambda key: (
                    path in ImageRegistry.paths_of(key)
                    or path.startswith(f"{certificates_directory(key)}/")
                )
            )


class FakePodman:
    """A `RegistryStore`."""

    def __init__(self, files: FakeFiles) -> None:
        self._files = files
        self.goes_on_with: Mapping[str, FoundRegistry] | None = None
        """What it says whatever its files are, since it has not read them anew."""

    async def read_configuration(self) -> Configuration:
        in_directory = sorted(
            each
            for each in self._files.paths()
            if each.startswith(_DIRECTORY) and each.endswith(".conf")
        )
        found = {path: self._files.read(path) for path in (_MAIN, *in_directory)}
        return {path: content for path, content in found.items() if content is not None}

    async def ask(
        self,
        expected: Mapping[str, FoundRegistry] | None,  # noqa: ARG002 - it remembers nothing
    ) -> Mapping[str, FoundRegistry]:
        if self.goes_on_with is not None:
            return self.goes_on_with
        said = read_registries(await self.read_configuration())
        if said is None:
            raise CapabilityUnavailable("podman could not read its registries; correct its files")
        return said

    async def find_process(self) -> str | None:
        return None  # it is asked each time

    async def list_certificates(self, host: str) -> Sequence[str]:
        directory = f"{certificates_directory(host)}/"
        return [each for each in self._files.paths() if each.startswith(directory)]

    async def find_other_certificates(self, host: str) -> str | None:
        path = f"{_OTHER_CERTIFICATES}/{host}"
        return path if self._files.exists(path) else None
