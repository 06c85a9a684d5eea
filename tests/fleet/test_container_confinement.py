"""Root in a container that may write to the device makes nobody root on it; and it serves as before."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import TypeAlias

import pytest

from harmony_control.device import Device
from harmony_control.push.entries import Entry, Pushable
from harmony_core.resources import Container, HttpProbe, Mount, PublishedPort
from harmony_pi_topology import PiTopology
from harmony_pi_topology.containers.spec import (
    FIELDS_LABEL,
    RESOURCE_LABEL,
    SPEC_LABEL,
    DesiredContainer,
)
from harmony_scores import ContainerScore, DirectoryScore, FileScore
from tests.box import Bed, Box
from tests.fleet.ground import AGENT, SERVE, Host, code_of, heard_again, in_shell, statuses, until

Pi: TypeAlias = Device[PiTopology]

ATTACK = """\
cp /tools/cat /data/by-chmod && chmod 4755 /data/by-chmod
cp /tools/cat /data/by-group && chgrp 42 /data/by-group && chmod 2755 /data/by-group
install -m 4755 /tools/cat /data/by-install
cp /tools/cat /data/over-one
mknod /data/a-disk b 8 0
cp /conf /data/copied
echo done > /data/done
"""
"""Each fails by itself or not; what is left of it is looked at from outside. `over-one` is made outside
before, with the bit: who overwrites it takes the bit away."""
TRY = (
    'for each in /srv/app/*; do test -x "$each" || continue; '
    '"$each" /etc/shadow 2>/dev/null && exit 7; done; exit 0'
)


@pytest.fixture
def image(bed: Bed, pi: Box) -> str:
    bed.registry.make_known_to(pi)
    return bed.registry.push_busybox("confined", "1", page="served\n")


@pytest.fixture(autouse=True)
def ground(pi: Box) -> Generator[None]:
    """A local user who is nobody in particular, a program to be given away, and a script that gives it."""
    pi.run(["useradd", "--create-home", "local"], check=False)
    pi.run(["mkdir", "-p", "/srv/tools"])
    pi.run(["cp", "/usr/bin/cat", "/srv/tools/cat"])
    pi.write("/srv/tools/attack.sh", ATTACK)
    yield
    pi.run(["rm", "-rf", "/srv/tools", "/srv/app"])


def becomes_root(pi: Box) -> bool:
    """Whether the local user reads what only root may, with anything that lies in /srv/app."""
    done = pi.run(["su", "-s", "/bin/sh", "-c", TRY, "local"], check=False)
    assert done.returncode in {0, 7}, done
    return done.returncode == 7


def with_bits(pi: Box) -> list[str]:
    return pi.text("find", "/srv/app", "(", "-perm", "/6000", "-or", "-type", "b", ")").split()


def prepare_data(pi: Box) -> None:
    pi.run(["mkdir", "-p", "/srv/app"])
    pi.run(["cp", "/usr/bin/cat", "/srv/app/over-one"])
    pi.run(["chmod", "4750", "/srv/app/over-one"])


def score(image: str) -> ContainerScore:
    return ContainerScore(
        name="app",
        image=image,
        command=in_shell("sh /tools/attack.sh", SERVE),
        ports=(PublishedPort(host=8081, container=80),),
        mounts=(
            Mount(source="/srv/app", target="/data", read_only=False),
            Mount(source="/srv/tools", target="/tools"),
            Mount(source="/etc/app.conf", target="/conf"),
        ),
        ready=HttpProbe(port=8081, path="/"),
        settle_s=0.5,
    )


def wanted(image: str) -> dict[str, Pushable[PiTopology]]:
    return {
        "conf": FileScore(path="/etc/app.conf", content="secret of root\n", mode=0o600),
        "data": DirectoryScore(path="/srv/app"),
        "app": Entry(score(image), after=["conf", "data"]),
    }


def test_without_us_the_local_user_becomes_root(pi: Box, image: str) -> None:
    prepare_data(pi)
    mounts = ("-v", "/srv/app:/data:rw", "-v", "/srv/tools:/tools:ro")
    pi.run(["podman", "run", "--rm", *mounts, image, "sh", "/tools/attack.sh"], check=False)
    assert "/srv/app/by-chmod" in with_bits(pi)
    assert becomes_root(pi)


async def test_with_us_nobody_does_and_it_serves_with_its_files(
    device: Pi, pi: Box, image: str
) -> None:
    prepare_data(pi)
    state = await device.put_and_wait(wanted(image))
    assert set(statuses(state).values()) <= {"SUCCESS", "NOOP"}, state.scores["app"].outcome
    assert pi.read("/srv/app/done") == b"done\n"
    assert pi.read("/srv/app/copied") == b"secret of root\n"
    assert pi.read("/srv/app/by-chmod") == pi.read("/usr/bin/cat")
    assert with_bits(pi) == []
    assert not becomes_root(pi)


async def test_what_was_made_before_and_may_write_to_the_device_is_made_anew(
    device: Pi, host: Host, image: str
) -> None:
    pi = host.box
    assert (await device.put_and_wait(wanted(image))).scores["app"].outcome.status == "SUCCESS"
    now = host.container("app")
    assert now is not None
    labels: dict[str, str] = now["Config"]["Labels"]
    fields = json.loads(labels[FIELDS_LABEL])
    del fields["confinement"]
    container = Container(name="app", image=image)
    before = DesiredContainer(container=container, image=image, fields=fields).labels
    assert before[SPEC_LABEL] != labels[SPEC_LABEL]
    # As an agent of before has made it.
    pi.run(["systemctl", "stop", AGENT])
    pi.run(["podman", "rm", "-f", "-t", "0", "app"])
    told = [word for name, value in before.items() for word in ("--label", f"{name}={value}")]
    assert before[RESOURCE_LABEL] == "container:app"
    data = ("-v", "/srv/app:/data:rw", "-p", "8081:80")
    pi.run(["podman", "run", "-d", "--name", "app", *told, *data, image, *in_shell(SERVE)])
    pi.run(["systemctl", "start", AGENT])
    await heard_again(device)
    async with device.reconcile("app", enforce=True) as looked:
        async for _ in looked:
            pass
    await until(device, lambda state: statuses(state).get("app") in {"SUCCESS", "NOOP"})
    made = host.container("app")
    assert made is not None
    assert made["Config"]["Labels"][SPEC_LABEL] == labels[SPEC_LABEL]
    assert "CAP_SETFCAP" not in made["EffectiveCaps"]
    pid = made["State"]["Pid"]
    assert "Seccomp:\t2" in pi.text("cat", f"/proc/{pid}/status")
    pi.run(["podman", "exec", "app", "sh", "/tools/attack.sh"], check=False)
    assert with_bits(pi) == []


async def test_no_container_may_put_a_link_in_the_place_of_another_one_s_mount(
    device: Pi, host: Host, image: str
) -> None:
    # What podman starts again by itself it starts with whatever lies there then, and looks at nothing.
    host.box.run(["mkdir", "-p", "/srv/app/inner"])
    writer = ContainerScore(
        name="writer",
        image=image,
        command=in_shell("sleep 2; rmdir /data/inner && ln -s / /data/inner; sleep 86399"),
        mounts=(Mount(source="/srv/app", target="/data", read_only=False),),
        stop_timeout_s=1,
        settle_s=0.5,
    )
    reader = ContainerScore(
        name="reader",
        image=image,
        command=in_shell("test -e /inner/etc/shadow && sleep 86399; sleep 0.5; exit 1"),
        mounts=(Mount(source="/srv/app/inner", target="/inner"),),
        stop_timeout_s=1,
        settle_s=0,
    )
    state = await device.put_and_wait({"writer": writer, "reader": reader})
    assert code_of(state, "reader") == "OwnershipConflict"
    assert state.scores["writer"].outcome.status in {"SUCCESS", "NOOP"}
    assert host.container("reader") is None
