"""Registries on real podman, in a box: the contract, and what only a real one can show."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

import pytest
import trustme

from harmony_core import ImageRegistry, RegistryMirror
from harmony_core.change import Change
from harmony_core.errors import CapabilityUnavailable, DidNotStick, NotOurs
from harmony_core.reconciler import AnyReconciler, MemoryBackups, MemoryRecords
from harmony_core.resources import RegistryAt
from harmony_core.resources.image_registry import mirrors_path
from harmony_core.testing import CapabilityContract, CapabilityUnderTest
from harmony_pi_topology.files.reconciler import PosixFiles
from harmony_pi_topology.registries.podman_registries import PodmanRegistries
from tests.box import Box

CA = trustme.CA().cert_pem.bytes().decode()
CONFIGURATION = "/etc/containers/registries.conf"
DIRECTORY = f"{CONFIGURATION}.d"
THEIRS = f"{DIRECTORY}/50-theirs.conf"
HUB = ImageRegistry(
    host="docker.io",
    mirrors=(
        RegistryMirror(location="cache.lan:5000/hub"),
        RegistryMirror(location="old.lan", insecure=True),
    ),
)
LAN = ImageRegistry(host="registry.lan:5000", ca=CA)
PART = ImageRegistry(host="registry.lan:5000/team", insecure=True)


class Somebody:
    """At the box, with a shell."""

    def __init__(self, box: Box) -> None:
        self._box = box

    def identity(self, key: str) -> object | None:
        paths = [*ImageRegistry.paths_of(key), *([THEIRS] if key == "theirs.lan" else [])]
        found = self._box.run(["stat", "-c", "%n %i %Y %s", *paths], check=False).stdout
        return found or None

    def disturb(self, key: str) -> None:
        self._box.write(mirrors_path(key), '[[registry]]\nlocation = "docker.io"\n')

    def make_foreign(self) -> str:
        self._box.write(THEIRS, '[[registry]]\nlocation = "theirs.lan"\ninsecure = true\n')
        return "theirs.lan"


@pytest.fixture
async def opened(pi: Box) -> AsyncGenerator[Callable[[], PodmanRegistries]]:
    """Opens what an agent that starts on the box has. At the beginning, nobody has said anything there."""
    pi.run(["sh", "-c", f"rm -rf {DIRECTORY}/[!s]*.conf /etc/containers/certs.d /etc/docker"])
    pi.run(["cp", "-n", CONFIGURATION, f"{CONFIGURATION}.before"])
    pi.run(["cp", f"{CONFIGURATION}.before", CONFIGURATION])
    records, backups, made = MemoryRecords(), MemoryBackups(), list[PodmanRegistries]()

    def again() -> PodmanRegistries:
        files = PosixFiles(str(pi.root), records=records, backups=backups)
        made.append(
            PodmanRegistries(
                files,
                pi.podman_url,
                records=records,
                root=str(pi.root),
                address=pi.dbus_address,
            )
        )
        return made[-1]

    yield again
    for each in made:
        await each.close()


class TestRegistriesInABox(CapabilityContract[ImageRegistry]):
    @pytest.fixture
    def host(
        self, pi: Box, opened: Callable[[], PodmanRegistries]
    ) -> CapabilityUnderTest[ImageRegistry]:
        def again() -> AnyReconciler:
            return opened()

        outsider = Somebody(pi)
        outsider.make_foreign()
        return CapabilityUnderTest(
            reconciler=again(),
            restarted=again,
            wish=HUB,
            changed=HUB.model_copy(update={"mirrors": HUB.mirrors[:1]}),
            beside=LAN,
            refused=ImageRegistry(host="theirs.lan", mirrors=HUB.mirrors),
            outsider=outsider,
        )


async def apply(registries: PodmanRegistries, registry: ImageRegistry) -> Change:
    (done,) = await registries.converge([registry], apply=True)
    if isinstance(done, Exception):
        raise done
    return done


async def test_podman_says_what_was_wished_for_of_each(
    opened: Callable[[], PodmanRegistries],
) -> None:
    registries = opened()
    for each in (HUB, LAN, PART):
        assert (await apply(registries, each)).changed
    for each in (HUB, LAN, PART):
        assert not (await apply(opened(), each)).changed
    hub, lan, part = [await registries.observe(each.host) for each in (HUB, LAN, PART)]
    assert hub == RegistryAt(
        mirrors=("cache.lan:5000/hub", "old.lan (insecure)"),
        insecure=False,
        location="docker.io",
        blocked=False,
        ca="",
    )
    assert isinstance(lan, RegistryAt)
    assert isinstance(part, RegistryAt)
    assert (len(lan.ca), lan.insecure) == (64, False)
    assert (part.ca, part.insecure) == ("", True)


@pytest.mark.parametrize("name", ["10-first.conf", "zz-last.conf"])
async def test_a_file_that_says_otherwise_is_named_wherever_it_stands(
    pi: Box, opened: Callable[[], PodmanRegistries], name: str
) -> None:
    registries = opened()
    await apply(registries, HUB)
    path = f"{DIRECTORY}/{name}"
    pi.write(path, '[[registry]]\nprefix = "docker.io"\nlocation = "other.lan"\n')
    with pytest.raises(NotOurs, match=path):
        await apply(registries, HUB)
    pi.run(["rm", path])
    assert not (await apply(registries, HUB)).changed


async def test_what_cannot_be_read_here_is_asked_of_podman(
    pi: Box, opened: Callable[[], PodmanRegistries]
) -> None:
    """A link, which podman follows, and the older form of its file."""
    registries = opened()
    await apply(registries, HUB)
    pi.write("/srv/it.conf", '[[registry]]\nlocation = "docker.io"\nblocked = true\n')
    pi.run(["ln", "-s", "/srv/it.conf", f"{DIRECTORY}/zz-link.conf"])
    with pytest.raises(DidNotStick, match=r"mirrors .* did not stick"):
        await apply(registries, HUB)
    pi.run(["rm", f"{DIRECTORY}/zz-link.conf"])
    assert not (await apply(registries, HUB)).changed
    pi.write(CONFIGURATION, "[registries.block]\nregistries = ['lost.lan']\n")
    lost = ImageRegistry(host="lost.lan", ca=CA)
    with pytest.raises(DidNotStick, match="blocked False did not stick"):
        await apply(registries, lost)


async def test_a_file_that_podman_cannot_read_is_named_as_podman_names_it(
    pi: Box, opened: Callable[[], PodmanRegistries]
) -> None:
    registries = opened()
    await apply(registries, HUB)
    pi.write(THEIRS, "[[registry]\n")
    with pytest.raises(CapabilityUnavailable, match=THEIRS):
        await apply(registries, HUB)
    pi.run(["rm", THEIRS])
    assert not (await apply(registries, HUB)).changed
