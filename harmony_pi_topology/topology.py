"""PiTopology: what a Raspberry Pi can do, as a type. Pure data: needs neither D-Bus nor podman.

On a control plane it is what a type checker compares a Score with; on a device, what is really offered
is found by `harmony_pi_topology.discovery`.
"""

from __future__ import annotations

from dataclasses import dataclass

from harmony_core.capabilities import (
    BlockHost,
    ContainerNetworkHost,
    ContainerRuntime,
    DirectoryHost,
    FileSystemHost,
    FirewallHost,
    HostConfigurator,
    JobRunner,
    LinkHost,
    MountHost,
    NetworkConfigurator,
    RebootHost,
    RegistryHost,
    SystemdHost,
    VolumeHost,
)

__all__ = ["PiTopology"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PiTopology:
    """One Raspberry Pi, as the capabilities it offers."""

    systemd: SystemdHost
    containers: ContainerRuntime
    files: FileSystemHost
    directories: DirectoryHost
    links: LinkHost
    blocks: BlockHost
    mounts: MountHost
    host: HostConfigurator
    jobs: JobRunner
    network: NetworkConfigurator
    firewall: FirewallHost
    volumes: VolumeHost
    container_networks: ContainerNetworkHost
    registries: RegistryHost
    reboots: RebootHost
