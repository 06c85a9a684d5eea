"""Registries by the rules, over files in memory: the contract, and what stands in the way."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from harmony_core import ImageRegistry
from harmony_core.change import Change
from harmony_core.errors import CapabilityUnavailable, DidNotStick, NotOurs
from harmony_core.reconciler import AnyReconciler, MemoryRecords
from harmony_core.resources import RegistryAt
from harmony_core.resources.image_registry import certificates_path, mirrors_path
from harmony_core.testing import CapabilityContract, CapabilityUnderTest, FakeFiles, FakeRegistries
from harmony_pi_topology.registries.configuration import describe_registry, read_registries
from tests.topology.some_registries import CA, DIRECTORY, HUB, LAN, THEIRS, Somebody


class AtFakes(Somebody):
    def __init__(self, files: FakeFiles) -> None:
        self._files = files

    def _identity(self, paths: Sequence[str]) -> object | None:
        return {
            each: self._files.identity(each) for each in paths if self._files.exists(each)
        } or None

    def _write(self, path: str, content: str) -> None:
        self._files.write(path, content.encode())


class TestFakeRegistries(CapabilityContract[ImageRegistry]):
    @pytest.fixture
    def host(self) -> CapabilityUnderTest[ImageRegistry]:
        files, records = FakeFiles(), MemoryRecords()

        def again() -> AnyReconciler:
            return FakeRegistries(files, records=records)

        outsider = AtFakes(files)
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


@pytest.fixture
def registries() -> FakeRegistries:
    return FakeRegistries()


async def apply(registries: FakeRegistries, registry: ImageRegistry) -> Change:
    (done,) = await registries.converge([registry], apply=True)
    if isinstance(done, Exception):
        raise done
    return done


async def test_what_is_written_is_read_again_as_it_was_wished_for() -> None:
    part = ImageRegistry(host="ghcr.io/acme", insecure=True, mirrors=HUB.mirrors)
    for each in (HUB, part):
        found = read_registries({"it": describe_registry(each)})
        assert found is not None
        (place, registry) = next(iter(found.items()))
        assert (place, registry.location, registry.insecure) == (
            each.host,
            each.host,
            each.insecure,
        )
        assert registry.mirrors == (("cache.lan:5000/hub", False), ("old.lan", True))


async def test_its_state_and_its_steps_name_mirrors_and_files(registries: FakeRegistries) -> None:
    made = await apply(registries, HUB)
    assert made.actions == (f"created {mirrors_path('docker.io')}",)
    assert made.after == RegistryAt(
        mirrors=("cache.lan:5000/hub", "old.lan (insecure)"),
        insecure=False,
        location="docker.io",
        blocked=False,
        ca="",
    )
    changed = await apply(registries, HUB.model_copy(update={"mirrors": HUB.mirrors[:1]}))
    assert changed.actions == (f"wrote {mirrors_path('docker.io')}",)
    assert changed.diff is not None
    assert '-location = "old.lan"' in changed.diff


async def test_a_file_that_is_needed_no_more_goes(registries: FakeRegistries) -> None:
    with_mirror = LAN.model_copy(update={"mirrors": HUB.mirrors[:1]})
    await apply(registries, with_mirror)
    change = await apply(registries, LAN)
    assert change.actions == (f"removed {mirrors_path(LAN.host)}",)
    assert not (await apply(registries, LAN)).changed
    change = await apply(registries, LAN.model_copy(update={"ca": None, "insecure": True}))
    assert change.actions == (
        f"created {mirrors_path(LAN.host)}",
        f"removed {certificates_path(LAN.host)}",
    )
    assert isinstance(change.after, RegistryAt)
    assert change.after.insecure
    assert not change.after.ca


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (THEIRS, '[[registry]]\nprefix = "docker.io"\nlocation = "other.lan"\n'),
        (f"{DIRECTORY}/zz.conf", '[[registry]]\nlocation = "docker.io/"\nblocked = true\n'),
        ("/etc/containers/registries.conf", '[[registry]]\nlocation = "docker.io"\n'),
        (THEIRS, '[[Registry]]\nLOCATION = "docker.io"\nBlocked = true\n'),
    ],
)
async def test_another_file_that_speaks_of_it_is_named_and_nothing_is_written(
    registries: FakeRegistries, path: str, text: str
) -> None:
    registries.disk.write(path, text.encode())
    for dry in (False, True):
        (error,) = await registries.converge([HUB], apply=not dry)
        assert isinstance(error, NotOurs)
        assert error.message.startswith(f"{path} says how podman uses docker.io, too")
        assert error.resource == "registry:docker.io"
    assert not registries.disk.exists(mirrors_path("docker.io"))
    registries.disk.delete(path)
    assert (await apply(registries, HUB)).changed
    registries.disk.write(path, text.encode())
    with pytest.raises(NotOurs, match="too, and only one file may"):
        await apply(registries, HUB)


async def test_a_part_of_a_registry_may_be_somebody_elses(registries: FakeRegistries) -> None:
    registries.disk.write(THEIRS, b'[[registry]]\nlocation = "docker.io/library"\n')
    assert (await apply(registries, HUB)).changed


async def test_a_file_that_podman_cannot_read_is_told(registries: FakeRegistries) -> None:
    await apply(registries, HUB)
    registries.disk.write(THEIRS, b"[[registry]\n")
    with pytest.raises(CapabilityUnavailable, match="could not read"):
        await apply(registries, HUB)


@pytest.mark.parametrize("wish", [HUB, HUB.model_copy(update={"mirrors": HUB.mirrors[:1]})])
async def test_a_file_of_ours_that_podman_cannot_read_is_put_right(
    registries: FakeRegistries, wish: ImageRegistry
) -> None:
    await apply(registries, HUB)
    registries.disk.write(mirrors_path("docker.io"), b"[[registry]\n")
    (planned,) = await registries.converge([wish], apply=False)
    assert isinstance(planned, Change)
    assert planned.changed
    change = await apply(registries, wish)
    assert (change.before, change.actions) == (None, (f"wrote {mirrors_path('docker.io')}",))
    assert not (await apply(registries, wish)).changed


async def test_a_file_of_ours_that_podman_cannot_read_can_be_removed(
    registries: FakeRegistries,
) -> None:
    await apply(registries, HUB)
    registries.disk.write(mirrors_path("docker.io"), b"[[registry]\n")
    (done,) = await registries.remove(["docker.io"], apply=True)
    assert isinstance(done, Change)
    assert not registries.disk.exists(mirrors_path("docker.io"))


async def test_a_strangers_file_that_podman_cannot_read_keeps_ours_from_nothing(
    registries: FakeRegistries,
) -> None:
    await apply(registries, HUB)
    ours = mirrors_path("docker.io")
    written = registries.disk.read(ours)
    registries.disk.write(THEIRS, b"[[registry]\n")
    for dry in (True, False):
        (error,) = await registries.converge([HUB], apply=not dry)
        assert isinstance(error, CapabilityUnavailable), dry
    registries.disk.write(ours, b"[[registry]\n")
    with pytest.raises(CapabilityUnavailable, match="could not read"):
        await apply(registries, HUB)
    assert registries.disk.read(ours) == written
    for _ in range(2):
        (error,) = await registries.remove(["docker.io"], apply=True)
        assert isinstance(error, CapabilityUnavailable)
        assert not registries.disk.exists(ours)
    registries.disk.delete(THEIRS)
    (done,) = await registries.remove(["docker.io"], apply=True)
    assert isinstance(done, Change)


@pytest.mark.parametrize("name", ["client.cert", "client.key", "ca.cert"])
async def test_half_of_a_clients_certificate_beside_ours_is_named(
    registries: FakeRegistries, name: str
) -> None:
    directory = certificates_path(LAN.host).rpartition("/")[0]
    await apply(registries, LAN)
    registries.disk.write(f"{directory}/{name}", b"x")
    with pytest.raises(NotOurs, match=f"{directory}/{name}"):
        await apply(registries, LAN)
    for ending in ("cert", "key"):
        registries.disk.write(f"{directory}/{name.partition('.')[0]}.{ending}", b"x")
    assert not (await apply(registries, LAN)).changed


async def test_certificates_in_a_directory_that_would_count_no_more_are_named(
    registries: FakeRegistries,
) -> None:
    directory = f"/etc/docker/certs.d/{LAN.host}"
    registries.disk.write(f"{directory}/ca.crt", CA.encode())
    with pytest.raises(NotOurs, match=directory):
        await apply(registries, LAN)
    assert not registries.disk.exists(certificates_path(LAN.host))


async def test_podman_that_says_otherwise_is_no_success(registries: FakeRegistries) -> None:
    registries.podman.goes_on_with = {}
    with pytest.raises(DidNotStick, match="nothing is found afterwards"):
        await apply(registries, HUB)
    registries.podman.goes_on_with = None
    assert not (await apply(registries, HUB)).changed


@pytest.mark.parametrize(
    ("wish", "field"),
    [(HUB, "mirrors"), (ImageRegistry(host="docker.io", insecure=True), "insecure")],
)
async def test_podman_that_goes_on_with_what_is_gone_is_no_removal(
    registries: FakeRegistries, wish: ImageRegistry, field: str
) -> None:
    await apply(registries, wish)
    registries.podman.goes_on_with = await registries.podman.ask(None)
    (error,) = await registries.remove(["docker.io"], apply=True)
    assert isinstance(error, DidNotStick)
    assert (error.field, error.remedy) == (field, "run: systemctl restart podman.service")
    registries.podman.goes_on_with = None
    (done,) = await registries.remove(["docker.io"], apply=True)
    assert isinstance(done, Change)
    assert done.after is None


async def test_what_stood_in_its_place_comes_back(registries: FakeRegistries) -> None:
    before = b"# mine\n"
    registries.disk.write(mirrors_path("docker.io"), before)
    await apply(registries, HUB)
    await registries.remove(["docker.io"], apply=True)
    assert registries.disk.read(mirrors_path("docker.io")) == before


async def test_whoever_writes_a_file_of_podmans_is_heard(registries: FakeRegistries) -> None:
    heard: list[str | None] = []
    await registries.watch(["docker.io"], heard.append)
    registries.disk.write(THEIRS, b"")
    assert heard == ["docker.io"]
