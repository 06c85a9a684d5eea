"""Containers on real podman, in a box: the contract, and what only a real one can show."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from pathlib import Path, PurePosixPath

import attrs
import pytest

from harmony_core.change import Change
from harmony_core.errors import (
    CapabilityUnavailable,
    ContainerFailed,
    MountMissing,
    NotOurs,
    NotReadyInTime,
    TimedOut,
    TransientError,
    UnsafePath,
    WriteFailed,
)
from harmony_core.reconciler import MemoryRecords
from harmony_core.resources import (
    Container,
    ContainerSecret,
    Exited,
    HttpProbe,
    Mount,
    PublishedPort,
    Running,
    Starting,
)
from harmony_core.secret_values import SecretValues, secret_word
from harmony_core.testing import (
    ContainerRuntimeContract,
    ContainersUnderTest,
    Hearer,
    ImagesUnderTest,
)
from harmony_pi_topology.containers.reconciler import PodmanContainers
from harmony_pi_topology.containers.secret_store import name_secret
from harmony_pi_topology.testing.containers_replacing_contract import PORT
from tests.box import Bed, Box
from tests.soak import runs, seed
from tests.topology.box_containers import (
    BoxBystander,
    emptied,
    pushed_images,
    under_test,
    without_tag,
)
from tests.topology.converge_a_container import Spec
from tests.topology.converge_a_unit import FileRecords
from tests.topology.killing import killed
from tests.topology.slow_link import SlowLink

SLEEP = ("sleep", "1000")
CONTAINERFILE = """\
FROM {image}
VOLUME /data
HEALTHCHECK --interval=1s CMD /bin/true
"""


@pytest.fixture(scope="module")
def images(bed: Bed) -> ImagesUnderTest:
    return pushed_images(bed.registry)


@attrs.frozen
class InBox:
    """A reconciler, the box, and podman's own view of it."""

    containers: PodmanContainers
    under_test: ContainersUnderTest
    podman: BoxBystander
    box: Box


@pytest.fixture
async def inbox(pi: Box, images: ImagesUnderTest) -> AsyncGenerator[InBox]:
    emptied(pi)
    host, bystander = under_test(pi, images)
    assert isinstance(host.containers, PodmanContainers)
    yield InBox(host.containers, host, bystander, pi)
    await bystander.close()
    await host.containers.close()


class TestPodmanInABox(ContainerRuntimeContract):
    @pytest.fixture
    def host(self, inbox: InBox) -> ContainersUnderTest:
        return inbox.under_test


@pytest.fixture
def web(images: ImagesUnderTest) -> Container:
    return Container(name="web", image=images.first, command=SLEEP, stop_timeout_s=0, settle_s=0.2)


async def test_everything_wished_for_reaches_the_container(inbox: InBox, web: Container) -> None:
    inbox.box.write("/srv/harmony-contract/page/index.html", "mounted\n")
    inbox.box.write("/srv/harmony-contract/data/there", "")
    wish = web.model_copy(
        update={
            "command": ("sh", "-c", "echo $GREETING; id -u; exec httpd -f -p 8080 -h /page"),
            "environment": {"GREETING": "good morning, 'world' $HOME"},
            "ports": (PublishedPort(host=8080, container=8080, address=inbox.box.address),),
            "mounts": (
                Mount(source="/srv/harmony-contract/page", target="/page"),
                Mount(source="/srv/harmony-contract/data", target="/data", read_only=False),
            ),
            "user": "1000",
            "read_only": True,
        }
    )
    await inbox.under_test.apply_one(wish)
    found = await inbox.podman.inspect("web")
    log = (await inbox.podman.run("podman", "logs", "web")).stdout.decode()
    assert log == "good morning, 'world' $HOME\n1000\n"
    host = found["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["RestartPolicy"]["Name"] == "always"
    assert {(mount["Destination"], mount["RW"]) for mount in found["Mounts"]} == {
        ("/page", False),
        ("/data", True),
    }
    page = await inbox.podman.run("busybox", "wget", "-qO-", f"http://{inbox.box.address}:8080/")
    assert page.stdout == b"mounted\n"


async def test_nothing_else_of_the_host_reaches_it(inbox: InBox, web: Container) -> None:
    await inbox.under_test.apply_one(web)
    found = await inbox.podman.inspect("web")
    host = found["HostConfig"]
    assert not host["Privileged"]
    assert (host["Devices"], host["CapAdd"], found["Mounts"]) == ([], [], [])
    namespaces = [host[f"{name}Mode"] for name in ("Pid", "Network", "Ipc", "UTS", "Userns")]
    assert "host" not in namespaces
    assert host["NetworkMode"] == "bridge"


async def test_labels_say_what_it_is_and_not_whose(inbox: InBox, web: Container) -> None:
    await inbox.under_test.apply_one(
        web.model_copy(update={"environment": {"PASSWORD": "hunter2"}})
    )
    labels = (await inbox.podman.inspect("web"))["Config"]["Labels"]
    assert {name for name, text in labels.items() if text} == {
        "harmony.resource",
        "harmony.spec",
        "harmony.fields",
    }
    assert labels["harmony.resource"] == "container:web"
    assert "hunter2" not in str(labels)


async def test_an_image_s_own_health_check_does_not_run_and_its_volume_stays(
    inbox: InBox, web: Container
) -> None:
    await inbox.under_test.apply_one(web)
    image = (await inbox.podman.inspect("web"))["ImageName"]
    inbox.box.write("/root/Containerfile", CONTAINERFILE.format(image=image))
    build = ("podman", "build", "--format=docker", "--network=none", "-t", "localhost/health:1")
    await inbox.podman.run(*build, "-f", "/root/Containerfile")
    await inbox.under_test.apply_one(web.model_copy(update={"image": "localhost/health:1"}))
    found = await inbox.podman.inspect("web")
    assert found["Config"]["Healthcheck"] == {"Test": ["NONE"]}
    volume = await inbox.podman.volume("web", "/data")
    assert volume is not None
    assert [mount["Name"] for mount in found["Mounts"]] == [volume]
    timers = await inbox.podman.run("systemctl", "list-timers", "--all", "--no-legend")
    assert found["Id"] not in timers.stdout.decode()
    await inbox.under_test.remove_one("web")
    assert await inbox.podman.has_volume(volume)
    assert (
        await inbox.podman.has_image(f"{image.partition('@')[0]}:x@{image.partition('@')[2]}")
        is False
    )


async def test_what_was_written_to_a_nameless_volume_is_passed_on(
    inbox: InBox, images: ImagesUnderTest, web: Container
) -> None:
    """As an older agent has made it: only podman knows whose that volume is."""
    wish = web.model_copy(update={"image": images.with_volume, "user": "0"})
    labels = ("harmony.resource=container:web", "harmony.spec=old", "harmony.fields={}")
    options = [option for label in labels for option in ("--label", label)]
    await inbox.podman.run(
        *("podman", "run", "-d", "--name", "web", *options),
        *(without_tag(images.with_volume), *SLEEP),
    )
    write = "echo precious > /data/orders"
    await inbox.podman.run("podman", "exec", "web", "sh", "-c", write)
    for env in ("one", "two"):
        await inbox.under_test.apply_one(wish.model_copy(update={"environment": {"A": env}}))
        orders = await inbox.podman.run("podman", "exec", "web", "cat", "/data/orders")
        assert orders.stdout == b"precious\n"
    volume = await inbox.podman.volume("web", "/data")
    assert volume is not None
    assert (
        (await inbox.under_test.remove_one("web")).actions[-1].startswith(f"kept volume {volume} ")
    )
    assert await inbox.podman.has_volume(volume)


async def test_its_log_does_not_grow_without_bounds(inbox: InBox, web: Container) -> None:
    chatty = (
        "n=0; while [ $n -lt 60000 ]; do n=$((n + 1)); echo $n and on and on and on and on; done"
    )
    wish = web.model_copy(
        update={
            "command": ("sh", "-c", f"{chatty}; exec httpd -f -p 80 -h /www"),
            "ports": (PublishedPort(host=8080, container=80),),
            "ready": HttpProbe(port=8080),
        }
    )
    await inbox.under_test.apply_one(wish)
    config = (await inbox.podman.inspect("web"))["HostConfig"]["LogConfig"]
    assert config["Type"] == "k8s-file"
    assert (await inbox.podman.run("podman", "logs", "--tail", "1", "web")).stdout == (
        b"60000 and on and on and on and on\n"
    )
    log = PurePosixPath(config["Path"])
    assert len(inbox.box.read(str(log))) <= 1024 * 1024


async def test_a_name_that_begins_another_s_id_is_nobody_s(inbox: InBox, web: Container) -> None:
    await inbox.under_test.apply_one(web)
    identity = await inbox.podman.identity("web")
    assert identity is not None
    prefix = identity[0][:6]
    assert await inbox.containers.observe(prefix) is None
    (change,) = await inbox.containers.remove([prefix], apply=True)
    assert isinstance(change, Change)
    assert change.actions == ()
    assert await inbox.podman.identity("web") == identity


async def test_a_mount_that_crosses_a_symbolic_link_is_refused(
    inbox: InBox, web: Container
) -> None:
    inbox.box.write("/srv/harmony-contract/real/there", "")
    inbox.box.run(["ln", "-s", "/etc", "/srv/harmony-contract/link"])
    for source in ("/srv/harmony-contract/link", "/srv/harmony-contract/link/systemd"):
        error = await inbox.under_test.expect_failure(
            web.model_copy(update={"mounts": (Mount(source=source, target="/data"),)})
        )
        assert isinstance(error, UnsafePath)
        assert "/srv/harmony-contract/link" in error.message
    assert await inbox.podman.identity("web") is None


async def test_what_takes_the_place_of_a_mount_s_source_makes_it_anew(
    inbox: InBox, web: Container
) -> None:
    """By a rename, as git and editors do it; a directory that was moved; and what was away and came back."""
    here = "/srv/harmony-contract"
    inbox.box.write(f"{here}/site/page", "one")
    inbox.box.write(f"{here}/one.conf", "same")
    mounts = (
        Mount(source=f"{here}/site", target="/site", read_only=False),
        Mount(source=f"{here}/one.conf", target="/one.conf"),
    )
    wish = web.model_copy(update={"mounts": mounts})
    await inbox.under_test.apply_one(wish)
    assert (await inbox.under_test.look(wish)).actions == ()

    async def seen(path: str) -> bytes:
        return (await inbox.podman.run("podman", "exec", "web", "cat", path)).stdout

    for command, replaced in (
        (f"cp -p {here}/one.conf {here}/new && mv {here}/new {here}/one.conf", "one.conf"),
        (f"mv {here}/site {here}/old && mkdir {here}/site && echo two > {here}/site/page", "site"),
        (f"rm -r {here}/site && mkdir {here}/site && echo two > {here}/site/page", "site"),
        (f"mount -t tmpfs t {here}/site && echo two > {here}/site/page", "site"),
    ):
        await inbox.podman.run("sh", "-c", command)
        change = await inbox.under_test.apply_one(wish)
        assert change.actions == (f"recreated: {here}/{replaced} changed", "started")
        assert (await inbox.under_test.look(wish)).actions == ()
    assert await seen("/site/page") == b"two\n"
    identity = await inbox.podman.identity("web")
    await inbox.podman.run("umount", "-l", f"{here}/site")
    await inbox.podman.run("rm", "-r", f"{here}/site")
    assert isinstance(await inbox.under_test.expect_failure(wish), MountMissing)
    assert await inbox.podman.identity("web") == identity, "what runs goes on, without its source"


async def test_a_container_that_was_given_another_place_of_the_device_is_stopped(
    inbox: InBox, web: Container
) -> None:
    """Whoever owns the directory above a source puts a link there, and has podman start it again."""
    inbox.box.write("/srv/harmony-contract/pi/www/page", "mine")
    source = "/srv/harmony-contract/pi/www"
    wish = web.model_copy(
        update={"mounts": (Mount(source=source, target="/data"),), "restart": "always"}
    )
    await inbox.under_test.apply_one(wish)
    swap = "cd /srv/harmony-contract/pi && mv www www.real && ln -s /etc www"
    await inbox.podman.run("sh", "-c", swap)
    await inbox.podman.kill("web")
    error = await inbox.under_test.expect_failure(wish)
    assert isinstance(error, UnsafePath)
    assert "it is stopped" in error.message
    found = await inbox.podman.inspect("web")
    assert found["State"]["Status"] in {"exited", "stopped"}
    assert isinstance(await inbox.containers.observe("web"), Exited)
    # Back in its place before the next look: what is really mounted is what counts.
    await inbox.podman.run("podman", "start", "web")
    await inbox.podman.run("sh", "-c", "cd /srv/harmony-contract/pi && rm www && mv www.real www")
    change = await inbox.under_test.apply_one(wish)
    assert change.actions == (f"recreated: {source} changed", "started")
    page = await inbox.podman.run("podman", "exec", "web", "cat", "/data/page")
    assert page.stdout == b"mine"


async def test_a_source_below_a_user_s_directory_is_refused_and_what_has_it_is_stopped(
    inbox: InBox, web: Container
) -> None:
    inbox.box.write("/srv/harmony-contract/pi/www/page", "")
    wish = web.model_copy(
        update={"mounts": (Mount(source="/srv/harmony-contract/pi/www", target="/data"),)}
    )
    await inbox.under_test.apply_one(wish)
    await inbox.podman.run("chown", "1000", "/srv/harmony-contract/pi")
    error = await inbox.under_test.expect_failure(wish)
    assert isinstance(error, UnsafePath)
    assert "run: chown root /srv/harmony-contract/pi" in error.message
    assert isinstance(await inbox.containers.observe("web"), Exited)
    await inbox.podman.run("chown", "0:1000", "/srv/harmony-contract/pi")
    await inbox.podman.run("chown", "1000", "/srv/harmony-contract/pi/www")
    assert (await inbox.under_test.apply_one(wish)).actions == ("started",)


async def test_one_that_was_taken_off_its_network_is_made_anew(
    inbox: InBox, web: Container
) -> None:
    wish = web.model_copy(
        update={
            "command": ("httpd", "-f", "-p", "80", "-h", "/www"),
            "ports": (PublishedPort(host=8080, container=80),),
        }
    )
    await inbox.under_test.apply_one(wish)
    await inbox.podman.run("podman", "network", "disconnect", "podman", "web")
    change = await inbox.under_test.apply_one(wish)
    assert change.actions == ("recreated: networks changed", "started")
    page = await inbox.podman.run("busybox", "wget", "-qO-", "http://127.0.0.1:8080/")
    assert page.stdout
    assert (await inbox.under_test.look(wish)).actions == ()


@pytest.mark.parametrize(
    "lost",
    [
        "nft flush ruleset",
        "nft delete table inet netavark",
        "nft flush chain inet netavark NETAVARK-HOSTPORT-DNAT",
    ],
)
async def test_a_port_whose_rules_somebody_took_away_is_published_anew_while_it_runs(
    inbox: InBox, web: Container, lost: str
) -> None:
    """As a firewall does that is loaded anew. podman's monitor takes what comes, and nobody answers."""
    wish = web.model_copy(
        update={
            "command": ("httpd", "-f", "-p", "80", "-h", "/www"),
            "ports": (PublishedPort(host=8080, container=80),),
        }
    )
    await inbox.under_test.apply_one(wish)
    identity = await inbox.podman.identity("web")
    get = ("busybox", "wget", "-T", "1", "-qO-", "http://127.0.0.1:8080/")
    await inbox.podman.run(*get)
    for _ in range(
        2
    ):  # what waits at the monitor's socket stays there, and tells nothing the second time
        assert (await inbox.under_test.look(wish)).actions == ()
        await inbox.podman.run(*lost.split())
        assert (await inbox.podman.run(*get, check=False)).returncode != 0
        told = ("published anew: port 8080 led nowhere",)
        assert (await inbox.under_test.plan_one(wish)).actions == told
        assert (await inbox.under_test.apply_one(wish)).actions == told
        assert (await inbox.podman.run(*get)).stdout
        assert (await inbox.under_test.look(wish)).actions == ()
    assert await inbox.podman.identity("web") == identity
    reopened = inbox.under_test.reopen()
    (change,) = await reopened.converge([wish], apply=True)
    await reopened.close()
    assert isinstance(change, Change)
    assert change.actions == (), "also by an agent that remembers nothing"


async def test_a_port_on_which_nobody_listens_in_the_container_is_not_taken_for_a_lost_one(
    inbox: InBox, web: Container
) -> None:
    wish = web.model_copy(update={"ports": (PublishedPort(host=8080, container=80),)})
    await inbox.under_test.apply_one(wish)
    get = ("busybox", "wget", "-T", "1", "-qO-", "http://127.0.0.1:8080/")
    assert (await inbox.podman.run(*get, check=False)).returncode != 0
    assert (await inbox.under_test.apply_one(wish)).actions == ()


async def test_of_two_with_one_label_the_one_of_that_name_stays(
    inbox: InBox, images: ImagesUnderTest, web: Container
) -> None:
    await inbox.under_test.apply_one(web)
    identity = await inbox.podman.identity("web")
    label = "harmony.resource=container:web"
    image = without_tag(images.first)
    copy = ("podman", "run", "-d", "--name", "copy", "--label", label, image, *SLEEP)
    await inbox.podman.run(*copy)
    again = attrs.evolve(inbox.under_test, containers=inbox.under_test.reopen())
    assert (await again.look(web)).actions == ()
    assert await inbox.podman.identity("copy") is None
    assert await inbox.podman.identity("web") == identity
    await inbox.podman.run(*copy)
    await again.remove_one("web")
    assert await inbox.podman.identity("copy") is None
    await again.containers.close()


NO_HOLDS = {
    "a directory": "mkdir hold.json",
    "a directory with something in it": "mkdir -p hold.json/a/b",
    "a pipe": "mkfifo hold.json",
    "a link": "ln -s /etc/passwd hold.json",
    "from the year 33658": """echo '{"owner": "x", "reason": "y"}' > h
        touch -d @999999999999 h && mv h hold.json""",
}


async def test_what_stands_in_a_hold_s_place_holds_nothing_and_is_told(
    inbox: InBox, web: Container, caplog: pytest.LogCaptureFixture
) -> None:
    wish = web.model_copy(update={"max_hold_s": 600})
    await inbox.under_test.apply_one(wish)
    await inbox.containers.find_hold("web")
    for what, command in NO_HOLDS.items():
        within = f"cd /run/harmony-hold && rm -rf hold.json && {command}"
        await inbox.podman.run("podman", "exec", "web", "sh", "-c", within)
        caplog.clear()
        descriptors = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(5):
            assert await inbox.containers.find_hold("web") is None, what
        assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
        assert sum("of container web holds nothing" in each for each in caplog.messages) == 1, what
    changed = wish.model_copy(update={"environment": {"MODE": "quiet"}})
    assert (await inbox.under_test.apply_one(changed)).actions
    assert (await inbox.under_test.remove_one("web")).actions == ("stopped", "removed")


async def test_what_one_that_may_hold_fills_is_its_own_and_goes_with_it(
    inbox: InBox, web: Container
) -> None:
    await inbox.under_test.apply_one(web.model_copy(update={"max_hold_s": 600, "user": "1000"}))
    fill = "cd /run/harmony-hold; cat /dev/zero > x; rm x; for n in $(seq 100); do > $n; done; ls"
    done = await inbox.podman.run("podman", "exec", "web", "sh", "-c", fill)
    assert 1 < len(done.stdout.split()) < 16
    await inbox.podman.run("podman", "exec", "web", "sh", "-c", "rm /run/harmony-hold/*")
    await inbox.podman.run(
        *("podman", "exec", "web", "sh", "-c"), "cat /dev/zero > /run/harmony-hold/x; true"
    )
    count = ("podman", "exec", "web", "sh", "-c", "wc -c < /run/harmony-hold/x")
    size = await inbox.podman.run(*count)
    assert int(size.stdout) <= 64 * 1024
    assert not (inbox.box.root / "run/harmony/holds").exists()
    await inbox.under_test.remove_one("web")
    assert (await inbox.podman.run("podman", "volume", "ls", "-q")).stdout == b""
    mounts = (await inbox.podman.run("cat", "/proc/mounts")).stdout
    assert b"harmony-hold" not in mounts


SIX = """{"name": "podman", "id": "2f259bab93aaaaa2542ba43ef33eb990d0999ee1b9924b557b7be53c0b7a1bb9",
"driver": "bridge", "network_interface": "podman0", "ipv6_enabled": true, "internal": false,
"dns_enabled": false, "ipam_options": {"driver": "host-local"}, "subnets": [
{"subnet": "10.88.0.0/16", "gateway": "10.88.0.1"},
{"subnet": "fd00:88::/64", "gateway": "fd00:88::1"}]}"""


async def test_on_ipv6_it_is_published_only_where_its_network_has_ipv6(
    inbox: InBox, web: Container
) -> None:
    wish = web.model_copy(
        update={
            "command": ("httpd", "-f", "-p", "[::]:80", "-h", "/www"),
            "ports": (PublishedPort(host=8080, container=80, address="::"),),
        }
    )
    for failed in (inbox.under_test.expect_failure(wish), inbox.under_test.expect_failure(wish)):
        error = await failed
        assert isinstance(error, ContainerFailed)
        assert "has no IPv6" in error.message
        assert await inbox.podman.identity("web") is None
    network = "/etc/containers/networks/podman.json"
    inbox.box.write(network, SIX)
    try:
        await inbox.under_test.apply_one(wish)
        page = await inbox.podman.run("busybox", "wget", "-qO-", "http://[fd00:88::1]:8080/")
        assert page.stdout
        assert (await inbox.under_test.look(wish)).actions == ()
        await inbox.podman.run("rm", network)
        await inbox.podman.run("podman", "restart", "-t", "0", "web")
        error = await inbox.under_test.expect_failure(wish)
        assert "has no IPv6" in str(error)
        await inbox.under_test.remove_one("web")
    finally:
        await inbox.podman.run("rm", "-f", network)


async def test_a_pull_shows_its_bytes_and_what_runs_goes_on_meanwhile(
    inbox: InBox, bed: Bed, web: Container
) -> None:
    large = bed.registry.push_busybox("large", "1", ballast_bytes=12 * 1024 * 1024)
    await inbox.under_test.apply_one(web)
    identity = await inbox.podman.identity("web")
    async with SlowLink(bed.registry.host, bytes_per_s=4_000_000) as link:
        link.make_known_to(inbox.box, bed.registry.ca)
        wish = web.model_copy(update={"image": large.replace(bed.registry.host, link.host)})
        done: list[int] = []
        totals: set[int | None] = set()
        while (change := await inbox.under_test.look(wish)).pending is not None:
            if change.pending.reason == "Progressing":
                assert change.pending.progress is not None
                done.append(change.pending.progress.done)
                totals.add(change.pending.progress.total)
                assert isinstance(change.after, Running)
                assert await inbox.podman.identity("web") == identity
            await asyncio.sleep(change.pending.look_again_s)
    assert len(done) >= 2
    assert done == sorted(done)
    assert done[-1] > 1_000_000
    assert any(total is not None and total > 12 * 1024 * 1024 for total in totals)
    assert await inbox.podman.has_image(str(wish.image))


async def test_a_pull_that_nobody_wants_any_more_ends(
    inbox: InBox, bed: Bed, web: Container
) -> None:
    large = bed.registry.push_busybox("large", "2", ballast_bytes=12 * 1024 * 1024)
    async with SlowLink(bed.registry.host, bytes_per_s=500_000) as link:
        link.make_known_to(inbox.box, bed.registry.ca)
        wish = web.model_copy(update={"image": large.replace(bed.registry.host, link.host)})
        change = await inbox.under_test.look(wish)
        assert change.pending is not None
        await inbox.under_test.remove_one("web")
        await link.quiet()
    assert (await inbox.podman.run("podman", "images", "-q")).stdout == b""


async def test_podman_s_service_ends_while_an_agent_is_idle(inbox: InBox, web: Container) -> None:
    await inbox.under_test.apply_one(web)
    command = ["systemctl", "is-active", "podman.service"]
    await asyncio.to_thread(
        inbox.box.wait_for, lambda: inbox.box.run(command, check=False).stdout == b"inactive\n"
    )
    identity = await inbox.podman.identity("web")
    assert (await inbox.under_test.apply_one(web)).actions == ()
    assert await inbox.podman.identity("web") == identity


async def test_what_is_told_of_a_podman_that_was_reset_makes_it_answer_again(
    inbox: InBox, web: Container
) -> None:
    """`podman system reset` takes away podman's socket, which its unit does not notice."""
    await inbox.under_test.apply_one(web)
    await inbox.podman.run("podman", "system", "reset", "-f")
    assert not (inbox.box.root / "run/podman/podman.sock").exists()
    (error,) = await inbox.containers.converge([web], apply=True)
    assert isinstance(error, CapabilityUnavailable)
    said = (await inbox.containers.availability()).reason
    for words in (error.message, said):
        command = words.rpartition("run: ")[2]
        await inbox.podman.run("sh", "-c", command)
        assert (await inbox.containers.availability()).available
    assert (await inbox.under_test.apply_one(web)).actions == ("pulled", "created", "started")


async def test_a_podman_that_is_killed_is_used_again(inbox: InBox, web: Container) -> None:
    await inbox.under_test.apply_one(web)
    identity = await inbox.podman.identity("web")
    await inbox.podman.run("systemctl", "kill", "--kill-whom=main", "-s", "KILL", "podman.service")
    assert (await inbox.under_test.apply_one(web)).actions == ()
    assert await inbox.podman.identity("web") == identity


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_killed_at_any_moment_it_is_made_whole_and_what_runs_already_is_left(
    inbox: InBox, images: ImagesUnderTest, web: Container, tmp_path: Path
) -> None:
    dice = random.Random(seed())
    path = tmp_path / "records.json"
    for run in range(runs(50, part=10)):
        word, value = secret_word("app", "db", f"{run:016x}"), f"value {run}"
        secrets = (ContainerSecret(content=word, target="/run/secrets/db"),)
        environment = {"RUN": str(run), "DB": word}
        wish = web.model_copy(update={"environment": environment, "secrets": secrets})
        spec = Spec(
            url=inbox.box.podman_url,
            root=str(inbox.box.root),
            records=str(path),
            container=wish.model_dump_json(),
            secrets={word: value},
        )
        await killed("tests.topology.converge_a_container", spec, after_s=dice.uniform(0, 1.5))
        was = await _running(inbox, run)
        agent, _ = under_test(inbox.box, images, records=FileRecords(path))
        agent.secret_values.put(word, value)
        await _made_whole(agent, wish)
        now = await _running(inbox, run)
        assert now is not None
        assert was in {None, now}, "what ran already was started again"
        names = (await inbox.podman.run("podman", "ps", "-a", "--format={{.Names}}")).stdout
        assert names == b"web\n"
        assert await inbox.podman.list_secrets() == [name_secret("web", word)]
        assert await inbox.podman.read_environment("web", "DB") == value
        assert await inbox.podman.read_inside("web", "/run/secrets/db") == value


async def _running(inbox: InBox, run: int) -> tuple[str, str] | None:
    """Which container there is and since when it runs; None where it is not yet that of *run*, or is down."""
    found = await inbox.podman.inspect("web")
    if found is None or found["State"]["Status"] != "running":
        return None
    if f"RUN={run}" not in found["Config"]["Env"]:
        return None
    return found["Id"], found["State"]["StartedAt"]


async def _made_whole(agent: ContainersUnderTest, wish: Container) -> None:
    """As a work queue does: tries again what may pass, such as podman still doing what was cut short."""
    for _ in range(20):
        try:
            change = await agent.apply_one(wish)
        except TransientError as error:
            print(f"tried again: {error}")
            await asyncio.sleep(0.2)
        else:
            assert isinstance(change.after, Running)
            return
    raise AssertionError("it was not made whole")


async def test_one_that_is_asked_to_end_hears_it_in_its_image_s_own_way(
    inbox: InBox, web: Container
) -> None:
    await inbox.under_test.apply_one(web)
    image = (await inbox.podman.inspect("web"))["ImageName"]
    inbox.box.write("/root/Containerfile", f"FROM {image}\nSTOPSIGNAL SIGUSR1\n")
    await inbox.podman.run("podman", "build", "-q", "-t", "localhost/usr1:1", "/root")
    deaf_to_others = ("sh", "-c", "trap 'exit 0' USR1; trap '' TERM; sleep 1000 & wait")
    wish = web.model_copy(
        update={"image": "localhost/usr1:1", "command": deaf_to_others, "stop_timeout_s": 3600}
    )
    await inbox.under_test.apply_one(wish)
    assert (await inbox.under_test.remove_one("web")).actions == ("stopped", "removed")


async def test_containers_that_take_an_hour_to_end_keep_no_other_waiting(
    inbox: InBox, web: Container
) -> None:
    names = [f"web-{n}" for n in range(4)]
    slow = [web.model_copy(update={"name": each, "stop_timeout_s": 3600}) for each in names]
    await inbox.under_test.apply_one(web)
    for each in slow:
        await inbox.under_test.apply_one(each)
    for _ in range(2):
        for change in await inbox.containers.remove(names, apply=True):
            assert isinstance(change, Change)
            assert change.pending is not None
        quiet = web.model_copy(update={"environment": {"MODE": "quiet"}})
        assert isinstance((await inbox.under_test.apply_one(quiet)).after, Running)
    assert [await inbox.podman.identity(each) is not None for each in names] == [True] * 4


async def test_an_agent_that_starts_again_goes_on_with_what_another_was_replacing(
    inbox: InBox, web: Container
) -> None:
    deaf = web.model_copy(update={"stop_timeout_s": 2})
    changed = deaf.model_copy(update={"environment": {"MODE": "quiet"}})
    await inbox.under_test.apply_one(deaf)
    assert (await inbox.under_test.look(changed)).pending is not None
    assert await _names(inbox) == ["web", "web.harmony-successor"]
    successor = await inbox.podman.identity("web.harmony-successor")
    agent = attrs.evolve(inbox.under_test, containers=inbox.under_test.reopen())
    assert (await agent.apply_one(changed)).actions == ("recreated: environment changed", "started")
    now = await inbox.podman.identity("web")
    assert successor is not None
    assert now is not None
    assert now[0] == successor[0]
    assert await _names(inbox) == ["web"]


async def test_a_successor_that_is_not_wished_for_any_more_goes(
    inbox: InBox, web: Container
) -> None:
    deaf = web.model_copy(update={"stop_timeout_s": 3600})
    changed = deaf.model_copy(update={"environment": {"MODE": "quiet"}})
    await inbox.under_test.apply_one(deaf)
    for _ in range(2):
        await inbox.under_test.look(changed)
        assert await _names(inbox) == ["web", "web.harmony-successor"]
        agent = attrs.evolve(inbox.under_test, containers=inbox.under_test.reopen())
        assert (await agent.apply_one(deaf)).actions == ()
        assert await _names(inbox) == ["web"]
    await inbox.under_test.look(changed)
    await inbox.podman.stop("web")
    await inbox.under_test.remove_one("web")
    assert await _names(inbox) == []


async def test_a_stranger_s_container_where_a_successor_is_to_be_made_stays_and_so_does_what_runs(
    inbox: InBox, web: Container
) -> None:
    await inbox.under_test.apply_one(web)
    await inbox.podman.make_strange("web.harmony-successor")
    identities = [await inbox.podman.identity(each) for each in await _names(inbox)]
    error = await inbox.under_test.expect_failure(
        web.model_copy(update={"environment": {"A": "1"}})
    )
    assert isinstance(error, NotOurs)
    assert "podman rm web.harmony-successor" in error.message
    assert (await inbox.under_test.apply_one(web)).actions == ()
    assert [await inbox.podman.identity(each) for each in await _names(inbox)] == identities
    await inbox.under_test.remove_one("web")
    assert await _names(inbox) == ["web.harmony-successor"]


async def test_what_only_its_start_can_tell_leaves_the_new_one_in_its_place(
    inbox: InBox, web: Container
) -> None:
    await inbox.under_test.apply_one(web)
    for _ in range(2):
        error = await inbox.under_test.expect_failure(
            web.model_copy(update={"command": ("nosuch",)})
        )
        assert isinstance(error, ContainerFailed)
        assert "nosuch" in error.message
        assert isinstance(await inbox.containers.observe("web"), Starting)
        assert await _names(inbox) == ["web"]
    change = await inbox.under_test.apply_one(web)
    assert change.actions == ("recreated: command changed", "started")


async def test_an_address_that_the_device_has_not_is_told_and_what_runs_goes_on(
    inbox: InBox, web: Container
) -> None:
    await inbox.under_test.apply_one(web)
    identity = await inbox.podman.identity("web")
    for address in ("192.0.2.1", "2001:db8::1"):
        ports = (PublishedPort(host=PORT, container=80, address=address),)
        wish = web.model_copy(update={"ports": ports})
        error = await inbox.under_test.expect_failure(wish)
        assert isinstance(error, ContainerFailed)
        assert f"{address}, on which web is to be published, is no address" in error.message
        assert (await inbox.under_test.plan_one(wish)).changed  # by then it may be one
    assert await inbox.podman.identity("web") == identity


async def _names(inbox: InBox) -> list[str]:
    return (
        (await inbox.podman.run("podman", "ps", "-a", "--sort=names", "--format={{.Names}}"))
        .stdout.decode()
        .split()
    )


async def test_one_of_which_podman_has_lost_a_part_is_made_anew_and_can_be_removed(
    inbox: InBox, web: Container
) -> None:
    """As a power cut may leave it while it is made or removed: podman lists it, and cannot look at it."""
    await inbox.under_test.apply_one(web)
    await _tear(inbox, "web")
    change = await inbox.under_test.apply_one(web)
    assert change.actions == ("recreated: its removal was cut short", "started")
    assert isinstance(change.after, Running)
    assert (await inbox.under_test.apply_one(web)).actions == ()
    await _tear(inbox, "web")
    await inbox.containers.remove(["web"], apply=True)
    assert (await inbox.podman.run("podman", "ps", "-aq")).stdout == b""


async def test_a_stranger_s_of_which_podman_has_lost_a_part_is_left_to_its_owner(
    inbox: InBox, web: Container
) -> None:
    await inbox.podman.make_strange("web")
    await _tear(inbox, "web")
    (refused,) = await inbox.containers.converge([web], apply=True)
    assert isinstance(refused, NotOurs)
    assert (await inbox.podman.run("podman", "ps", "-aq")).stdout != b""


async def _tear(inbox: InBox, name: str) -> None:
    """Have podman's storage know nothing of it any more."""
    await inbox.podman.stop(name)
    await inbox.podman.run("systemctl", "stop", "podman.service")
    inbox.box.write("/var/lib/containers/storage/overlay-containers/containers.json", "[]")
    assert await inbox.podman.inspect(name) is None


async def test_a_container_is_back_after_a_reboot_and_after_everything_was_killed(
    boot: Callable[[], Box], bed: Bed, images: ImagesUnderTest
) -> None:
    box = boot()
    records = MemoryRecords()
    word = secret_word("app", "db", "0" * 16)
    wish = Container(
        name="web",
        image=images.first,
        command=SLEEP,
        environment={"DB": word},
        secrets=(ContainerSecret(content=word, target="/run/secrets/db"),),
        stop_timeout_s=0,
        settle_s=0.2,
    )

    def agent() -> ContainersUnderTest:
        values = SecretValues()
        values.put(word, "hunter2")
        host, bystander = under_test(box, images)
        containers = PodmanContainers(
            box.podman_url,
            records=records,
            root=box.root,
            probe_address=box.address,
            secret_values=values,
        )
        return attrs.evolve(host, containers=containers, bystander=bystander)

    await agent().apply_one(wish)
    before = await agent().bystander.identity("web")

    def kill_everything() -> None:
        box.power_cut()
        box.power_on()

    for end in (box.reboot, kill_everything):
        await asyncio.to_thread(end)
        change = await agent().apply_one(wish)
        assert isinstance(change.after, Running)
        assert set(change.actions) <= {"started"}
        after = await agent().bystander.identity("web")
        assert before is not None
        assert after is not None
        assert before[0] == after[0]
        assert await agent().bystander.read_environment("web", "DB") == "hunter2"
        assert await agent().bystander.read_inside("web", "/run/secrets/db") == "hunter2"


async def test_watching_keeps_no_podman_in_memory_and_needs_none(
    inbox: InBox, web: Container
) -> None:
    wish = web.model_copy(update={"restart": "no"})
    await inbox.under_test.apply_one(wish)
    told = Hearer()
    await inbox.containers.watch(["web"], told)
    gone = ["sh", "-c", "! systemctl is-active --quiet podman.service"]
    await asyncio.to_thread(inbox.box.wait_for, gone)
    assert told.heard == []
    await inbox.podman.kill("web")
    await told.hears("web")
    assert (await inbox.under_test.apply_one(wish)).actions == ("started",)


async def test_a_podman_that_is_not_there_leaves_the_rest_watched(
    inbox: InBox, web: Container
) -> None:
    await inbox.under_test.apply_one(web)
    told = Hearer()
    await asyncio.to_thread(inbox.box.run, ["systemctl", "stop", "podman.socket", "podman.service"])
    try:
        with pytest.raises(TransientError):
            await inbox.containers.watch(["web", "other"], told)
        await inbox.podman.kill("web")
        await told.hears("web")
    finally:
        await asyncio.to_thread(inbox.box.run, ["systemctl", "start", "podman.socket"])


async def test_one_that_answers_no_more_is_told_and_so_is_that_it_does_again(
    inbox: InBox, web: Container
) -> None:
    wish = web.model_copy(
        update={
            "command": ("httpd", "-f", "-p", "80", "-h", "/www"),
            "ports": (PublishedPort(host=PORT, container=80),),
            "ready": HttpProbe(port=PORT, within_s=5, every_s=0.2, timeout_s=0.5),
        }
    )
    await inbox.under_test.apply_one(wish)
    (planned,) = await inbox.containers.converge([wish], apply=False)
    assert isinstance(planned, Change)
    assert planned.pending is None
    told = Hearer()
    await inbox.containers.watch(["web"], told)
    await asyncio.to_thread(inbox.box.run, ["podman", "kill", "--signal", "STOP", "web"])
    await told.hears("web")
    error = await inbox.under_test.expect_failure(wish)
    assert isinstance(error, NotReadyInTime)
    assert "web runs, but answers no more: GET" in error.message
    (planned,) = await inbox.containers.converge([wish], apply=False)
    assert isinstance(planned, Change)
    assert planned.pending is not None
    told.heard.clear()
    await asyncio.to_thread(inbox.box.run, ["podman", "kill", "--signal", "CONT", "web"])
    await told.hears("web")
    change = await inbox.under_test.apply_one(wish)
    assert change.actions == ()
    assert isinstance(change.after, Running)
    assert change.after.health == "healthy"


SMALL_DISK = """
systemctl stop podman.socket podman.service
mount -t tmpfs -o size=96m tmpfs /var/lib/containers
systemctl start podman.socket
"""
LARGE_DISK = """
systemctl stop podman.socket podman.service
umount -l /var/lib/containers
systemctl start podman.socket
"""


async def test_an_image_that_has_no_room_is_given_up_before_it_fills_the_disk(
    inbox: InBox, bed: Bed, web: Container
) -> None:
    large = bed.registry.push_busybox("large", "3", ballast_bytes=48 * 1024 * 1024)
    await inbox.podman.run("sh", "-c", SMALL_DISK)
    try:
        async with SlowLink(bed.registry.host, bytes_per_s=4_000_000) as link:
            link.make_known_to(inbox.box, bed.registry.ca)
            wish = web.model_copy(update={"image": large.replace(bed.registry.host, link.host)})
            error = await inbox.under_test.expect_failure(wish)
            await link.quiet()
            # It is not begun anew, over and over, until there is room.
            again = await inbox.under_test.expect_failure(wish)
            assert link.is_idle
        for each in (error, again):
            assert isinstance(each, WriteFailed)
            assert " has no room on this device: at least " in each.message
        assert (await inbox.podman.run("podman", "images", "-q")).stdout == b""
    finally:
        await inbox.podman.run("sh", "-c", LARGE_DISK)


async def test_a_pull_is_given_up_only_where_nothing_more_comes(
    inbox: InBox, bed: Bed, web: Container
) -> None:
    """A slow line brings a large image in the end, however long that takes."""
    large = bed.registry.push_busybox("large", "4", ballast_bytes=4 * 1024 * 1024)
    async with SlowLink(bed.registry.host, bytes_per_s=1_000_000) as link:
        link.make_known_to(inbox.box, bed.registry.ca)
        update = {"image": large.replace(bed.registry.host, link.host), "pull_timeout_s": 2}
        assert (await inbox.under_test.apply_one(web.model_copy(update=update))).pending is None
    async with SlowLink(bed.registry.host, bytes_per_s=1) as link:
        link.make_known_to(inbox.box, bed.registry.ca)
        update = {"image": large.replace(bed.registry.host, link.host), "pull_timeout_s": 2}
        error = await inbox.under_test.expect_failure(web.model_copy(update=update))
    assert isinstance(error, TimedOut)
    assert "nothing more of it came within pull_timeout_s" in error.message
