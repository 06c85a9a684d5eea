"""What is told of a file: in words, and as a diff where one may be shown."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmony_core.resources import File, PresentAt, SecretRef
from harmony_core.steps import Wrote
from harmony_pi_topology.files.plan import (
    COMPARED_MAX_BYTES,
    diff_of,
    may_be_shown,
    resolve_desired,
    steps_due,
)

FILE = File(path="/etc/motd", content=b"hello\n")
WISH = resolve_desired(FILE, b"hello\n")
SECRET = resolve_desired(
    File(path="/etc/wifi", content=SecretRef(secret="wifi"), mode=0o644), b"hunter2"
)
FORMER_SECRET = resolve_desired(
    File(path="/etc/wifi", content=b"public"), b"public", replaces_secret=True
)


def found(**fields: Any) -> PresentAt:
    return attrs.evolve(WISH.state, **fields)


@pytest.mark.parametrize(
    ("state", "actions"),
    [
        (None, ("created",)),
        (found(), ()),
        (found(mode="0600"), ("mode 0600 → 0644",)),
        (found(owner="pi", group="pi"), ("owner pi → root", "group pi → root")),
        (
            found(sha256="00" * 32, size_bytes=3, mode="4755"),
            ("wrote 3 → 6 bytes, sha256 000000000000… → 5891b5b522d5…", "mode 4755 → 0644"),
        ),
    ],
)
def test_every_difference_is_told_in_words(
    state: PresentAt | None, actions: tuple[str, ...]
) -> None:
    assert tuple(map(str, steps_due(state, WISH))) == actions


def test_of_what_was_a_secret_only_sizes_are_told() -> None:
    state = found(sha256="ab" * 32, size_bytes=7)
    assert steps_due(state, FORMER_SECRET) == (Wrote("7 → 6 bytes"),)
    assert FORMER_SECRET.as_told(state).sha256 == ""
    assert FORMER_SECRET.state.sha256 != ""


def test_of_a_secret_only_sizes_are_told() -> None:
    state = found(sha256="00" * 32, size_bytes=3)
    assert steps_due(state, SECRET) == (Wrote("3 → 7 bytes"),)
    assert SECRET.state.sha256 == ""
    assert "hunter2" not in repr(SECRET)


@pytest.mark.parametrize(
    ("state", "wish", "shown"),
    [
        (found(), WISH, True),
        (found(mode="0640"), WISH, False),
        (found(), attrs.evolve(WISH, mode=0o640), False),
        (found(), SECRET, False),
        (found(), FORMER_SECRET, False),
        (found(size_bytes=COMPARED_MAX_BYTES + 1), WISH, False),
    ],
)
def test_a_diff_is_for_what_everybody_may_read(state: PresentAt, wish: object, shown: bool) -> None:
    assert isinstance(wish, type(WISH))
    assert may_be_shown(state, wish) == shown


def test_a_diff_is_told_as_everybody_knows_it() -> None:
    assert diff_of("/etc/motd", b"a\nb\n", b"a\nc") == (
        "--- a/etc/motd\n+++ b/etc/motd\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n\\ No newline at end of file\n"
    )


@pytest.mark.parametrize("content", [b"\xff", b"\0", b"\x1b[31m", "\u202etxt".encode()])
def test_what_a_terminal_might_act_on_is_not_shown(content: bytes) -> None:
    assert diff_of("/etc/motd", b"a\n", content) is None
    assert diff_of("/etc/motd", content, b"a\n") is None


@given(st.binary(max_size=3000), st.binary(max_size=3000))
def test_a_diff_is_of_text_that_differs_or_not_there(before: bytes, after: bytes) -> None:
    diff = diff_of("/etc/motd", before, after)
    assert diff is None or (diff.startswith("--- a/etc/motd\n+++ b") and before != after)


def test_a_long_diff_is_whole() -> None:
    before = "".join(f"line {n}\n" for n in range(1_000)).encode()
    diff = diff_of("/etc/motd", before, before.replace(b"line", b"LINE"))
    assert diff is not None
    assert diff.count("\n+LINE") == 1_000


@given(st.text(alphabet="ab\n", max_size=40), st.text(alphabet="ab\n", max_size=40))
def test_short_texts_that_differ_have_a_diff(before: str, after: str) -> None:
    assert (diff_of("/etc/motd", before.encode(), after.encode()) is None) == (before == after)
