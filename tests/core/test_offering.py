"""What packages offer on a device: each asked alone, ours first, and nothing taken that nobody has given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest

from harmony_core import File
from harmony_core.place import Place
from harmony_core.plugins import load
from harmony_core.plugins.offering import Offering, offered
from harmony_core.reconciler import MemoryBackups, MemoryRecords
from harmony_core.scoping import ScopedRecords
from harmony_core.testing import AllowAll
from harmony_pi_topology.discovery import Discovery
from harmony_pi_topology.files.reconciler import PosixFiles
from tests.core.installed import Site

ALWAYS = {"FileSystemHost", "DirectoryHost", "LinkHost", "BlockHost"}
OURS = ALWAYS | {
    "SystemdHost",
    "JobRunner",
    "ContainerRuntime",
    "VolumeHost",
    "ContainerNetworkHost",
    "NetworkConfigurator",
    "FirewallHost",
    "HostConfigurator",
    "MountHost",
    "RegistryHost",
    "RebootHost",
}

LAMPS = """
from harmony_core import Resource, impl
from harmony_core.reconciler import Availability, Unwatched

class Lamp(Resource):
    resource_type = "lamp"
    name: str
    key = property(lambda self: self.name)

class Lamps(Unwatched):
    resource_class = Lamp
    closed = False

    async def converge(self, resources, *, apply): raise NotImplementedError
    async def observe(self, key): raise NotImplementedError
    async def remove(self, keys, *, apply): raise NotImplementedError
    async def availability(self): return Availability(available=True)
    async def close(self): self.closed = True

@impl
def harmony_capabilities(place):
    return {"LampHost": Lamps()}
"""


class Reachable:
    async def reachable(self) -> bool:
        return True


def folder(root: Path) -> Place:
    return Place(
        root=root,
        secrets_directory=root / "secrets",
        podman_url="unix:///nowhere",
        records=MemoryRecords(),
        backups=MemoryBackups(),
        reachability=Reachable(),
        policy=AllowAll(),
    )


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


def look(root: Path, use: Mapping[str, str] | None = None) -> Offering:
    return offered(load().providers, folder(root), use)


def lamps(name: str = "LampHost", value: str = "Lamps()") -> str:
    return LAMPS.replace('{"LampHost": Lamps()}', f"{{{name!r}: {value}}}")


def test_ours_come_in_by_the_hook_that_anybody_has(tmp_path: Path) -> None:
    found = look(tmp_path)
    assert found.offers.keys() == ALWAYS
    assert found.missing.keys() == OURS - ALWAYS
    assert f"this device is the folder {tmp_path}" in found.missing["SystemdHost"]
    assert found.errors == ()


def test_a_stranger_s_stands_beside_ours(site: Site, tmp_path: Path) -> None:
    site.install("lamps", LAMPS)
    assert look(tmp_path).offers.keys() == {*ALWAYS, "LampHost"}


def test_a_reason_why_not_is_told_as_it_was_written(site: Site, tmp_path: Path) -> None:
    site.install("lamps", lamps(value="'no lamp is connected; connect one'"))
    found = look(tmp_path)
    assert found.missing["LampHost"] == "no lamp is connected; connect one"
    assert found.errors == ()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (LAMPS.replace("Lamps()}", "1 / 0}"), "ZeroDivisionError: "),
        (
            LAMPS.replace('return {"LampHost"', 'raise SystemExit(3) or {"LampHost"'),
            "SystemExit: 3",
        ),
        (LAMPS.replace('{"LampHost": Lamps()}', "5"), "TypeError: "),
        (LAMPS.replace('"LampHost":', "5:"), "5 names no capability"),
        (lamps(name="lamp host"), "'lamp host' names no capability"),
        (lamps(value="Lamps"), "is neither a reconciler nor the reason why"),
        (lamps(value="None"), "None is neither a reconciler nor the reason why"),
        (lamps(value="' '"), "an empty reason says nothing"),
        (
            LAMPS.replace("resource_class = Lamp\n", "resource_class = 'lamp'\n"),
            "'lamp', not a class derived from Resource",
        ),
        (LAMPS.replace('"lamp"', '"Lamp:"'), "Lamp.resource_type is 'Lamp:'; write a word"),
        (LAMPS.replace('resource_type = "lamp"', ""), "Lamp.resource_type is None; write a word"),
        (LAMPS.replace('"lamp"', '"file"'), "the resource type 'file' is FileSystemHost's"),
        (lamps(name="FileSystemHost"), "FileSystemHost is already provided by files = harmony_pi"),
        (lamps(name="SystemdHost"), "SystemdHost is already provided by systemd = harmony_pi"),
    ],
)
def test_what_is_wrong_with_one_package_is_told_and_costs_only_itself(
    site: Site, tmp_path: Path, code: str, reason: str
) -> None:
    module = site.install("broken", code)
    found = look(tmp_path)
    assert found.offers.keys() == ALWAYS
    assert found.offers["FileSystemHost"].resource_class is File
    (error,) = found.errors
    assert error.entry_point == f"scores = {module} (broken 1.0)"
    assert reason in error.reason


def test_a_package_takes_the_place_of_ours_where_the_device_s_owner_says_so(
    site: Site, tmp_path: Path
) -> None:
    site.install("lamps", lamps(name="FileSystemHost").replace('"lamp"', '"file"'))
    found = look(tmp_path, {"FileSystemHost": "lamps"})
    assert type(found.offers["FileSystemHost"]).__name__ == "Lamps"
    assert [each.resource_class for each in found.unused] == [File]
    assert found.errors == ()


@pytest.mark.parametrize("name", ["FileSystemHost", "LampHost"])
def test_whoever_is_named_and_does_not_offer_it_leaves_it_unoffered(
    tmp_path: Path, name: str
) -> None:
    """Ours must not step in: whoever named another package does not want it."""
    found = look(tmp_path, {name: "lamps"})
    assert found.offers.keys() == ALWAYS - {name}
    assert "comes from the package lamps, which does not offer it here" in found.missing[name]


def test_one_that_is_named_and_unfit_says_why_it_is_not_offered(site: Site, tmp_path: Path) -> None:
    site.install("lamps", lamps(name="FileSystemHost", value="None"))
    found = look(tmp_path, {"FileSystemHost": "lamps"})
    assert "FileSystemHost" not in found.offers
    assert "None is neither a reconciler" in found.missing["FileSystemHost"]


async def test_what_is_not_used_is_closed_all_the_same(site: Site, tmp_path: Path) -> None:
    site.install("lamps", lamps(name="FileSystemHost"))
    found = look(tmp_path)
    (unused,) = found.unused
    await Discovery(offers=found.offers, missing=found.missing, unused=found.unused).close()
    assert vars(unused) == {"closed": True}


@pytest.mark.parametrize("is_scoped", [True, False])
async def test_two_that_make_the_same_in_two_places_give_back_to_each_what_it_had(
    tmp_path: Path, is_scoped: bool
) -> None:
    """Without a scope they do not: that is what it is for."""
    shared = folder(tmp_path)
    motd = File(path="/etc/motd", content=b"ours\n")
    hosts: dict[Path, PosixFiles] = {}
    for name in ("a", "b"):
        root = tmp_path / name
        (root / "etc").mkdir(parents=True)
        (root / "etc/motd").write_text(f"mine was {name}\n")
        place = attrs.evolve(shared.scoped(name) if is_scoped else shared, root=root)
        hosts[root] = PosixFiles(str(root), records=place.records, backups=place.backups)
    for files in hosts.values():
        await files.converge([motd], apply=True)
    for files in hosts.values():
        await files.remove([motd.path], apply=True)
        await files.close()
    had = [root.joinpath("etc/motd").read_text() == f"mine was {root.name}\n" for root in hosts]
    assert all(had) is is_scoped


@pytest.mark.parametrize("name", ["", "a/b", "a:b"])
def test_a_scope_that_could_be_met_by_another_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a scope"):
        ScopedRecords(MemoryRecords(), name)
