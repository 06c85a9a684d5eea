"""What a topology offers is read off its annotations, by one reader for both sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import pytest

from harmony_core import ContainerRuntime, FileSystemHost, HasContainers, HasFiles, HasSystemd
from harmony_core.capabilities import Capability, SystemdHost, capabilities_of, offers_of
from harmony_core.resources import File, FileState
from harmony_pi_topology import PiTopology


class WebAppHost(HasContainers, HasFiles, Protocol):
    """Two offers, combined by inheritance."""


class CameraHost(Capability[File, FileState], Protocol):
    """A stranger's capability."""


class HasCamera(Protocol):
    @property
    def camera(self) -> CameraHost: ...


class Nothing(Protocol):
    @property
    def name(self) -> str: ...


@pytest.mark.parametrize(
    ("topology", "names"),
    [
        (HasSystemd, {"SystemdHost"}),
        (WebAppHost, {"ContainerRuntime", "FileSystemHost"}),
        (
            PiTopology,
            {
                "SystemdHost",
                "ContainerRuntime",
                "FileSystemHost",
                "DirectoryHost",
                "LinkHost",
                "BlockHost",
                "MountHost",
                "HostConfigurator",
                "JobRunner",
                "NetworkConfigurator",
                "FirewallHost",
                "VolumeHost",
                "ContainerNetworkHost",
                "RegistryHost",
                "RebootHost",
            },
        ),
        (HasCamera, {"CameraHost"}),
        (Nothing, set[str]()),
    ],
)
def test_capabilities_are_named_by_their_protocols(topology: type, names: set[str]) -> None:
    assert capabilities_of(topology) == names


def test_an_offer_tells_by_which_attribute_a_capability_is_reached() -> None:
    assert offers_of(WebAppHost) == {"containers": ContainerRuntime, "files": FileSystemHost}


def test_a_class_with_properties_and_one_with_fields_are_read_alike() -> None:
    class Here:
        @property
        def systemd(self) -> SystemdHost:
            raise NotImplementedError

    @dataclass
    class There:
        systemd: SystemdHost

    assert offers_of(Here) == offers_of(There) == {"systemd": SystemdHost}


def test_what_is_not_a_capability_is_not_an_offer() -> None:
    class Place:
        name: str
        files: FileSystemHost

    assert offers_of(Place) == {"files": FileSystemHost}


def test_an_instance_is_not_a_topology() -> None:
    with pytest.raises(TypeError, match="not a topology class"):
        offers_of(42)
