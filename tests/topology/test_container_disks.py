"""Containers whose files are on a disk of its own, and what becomes of them while it is away. Real podman."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import attrs
import pytest

from harmony_core.errors import MountMissing
from harmony_core.reconciler import MemoryRecords
from harmony_core.resources import Container, Exited, Mount, Running
from harmony_core.testing import ContainersUnderTest, ImagesUnderTest
from tests.box import Bed, Box
from tests.topology.box_containers import BoxBystander, emptied, pushed_images, under_test

HERE = "/srv/harmony-contract"
POINT = f"{HERE}/usb"
UNMOUNT = f"""
for point in $(awk '$2 ~ "^{HERE}/" {{ print $2 }}' /proc/mounts | sort -r); do umount --lazy $point; done
sed -i /usbdisk/d /etc/fstab
"""
OF_FSTAB = "LABEL=usbdisk {} ext4 defaults,nofail 0 2\n"


@pytest.fixture(scope="module")
def images(bed: Bed) -> ImagesUnderTest:
    return pushed_images(bed.registry)


@attrs.frozen
class Pi:
    """A Pi with a disk that can be pulled, and its containers."""

    host: ContainersUnderTest
    podman: BoxBystander
    box: Box
    records: MemoryRecords

    def mount(self, point: str = POINT) -> None:
        self.box.run(["mkdir", "-p", point])
        self.box.run(["mount", "-t", "tmpfs", "-o", "mode=755", "usbdisk", point])

    def pull(self, point: str = POINT) -> None:
        self.box.run(["umount", "--lazy", point])

    def beneath(self, point: str = POINT) -> list[str]:
        return self.box.text("find", point, "-mindepth", "1").split()

    async def write(self, path: str) -> None:
        await self.podman.run("podman", "exec", "web", "sh", "-c", f"echo new >> {path}")

    async def misses(self, container: Container, point: str = POINT) -> MountMissing:
        error = await self.host.expect_failure(container)
        assert isinstance(error, MountMissing)
        assert error.point == point
        assert error.resource == container.id
        return error


@pytest.fixture
async def pi_with_disk(pi: Box, images: ImagesUnderTest) -> AsyncGenerator[Pi]:
    pi.run(["sh", "-c", UNMOUNT])
    emptied(pi)
    records = MemoryRecords()
    host, bystander = under_test(pi, images, records=records)
    it = Pi(host, bystander, pi, records)
    it.mount()
    yield it
    pi.run(["sh", "-c", UNMOUNT])
    await bystander.close()
    await host.containers.close()


def web(images: ImagesUnderTest, source: str, *, live: bool = False) -> Container:
    return Container(
        name="web",
        image=images.first,
        command=("sleep", "1000"),
        stop_timeout_s=0,
        settle_s=0.2,
        user="0",
        mounts=(Mount(source=source, target="/data", read_only=False, live=live),),
    )


@pytest.mark.parametrize(
    ("source", "live"), [(POINT, False), (POINT, True), (f"{POINT}/app", False)]
)
async def test_what_runs_on_a_disk_that_is_pulled_goes_on_and_is_not_made_anew_beneath(
    pi_with_disk: Pi, images: ImagesUnderTest, source: str, live: bool
) -> None:
    """A source that is the mount point, and one below it."""
    pi, wish = pi_with_disk, web(images, source, live=live)
    pi.box.run(["mkdir", "-p", source])
    await pi.host.apply_one(wish)
    await pi.write("/data/orders")
    identity = await pi.podman.identity("web")
    pi.pull()
    assert "run: mount --bind" in (await pi.misses(wish)).message
    assert await pi.podman.identity("web") == identity
    await pi.write("/data/orders")
    assert pi.beneath() == []
    changed = wish.model_copy(update={"environment": {"A": "b"}})
    await pi.misses(changed)
    assert await pi.podman.identity("web") == identity, "nor is it made anew for another reason"


async def test_what_does_not_run_is_not_started_before_the_disk_is_back(
    pi_with_disk: Pi, images: ImagesUnderTest
) -> None:
    pi, wish = pi_with_disk, web(images, POINT)
    await pi.host.apply_one(wish)
    await pi.podman.stop("web")
    pi.pull()
    await pi.misses(wish)
    assert isinstance(await pi.host.containers.observe("web"), Exited)
    await pi.podman.delete("web")
    await pi.misses(wish)
    assert await pi.podman.identity("web") is None
    pi.mount()
    assert (await pi.host.apply_one(wish)).actions == ("created", "started")


async def test_what_podman_has_started_beneath_is_stopped_until_the_disk_is_back(
    pi_with_disk: Pi, images: ImagesUnderTest
) -> None:
    """As it does at a boot without the disk, and when the container ends by itself."""
    pi, wish = pi_with_disk, web(images, POINT)
    await pi.host.apply_one(wish)
    pi.pull()
    await pi.podman.kill("web")
    assert isinstance(await pi.host.containers.observe("web"), Running)
    assert (await pi.misses(wish)).message.endswith("Until then it is stopped")
    assert isinstance(await pi.host.containers.observe("web"), Exited)
    assert not (await pi.misses(wish)).message.endswith("stopped"), "told when it was done"
    pi.mount()
    assert (await pi.host.apply_one(wish)).actions == ("started",)
    assert pi.beneath() == []


async def test_a_disk_that_fstab_names_is_waited_for_before_a_container_is_made(
    pi_with_disk: Pi, images: ImagesUnderTest
) -> None:
    pi, wish = pi_with_disk, web(images, POINT)
    pi.pull()
    pi.box.run(["sh", "-c", f"printf '{OF_FSTAB.format(POINT)}' >> /etc/fstab"])
    assert "LABEL=usbdisk" in (await pi.misses(wish)).message
    assert await pi.podman.identity("web") is None
    pi.mount()
    await pi.host.apply_one(wish)


async def test_a_file_that_it_uses_is_missed_with_its_disk_and_not_taken_for_deleted(
    pi_with_disk: Pi, images: ImagesUnderTest
) -> None:
    pi, path = pi_with_disk, f"{POINT}/app.conf"
    wish = web(images, POINT).model_copy(update={"mounts": (), "uses": (path,)})
    pi.box.write(path, "one")
    await pi.host.apply_one(wish)
    identity = await pi.podman.identity("web")
    pi.pull()
    await pi.misses(wish)
    assert await pi.podman.identity("web") == identity


async def test_each_of_two_disks_is_missed_and_one_that_is_used_no_more_is_not(
    pi_with_disk: Pi, images: ImagesUnderTest
) -> None:
    pi, other = pi_with_disk, f"{HERE}/other"
    pi.mount(other)
    one = web(images, POINT)
    both = one.model_copy(update={"mounts": (*one.mounts, Mount(source=other, target="/other"))})
    await pi.host.apply_one(both)
    pi.pull(other)
    await pi.misses(both, other)
    assert (await pi.host.apply_one(one)).actions == ("recreated: mounts changed", "started")
    pi.pull()
    await pi.misses(one)
    (removed,) = await pi.host.containers.remove(["web"], apply=True)
    assert not isinstance(removed, Exception)
    assert pi.records.get("mount:container:web") is None


async def test_a_disk_that_is_mounted_over_what_it_had_is_the_one_from_then_on(
    pi_with_disk: Pi, images: ImagesUnderTest
) -> None:
    pi, inner = pi_with_disk, f"{POINT}/inner"
    pi.box.run(["mkdir", "-p", inner])
    wish = web(images, inner)
    await pi.host.apply_one(wish)
    pi.mount(inner)
    assert (await pi.host.apply_one(wish)).actions == (f"recreated: {inner} changed", "started")
    pi.pull(inner)
    await pi.misses(wish, inner)
    pi.box.run(["mount", "--bind", inner, inner])
    assert (await pi.host.apply_one(wish)).actions == (f"recreated: {inner} changed", "started")
