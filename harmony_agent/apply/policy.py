"""What this device allows, whoever signed it. Asked by the Stage before anything happens.

    the agent's own?  -> never, whatever is listed
    the system's?     -> only where policy.toml names it itself: a wider entry does not open it
    anything else     -> in the preset open; in the preset appliance, only where it is listed
    what it may run   -> as `jobs` says

A unit is judged by its name, whatever brings its file. Types that are not ours are judged by what they say of
themselves: the paths that they are made of, the units that they touch, their privileges and their claims.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from types import MappingProxyType

from harmony_agent.policy_toml import PolicyTable
from harmony_core.claims import NO_VERSION, alike, slot_of
from harmony_core.credentials import unit_of_credentials
from harmony_core.images import parse_image
from harmony_core.needed_packages import is_needed_package
from harmony_core.resources import (
    Asset,
    Block,
    Container,
    ContainerNetwork,
    Download,
    File,
    Firewall,
    ImageRegistry,
    Job,
    MountPoint,
    NetworkProfile,
    Resource,
    ResourceId,
    SymbolicLink,
    SystemdUnit,
    Volume,
    place_of,
)
from harmony_core.resources.container_network import CONTAINERS_INTERFACES
from harmony_core.run_by_root import is_read_at_boot
from harmony_core.unit_install import read_words, resolve_specifiers
from harmony_core.visible import cut

from .protected import (
    below,
    find_place,
    find_unmountable,
    inside,
    is_of_the_system,
    keeps_running,
    mounted_at,
    only_keeps_up,
    protected_of_many,
    unit_of,
    why_kept_up,
)

__all__ = ["DevicePolicy"]

AGENT = ("harmony-agent.", "harmony-job-", "harmony-firewall-", "harmony-mount-")
"""What the agent's own units begin with: itself, and what it has systemd run."""
_LISTED_BY_NAME: Mapping[type[Resource], tuple[str, str]] = MappingProxyType(
    {
        NetworkProfile: ("networks", "the network profile {}"),
        Firewall: ("firewalls", "the firewall {}"),
        Volume: ("volumes", "the volume {}"),
        ContainerNetwork: ("container_networks", "the network {} of containers"),
    }
)
"""What an appliance lists by names alone: in which field of policy.toml, and what a name is there."""
_PACKAGE = "package:"
_SHOWN_MOST = 160
_OF_MEMORY = frozenset({"tmpfs"})
"""The types of file systems on which nothing is that was not put there."""
_STARTED_WITH = ("WantedBy", "RequiredBy", "UpheldBy")
"""The settings by which a unit is started with others, and may keep them from starting."""
_JUDGED = (
    *(("Install", setting) for setting in ("Alias", "Also", *_STARTED_WITH)),
    ("Socket", "Service"),
)
"""The settings by which a unit's file acts on others, each with its section: the service of a socket is
started by whoever connects."""


class DevicePolicy:
    """Says what may be touched, by *rules*. What is at *own_paths* is the agent's, and nobody else's."""

    def __init__(self, *own_paths: str, rules: PolicyTable | None = None) -> None:
        self._own = below(*own_paths)
        self._rules = rules or PolicyTable(preset="open")

    def kind_refusal(self, kind: str) -> str | None:
        """Return why no Score of this *kind* is interpreted here; None when it is."""
        return self._unlisted("kinds", kind, f"a {kind} is not interpreted here")

    def refusal(self, resource: Resource) -> str | None:
        """Return why *resource* may not be touched; None when it may."""
        match resource:
            case File(path=path):
                why = self._path(path) or self._installed_by(resource) or self._downloaded(resource)
            case SymbolicLink(path=path):
                why = self._link(path) or self._made_of(SymbolicLink, path)
            case Block(path=path):
                why = self._part(path)
            case SystemdUnit(name=name):
                why = self._unit(name, is_kept_up=only_keeps_up(resource))
                why = why or self._installed(name, resource.content or "")
            case Container():
                why = self._container(resource) or self._attached(resource)
            case NetworkProfile():
                why = self._network(resource)
            case Volume() | ContainerNetwork() | Firewall():
                why = self._named(type(resource), resource.name)
            case ImageRegistry():
                why = self._registry(resource)
            case MountPoint(where=where):
                why = self._made_of(MountPoint, where) or self._judge_source(resource)
            case _:
                why = self._made_of(type(resource), resource.key)
        return why or self._packages(resource) or self._privileges(resource)

    def download_refusal(self, url: str) -> str | None:
        """Return why nothing is downloaded from *url*, an address of https; None when it may be."""
        place = place_of(url)
        if not self._rules.is_appliance or inside(place, below(*self._rules.downloads)):
            return None
        # A file of a newer version has another name.
        directory = place.rpartition("/")[0] or place
        return (
            f"{cut(place, _SHOWN_MOST)} is nowhere that this device downloads from; "
            f"{self._rules.refused_by('downloads', directory)}"
        )

    def volume_data_refusal(self, volume: str) -> str | None:
        """Return why nobody may save or load the data of *volume* by a request; None when it may be."""
        why = f"the data of volume {volume} is neither read nor replaced by requests"
        return self._unlisted("volume_data", volume, why)

    def removal_refusal(self, resource_id: str, resource_class: type[Resource]) -> str | None:
        """Return why the resource of this id and *resource_class* may not be removed; None when it may."""
        _, key = ResourceId.parse(resource_id)
        if issubclass(resource_class, File | Block):
            (path,) = resource_class.paths_of(key)
            return self._part(path) if issubclass(resource_class, Block) else self._path(path)
        if issubclass(resource_class, SystemdUnit):
            return self._unit(key, is_kept_up=False)
        if issubclass(resource_class, Firewall) and self._rules.firewalls:
            return None  # there is one, whatever it was called
        if issubclass(resource_class, ImageRegistry):
            return None  # without it, images come from where they are named after
        if resource_class in _LISTED_BY_NAME:
            return self._named(resource_class, key)
        return self._made_of(resource_class, key)

    def _made_of(self, resource_class: type[Resource], key: str) -> str | None:
        """Judge the paths, which may be directories, and the units that a resource consists of."""
        paths, units = resource_class.paths_of(key), resource_class.units_of(key)
        if paths is None:
            return _says_nothing(resource_class, "paths_of")
        if units is None and self._rules.is_appliance:
            return _says_nothing(resource_class, "units_of")
        refusals = (
            *map(self._directory, paths),
            *(self._unit(each, is_kept_up=False) for each in units or ()),
        )
        return next((each for each in refusals if each), None)

    def _packages(self, resource: Resource) -> str | None:
        """Judge the packages that *resource* claims, whatever its type."""
        claimed = (slot_of(each) for each in resource.exclusive)
        names = (each.removeprefix(_PACKAGE) for each in claimed if each.startswith(_PACKAGE))
        for name in sorted(names):
            is_to_go = alike(f"{_PACKAGE}{name}", NO_VERSION) in resource.exclusive
            if is_to_go and is_needed_package(name) and name not in self._rules.packages:
                refused = self._rules.refused_by("packages", name)
                return (
                    f"this device needs the package {name}; a Score may not take it away; {refused}"
                )
            why = f"the package {name} is not a Score's"
            if (unlisted := self._unlisted("packages", name, why)) is not None:
                return unlisted
        return None

    def _privileges(self, resource: Resource) -> str | None:
        """Return which privileges of *resource* are not allowed here: what runs is judged as a job is."""
        privileges = resource.privileges
        if privileges is None:
            return _says_nothing(type(resource), "privileges")
        needed = "any" if "run-as-root" in privileges else "confined" if privileges else "none"
        if needed == "none" or self._rules.jobs in {needed, "any"}:
            return None
        if isinstance(resource, Job):
            what = f"runs no {'privileged jobs' if needed == 'any' else 'jobs'}"
        else:
            as_root = " as root" if needed == "any" else ""
            what = f"lets no Score run a program{as_root}, as {resource.id} would"
        return f"this device {what}; {self._rules.refused_by('jobs', needed)}"

    def _path(self, path: str) -> str | None:
        unit = unit_of(path) or unit_of_credentials(path)
        own = inside(path, self._own)
        if own or (unit is not None and unit.startswith(AGENT)):
            return f"{path} belongs to the agent itself ({own or unit}); choose another path"
        if unit is not None:
            return self._unit_file(path, unit)
        found = find_place(path)
        if found is not None and not _is_named(self._rules.paths, path, found[0]):
            place, whose, instead = found
            refused = self._rules.refused_by("paths", path)
            return f"{path} is {whose} ({place}); {instead}; {refused}"
        return self._outside("paths", path, f"{path} is not a Score's to change")

    def _unit_file(self, path: str, unit: str) -> str | None:
        """Judge a file or directory of *unit*, which is a single one, or all that have its prefix or type."""
        if many := protected_of_many(unit):
            if _is_named(self._rules.paths, path, path.rpartition("/")[0]):
                return None
            refused = self._rules.refused_by("paths", path)
            return (
                f"{path} is for {many}; write it for a single unit, as in web.service.d; {refused}"
            )
        why = self._unit(unit, is_kept_up=False)
        return why and f"{path} is of {unit}: {why}"

    def _directory(self, path: str) -> str | None:
        if self._holds_the_agent(path):
            return f"{path} holds what belongs to the agent itself; choose a directory below it"
        if why := self._path(path):
            return why
        if is_of_the_system(path) and not _is_named(self._rules.paths, path, path):
            return (
                f"{path} came with the system, which needs it as it is; choose a directory below it "
                f"for the application; {self._rules.refused_by('paths', path)}"
            )
        return None

    def _holds_the_agent(self, path: str) -> bool:
        inner = f"{path.rstrip('/')}/"
        return any(each.startswith(inner) and each != inner for each in self._own)

    def _unit(self, name: str, *, is_kept_up: bool) -> str | None:
        mounted = mounted_at(name)
        if name.startswith(AGENT):
            return f"{name} is the agent itself, or a job of its; a Score may not manage it"
        if mounted and (inside(mounted, self._own) or self._holds_the_agent(mounted)):
            return f"{name} would hide what belongs to the agent itself; choose another place"
        if name in self._rules.units:
            return None
        if keeps_running(name) or (mounted and find_unmountable(mounted)):
            refused = self._rules.refused_by("units", name)
            return f"{name} keeps this device running; a Score may not manage it; {refused}"
        if (why := why_kept_up(name)) and not is_kept_up:
            return (
                f"{why} {name}; a Score may have it enabled and running, but not "
                f"change, stop or restart it; {self._rules.refused_by('units', name)}"
            )
        return self._unlisted("units", name, f"{name} is not a Score's to manage")

    @staticmethod
    def _link(path: str) -> str | None:
        """Refuse a link by which systemd would enable, mask or rename a unit, whatever it leads to."""
        if unit_of(path) is None:
            return None
        return (
            f"{path} is where systemd looks for units, and a link there enables, masks or renames one; use a "
            "SystemdServiceScore, or choose another path"
        )

    def _part(self, path: str) -> str | None:
        """Judge a part of the file at *path*. Files that the device boots with are text with parts for
        others."""
        if unit_of(path) is not None:
            return (
                f"{path} is of a unit, and has to be judged whole; use a SystemdServiceScore, or a file of "
                "your own beside it, as in web.service.d/10-mine.conf"
            )
        if is_read_at_boot(path):
            return self._outside("paths", path, f"{path} is not a Score's to change")
        return self._path(path)

    def _installed_by(self, file: File) -> str | None:
        """Judge what the file of a unit, or a drop-in, does with other units when its unit is enabled."""
        unit = unit_of(file.path)
        if unit is not None and isinstance(file.content, Asset | Download):
            what = "an asset" if isinstance(file.content, Asset) else "a download"
            return (
                f"{file.path} is of {unit}, and {what} is not read before it is there; give its text as "
                "content, or use a SystemdServiceScore"
            )
        if unit is not None and file.find_secret_words():
            # What it stands for may be lines of their own, such as an Alias.
            return (
                f"{file.path} is of {unit}, and what a secret brings into it is not judged; put the secret "
                "into a file of its own, and name that in the unit: LoadCredential= or EnvironmentFile="
            )
        if unit is None or not isinstance(file.content, bytes):
            return None  # what is in a secret, root has chosen
        return self._installed(unit, file.content.decode(errors="replace"))

    def _downloaded(self, file: File) -> str | None:
        return (
            self.download_refusal(file.content.url) if isinstance(file.content, Download) else None
        )

    def _installed(self, unit: str, text: str) -> str | None:
        """Judge the units whose names *unit* takes, and that it enables, starts or is started with, by its
        own *text*."""
        for section, setting in _JUDGED:
            for word in read_words(text, section, setting):
                other = resolve_specifiers(word, unit)
                if other is None:
                    why: str | None = f"{word} is not known before; write the name itself"
                elif setting not in _STARTED_WITH:
                    why = self._unit(other, is_kept_up=setting == "Also")
                elif other.startswith(AGENT):
                    why = f"{other} is the agent itself; choose another unit"
                else:
                    why = None
                if why and other != unit:
                    return f"{unit} has {setting}={word}: {why}"
        return None

    def _container(self, container: Container) -> str | None:
        refusals = (
            self._image(container.image),
            *(self._mount(mount.source) for mount in container.mounts),
            *self._beyond_itself(container),
        )
        return next((each for each in refusals if each), None)

    def _beyond_itself(self, container: Container) -> Iterator[str | None]:
        """Judge what *container* gets of the device besides mounts and ports. An appliance has to list it."""
        for mount in container.mounts:
            if (how := mount.propagation) != "rprivate":
                why = f"the mount {mount.source} is not to be {how}"
                yield self._unlisted("propagation", how, why)
        for name in ("network", "pid", "ipc"):
            if getattr(container, name) == "host":
                why = f"no container has the device's own {name} here"
                yield self._unlisted("host_namespaces", name, why)
        if container.privileged:
            # It has every device and capability, so nothing of that needs to be listed besides.
            if self._rules.is_appliance and not self._rules.privileged:
                refused = self._rules.refused_by("privileged", True)
                yield f"no container is privileged here, which is to be root on the device; {refused}"
            return
        for device in container.devices:
            why = f"the device {device.source} is not for a container"
            yield self._unlisted("devices", device.source, why)
        for rule in container.device_rules:
            yield self._unlisted("device_rules", rule, f"devices by {rule} are not for a container")
        for name in container.add_capabilities:
            why = f"no container has the capability {name} here"
            yield self._unlisted("capabilities", name, why)

    def _attached(self, container: Container) -> str | None:
        """Judge the volumes and networks of others that *container* names."""
        refusals = (
            *(self._named(Volume, each.volume) for each in container.volumes),
            *(self._named(ContainerNetwork, each.network) for each in container.networks),
        )
        return next((each for each in refusals if each), None)

    def _named(self, resource_class: type[Resource], name: str) -> str | None:
        """Judge a thing of which only its name is listed."""
        field, words = _LISTED_BY_NAME[resource_class]
        return self._unlisted(field, name, f"{words.format(name)} is not a Score's")

    def _judge_source(self, mount: MountPoint) -> str | None:
        """Judge what *mount* shows: a part of the device by another path, which is then judged by that path;
        or which disk or server."""
        match mount.kind_of_source:
            case "path":
                return self._mount(mount.what, f"at {mount.where}")
            case "word" if mount.type in _OF_MEMORY:
                return None
            case _:
                why = f"{mount.what} is not to be mounted at {mount.where}"
                return self._unlisted("devices", mount.what, why)

    def _mount(self, source: str, into: str = "into a container") -> str | None:
        if inside(source, self._own) or self._holds_the_agent(source):
            return (
                f"mounting {source} {into} would hand out what belongs to the agent itself; mount "
                "a directory that belongs to the application"
            )
        place = find_unmountable(source)
        if place is not None and not _is_named(self._rules.mounts, source, place):
            return (
                f"mounting {source} {into} would hand out the device ({place}); mount a directory "
                f"that belongs to the application; {self._rules.refused_by('mounts', source)}"
            )
        return self._outside("mounts", source, f"{source} is not to be mounted {into}")

    def _image(self, reference: str) -> str | None:
        if not self._rules.is_appliance:
            return None
        image = parse_image(reference)
        name = f"{image.registry}/{image.repository}"
        if inside(name, below(*self._rules.registries)) is None:
            return f"{name} comes from nowhere that this device takes images from; " + (
                self._rules.refused_by("registries", name)
            )
        if self._rules.digest and image.digest is None:
            return (
                f"{reference} has no digest; push it without --no-resolve, or name its digest; "
                f"{self._rules.refused_by('digest', False)}"
            )
        return None

    def _registry(self, registry: ImageRegistry) -> str | None:
        """Judge where images of *registry* then come from: a mirror is as good as the registry itself."""
        if not self._rules.is_appliance:
            return None
        listed = below(*self._rules.registries)
        host = registry.host
        if inside(host, listed) is None and not any(each.startswith(f"{host}/") for each in listed):
            return f"{host} is nowhere that this device takes images from; " + (
                self._rules.refused_by("registries", host)
            )
        if registry.ca is not None and inside(host, listed) is None:
            return f"ca is of {host} as a whole, of which this device takes only a part; " + (
                self._rules.refused_by("registries", host)
            )
        for mirror in registry.mirrors:
            if inside(mirror.location, listed) is None:
                return (
                    f"{mirror.location}, a mirror of {host}, is nowhere that this device takes images from; "
                    f"{self._rules.refused_by('registries', mirror.location)}"
                )
        insecure = [host] if registry.insecure else []
        insecure += [each.location for each in registry.mirrors if each.insecure]
        for place in insecure:
            if inside(place, below(*self._rules.insecure_registries)) is None:
                return (
                    f"{place} is not to be asked by plain HTTP, nor believed whatever its certificate is; "
                    f"{self._rules.refused_by('insecure_registries', place)}"
                )
        return None

    def _network(self, profile: NetworkProfile) -> str | None:
        interface = profile.interface or ""
        if interface == "lo" or interface.startswith(CONTAINERS_INTERFACES):
            return (
                f"{interface} belongs to the system or to its containers, not to a Score; "
                "name an interface that leads out of the device"
            )
        return self._named(NetworkProfile, profile.name)

    def _outside(self, field: str, path: str, why: str) -> str | None:
        """Refuse, in an appliance, a *path* that is in nothing that *field* lists."""
        listed: tuple[str, ...] = getattr(self._rules, field)
        if not self._rules.is_appliance or inside(path, below(*listed)):
            return None
        return f"{why}; {self._rules.refused_by(field, path)}"

    def _unlisted(self, field: str, name: str, why: str) -> str | None:
        """Refuse, in an appliance, a *name* that matches nothing that *field* lists."""
        patterns: tuple[str, ...] = getattr(self._rules, field)
        if not self._rules.is_appliance or any(fnmatchcase(name, each) for each in patterns):
            return None
        return f"{why}; {self._rules.refused_by(field, name)}"


def _is_named(entries: Iterable[str], path: str, place: str) -> bool:
    """Return whether *path*, which is in the system's *place*, is in one of *entries* that is in it, too.

    An entry for more than the place does not mean the place: who lists /srv has not thought of /srv/x/.ssh.
    """
    around = below(place)
    return any(inside(path, below(each)) and inside(each, around) for each in entries)


def _says_nothing(resource_class: type[Resource], what: str) -> str:
    return (
        f"{resource_class.__name__} does not say what it would do to this device, so it is not allowed to; "
        f"update the package it comes from, which has to give it {what}"
    )
