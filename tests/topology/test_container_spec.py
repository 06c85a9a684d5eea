"""What a container uses and mounts, read in a folder that stands for the device's root."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from harmony_core.errors import InvalidResource, UnsafePath
from harmony_core.resources import Container
from harmony_pi_topology.containers.used_files import hash_used_files


def using(*paths: str) -> Container:
    return Container(name="web", image="registry.test/web:1", uses=paths)


def test_a_used_file_is_known_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "web.conf").write_bytes(b"one")
    assert hash_used_files(using("/web.conf"), tmp_path) == {
        "/web.conf": hashlib.sha256(b"one").hexdigest()
    }


@pytest.mark.parametrize("path", ["/absent", "/file/below"])
def test_a_used_file_that_is_not_there_is_absent(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert hash_used_files(using(path), tmp_path) == {path: "absent"}


def test_a_pipe_or_directory_in_a_used_file_s_place_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    for path in ("/pipe", "/directory"):
        with pytest.raises(InvalidResource, match=path):
            hash_used_files(using(path), tmp_path)


@pytest.mark.parametrize("path", ["/link", "/directory/secret", "/dangling"])
def test_a_used_file_that_is_reached_by_a_link_is_refused_by_name(
    tmp_path: Path, path: str
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/secret").write_bytes(b"not yours")
    (tmp_path / "link").symlink_to(tmp_path / "real/secret")
    (tmp_path / "directory").symlink_to(tmp_path / "real")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(UnsafePath, match="crosses the symbolic link") as refused:
        hash_used_files(using(path), tmp_path)
    assert refused.value.resource == "container:web"


def test_a_file_too_large_to_be_read_at_every_look_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(64 * 1024 * 1024 + 1)
    with pytest.raises(InvalidResource, match="64 MiB"):
        hash_used_files(using("/large"), tmp_path)
