"""Registries on real podman, in a box: the contract, and what only a real one can show."""

from __future__ import annotations

import asyncio
import http.client
import socket
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import contextmanager

import pytest

from harmony_core import ImageRegistry
from harmony_core.change import Change
from harmony_core.errors import CapabilityUnavailable, DidNotStick, NotOurs
from harmony_core.reconciler import AnyReconciler, MemoryBackups, MemoryRecords
from harmony_core.resources import RegistryAt
from harmony_core.resources.image_registry import mirrors_path
from harmony_core.testing import CapabilityContract, CapabilityUnderTest
from harmony_pi_topology.containers.podman import Podman
from harmony_pi_topology.files.reconciler import PosixFiles
from harmony_pi_topology.registries.podman_registries import PodmanRegistries
from tests.box import Box
from tests.topology.some_registries import CA, DIRECTORY, HUB, LAN, THEIRS, Somebody

CONFIGURATION = "/etc/containers/registries.conf"
LAST = f"{DIRECTORY}/zz-theirs.conf"
"""It counts more than ours."""
PART = ImageRegistry(host="registry.lan:5000/team", insecure=True)


class AtBox(Somebody):
    def __init__(self, box: Box) -> None:
        self._box = box

    def _identity(self, paths: Sequence[str]) -> object | None:
        return self._box.run(["stat", "-c", "%n %i %Y %s", *paths], check=False).stdout or None

    def _write(self, path: str, content: str) -> None:
        self._box.write(path, content)


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

        outsider = AtBox(pi)
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


@contextmanager
def awake(pi: Box) -> Generator[None]:
    """podman's service does not end."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.connect(pi.podman_url.removeprefix("unix://"))
        listening.sendall(b"GET /v4.0.0/libpod/events?stream=true HTTP/1.1\r\nHost: d\r\n\r\n")
        http.client.HTTPResponse(listening).begin()
        yield


async def blocked(pi: Box, place: str) -> bool:
    """Whether podman says so, as its service has read its files."""
    podman = Podman(pi.podman_url)
    said = (await podman.list_registries()).get(place)
    podman.close()
    return said is not None and said.blocked


@pytest.mark.parametrize("is_seen", [True, False], ids=["seen", "unseen"])
async def test_what_another_process_of_podmans_has_read_meanwhile_is_not_what_was_said_before(
    pi: Box, opened: Callable[[], PodmanRegistries], is_seen: bool
) -> None:
    registries = opened()
    await apply(registries, HUB)
    pi.run(["systemctl", "stop", "podman.service"])
    pi.write(LAST, '[[registry]]\nlocation = "docker.io"\nblocked = true\n')
    with awake(pi):
        assert await blocked(pi, "docker.io")
        if is_seen:
            with pytest.raises(NotOurs):
                await apply(registries, HUB)
        pi.run(["rm", LAST])
        assert await blocked(pi, "docker.io"), "it goes on with what it has read"
        await apply(registries, HUB)
        assert not await blocked(pi, "docker.io")


async def test_what_the_same_process_has_read_at_a_strangers_word_is_asked_for(
    pi: Box, opened: Callable[[], PodmanRegistries]
) -> None:
    registries = opened()
    with awake(pi):
        await apply(registries, HUB)
        await apply(registries, HUB)
        pi.write(LAST, '[[registry]]\nlocation = "docker.io"\nblocked = true\n')
        pi.run(["systemctl", "kill", "-s", "HUP", "podman.service"])
        async with asyncio.timeout(30):
            while not await blocked(pi, "docker.io"):
                await asyncio.sleep(0.05)
        with pytest.raises(NotOurs):
            await apply(registries, HUB)
        pi.run(["rm", LAST])
        await apply(registries, HUB)
        assert not await blocked(pi, "docker.io")


async def test_a_look_does_not_wake_podman_that_has_said_it_already(
    pi: Box, opened: Callable[[], PodmanRegistries]
) -> None:
    registries = opened()
    await apply(registries, HUB)
    pi.run(["systemctl", "stop", "podman.service"])
    assert not (await apply(registries, HUB)).changed
    assert (
        pi.text("systemctl", "show", "--value", "-p", "ActiveState", "podman.service") == "inactive"
    )


@pytest.mark.parametrize("text", ["[[registry]\n", "", "[[registry]]\nlocation = 1\n"])
async def test_a_file_of_ours_that_podman_cannot_read_is_put_right_or_removed(
    pi: Box, opened: Callable[[], PodmanRegistries], text: str
) -> None:
    registries = opened()
    await apply(registries, HUB)
    pi.write(mirrors_path("docker.io"), text)
    assert (await apply(registries, HUB)).actions == (f"wrote {mirrors_path('docker.io')}",)
    assert not (await apply(registries, HUB)).changed
    pi.write(mirrors_path("docker.io"), text)
    (done,) = await registries.remove(["docker.io"], apply=True)
    assert isinstance(done, Change)
    assert await registries.observe("docker.io") is None


async def test_keys_count_whatever_their_case_is(
    pi: Box, opened: Callable[[], PodmanRegistries]
) -> None:
    pi.write(THEIRS, '[[Registry]]\nLocation = "docker.io"\nBLOCKED = true\n')
    assert await opened().observe("docker.io") is not None
    assert await blocked(pi, "docker.io"), "podman reads it so"
    with pytest.raises(NotOurs, match=THEIRS):
        await apply(opened(), HUB)


async def test_half_of_a_clients_certificate_beside_ours_is_refused_as_podman_does(
    pi: Box, opened: Callable[[], PodmanRegistries]
) -> None:
    registries = opened()
    directory = f"/etc/containers/certs.d/{LAN.host}"
    await apply(registries, LAN)
    pi.write(f"{directory}/client.cert", "x")
    told = pi.run(["podman", "pull", f"{LAN.host}/x:1"], check=False).stderr
    assert b"missing key client.key" in told
    with pytest.raises(NotOurs, match=f"{directory}/client.cert"):
        await apply(registries, LAN)
    pi.run(["rm", f"{directory}/client.cert"])
    assert not (await apply(registries, LAN)).changed


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
