"""Claims: which two of them are one thing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from harmony_core import Container, File, SystemdUnit
from harmony_core.claims import alike, collide, in_words, names_of, slot_of
from harmony_core.resources import Mount, MountPoint, PublishedPort

ADDRESSES = ["", "::", "0.0.0.0", "127.0.0.1", "10.0.0.1", "::1", "fe80::1", "::ffff:10.0.0.1"]


def port(address: str, number: int = 80, protocol: str = "tcp") -> str:
    return f"port:[{address}]:{number}/{protocol}" if address else f"port:{number}/{protocol}"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("", "127.0.0.1"),
        ("", "::1"),
        ("::", "10.0.0.1"),
        ("::", "::1"),
        ("0.0.0.0", "127.0.0.1"),
        ("0.0.0.0", "::"),
        ("0.0.0.0", ""),
        ("::1", "0:0:0:0:0:0:0:1"),
        ("10.0.0.1", "::ffff:10.0.0.1"),
        ("0.0.0.0", "::ffff:10.0.0.1"),
        ("10.0.0.1", "10.0.0.1"),
        ("1.2:3", "10.0.0.1"),
    ],
)
def test_one_port_at_addresses_that_overlap_is_one(one: str, other: str) -> None:
    assert collide(port(one), port(other))
    assert collide(port(other), port(one))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (port("127.0.0.1"), port("10.0.0.1")),
        (port("0.0.0.0"), port("::1")),
        (port("::1"), port("fe80::1")),
        (port(""), port("", 81)),
        (port(""), port("", 80, "udp")),
        (port("::"), port("::", 80, "udp")),
    ],
)
def test_ports_apart_are_two(one: str, other: str) -> None:
    assert not collide(one, other)
    assert not collide(other, one)


CLAIMS = st.one_of(
    st.builds(
        port, st.sampled_from(ADDRESSES), st.sampled_from([80, 81]), st.sampled_from(["tcp", "udp"])
    ),
    st.builds(alike, st.sampled_from(["sysctl:a/b", "package:a"]), st.sampled_from(["1", "2"])),
    st.sampled_from(["sysctl:a/b", "unit:a.service", "path:/a", "package:a"]),
)


@given(CLAIMS, CLAIMS)
def test_what_collides_does_so_from_both_sides_and_in_one_slot(one: str, other: str) -> None:
    assert collide(one, other) == collide(other, one)
    assert not collide(one, other) or slot_of(one) == slot_of(other)


def test_what_several_may_have_alike_they_cannot_have_otherwise() -> None:
    low, high = alike("sysctl:a/b", "1"), alike("sysctl:a/b", "2")
    assert not collide(low, low)
    assert collide(low, high)
    assert collide(low, "sysctl:a/b")
    assert in_words(low) == "sysctl:a/b (1)"


def test_a_path_is_one_whatever_stands_there() -> None:
    unit = SystemdUnit(name="two.service", content="[Service]\nExecStart=/bin/true\n")
    path = "/etc/systemd/system/two.service"
    assert f"path:{path}" in unit.exclusive
    assert f"path:{path}" in names_of(File(path=path, content=b"").id)
    assert f"path:{path}" in names_of(f"directory:{path}")
    assert SystemdUnit(name="two.service").exclusive == frozenset()


def test_a_unit_claims_the_names_that_its_file_gives_it() -> None:
    content = "[Service]\nExecStart=/bin/true\n[Install]\nAlias=a.service b.service\n  Alias = c.service\n"
    unit = SystemdUnit(name="it.service", content=content)
    assert {"unit:a.service", "unit:b.service", "unit:c.service"} < unit.exclusive


def test_a_container_cannot_have_one_port_at_two_addresses_that_overlap() -> None:
    ports = [
        PublishedPort(host=80, container=each, address=at)
        for each, at in ((1, ""), (2, "127.0.0.1"))
    ]
    with pytest.raises(ValidationError, match="one host port is published twice"):
        Container(name="web", image="registry.test/web:1", ports=tuple(ports))
    apart = (
        PublishedPort(host=80, container=1),
        PublishedPort(host=80, container=1, protocol="udp"),
    )
    assert len(Container(name="web", image="registry.test/web:1", ports=apart).exclusive) == 2


def test_what_it_claims_is_no_part_of_what_a_resource_is() -> None:
    plain = SystemdUnit(name="it.service")
    assert plain.model_copy(update={"claims": ("sysctl:a/b",)}).spec_hash == plain.spec_hash


def mounting(name: str, *mounts: tuple[str, bool]) -> Container:
    return Container(
        name=name,
        image="registry.test/web:1",
        mounts=tuple(
            Mount(source=source, target=f"/{place}", read_only=read_only)
            for place, (source, read_only) in enumerate(mounts)
        ),
    )


@pytest.mark.parametrize(
    ("written", "other", "is_refused"),
    [
        ("/srv/a", ("/srv/a/b", True), True),
        ("/srv/a", ("/srv/a/b/c", False), True),
        ("/srv/a", ("/srv/a", False), False),
        ("/srv/a", ("/srv/ab", True), False),
        ("/srv/a/b", ("/srv/a", True), False),
    ],
)
def test_no_container_may_write_what_lies_above_the_mount_of_another_one(
    written: str, other: tuple[str, bool], *, is_refused: bool
) -> None:
    one, two = mounting("one", (written, False)), mounting("two", other)
    found = any(collide(mine, its) for mine in one.exclusive for its in two.exclusive)
    assert found is is_refused
    assert not any(collide(mine, its) for mine in one.exclusive for its in one.exclusive)


def test_no_container_may_write_what_lies_above_a_mount_of_its_own() -> None:
    with pytest.raises(ValidationError, match="put a link to anything there"):
        mounting("one", ("/srv/a/b", True), ("/srv/a", False))
    assert mounting("one", ("/srv/a/b", False), ("/srv/a", True)).mounts


def test_a_copy_with_other_values_is_another_resource() -> None:
    file = File(path="/etc/motd", content=b"one\n")
    before = (file.id, file.spec_hash)
    other = file.model_copy(update={"path": "/etc/issue"})
    assert (file.id, file.spec_hash) == before
    assert other.id == "file:/etc/issue"
    assert other.spec_hash == File(path="/etc/issue", content=b"one\n").spec_hash
    assert other == File(path="/etc/issue", content=b"one\n")


def shown(what: str, *options: str) -> MountPoint:
    kind = "none" if "bind" in options else "ext4"
    return MountPoint(what=what, where="/srv/shown", type=kind, options=options)


@pytest.mark.parametrize(
    ("point", "source", "is_read_only", "meets"),
    [
        (shown("/srv/app/data", "bind"), "/srv/app", False, True),
        (shown("/srv/app/disk.img", "loop"), "/srv/app", False, True),
        (shown("/srv/app", "bind"), "/srv/app/conf", True, True),
        (shown("/srv/app", "bind", "ro"), "/srv/app/conf", True, False),
        (shown("/srv/app/data", "bind"), "/srv/app", True, False),
        (shown("/srv/app", "bind"), "/srv/app", False, False),
        (shown("/srv/app/data", "bind"), "/srv/other", False, False),
    ],
)
def test_above_what_a_mount_point_shows_no_container_writes(
    point: MountPoint, source: str, is_read_only: bool, meets: bool
) -> None:
    mount = Mount(source=source, target="/data", read_only=is_read_only)
    container = Container(name="web", image="ghcr.io/acme/web", mounts=(mount,))
    assert meets == any(
        collide(one, other) for one in point.exclusive for other in container.exclusive
    )
