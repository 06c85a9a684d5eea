"""Secrets that the device makes itself: nobody else reads them, and what is in their way is told."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from pydantic import ValidationError

from harmony_core.errors import SecretMissing, UnsafePath, WriteFailed
from harmony_core.resources import SecretRef
from harmony_pi_topology.common.secrets import (
    find_secret,
    forget_secret,
    keep_secret,
    own_secrets,
    read_secret,
)


@pytest.fixture
def own(tmp_path: Path) -> str:
    return own_secrets(str(tmp_path))


def test_one_is_kept_for_its_owner_alone_found_and_forgotten(own: str) -> None:
    assert find_secret(own, "key") is None
    forget_secret(own, "key")
    keep_secret(own, "key", b"one\n")
    keep_secret(own, "key", b"two\n")
    assert find_secret(own, "key") == b"two\n"
    assert stat.S_IMODE(Path(own).stat().st_mode) == 0o700
    assert stat.S_IMODE(Path(own, "key").stat().st_mode) == 0o600
    forget_secret(own, "key")
    forget_secret(own, "key")
    assert find_secret(own, "key") is None
    assert not [*Path(own).iterdir()]


def test_no_score_can_name_one(own: str, tmp_path: Path) -> None:
    keep_secret(own, "key", b"one\n")
    with pytest.raises(ValidationError):
        SecretRef(secret="own/key")
    with pytest.raises(SecretMissing):
        read_secret(str(tmp_path), "own")


def test_one_that_others_can_read_is_not_used(own: str) -> None:
    keep_secret(own, "key", b"one\n")
    Path(own, "key").chmod(0o644)
    with pytest.raises(SecretMissing, match="chmod 0600"):
        find_secret(own, "key")


def test_a_link_in_its_place_is_neither_followed_nor_taken_away(own: str, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"theirs")
    Path(own).mkdir()
    Path(own, "key").symlink_to(elsewhere)
    with pytest.raises(UnsafePath):
        keep_secret(own, "key", b"one")
    with pytest.raises(UnsafePath):
        forget_secret(own, "key")
    with pytest.raises(SecretMissing):
        find_secret(own, "key")
    assert elsewhere.read_bytes() == b"theirs"


def test_a_file_where_their_directory_is_to_be_is_told(own: str) -> None:
    Path(own).write_bytes(b"")
    assert find_secret(own, "key") is None
    forget_secret(own, "key")
    with pytest.raises(WriteFailed):
        keep_secret(own, "key", b"one")


def test_no_secret_that_a_score_may_name_is_where_they_are(tmp_path: Path) -> None:
    directory = str(tmp_path)
    keep_secret(own_secrets(directory), "key", b"one\n")
    with pytest.raises(ValidationError, match="lower-case letters"):
        SecretRef(secret=Path(own_secrets(directory)).name)
