"""The seccomp profile that a container is made with: podman's own, and nothing sets a set-user-ID bit."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from harmony_core.errors import ContainerFailed, WriteFailed
from harmony_core.resources import Container, Mount
from harmony_pi_topology.containers.confinement import PROFILE, provide_profile, tighten
from harmony_pi_topology.containers.spec import resolve_desired

SETS_BITS = ("chmod", "fchmod", "fchmodat", "fchmodat2", "mknod", "mknodat", "creat")
PODMAN_S = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 38,
    "syscalls": [
        {"names": ["read", "chmod", "open", "openat", "openat2"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["io_uring_setup", "mknod"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["bdflush"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
    ],
}
IMAGE = f"localhost/web@sha256:{'0' * 64}"


def test_nothing_that_sets_a_bit_is_allowed_whatever_its_mode() -> None:
    rules = tighten(PODMAN_S)["syscalls"]
    plain = [name for rule in rules if not rule.get("args") for name in rule["names"]]
    assert plain == ["read", "bdflush"]
    for name in SETS_BITS:
        mine = [rule for rule in rules if name in rule["names"]]
        assert [rule["action"] for rule in mine] == [
            *("SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_ERRNO")
        ]
        assert [rule["args"][0]["value"] for rule in mine] == [0o6000, 0o4000, 0o2000]
    assert tighten(tighten(PODMAN_S))["syscalls"][:2] == rules[:2]


def write_podman_s(root: Path, directory: str, **more: object) -> None:
    path = root / directory / "containers/seccomp.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({**PODMAN_S, **more}))


def test_it_is_made_of_the_one_that_podman_would_take(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    write_podman_s(tmp_path, "usr/share")
    made = tmp_path / PROFILE.lstrip("/")
    provide_profile(tmp_path)
    assert json.loads(made.read_text()) == tighten(PODMAN_S)
    before = made.stat()
    provide_profile(tmp_path)
    assert made.stat() == before
    write_podman_s(tmp_path, "etc", defaultErrnoRet=1)
    provide_profile(tmp_path)
    assert json.loads(made.read_text())["defaultErrnoRet"] == 1


@pytest.mark.parametrize("call", ["is_file", "read_text", "write_text", "replace"])
@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO])
def test_what_the_disk_refuses_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    (tmp_path / "run/harmony").mkdir(parents=True)
    source = tmp_path / "usr/share/containers/seccomp.json"
    source.parent.mkdir(parents=True)
    source.write_text(json.dumps(PODMAN_S))

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, call, refuse)
    with pytest.raises(WriteFailed) as caught:
        provide_profile(tmp_path)
    assert os.strerror(number) in caught.value.message.partition(";")[0]
    assert caught.value.message.partition("; ")[2]


def test_without_podman_s_own_nothing_is_made_and_the_remedy_told(tmp_path: Path) -> None:
    with pytest.raises(ContainerFailed, match="run: apt-get install --reinstall"):
        provide_profile(tmp_path)


@pytest.mark.parametrize("read_only", [True, False])
def test_only_what_may_write_to_the_device_is_made_anew_for_it(read_only: bool) -> None:
    mount = Mount(source="/srv/app", target="/data", read_only=read_only)
    desired = resolve_desired(Container(name="it", image=IMAGE, mounts=(mount,)), {})
    assert ("confinement" in desired.fields) is not read_only
