"""What a container is asked to be, on real podman: what `podman inspect` says of it, and what it sees."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

import attrs
import pytest

from harmony_core.errors import ContainerFailed, NotReadyInTime
from harmony_core.resources import Container
from harmony_core.testing import ContainersUnderTest, ImagesUnderTest
from harmony_pi_topology.containers import health
from tests.box import Bed, Box
from tests.topology.box_containers import (
    BoxBystander,
    emptied,
    pushed_images,
    under_test,
    without_tag,
)

GROUPS_CONF = "/etc/containers/containers.conf.d/50-groups.conf"
GROUPS = '[containers]\ncgroups = "enabled"\npids_limit = 0\n'
"""Control groups without controllers, as a kernel has them that was started without."""
CATATONIT = "/usr/libexec/podman/catatonit"
MIB = 1 << 20
KILL, MKNOD, NET_ADMIN, NET_RAW, FSETID = 5, 27, 12, 13, 4


@pytest.fixture(scope="module")
def images(bed: Bed) -> ImagesUnderTest:
    return pushed_images(bed.registry)


@attrs.frozen
class Here:
    """A reconciler, podman's own view, and the box."""

    under_test: ContainersUnderTest
    podman: BoxBystander
    box: Box
    image: str

    def container(self, **fields: Any) -> Container:
        sleep = {"command": ["sleep", "1000"], "stop_timeout_s": 0, "settle_s": 0}
        return Container.model_validate({"name": "web", "image": self.image, **sleep, **fields})

    async def inside(self, command: str) -> str:
        return (await self.podman.run("podman", "exec", "web", "sh", "-c", command)).stdout.decode(
            errors="replace"
        )

    def use_groups(self, text: str) -> None:
        """podman reads this when it is started next, which its socket does."""
        self.box.write(GROUPS_CONF, text)
        self.box.run(["systemctl", "stop", "podman.service"])


@pytest.fixture
async def here(pi: Box, images: ImagesUnderTest) -> AsyncGenerator[Here]:
    emptied(pi)
    host, bystander = under_test(pi, images)
    yield Here(host, bystander, pi, images.first)
    await bystander.close()
    await host.containers.close()


def value(found: Any, path: str) -> Any:
    for part in path.split("."):
        found = found[part]
    return found


def capabilities(status: str) -> int:
    return int(status.partition("CapBnd:")[2].split()[0], 16)


def has(*numbers: int) -> Callable[[str], bool]:
    return lambda status: all(capabilities(status) >> number & 1 for number in numbers)


def lacks(*numbers: int) -> Callable[[str], bool]:
    return lambda status: not any(capabilities(status) >> number & 1 for number in numbers)


def says(*texts: str) -> Callable[[str], bool]:
    return lambda output: all(text in output for text in texts)


NODES = """
mkdir -p /dev/serial/by-id /dev/zoo
cd /dev/zoo
test -e lion || mknod lion c 1 5
test -e tiger || mknod tiger c 1 7
test -e /dev/ttyUSB7 || mknod /dev/ttyUSB7 c 1 3
ln -sf ../../ttyUSB7 /dev/serial/by-id/usb-Stick:1
"""
STATUS = "cat /proc/1/status"
Told = Mapping[str, object]
Inside = Mapping[str, Callable[[str], bool]]
TABLE: list[tuple[dict[str, Any], Told, Inside]] = [
    (
        {
            "entrypoint": ["/bin/env", "GREETING=hello"],
            "working_directory": "/www",
            "hostname": "web-1",
            "labels": {"traefik.enable": "true"},
            "groups": ["44"],
            "no_new_privileges": True,
            "stop_signal": "SIGRTMIN+3",
            "timezone": "Europe/Berlin",
            "dns": ["192.0.2.1"],
            "dns_search": ["example.org"],
            "dns_options": ["ndots:2"],
            "extra_hosts": {"db": "192.0.2.2", "pi": "host-gateway"},
            "log_bytes": 2 * MIB,
        },
        {
            "Path": "/bin/env",
            "Config.WorkingDir": "/www",
            "Config.Hostname": "web-1",
            "HostConfig.GroupAdd": ["44"],
            "HostConfig.SecurityOpt": ["no-new-privileges"],
            "Config.StopSignal": "SIGRTMIN+3",
            "Config.Timezone": "Europe/Berlin",
            "HostConfig.Dns": ["192.0.2.1"],
            "HostConfig.LogConfig.Size": "2.097MB",
            "HostConfig.IpcMode": "private",
        },
        {
            "cat /proc/1/environ": says("GREETING=hello"),
            "cd .; env": says("PWD=/www"),
            "cat /etc/hostname": says("web-1"),
            "id": says("44"),
            STATUS: says("NoNewPrivs:\t1", "Seccomp:\t2"),
            "cat /etc/localtime": says("CET"),
            "cat /etc/resolv.conf": says("nameserver 192.0.2.1", "example.org", "ndots:2"),
            "cat /etc/hosts": says("192.0.2.2\tdb", "\tpi\n"),
        },
    ),
    (
        {"log_driver": "journald", "log_tag": "shop/web"},
        {"HostConfig.LogConfig.Type": "journald", "HostConfig.LogConfig.Tag": "shop/web"},
        {},
    ),
    (
        {"add_capabilities": ["NET_ADMIN", "MKNOD"], "drop_capabilities": ["KILL"]},
        {"HostConfig.CapAdd": ["CAP_MKNOD", "CAP_NET_ADMIN"]},
        {STATUS: lambda out: has(NET_ADMIN, MKNOD)(out) and lacks(KILL, FSETID)(out)},
    ),
    (
        {"drop_capabilities": ["ALL"], "add_capabilities": ["NET_RAW"], "user": "1000"},
        {"BoundingCaps": ["CAP_NET_RAW"]},
        {STATUS: lambda out: capabilities(out) == 1 << NET_RAW},
    ),
    (
        {
            "devices": [
                {"source": "/dev/serial/by-id/usb-Stick:1", "target": "/dev/gps", "access": "r"},
                {"source": "/dev/zoo"},
            ],
            "device_rules": ["c 188:* rwm"],
        },
        {},
        {
            "ls -l /dev/gps /dev/zoo": says(
                "1,   3", "/dev/gps", "1,   5", "lion", "1,   7", "tiger"
            )
        },
    ),
    (
        {
            "read_only": True,
            "tmpfs": [{"target": "/cache", "size_bytes": MIB, "mode": "1777"}],
            "shm_bytes": 8 * MIB,
            "ulimits": {"nofile": {"soft": 100, "hard": 200}, "core": {"soft": 0, "hard": 0}},
            "sysctls": {"net.core.somaxconn": "77"},
            "mounts": [
                {
                    "source": "/srv/harmony-contract/disks",
                    "target": "/disks",
                    "propagation": "rslave",
                }
            ],
        },
        {"HostConfig.ReadonlyRootfs": True, "HostConfig.ShmSize": 8 * MIB},
        {
            "cat /proc/1/mounts": says("/cache tmpfs", "size=1024k", "/dev/shm", "size=8192k"),
            "echo x > /cache/x && ls -l / | cat": says("drwxrwxrwt"),
            "cat /proc/1/limits": says("Max open files            100                  200"),
            "cat /proc/sys/net/core/somaxconn": says("77"),
        },
    ),
    (
        {"network": "host", "pid": "host", "ipc": "host"},
        {
            "HostConfig.NetworkMode": "host",
            "HostConfig.PidMode": "host",
            "HostConfig.IpcMode": "host",
        },
        {"cat /proc/net/dev": says("eth0"), "cat /proc/1/comm": says("systemd")},
    ),
    (
        {"network": "none", "ipc": "shareable", "timezone": "local", "entrypoint": []},
        {"HostConfig.NetworkMode": "none", "HostConfig.IpcMode": "shareable"},
        {"cat /proc/net/dev": lambda out: out.count(":") == 1},
    ),
    (
        {"privileged": True},
        {"HostConfig.Privileged": True},
        {
            STATUS: lambda out: has(MKNOD, FSETID, NET_ADMIN)(out) and says("Seccomp:\t0")(out),
            "ls /dev/zoo": says("lion"),
        },
    ),
]


@pytest.mark.parametrize(
    ("fields", "told", "inside"), TABLE, ids=[next(iter(row[0])) for row in TABLE]
)
async def test_it_is_as_it_was_asked_to_be(
    here: Here, fields: dict[str, Any], told: Told, inside: Inside
) -> None:
    here.use_groups(GROUPS)
    here.box.write("/srv/harmony-contract/disks/there", "")
    here.box.run(["sh", "-ec", NODES])
    desired = here.container(**fields)
    await here.under_test.apply_one(desired)
    found = await here.podman.inspect("web")
    assert {path: value(found, path) for path in told} == told
    assert found["Config"]["Labels"].items() >= desired.labels.items()
    for command, is_so in inside.items():
        output = await here.inside(command)
        assert is_so(output), f"{command}:\n{output}"
    if desired.device_rules:
        config = json.loads(here.box.read(found["OCIConfigPath"]))
        rule = {"allow": True, "type": "c", "major": 188, "access": "rwm"}
        assert rule in config["linux"]["resources"]["devices"]
    assert (await here.under_test.look(desired)).actions == ()


async def test_what_the_device_mounts_later_is_seen_where_that_was_asked_for(here: Here) -> None:
    here.box.write("/srv/harmony-contract/disks/usb/empty", "")
    mount = {"source": "/srv/harmony-contract/disks", "target": "/disks"}
    for propagation, is_seen in (("rprivate", False), ("rslave", True)):
        await here.under_test.apply_one(
            here.container(mounts=[{**mount, "propagation": propagation}])
        )
        here.box.run(["mount", "-t", "tmpfs", "usb", "/srv/harmony-contract/disks/usb"])
        here.box.write("/srv/harmony-contract/disks/usb/plugged", "")
        assert ("plugged" in await here.inside("ls /disks/usb")) is is_seen
        here.box.run(["umount", "-l", "/srv/harmony-contract/disks/usb"])


LIMITS: dict[str, Any] = {
    "memory_bytes": 64 * MIB,
    "memory_reservation_bytes": 32 * MIB,
    "memory_swap_bytes": 128 * MIB,
    "cpus": 0.5,
    "cpu_shares": 512,
    "cpuset": "0",
    "pids": 50,
}
AS_PODMAN_HAS_THEM = {
    "Memory": 64 * MIB,
    "MemoryReservation": 32 * MIB,
    "MemorySwap": 128 * MIB,
    "NanoCpus": 500_000_000,
    "CpuShares": 512,
    "CpusetCpus": "0",
    "PidsLimit": 50,
}


async def test_limits_that_are_not_in_force_are_told_by_name_and_it_runs_on(here: Here) -> None:
    """Where podman makes no control groups it takes every limit, says that it is so, and does nothing."""
    here.use_groups("")
    desired = here.container(**LIMITS)
    error = await here.under_test.expect_failure(desired)
    assert isinstance(error, ContainerFailed)
    assert "runs, but not as asked" in error.message
    assert all(f"{name} is not in force" in error.message for name in LIMITS)
    found = await here.podman.inspect("web")
    assert found["HostConfig"].items() >= AS_PODMAN_HAS_THEM.items()
    identity = await here.podman.identity("web")
    assert isinstance(await here.under_test.expect_failure(desired), ContainerFailed)
    assert await here.podman.identity("web") == identity, "making it anew would not help"
    planned = await here.under_test.plan_one(desired)
    assert planned.pending is not None
    assert "memory_bytes" in planned.pending.message


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"memory_bytes": 64 * MIB}, "no control group memory, which memory_bytes"),
        ({"cpus": 0.5}, "no control group cpu, which cpus"),
        ({"cpuset": "0"}, "no control group cpuset, which cpuset"),
        ({"pids": 50}, "no control group pids, which pids"),
    ],
    ids=["memory", "cpus", "cpuset", "pids"],
)
async def test_a_kernel_without_that_control_group_is_told_with_what_to_do(
    here: Here, fields: dict[str, Any], told: str
) -> None:
    """As Raspberry Pi OS boots, for memory."""
    here.use_groups(GROUPS)
    error = await here.under_test.expect_failure(here.container(**fields))
    assert isinstance(error, ContainerFailed)
    assert told in error.message
    assert ("cmdline.txt" in error.message) is ("memory" in told)


async def test_a_limit_that_somebody_else_sets_is_taken_back(here: Here) -> None:
    """podman keeps what it was told, whatever came of it: here, without control groups, nothing."""
    here.use_groups("")
    # podman 5.4 updates none that has no health check.
    desired = here.container(memory_bytes=64 * MIB, healthcheck={"command": ["true"]})
    await here.under_test.expect_failure(desired)
    await here.podman.run("podman", "update", "--memory", "100m", "web", check=False)
    assert (await here.podman.inspect("web"))["HostConfig"]["Memory"] == 100 * MIB
    planned = await here.under_test.plan_one(desired)
    assert planned.actions == ("recreated: memory_bytes changed", "started")
    assert (await here.under_test.look(desired)).actions == planned.actions
    assert (await here.podman.inspect("web"))["HostConfig"]["Memory"] == 64 * MIB


async def test_one_whose_log_somebody_else_keeps_elsewhere_is_made_anew(here: Here) -> None:
    desired = here.container(log_driver="journald", log_tag="shop/web")
    await here.under_test.apply_one(desired)
    labels = (await here.podman.inspect("web"))["Config"]["Labels"]
    for options, changed in (
        (["--log-driver=k8s-file"], {"log_driver", "log_tag"}),
        (["--log-driver=journald", "--log-opt=tag=other"], {"log_tag"}),
    ):
        await here.podman.delete("web")
        same = [f"--label={name}={text}" for name, text in labels.items()]
        image = without_tag(here.image)
        command = [*("podman", "run", "-qd", "--name", "web"), *same, *options, image]
        await here.podman.run(*command, "sleep", "1000")
        planned = await here.under_test.plan_one(desired)
        told = planned.actions[0].removeprefix("recreated: ").removesuffix(" changed")
        assert {*told.split(", ")} & {"log_driver", "log_tag"} == changed
        await here.under_test.apply_one(desired)
        log = (await here.podman.inspect("web"))["HostConfig"]["LogConfig"]
        assert (log["Type"], log["Tag"]) == ("journald", "shop/web")
    assert (await here.under_test.look(desired)).actions == ()


async def test_what_podman_update_changes_beside_limits_is_taken_back(here: Here) -> None:
    desired = here.container(healthcheck={"shell": "true", "interval_s": 1.5, "start_period_s": 3})
    await here.under_test.apply_one(desired)
    for option, field in (
        (["--restart", "no"], "restart"),
        (["--health-interval", "1h"], "healthcheck"),
        (["--no-healthcheck"], "healthcheck"),
    ):
        assert not (await here.under_test.apply_one(desired)).changed
        await here.podman.run("podman", "update", *option, "web")
        change = await here.under_test.apply_one(desired)
        assert change.actions == (f"recreated: {field} changed", "started")


async def test_a_health_check_that_hangs_is_told(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_CHECK_GRACE_S", 1.0)
    hangs = "test ! -e /hangs || exec sleep 1000"
    check = {"shell": hangs, "interval_s": 1, "timeout_s": 1, "retries": 1}
    desired = here.container(healthcheck=check)
    await here.under_test.apply_one(desired)
    await here.inside(": > /hangs")
    told: object = None
    while not isinstance(told, NotReadyInTime):
        (told,) = await here.under_test.containers.converge([desired], apply=True)
        await asyncio.sleep(0.1)
    assert "none of its health checks has ended" in told.message


async def test_its_first_process_is_what_takes_in_the_others_where_that_is_installed(
    here: Here,
) -> None:
    here.box.run(["rm", "-f", CATATONIT])
    desired = here.container(init=True)
    error = await here.under_test.expect_failure(desired)
    assert "apt install catatonit" in str(error)
    here.box.write(CATATONIT, '#!/bin/sh\nshift\n"$@"\n', mode=0o755)
    await here.under_test.apply_one(desired)
    assert "podman-init" in await here.inside("cat /proc/1/cmdline")
    assert (await here.podman.inspect("web"))["HostConfig"]["Init"]


async def test_a_device_that_is_none_or_leads_out_of_dev_is_refused(here: Here) -> None:
    here.box.run(["ln", "-sfn", "/etc/shadow", "/dev/out"])
    here.box.run(["ln", "-sfn", "../srv", "/dev/up"])
    here.box.write("/dev/file", "")
    here.box.run(["mkdir", "-p", "/dev/nothing"])
    for path, told in (
        ("/dev/out", "/dev/out leads out of /dev, to /etc"),
        ("/dev/up/x", "/dev/up/x leads out of /dev, to /srv"),
        ("/dev/file", "/dev/file is no device"),
        ("/dev/nothing", "/dev/nothing has no devices in it"),
    ):
        error = await here.under_test.expect_failure(here.container(devices=[{"source": path}]))
        assert told in str(error)
    assert await here.podman.identity("web") is None


async def test_the_image_s_own_health_check_is_heeded_where_that_is_asked_for(here: Here) -> None:
    none = await here.under_test.expect_failure(here.container(healthcheck="image"))
    assert "its image brings none" in str(none)
    image = (await here.podman.inspect("web"))["ImageName"]
    here.box.write("/root/Checked", f"FROM {image}\nHEALTHCHECK --interval=1s CMD test -e /up\n")
    build = ("podman", "build", "--format=docker", "--network=none", "-t", "localhost/checked:1")
    await here.podman.run(*build, "-f", "/root/Checked")
    desired = here.container(
        image="localhost/checked:1",
        healthcheck="image",
        command=["sh", "-c", "echo up > /up; exec sleep 1000"],
    )
    change = await here.under_test.apply_one(desired)
    assert getattr(change.after, "health", None) == "healthy"
