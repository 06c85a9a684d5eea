"""Checked by mypy and pyright, never run. An ignore that is not needed is an error, so each proves a refusal.

What a Score needs stands in its brackets; a list or a parameter of ``Score[PiTopology]`` takes every
Score that a Pi can do, whatever it needs, and no other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, assert_type

from harmony_control import Class, DeviceConfig, Entry
from harmony_control.device import Device
from harmony_control.fleet import Fleet
from harmony_core import (
    BlockHost,
    Capability,
    ContainerNetworkHost,
    ContainerRuntime,
    DirectoryHost,
    File,
    FileSystemHost,
    FirewallHost,
    HasContainers,
    HasFiles,
    HasNetwork,
    HasSystemd,
    HostConfigurator,
    Inventory,
    JobRunner,
    LinkHost,
    MountHost,
    NetworkConfigurator,
    Outcome,
    RebootHost,
    RegistryHost,
    Resource,
    Score,
    State,
    SystemdHost,
    VolumeHost,
    outcome_of,
)
from harmony_core.reconciler import Reconciler
from harmony_core.resources import (
    Container,
    ContainerState,
    Ethernet,
    FileState,
    NetworkProfile,
    NetworkState,
    SystemdUnit,
    UnitState,
)
from harmony_core.testing import FakeContainers, FakeFiles, FakeNetwork
from harmony_pi_topology import PiTopology
from harmony_pi_topology.files.reconciler import PosixFiles
from harmony_pi_topology.network.networkmanager import SdbusNetworkManager
from harmony_scores import FileScore, NetworkConfigScore, SystemdServiceScore, WebAppScore
from harmony_scores.web_app import WebAppHost


class HelmRelease(Resource):
    """A resource of a place that is no Pi."""


class KubernetesCluster(Capability[HelmRelease, State], Protocol): ...


class HasKubernetes(Protocol):
    @property
    def kubernetes(self) -> KubernetesCluster: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPi(PiTopology):
    """A Pi on which a package offers one thing more."""

    kubernetes: KubernetesCluster


class HelmReleaseScore(Score[HasKubernetes]):
    chart: str

    async def interpret(self, inventory: Inventory, topology: HasKubernetes) -> Outcome:
        raise NotImplementedError


def push(score: Score[PiTopology]) -> None: ...


motd = FileScore(path="/etc/motd", content="hello")
web = WebAppScore(
    name="web",
    image="registry.local/web:1",
    config="",
    config_path="/etc/web.conf",
    port=80,
)

# accepted: a Score that needs less runs wherever one that needs more does
push(motd)
push(web)
one: Score[PiTopology] = SystemdServiceScore(name="ssh.service")
many: list[Score[PiTopology]] = [motd, web, one]
entries: dict[str, Score[PiTopology]] = {"motd": motd, "web": web}
on_a_web_app_host: Score[WebAppHost] = motd
office: Score[PiTopology] = NetworkConfigScore(name="office", link=Ethernet(interface="eth0"))

# rejected: a Pi offers no Kubernetes
helm = HelmReleaseScore(chart="x")
push(helm)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
bad: Score[PiTopology] = helm  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
bads: list[Score[PiTopology]] = [motd, helm]  # type: ignore[list-item]  # pyright: ignore[reportAssignmentType]


async def pushing(fleet: Fleet) -> None:
    device = fleet.device("pi-1")
    assert_type(device, Device[PiTopology])
    # accepted
    assert_type(await device.push(motd, id="motd"), Outcome)
    await device.push(web)
    several: dict[str, Entry[HasFiles]] = {"motd": Entry(motd, after=["web"])}
    await device.put(several)
    await device.put({"motd": motd, "web": Entry(web, after=["motd"])})
    # rejected
    await device.push(helm)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await device.put({"motd": motd, "helm": helm})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    # accepted: where the topology has what the package's Score needs, and all that a Pi has
    cluster = fleet.device("pi-2", topology=ClusterPi)
    assert_type(cluster, Device[ClusterPi])
    assert_type(await cluster.push(helm), Outcome)
    await cluster.push(web)
    await cluster.put({"helm": Entry(helm, after=["motd"]), "motd": motd})
    assert_type(fleet.device("pi-3", topology=PiTopology), Device[PiTopology])
    # rejected
    await device.put({"helm": Entry(helm)})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# accepted: a class of Pis, and what one Pi has of its own, in fleet.py
kiosk: Class[PiTopology] = Class(
    selector="role=kiosk",
    scores={"motd": motd, "web": Entry(web, after=["motd"])},
    rollout={"steps": [{"upto": "1%", "soak": "10m"}, 5, "100%"], "on_stop": "stay"},
)
classes: dict[str, Class[PiTopology]] = {
    "kiosk": kiosk,
    "files": Class(selector="", scores={"motd": motd}),
}
devices: dict[str, DeviceConfig[PiTopology]] = {
    "pi-1": DeviceConfig(labels={"role": "kiosk"}, without=["motd"]),
    "pi-2": DeviceConfig(scores={"web": web}),
}
# accepted: of what has more than a Pi
clusters = Class[ClusterPi](selector="role=cluster", scores={"helm": helm, "motd": motd})
# rejected: on a Pi
helms: Class[PiTopology] = Class(selector="role=kiosk", scores={"helm": helm})  # type: ignore[dict-item]  # pyright: ignore[reportAssignmentType]
own: DeviceConfig[PiTopology] = DeviceConfig(scores={"helm": helm})  # type: ignore[dict-item]  # pyright: ignore[reportAssignmentType]
mixed: dict[str, Class[PiTopology]] = {"clusters": clusters}  # type: ignore[dict-item]  # pyright: ignore[reportAssignmentType]
# rejected: a word that there is not, and what is no way to stop
Class(selector="a", scores={"motd": motd}, rollout={"step": []})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Class(selector="a", scores={"motd": motd}, rollout={"on_stop": "cry"})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# rejected: what needs two does not run where there is one
only_files: Score[HasFiles] = web  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


# accepted, with open eyes: a decoded Score is Score[Any], so the check at run time must stand alone
def decoded() -> Score[Any]:
    raise NotImplementedError


push(decoded())


# rejected: interpret asks for more than the brackets declare
class Lying(Score[HasSystemd]):
    async def interpret(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self, inventory: Inventory, topology: HasKubernetes
    ) -> Outcome:
        raise NotImplementedError


class Greedy(Score[HasSystemd]):
    async def interpret(self, inventory: Inventory, topology: HasSystemd) -> Outcome:
        # rejected: a capability that the brackets do not declare
        await topology.files.absent("/etc/motd")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        # rejected: a resource of another capability
        wrong = await topology.systemd.ensure(File(path="/etc/motd", content=b""))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        assert_type(await topology.systemd.observe("a.service"), UnitState | None)
        return outcome_of(wrong)


# rejected: interpret without an Outcome
class Silent(Score[HasFiles]):
    async def interpret(self, inventory: Inventory, topology: HasFiles) -> None: ...  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]


def a_topology_of(
    *,
    systemd: SystemdHost,
    containers: ContainerRuntime,
    files: FileSystemHost,
    directories: DirectoryHost,
    links: LinkHost,
    blocks: BlockHost,
    mounts: MountHost,
    host: HostConfigurator,
    jobs: JobRunner,
    network: NetworkConfigurator,
    firewall: FirewallHost,
    volumes: VolumeHost,
    container_networks: ContainerNetworkHost,
    registries: RegistryHost,
    reboots: RebootHost,
) -> None:
    pi = PiTopology(
        systemd=systemd,
        containers=containers,
        files=files,
        directories=directories,
        links=links,
        blocks=blocks,
        mounts=mounts,
        host=host,
        jobs=jobs,
        network=network,
        firewall=firewall,
        volumes=volumes,
        container_networks=container_networks,
        registries=registries,
        reboots=reboots,
    )
    # accepted: a topology satisfies every offer whose capability it has
    offers: tuple[HasSystemd, HasContainers, HasFiles, HasNetwork] = (pi, pi, pi, pi)
    # rejected: and no other
    none: HasKubernetes = pi  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    # rejected: it is what it was found to be
    pi.files = files  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    print(offers, none)


# accepted: fakes and adapters are reconcilers of the same two types
fake_files: Reconciler[File, FileState] = FakeFiles()
real_files: type[Reconciler[File, FileState]] = PosixFiles
fake_containers: Reconciler[Container, ContainerState] = FakeContainers()
fake_network: Reconciler[NetworkProfile, NetworkState] = FakeNetwork()
real_network: type[Reconciler[NetworkProfile, NetworkState]] = SdbusNetworkManager

# rejected: of others
fake_units: Reconciler[SystemdUnit, UnitState] = FakeFiles()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
