"""Volumes and networks on real podman, in a box: the contracts, and what only a real one can show."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from harmony_core import Container, ContainerNetwork, Volume
from harmony_core.change import Change
from harmony_core.container_turns import ContainerTurns
from harmony_core.errors import ContainerFailed, ContainerNetworkMissing, VolumeMissing
from harmony_core.reconciler import AnyReconciler, MemoryRecords
from harmony_core.resources import PublishedPort
from harmony_core.testing import (
    ContainerNetworkHostContract,
    ContainerNetworksUnderTest,
    ContainersUnderTest,
    ImagesUnderTest,
    VolumeHostContract,
    VolumesUnderTest,
)
from harmony_pi_topology.container_networks.podman_networks import PodmanNetworks
from harmony_pi_topology.containers.spec import MAX_HOLD_LABEL
from harmony_pi_topology.volumes.podman_volumes import PodmanVolumes
from tests.box import Bed, Box
from tests.soak import runs, seed
from tests.topology.box_containers import (
    BoxBystander,
    pushed_images,
    under_test,
    without_tag,
)
from tests.topology.converge_an_application import Spec, converge
from tests.topology.killing import killed

SLEEP = ("sleep", "1000")
SERVE = ("httpd", "-f", "-p", "80", "-h", "/www")
OURS = "harmony.resource=container:another"


class Somebody:
    """At the box, with podman's own command."""

    def __init__(self, box: Box, image: str) -> None:
        self._box = box
        self._image = image

    def run(self, *command: str, check: bool = True) -> str:
        return self._box.run(command, check=check).stdout.decode()

    def found(self, kind: str, name: str) -> Any:
        done = self._box.run(["podman", kind, "inspect", name], check=False)
        return json.loads(done.stdout)[0] if done.returncode == 0 else None

    def make(self, name: str, *options: str) -> None:
        self.run("podman", "create", "-q", "--name", f"on-{name}", *options, self._image, "true")

    def release(self, name: str) -> None:
        self.run("podman", "rm", "-f", "-t", "0", f"on-{name}")


class AtVolumes(Somebody):
    def identity(self, key: str) -> object | None:
        found: object = self.found("volume", key)
        return found

    def disturb(self, key: str) -> None:
        self.run("podman", "volume", "rm", "-f", key)

    def make_foreign(self) -> str:
        self.run("podman", "volume", "create", "--ignore", "theirs")
        return "theirs"

    def write(self, name: str, content: str) -> None:
        self._box.write(f"{self.found('volume', name)['Mountpoint']}/it", content)

    def read(self, name: str) -> str:
        if (found := self.found("volume", name)) is None:
            return ""
        return self.run("cat", f"{found['Mountpoint']}/it", check=False)

    def use(self, name: str) -> None:
        self.make(name, "-v", f"{name}:/data", "--label", OURS)


class AtNetworks(Somebody):
    def identity(self, key: str) -> object | None:
        if (found := self.found("network", key)) is None:
            return None
        return {name: value for name, value in found.items() if name != "containers"}

    def disturb(self, key: str) -> None:
        path = f"/etc/containers/networks/{key}.json"
        found = json.loads(self.run("cat", path))
        # As an editor does: podman, while it runs, notices what its directory notices.
        self.run("rm", path)
        self._box.write(path, json.dumps({**found, "internal": not found["internal"]}))

    def make_foreign(self) -> str:
        self.run("podman", "network", "create", "--ignore", "theirs")
        return "theirs"

    def use(self, name: str, *, ours: bool) -> None:
        self.make(name, "--network", name, "--label", OURS if ours else "no=label")


@pytest.fixture(scope="module")
def images(bed: Bed) -> ImagesUnderTest:
    return pushed_images(bed.registry)


@pytest.fixture
def clean(pi: Box, images: ImagesUnderTest) -> Box:
    """The box, with an image and nothing else."""
    pi.run(["podman", "rm", "-af", "-t", "0", "-v"])
    pi.run(["podman", "volume", "rm", "-af"])
    pi.run(["podman", "network", "prune", "-f"])
    pi.run(["podman", "pull", "-q", without_tag(images.first)])
    return pi


class TestVolumesInABox(VolumeHostContract):
    @pytest.fixture
    async def host(self, clean: Box, images: ImagesUnderTest) -> AsyncGenerator[VolumesUnderTest]:
        records, opened = MemoryRecords(), list[AnyReconciler]()

        def again() -> AnyReconciler:
            opened.append(PodmanVolumes(clean.podman_url, records=records))
            return opened[-1]

        outsider = AtVolumes(clean, without_tag(images.first))
        outsider.make_foreign()
        yield VolumesUnderTest(
            reconciler=again(),
            restarted=again,
            wish=Volume(name="it", labels={"com.acme.of": "it"}, delete_data=True),
            changed=Volume(name="it", labels={"com.acme.of": "it"}),
            beside=Volume(name="beside", delete_data=True),
            refused=Volume(name="theirs"),
            outsider=outsider,
        )
        for each in opened:
            await each.close()


class TestContainerNetworksInABox(ContainerNetworkHostContract):
    @pytest.fixture
    async def host(
        self, clean: Box, images: ImagesUnderTest
    ) -> AsyncGenerator[ContainerNetworksUnderTest]:
        records, opened = MemoryRecords(), list[AnyReconciler]()

        def again() -> AnyReconciler:
            opened.append(PodmanNetworks(clean.podman_url, records=records, root=clean.root))
            return opened[-1]

        outsider = AtNetworks(clean, without_tag(images.first))
        outsider.make_foreign()
        yield ContainerNetworksUnderTest(
            reconciler=again(),
            restarted=again,
            wish=ContainerNetwork(name="it", subnets=("10.211.0.0/24",)),
            changed=ContainerNetwork(name="it", subnets=("10.212.0.0/24",), internal=True),
            beside=ContainerNetwork(name="beside"),
            refused=ContainerNetwork(name="theirs"),
            outsider=outsider,
        )
        for each in opened:
            await each.close()
        outsider.release("it") if outsider.found("container", "on-it") else None


@attrs.frozen
class Application:
    """Containers, volumes and networks of one box, over one set of records."""

    box: Box
    containers: ContainersUnderTest
    volumes: PodmanVolumes
    networks: PodmanNetworks
    somebody: Somebody
    podman: BoxBystander

    async def have(self, *resources: Volume | ContainerNetwork | Container) -> None:
        """Converge each in turn."""
        for each in resources:
            match each:
                case Volume():
                    done = (await self.volumes.converge([each], apply=True))[0]
                case ContainerNetwork():
                    done = (await self.networks.converge([each], apply=True))[0]
                case Container():
                    done = await self.containers.apply_one(each)
            assert not isinstance(done, Exception), done
            assert done.pending is None

    async def change(self, network: ContainerNetwork) -> Change:
        (done,) = await self.networks.converge([network], apply=True)
        assert not isinstance(done, Exception), done
        return done

    def runs_on_back(self, container: str) -> bool:
        found = self.somebody.found("container", container)
        return (
            found is not None
            and found["State"]["Status"] == "running"
            and bool(found["NetworkSettings"]["Networks"]["back"]["IPAddress"])
        )

    def count_starts(self, container: str) -> int:
        return (
            self.somebody.run(
                *("podman", "events", "--stream=false", "--since", "10m", "--format", "{{.Name}}"),
                *("--filter", "event=start", "--filter", "type=container"),
            )
            .split()
            .count(container)
        )

    def within(self, container: str, *command: str) -> str:
        return self.somebody.run("podman", "exec", container, *command)


@pytest.fixture
async def app(clean: Box, images: ImagesUnderTest) -> AsyncGenerator[Application]:
    records, turns = MemoryRecords(), ContainerTurns()
    containers, bystander = under_test(clean, images, records=records, turns=turns)
    volumes = PodmanVolumes(clean.podman_url, records=records)
    networks = PodmanNetworks(clean.podman_url, records=records, root=clean.root, turns=turns)
    somebody = Somebody(clean, without_tag(images.first))
    yield Application(clean, containers, volumes, networks, somebody, bystander)
    await bystander.close()
    for each in (containers.containers, volumes, networks):
        await each.close()


@pytest.fixture
def web(images: ImagesUnderTest) -> Container:
    return Container(name="web", image=images.first, command=SLEEP, stop_timeout_s=0, settle_s=0.2)


def beside(web: Container, name: str, **changed: Any) -> Container:
    return Container.model_validate({**web.model_dump(), "name": name, **changed})


def fetch(app: Application, name: str, of: str) -> str:
    """Return the page that *of* serves by that name, as the container *name* sees it."""
    return app.within(name, "busybox", "wget", "-T", "5", "-qO-", f"http://{of}/")


async def test_containers_find_each_other_by_name_and_alias_on_their_network(
    app: Application, web: Container
) -> None:
    back = ContainerNetwork(name="back", subnets=("10.214.0.0/24",))
    attached = {"network": "back", "aliases": ("store",), "address": "10.214.0.9"}
    db = beside(web, "db", command=SERVE, networks=(attached,))
    front = beside(web, "front", networks=({"network": "back"},))
    alone = beside(web, "alone")
    await app.have(back, db, front, alone)
    for name in ("db", "store", "10.214.0.9"):
        assert fetch(app, "front", name) == "one\n"
    with pytest.raises(AssertionError, match="bad address"):
        fetch(app, "alone", "db")
    assert not (await app.containers.apply_one(db)).changed
    # Nobody else may have its address, whichever Score wants it.
    assert "container-address:back/10.214.0.9" in db.exclusive


async def test_a_network_is_made_anew_with_the_containers_on_it(
    app: Application, web: Container
) -> None:
    db = beside(web, "db", command=SERVE, networks=({"network": "back", "aliases": ("store",)},))
    front = beside(web, "front", networks=({"network": "back"},))
    await app.have(ContainerNetwork(name="back"), db, front)
    changed = ContainerNetwork(name="back", subnets=("10.215.0.0/24",), internal=True)
    (planned,) = await app.networks.converge([changed], apply=False)
    assert not isinstance(planned, Exception)
    assert planned.actions == (
        "recreated: internal, subnets changed",
        "ended, to be made anew on it: container db, container front",
    )
    await app.have(changed)
    for each in (db, front):
        assert (await app.containers.apply_one(each)).actions == (
            "recreated: networks changed",
            "started",
        )
    assert fetch(app, "front", "store") == "one\n"
    assert app.somebody.found("container", "db")["NetworkSettings"]["Networks"]["back"][
        "IPAddress"
    ].startswith("10.215.0.")


QUICK = ("sleep 1000 & wait", 0)
SLOW = ("trap 'sleep 2.5; exit 0' TERM; sleep 1000 & wait", 30)
"""What a container runs, and how long it may take to end."""


@pytest.mark.parametrize(
    ("db", "front"),
    [
        pytest.param(QUICK, QUICK, id="killed"),
        pytest.param(SLOW, SLOW, id="taking their time"),
        pytest.param(QUICK, SLOW, id="one after the other"),
    ],
)
async def test_what_ends_with_its_network_is_not_started_again_before_that_is_there(
    app: Application, web: Container, db: tuple[str, int], front: tuple[str, int]
) -> None:
    """An agent looks after each container the moment that it ends."""
    containers = [
        beside(
            web,
            name,
            command=("sh", "-c", does),
            stop_timeout_s=stop_timeout_s,
            networks=({"network": "back"},),
        )
        for name, (does, stop_timeout_s) in {"db": db, "front": front}.items()
    ]
    names = [each.name for each in containers]
    await app.have(ContainerNetwork(name="back"), *containers)
    starts = [app.count_starts(name) for name in names]
    async with asyncio.TaskGroup() as tasks:
        looking = [tasks.create_task(_look_after(app, each)) for each in containers]
        for internal in (True, False, True):
            before = [await app.podman.identity(name) for name in names]
            changed = ContainerNetwork(name="back", internal=internal)
            async with asyncio.timeout(60):
                while (change := await app.change(changed)).pending is not None:
                    await asyncio.sleep(change.pending.look_again_s)
                while not all(map(app.runs_on_back, names)):
                    await asyncio.sleep(0.05)
            after = [await app.podman.identity(name) for name in names]
            assert not set(before) & set(after)
        for each in looking:
            each.cancel()
    # Once each time, and never on the network that was about to go.
    assert [app.count_starts(name) for name in names] == [each + 3 for each in starts]


async def _look_after(app: Application, container: Container) -> None:
    while True:
        await app.containers.apply_one(container)
        await asyncio.sleep(0.01)


async def test_a_network_is_not_made_anew_beneath_a_container_that_holds(
    app: Application, web: Container
) -> None:
    db = beside(web, "db", networks=({"network": "back"},), max_hold_s=600)
    await app.have(ContainerNetwork(name="back"), db)
    await app.podman.write_hold("db", b'{"owner": "db", "reason": "writes"}')
    before = await app.podman.identity("db")
    changed = ContainerNetwork(name="back", internal=True)
    (held,) = await app.networks.converge([changed], apply=True)
    assert not isinstance(held, Exception)
    assert held.pending is not None
    assert held.pending.reason == "Held"
    assert await app.podman.identity("db") == before
    assert await app.networks.release("back")
    await app.have(changed, db)
    assert await app.podman.identity("db") != before


@asynccontextmanager
async def counted(socket: Path, podman_url: str) -> AsyncGenerator[list[str]]:
    """Pass on what comes to *socket*, and yield the first line of each question."""
    asked: list[str] = []
    relays: list[asyncio.Task[None] | None] = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relays.append(asyncio.current_task())
        podman = await asyncio.open_unix_connection(podman_url.removeprefix("unix://"))
        first = await reader.readline()
        asked.append(first.decode())
        podman[1].write(first)
        await asyncio.gather(_copy(reader, podman[1]), _copy(podman[0], writer))

    async with await asyncio.start_unix_server(relay, socket):
        yield asked
    await asyncio.gather(*filter(None, relays))


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65_536):
        sink.write(data)
        await sink.drain()
    sink.close()
    await sink.wait_closed()


async def test_whether_a_network_is_held_asks_about_those_alone_that_may_hold(
    clean: Box, images: ImagesUnderTest, tmp_path: Path
) -> None:
    clean.run(["podman", "network", "create", "many"])
    somebody = Somebody(clean, without_tag(images.first))
    for name in ("one", "two", "three"):
        somebody.make(name, "--network", "many", "--label", OURS)
    async with counted(tmp_path / "socket", clean.podman_url) as asked:
        networks = PodmanNetworks(f"unix://{tmp_path}/socket", root=clean.root)
        assert await networks.find_hold("many") is None
        assert len(asked) == 1, asked
        # A stranger's label makes it no holder; one of ours that may hold is looked at.
        somebody.make("theirs", "--network", "many", "--label", f"{MAX_HOLD_LABEL}=60")
        label = ("--label", OURS, "--label", f"{MAX_HOLD_LABEL}=60")
        somebody.make("holder", "--network", "many", *label)
        assert await networks.find_hold("many") is None
        assert len(asked) == 3, asked
        assert "/containers/on-holder/json" in asked[-1]
        await networks.close()
    for name in ("one", "two", "three", "theirs", "holder"):
        somebody.release(name)


@pytest.mark.parametrize(
    "wrong",
    [
        ["podman network disconnect back db"],
        ["podman network disconnect back db", "podman network connect back db"],
        ["podman network connect podman db"],
    ],
)
async def test_one_that_is_not_on_its_networks_as_it_should_is_made_anew(
    app: Application, web: Container, wrong: list[str]
) -> None:
    attached = {"network": "back", "aliases": ("store",), "address": "10.214.0.9"}
    db = beside(web, "db", networks=(attached,))
    await app.have(ContainerNetwork(name="back", subnets=("10.214.0.0/24",)), db)
    for command in wrong:
        app.somebody.run(*command.split())
    assert (await app.containers.apply_one(db)).actions == (
        "recreated: networks changed",
        "started",
    )
    assert not (await app.containers.apply_one(db)).changed


async def test_a_port_is_published_anew_on_the_network_that_it_is_on(
    app: Application, web: Container
) -> None:
    attached = {"network": "back", "aliases": ("store",), "address": "10.214.0.9"}
    db = beside(
        web,
        "db",
        command=SERVE,
        networks=(attached,),
        ports=(PublishedPort(host=8081, container=80),),
    )
    front = beside(web, "front", networks=({"network": "back"},))
    await app.have(ContainerNetwork(name="back", subnets=("10.214.0.0/24",)), db, front)
    before = await app.podman.identity("db")
    app.somebody.run("nft", "flush", "ruleset")
    get = ("busybox", "wget", "-T", "1", "-qO-", "http://127.0.0.1:8081/")
    app.somebody.run(*get, check=False)
    change = await app.containers.apply_one(db)
    assert change.actions == ("published anew: port 8081 led nowhere",)
    assert app.somebody.run(*get) == "one\n"
    assert await app.podman.identity("db") == before
    assert not (await app.containers.apply_one(db)).changed
    assert fetch(app, "front", "store") == "one\n"


async def test_what_is_missing_is_an_error_by_name_before_anything_is_touched(
    app: Application, web: Container
) -> None:
    await app.have(web)
    before = await app.podman.identity("web")
    wrong = {
        VolumeMissing: {"volumes": ({"volume": "nowhere", "target": "/data"},)},
        ContainerNetworkMissing: {"networks": ({"network": "nowhere"},)},
    }
    for error, fields in wrong.items():
        assert isinstance(
            (await app.containers.plan_one(beside(web, "web", **fields))).doubt, error
        )
        with pytest.raises(error, match="nowhere"):
            await app.containers.apply_one(beside(web, "web", **fields))
        assert await app.podman.identity("web") == before
        assert app.somebody.found("volume", "nowhere") is None
    assert not (await app.containers.apply_one(web)).changed


async def test_an_address_that_is_not_of_the_network_is_told_while_the_old_one_runs(
    app: Application, web: Container
) -> None:
    await app.have(ContainerNetwork(name="back", subnets=("10.214.0.0/24",)), web)
    before = await app.podman.identity("web")
    for address, told in (
        ("10.9.0.9", "is no address of network back"),
        ("10.214.0.0", "is no container's"),
        ("10.214.0.1", "is no container's"),
        ("10.214.0.255", "is no container's"),
    ):
        wrong = beside(web, "web", networks=({"network": "back", "address": address},))
        with pytest.raises(ContainerFailed, match=f"{re.escape(address)} .*{told}"):
            await app.containers.apply_one(wrong)
        assert await app.podman.identity("web") == before


async def test_data_outlives_another_image_another_name_and_the_removal_of_all(
    app: Application, web: Container, images: ImagesUnderTest
) -> None:
    data = Volume(name="data")
    sees = {"volumes": ({"volume": "data", "target": "/data"},)}
    await app.have(data, beside(web, "web", **sees))
    app.within("web", "sh", "-c", "echo kept > /data/it; echo ours > /ours")
    # Another image, which has a volume of its own there; back; and another name.
    for image in (images.with_volume, images.first):
        await app.have(beside(web, "web", image=image, **sees))
        assert app.within("web", "cat", "/data/it") == "kept\n"
    removed = await app.containers.remove_one("web")
    assert removed.actions == ("stopped", "removed"), "a volume of a Score's is its own to tell"
    reads = beside(web, "renamed", volumes=({"volume": "data", "target": "/d", "read_only": True},))
    await app.have(reads)
    assert app.within("renamed", "cat", "/d/it") == "kept\n"
    with pytest.raises(AssertionError, match="Read-only"):
        app.within("renamed", "sh", "-c", "echo > /d/it")
    await app.containers.remove_one("renamed")
    await app.volumes.remove(["data"], apply=True)
    await app.have(data, reads)
    assert app.within("renamed", "cat", "/d/it") == "kept\n"


async def test_a_volume_that_was_made_anew_beneath_a_container_is_seen(
    app: Application, web: Container
) -> None:
    sees = beside(web, "web", volumes=({"volume": "data", "target": "/data"},))
    await app.have(Volume(name="data"), sees)
    place = app.somebody.found("volume", "data")["Mountpoint"]
    app.somebody.run("sh", "-c", f"rm -r {place} && mkdir {place} && echo new > {place}/it")
    (planned,) = await app.containers.containers.converge([sees], apply=False)
    assert not isinstance(planned, Exception)
    change = await app.containers.apply_one(sees)
    assert change.actions == planned.actions
    assert change.actions == ("recreated: the data of volume data changed", "started")
    assert app.within("web", "cat", "/data/it") == "new\n"
    assert not (await app.containers.apply_one(sees)).changed


async def test_a_strangers_volume_may_be_seen_as_it_is(app: Application, web: Container) -> None:
    app.somebody.run("podman", "volume", "create", "theirs")
    await app.have(beside(web, "web", volumes=({"volume": "theirs", "target": "/data"},)))
    await app.have(beside(web, "other", volumes=({"volume": "theirs", "target": "/data"},)))
    app.within("web", "sh", "-c", "echo shared > /data/it")
    assert app.within("other", "cat", "/data/it") == "shared\n"


@pytest.mark.soak
@pytest.mark.timeout(7200)
async def test_not_a_byte_is_lost_whatever_becomes_of_the_application(
    clean: Box, images: ImagesUnderTest, web: Container, tmp_path: Path
) -> None:
    """Changed, renamed, rolled back, removed with its volumes' Scores, saved, loaded; killed meanwhile, or
    the box with it; two volumes."""
    dice, records = random.Random(seed()), str(tmp_path / "records.json")
    somebody = AtVolumes(clean, without_tag(images.first))
    names = ("left", "right")
    expected = dict.fromkeys(names, "")
    archived: dict[str, str] = {}
    wish, before = sees_both(web, "web"), sees_both(web, "web")
    for run in range(runs(1000, part=10)):
        removed: tuple[str, ...] = ()
        removed_volumes: tuple[str, ...] = ()
        after, side = wish, dice.choice(names)
        saved: tuple[str, str] | None = None
        loaded: tuple[str, str] | None = None
        earlier = dict(expected)
        file = (side, str(tmp_path / f"{side}.tar"))
        match dice.choice(["change", "image", "rename", "rollback", "remove", "save", "load"]):
            case "change":
                after = wish.model_copy(update={"environment": {"RUN": str(run)}})
            case "image":
                image = dice.choice([images.first, images.second, images.with_volume])
                after = wish.model_copy(update={"image": image})
            case "rename":
                after, removed = wish.model_copy(update={"name": f"web-{run}"}), (wish.name,)
            case "rollback":
                after = before
                removed = (wish.name,) if wish.name != before.name else ()
            case "save" if run:
                saved, archived[side] = file, expected[side]
            case "load" if side in archived:
                loaded, expected[side] = file, archived[side]
            case _:
                removed, removed_volumes = (wish.name,), names
        spec = Spec(
            url=clean.podman_url,
            root=str(clean.root),
            records=records,
            volumes=tuple(Volume(name=each).model_dump_json() for each in names),
            container=after.model_dump_json(),
            removed=removed,
            removed_volumes=removed_volumes,
            saved=saved,
            loaded=loaded,
        )
        if dice.random() < 0.6:
            within_s = dice.uniform(0, 2.5)
            await killed("tests.topology.converge_an_application", spec, after_s=within_s)
            assert {each: somebody.read(each) for each in names} in (earlier, expected), f"in {run}"
            if dice.random() < 0.2:
                clean.power_cut()
                clean.power_on()
                spec = attrs.evolve(spec, url=clean.podman_url, root=str(clean.root))
        await converge(spec)
        before, wish = wish, after
        assert {each: somebody.read(each) for each in names} == expected, f"in run {run}"
        side, text = dice.choice(names), f"{run}: {dice.random()}\n"
        append = f"printf '%s' '{text}' >> /{side}/it"
        somebody.run("podman", "exec", wish.name, "sh", "-c", append)
        expected[side] += text
        assert somebody.run("podman", "ps", "-a", "--format={{.Names}}") == f"{wish.name}\n"


def sees_both(web: Container, name: str) -> Container:
    return beside(
        web,
        name,
        volumes=({"volume": "left", "target": "/left"}, {"volume": "right", "target": "/right"}),
    )
