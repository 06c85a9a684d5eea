"""Which paths are accepted, as text."""

from __future__ import annotations

import posixpath
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from harmony_core.errors import UnsafePath
from harmony_core.paths import AbsolutePath, check_path

HOSTILE = {
    "relative": ("etc/motd", "absolute"),
    "empty": ("", "absolute"),
    "home": ("~/motd", "absolute"),
    "the root": ("/", "root itself"),
    "dot dot": ("/etc/../shadow", "'..'"),
    "dot dot first": ("/../etc/shadow", "'..'"),
    "dot dot last": ("/etc/..", "'..'"),
    "dot": ("/etc/./motd", "'.'"),
    "dot last": ("/etc/.", "'.'"),
    "two slashes": ("/etc//motd", "empty part"),
    "two slashes first": ("//etc/motd", "empty part"),
    "slash last": ("/etc/", "empty part"),
    "NUL": ("/etc/motd\0.txt", "U+0000"),
    "newline": ("/etc/motd\n", "U+000A"),
    "carriage return": ("/etc/mo\rtd", "U+000D"),
    "escape": ("/etc/\x1b[2Jmotd", "U+001B"),
    "DEL": ("/etc/motd\x7f", "U+007F"),
    "C1 control": ("/etc/motd\x85", "U+0085"),
    "line separator": ("/etc/a\u2028b", "U+2028"),
    "paragraph separator": ("/etc/a\u2029b", "U+2029"),
    "right to left": ("/etc/\u202etxt.sh", "U+202E"),
    "left to right isolate": ("/etc/\u2066x", "U+2066"),
    "zero width": ("/etc/mo\u200btd", "U+200B"),
    "zero width joiner": ("/etc/mo\u200dtd", "U+200D"),
    "byte order mark": ("/etc/\ufeffmotd", "U+FEFF"),
    "soft hyphen": ("/etc/mo\u00adtd", "U+00AD"),
    "variation selector": ("/etc/motd\ufe0f", "U+FE0F"),
    "hangul filler": ("/etc/\u3164", "U+3164"),
    "no-break space": ("/etc/mo\u00a0td", "U+00A0"),
    "decomposed": ("/etc/u\u0308ber", "normal form"),
    "compatibility ligature sign": ("/etc/\u212b", "normal form"),
    "full-width dots": ("/etc/\uff0e\uff0e/shadow", "dot"),
    "two-dot leader": ("/etc/\u2025/shadow", "dot"),
    "division slash": ("/etc\u2215shadow", "slash"),
    "full-width slash": ("/etc\uff0fshadow", "slash"),
    "lone surrogate": ("/etc/\ud800", "surrogate"),
    "undecodable byte": ("/etc/\udcff", "surrogate"),
    "private use": ("/etc/\ue000", "private-use"),
    "not a character": ("/etc/\uffff", "does not know"),
    "component too long": ("/etc/" + "x" * 256, "255 bytes"),
    "component too long in bytes": ("/etc/" + "ä" * 128, "255 bytes"),
    "path too long": ("/" + "/".join(["x" * 200] * 21), "4095 bytes"),
    "path too long in bytes": ("/" + "/".join(["ä" * 100] * 21), "4095 bytes"),
    "too deep": ("/x" * 129, "128 directories"),
    "far too deep": ("/x" * 3000, "bytes"),
}


@pytest.mark.parametrize(("path", "problem"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_path_is_refused_by_what_is_wrong_with_it(path: str, problem: str) -> None:
    with pytest.raises(UnsafePath) as refused:
        check_path(path)
    assert problem in refused.value.message
    assert refused.value.message.isascii()
    assert len(refused.value.message) < 600


@pytest.mark.parametrize(
    "path",
    [
        "/etc/motd",
        "/x",
        "/etc/.hidden",
        "/etc/...",
        "/etc/..d/x..",
        "/srv/Grüße aus Köln.txt",
        "/srv/日本語",
        "/srv/\U0001f353",
        "/etc/systemd/system/getty@tty1.service.d/x.conf",
        "/etc/a\\x2db",
        "/" + "x" * 255,
        "/x" * 128,
        "/" + "/".join(["x" * 255] * 15) + "/" + "x" * 254,
    ],
)
def test_an_unusual_but_plain_path_is_accepted(path: str) -> None:
    check_path(path)


def test_a_field_of_a_model_is_refused_with_the_same_words() -> None:
    with pytest.raises(ValidationError, match="write the path that it leads to"):
        TypeAdapter[str](AbsolutePath).validate_python("/etc/../shadow")


_PIECES = st.sampled_from(
    ["/", "//", ".", "..", "a", "etc", "\0", "\n", "\u202e", "\uff0e", "ü", "e\u0301"]
)


@given(st.one_of(st.text(), st.lists(_PIECES | st.characters(), max_size=20).map("".join)))
def test_whatever_is_accepted_is_canonical(text: str) -> None:
    for path in (text, f"/{text}"):
        try:
            check_path(path)
        except UnsafePath:
            continue
        assert path.startswith("/")
        assert posixpath.normpath(path) == path
        assert unicodedata.normalize("NFC", path) == path
        assert path.isprintable()
        assert len(path.encode()) <= 4095
