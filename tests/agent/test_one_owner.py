"""One thing has one owner, under all its names: paths, aliases, ports, settings, packages, users."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from harmony_agent.policy_toml import PolicyTable
from harmony_core.outcome import Failure
from harmony_core.plugins import Registry
from harmony_core.resources import File
from harmony_core.score import Score
from harmony_core.testing import FakeFiles, FakeJobs, FakePi
from harmony_core.wire.actual_state import ScoreStatus
from harmony_core.wire.envelope import generate_key
from harmony_scores import (
    AptSourceScore,
    BlockScore,
    ContainerScore,
    DirectoryScore,
    FileScore,
    LinkScore,
    PackageScore,
    SysctlScore,
    SystemdServiceScore,
    SystemdUnitScore,
    UserScore,
)

from .rig import Several, code, entry, status
from .virtual import VirtualDevice

pytestmark = pytest.mark.looptime

TWO = "/etc/systemd/system/two.service"
FILE_OF_TWO = FileScore(path=TWO, content="[Service]\nExecStart=/bin/false\n")
UNIT_TWO = SystemdServiceScore(
    name="two.service",
    enabled=None,
    unit_file="[Service]\nExecStart=/usr/bin/sleep 3001\n",
    settle_s=0,
)
PLAYER = SystemdServiceScore(
    name="radio-player.service",
    settle_s=0,
    unit_file="[Service]\nExecStart=/usr/bin/sleep 3001\n[Install]\nAlias=radio.service\n",
)
RADIO = SystemdServiceScore(name="radio.service", enabled=None, state="stopped", settle_s=0)


class Bound(FakeFiles):
    """Files of which those below /b are those below /a, once that is mounted."""

    mounted = True
    numbers: Mapping[str, str] = MappingProxyType({})

    async def identities(self, resource: File) -> frozenset[str]:
        path = resource.path
        if self.mounted and path.startswith("/b/"):
            path = f"/a/{path[3:]}"
        return frozenset({f"inode:{self.numbers.get(path, path)}"})


@pytest.fixture
def files() -> Bound:
    return Bound()


@pytest.fixture
def jobs() -> FakeJobs:
    return FakeJobs()


@pytest.fixture
async def device(tmp_path: Path, files: Bound, jobs: FakeJobs) -> AsyncGenerator[VirtualDevice]:
    """To be started by the test, since only there the clock jumps."""
    pi = FakePi()
    pi.systemd.files = files.contents
    offers = {**pi.offers, "FileSystemHost": files, "JobRunner": jobs}
    kinds = (
        AptSourceScore,
        BlockScore,
        ContainerScore,
        DirectoryScore,
        FileScore,
        LinkScore,
        PackageScore,
        Several,
        SysctlScore,
        SystemdServiceScore,
        SystemdUnitScore,
        UserScore,
    )
    it = VirtualDevice(
        tmp_path,
        generate_key(),
        Registry(kinds),
        offers,
        policy=PolicyTable(preset="open", jobs="any"),
    )
    yield it
    await it.kill()
    it.close()


def words(page: ScoreStatus) -> str:
    assert isinstance(page.outcome, Failure), page.outcome
    return page.outcome.error.message


def sysctl(name: str, key: str, value: str) -> SysctlScore:
    return SysctlScore(name=name, settings={key: value})


def web(name: str, address: str) -> ContainerScore:
    return ContainerScore.model_validate(
        {
            "name": name,
            "image": f"registry.test/web:1@sha256:{'1' * 64}",
            "ports": [{"host": 80, "container": 80, "address": address}],
            "settle_s": 0,
        }
    )


SOURCE = AptSourceScore(
    name="x",
    uris=("https://packages.example.org",),
    suites=("./",),
    keyring="/usr/share/keyrings/x.gpg",
)

SOURCE_TOO = SOURCE.model_copy(update={"name": "y", "keyring": "/usr/share/keyrings/y.gpg"})

MEDIA = SystemdUnitScore(name="media.slice", enabled=None, content="[Slice]\nMemoryMax=1G\n")
MEDIA_TOO = MEDIA.model_copy(update={"content": "[Slice]\nMemoryMax=2G\n"})

PAIRS: Sequence[tuple[Score[Any], Score[Any], str]] = [
    (FILE_OF_TWO, UNIT_TWO, f"path:{TWO}, which file:{TWO} of Score 'first'"),
    (PLAYER, RADIO, "unit:radio.service, which unit:radio-player.service of Score 'first'"),
    (MEDIA, MEDIA_TOO, "unit:media.slice"),
    (
        DirectoryScore(path="/srv/x"),
        FileScore(path="/srv/x", content=""),
        "path:/srv/x, which directory:/srv/x of Score 'first'",
    ),
    (
        FileScore(path="/srv/x", content=""),
        LinkScore(path="/srv/x", target="y"),
        "path:/srv/x, which file:/srv/x of Score 'first'",
    ),
    (
        BlockScore(path="/srv/x", key="a", value="1"),
        FileScore(path="/srv/x", content=""),
        "path:/srv/x, which block:/srv/x#setting:/a of Score 'first'",
    ),
    (
        FileScore(path="/a/x", content="1"),
        FileScore(path="/b/x", content="2"),
        "inode:/a/x, which file:/a/x of Score 'first'",
    ),
    (
        sysctl("a", "net.ipv4.tcp_keepalive_time", "600"),
        sysctl("b", "net/ipv4/tcp_keepalive_time", "900"),
        "sysctl:net/ipv4/tcp_keepalive_time (900), which unit:harmony-sysctl-a.service of Score 'first'",
    ),
    (
        PackageScore(name="a", packages=("nginx", "curl")),
        PackageScore(name="b", packages=("nginx=1.2",)),
        "package:nginx (1.2), which job:packages-a of Score 'first'",
    ),
    (
        PackageScore(name="a", packages=("nginx",)),
        PackageScore(name="b", absent=("nginx:armhf",)),
        "package:nginx (no version), which job:packages-a of Score 'first'",
    ),
    (
        FileScore(path="/etc/apt/sources.list.d/x.sources", content=""),
        SOURCE,
        "path:/etc/apt/sources.list.d/x.sources, which file:",
    ),
    (SOURCE, SOURCE_TOO, "job:apt-place-https---packages-example-org"),
    (
        SOURCE,
        SOURCE_TOO.model_copy(update={"uris": ("https://packages.example.org/",)}),
        "belongs to Score 'first'",
    ),
    (
        UserScore(name="web", uid=950),
        UserScore(name="mail", uid=950),
        "id:950, which unit:harmony-user-web.service of Score 'first'",
    ),
    (
        web("a", "127.0.0.1"),
        web("b", "0.0.0.0"),
        "port:[0.0.0.0]:80/tcp, which container:a of Score 'first'",
    ),
]


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [each for one, other, shared in PAIRS for each in ((one, other, shared), (other, one, ""))],
)
async def test_whoever_wants_one_thing_under_another_name_is_refused(
    device: VirtualDevice, one: Score[Any], other: Score[Any], shared: str
) -> None:
    await device.start()
    both = [entry(one, "first"), entry(other, "second")]
    plans = await device.agent.controller.preview.preview(both)
    foreseen = {each.score: each.planned for each in plans}["second"]
    assert foreseen is not None
    assert foreseen.verdict.outcome.status == "FAILURE"
    pages = await device.pages(both)
    assert not isinstance(pages["first"].outcome, Failure)
    assert code(pages["second"]) == "OwnershipConflict"
    assert shared in words(pages["second"])
    assert "Score 'first'" in words(pages["second"])
    # Who has it comes first, wherever the manifest has it; and once it is free, the other one is made.
    pages = await device.pages(both[::-1])
    assert status(pages)["second"] == "FAILURE"
    pages = await device.pages(both[1:])
    assert not isinstance(pages["second"].outcome, Failure), pages


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (sysctl("a", "net.ipv4.tcp_rmem", "4 5 6"), sysctl("b", "net/ipv4/tcp_rmem", "4 5  6")),
        (PackageScore(name="a", packages=("nginx",)), PackageScore(name="b", packages=("nginx", "curl"))),
        (PackageScore(name="a", absent=("nginx",)), PackageScore(name="b", absent=("nginx", "curl"))),
        (PackageScore(name="a", packages=("a1",), hold=True), PackageScore(name="b", packages=("a1:arm64",))),
        (UserScore(name="web", uid=950), UserScore(name="mail", uid=951, groups=("web",))),
        (SOURCE, SOURCE.model_copy(update={"name": "y"})),
        (SOURCE, SOURCE_TOO.model_copy(update={"suites": ("other/",)})),
        (PLAYER, UNIT_TWO),
        (BlockScore(path="/srv/x", key="a", value="1"), BlockScore(path="/srv/x", key="b", value="1")),
    ],
)  # fmt: skip
async def test_what_is_wanted_alike_or_apart_is_given_to_both(
    device: VirtualDevice, one: Score[Any], other: Score[Any]
) -> None:
    await device.start()
    pages = await device.pages([entry(one, "first"), entry(other, "second")])
    assert "FAILURE" not in status(pages).values(), pages


async def test_what_two_set_alike_changes_when_both_change_it_and_not_when_one_does(
    device: VirtualDevice,
) -> None:
    await device.start()

    def both(first: str, second: str) -> list[Any]:
        key = "net.ipv4.tcp_keepalive_time"
        return [entry(sysctl("a", key, first), "a"), entry(sysctl("b", key, second), "b")]

    await device.pages(both("600", "600"))
    pages = await device.pages(both("900", "600"))
    assert status(pages) == {"a": "FAILURE", "b": "NOOP"}
    pages = await device.pages(both("700", "700"))
    assert "FAILURE" not in status(pages).values(), pages
    assert await device.agent.controller.preview.preview(both("800", "800"))
    pages = await device.pages(both("800", "800"))
    assert status(pages) == {"a": "SUCCESS", "b": "SUCCESS"}


async def test_a_source_by_another_name_is_read_before_the_former_one_goes(
    device: VirtualDevice, jobs: FakeJobs
) -> None:
    await device.start()
    await device.pages([entry(SOURCE, "it")])
    jobs.begun.clear()
    pages = await device.pages([entry(SOURCE_TOO, "it")])
    assert not isinstance(pages["it"].outcome, Failure)
    assert [command[5] for command in jobs.begun if command[0] == "/bin/sh"] == ["y", "x"]


async def test_a_file_that_becomes_a_unit_of_the_same_score_makes_way_for_it(
    device: VirtualDevice, files: Bound
) -> None:
    await device.start()
    await device.pages([entry(FILE_OF_TWO, "it")])
    assert status(await device.pages([entry(UNIT_TWO, "it")])) == {"it": "SUCCESS"}
    assert files.read(TWO) == (UNIT_TWO.unit_file or "").encode()


async def test_a_file_that_becomes_a_unit_of_another_score_makes_way_for_it(
    device: VirtualDevice,
) -> None:
    await device.start()
    await device.pages([entry(FILE_OF_TWO, "old")])
    assert status(await device.pages([entry(UNIT_TWO, "new")])) == {"new": "SUCCESS"}


async def test_where_two_turn_out_to_be_one_the_manifest_decides(
    device: VirtualDevice, files: Bound
) -> None:
    await device.start()
    files.mounted = False
    both = [
        entry(FileScore(path="/b/x", content="2"), "second"),
        entry(FileScore(path="/a/x", content="1"), "first"),
    ]
    await device.pages(both)
    files.mounted = True
    await device.reboot()
    pages = await device.pages(both[::-1])
    assert status(pages) == {"first": "NOOP", "second": "FAILURE"}


async def test_a_number_that_is_given_again_is_no_conflict(
    device: VirtualDevice, files: Bound
) -> None:
    await device.start()
    first, second = FileScore(path="/a/x", content="1"), FileScore(path="/b/x", content="2")
    await device.pages([entry(first, "first")])
    files.mounted = False
    files.numbers = {"/a/x": "9", "/b/x": "/a/x"}
    pages = await device.pages([entry(first, "first"), entry(second, "second")])
    assert status(pages) == {"first": "NOOP", "second": "SUCCESS"}


async def test_one_score_cannot_want_one_thing_twice(device: VirtualDevice) -> None:
    await device.start()
    pages = await device.pages([entry(Several(paths=("/a/x", "/b/x")), "it")])
    assert code(pages["it"]) == "OwnershipConflict"
    assert "file:/a/x of Score 'it'" in words(pages["it"])
