"""Bytes from outside: what is read, what is refused, and that nothing else ever happens."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harmony_core.errors import DuplicateKey, ManifestRejected, NotJson, NotUtf8, TooDeep, TooLarge
from harmony_core.wire.strict_json import JsonValue, dumps, loads
from tests.core.damage import BATCH, damaged
from tests.soak import runs

MAX_BYTES = 256 * 1024

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=30
)
bracketed = st.recursive(
    st.sampled_from(['"[{"', r'"\\"', r'"\"]"', "0", "[]", "{}"]),
    lambda inner: (
        st.lists(inner, min_size=1).map(lambda parts: f"[{','.join(parts)}]")
        | inner.map(lambda part: '{"}\\"":' + part + "}")
    ),
    max_leaves=40,
)


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def depth_of(value: JsonValue) -> int:
    match value:
        case dict():
            return 1 + max(map(depth_of, value.values()), default=0)
        case list():
            return 1 + max(map(depth_of, value), default=0)
        case _:
            return 0


@settings(deadline=None)
@given(values)
def test_what_is_written_is_read_back_unchanged(value: JsonValue) -> None:
    assert loads(dumps(value), max_bytes=MAX_BYTES, max_depth=40) == value


@settings(deadline=None)
@given(st.binary() | texts.map(str.encode) | values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_value_as_python_reads_it_or_a_typed_refusal(data: bytes) -> None:
    try:
        value = loads(data, max_bytes=MAX_BYTES)
    except ManifestRejected:
        return
    assert value == json.loads(data)


HONEST = dumps({"a": [1, -2.5e3, True, None, {"b\\": 'q"[{'}], "é": {"\U0001f600": [[[]]]}})


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_random_damage_to_a_document_never_escapes_as_another_error() -> None:
    @settings(deadline=None, max_examples=runs(200_000) // BATCH)
    @given(st.integers(0, 2**64))
    def damage(seed: int) -> None:
        for data in damaged([HONEST], seed):
            try:
                value = loads(data, max_bytes=MAX_BYTES)
            except ManifestRejected as error:
                message = error.message
                assert "; " in message, "a refusal says what to do"
            else:
                assert value == json.loads(data)

    damage()


@pytest.mark.parametrize("end", range(len(HONEST)))
def test_a_document_cut_short_is_refused_wherever_it_is_cut(end: int) -> None:
    with pytest.raises((NotJson, NotUtf8), match=r"byte \d+|empty"):
        loads(HONEST[:end], max_bytes=MAX_BYTES)


REFUSALS: dict[str, tuple[bytes, type[ManifestRejected], str]] = {
    "empty": (b"", NotJson, "empty"),
    "white space only": (b" \r\n\t", NotJson, "empty"),
    "two documents": (b"{}{}", NotJson, "byte 2"),
    # Python 3.13 says where the comma is, older ones where a value was expected.
    "trailing comma": (b"[1,]", NotJson, "byte [23]"),
    "comment": (b"[1] // one", NotJson, "byte 4"),
    "single quotes": (b"{'a':1}", NotJson, "byte 1"),
    "raw newline in a text": (b'["a\nb"]', NotJson, "byte 3"),
    "raw NUL": (b'["\0"]', NotJson, "byte 2"),
    "only NUL": (b"\0", NotJson, "byte 0"),
    "escaped NUL": (rb'["a\u0000"]', NotJson, "byte 3.*NUL"),
    "escaped NUL in a key": (rb'{"\u0000":1}', NotJson, "byte 2.*NUL"),
    "lone high surrogate": (rb'["\ud83d"]', NotJson, "byte 2.*surrogate"),
    "lone low surrogate": (rb'["\uDE00"]', NotJson, "byte 2.*surrogate"),
    "surrogates the wrong way round": (rb'["\ude00\ud83d"]', NotJson, "byte 2.*surrogate"),
    "high surrogate before a letter": (rb'["\ud83dx\ude00"]', NotJson, "byte 2.*surrogate"),
    "surrogate after an escaped backslash": (rb'["\\\ud83d"]', NotJson, "byte 4.*surrogate"),
    "surrogate encoded as bytes": (b'["\xed\xa0\xbd"]', NotUtf8, "byte 2"),
    "byte-order mark": (b"\xef\xbb\xbf{}", NotUtf8, "byte-order mark"),
    "UTF-16": ('{"a":1}'.encode("utf-16"), NotUtf8, "byte 0"),
    "UTF-16 without a mark": ('{"a":1}'.encode("utf-16-le"), NotJson, "byte 1"),
    "UTF-32": ('{"a":1}'.encode("utf-32-be"), NotJson, "byte 0"),
    "Latin-1": ('["é"]'.encode("latin-1"), NotUtf8, "byte 2"),
    "overlong encoding": (b'["\xc0\xaf"]', NotUtf8, "byte 2"),
    "NaN": (b'{"a":[1,NaN]}', NotJson, "byte 8: NaN"),
    "NaN after a text that says so": (b'["NaN",NaN]', NotJson, "byte 7: NaN"),
    "Infinity": (b"[Infinity]", NotJson, "byte 1: Infinity"),
    "-Infinity": (b"[-Infinity]", NotJson, "byte 1: -Infinity"),
    "a float that overflows": (b"[1e999]", NotJson, "byte 1: 1e999"),
    "a negative float that overflows": (b"[0,-1e400]", NotJson, "byte 3: -1e400"),
    "2^63": (b"[9223372036854775808]", NotJson, "byte 1.*64 bits"),
    "below -2^63": (b"[-9223372036854775809]", NotJson, "byte 1.*64 bits"),
    "2^64": (b"[18446744073709551616]", NotJson, "byte 1.*64 bits"),
    "5,000 digits": (b"[" + b"9" * 5_000 + b"]", NotJson, "byte 1.*64 bits"),
    "5,000 decimals": (b"[0." + b"9" * 5_000 + b"]", NotJson, "byte 1.*length"),
    "leading zero": (b"[01]", NotJson, "byte 2"),
    "plus sign": (b"[+1]", NotJson, "byte 1"),
    "hexadecimal": (b"[0x10]", NotJson, "byte 2"),
    "a key twice": (b'{"a":1,"a":1}', DuplicateKey, "'a'.*the document"),
    "a key twice, once escaped": (rb'{"a":1,"\u0061":2}', DuplicateKey, "'a'"),
    "a key twice, deep inside": (
        b'{"s":[{},{"spec":{"k":1,"k":2}}]}',
        DuplicateKey,
        r"'k'.*s\[1\]\.spec",
    ),
    "a key twice before it is cut short": (b'[{"k":1,"k":2},', DuplicateKey, "'k'.*one object"),
    "33 deep": (nested(33), TooDeep, "byte 32"),
    "33 objects deep": (b'{"a":' * 33 + b"1" + b"}" * 33, TooDeep, "byte 160"),
    "33 deep beside much that is shallow": (
        b"[" + b"[]," * 50 + nested(32) + b"]",
        TooDeep,
        "byte 182",
    ),
    "100,000 deep": (nested(100_000), TooDeep, "byte 32"),
    "100,000 opened and never closed": (b"[" * 100_000, TooDeep, "byte 32"),
    "100,000 objects deep": (b'{"a":' * 100_000, TooDeep, "byte 160"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_could_be_read_in_two_ways_is_refused_with_place_and_remedy(case: str) -> None:
    data, error, message = REFUSALS[case]
    with pytest.raises(error, match=message) as refused:
        loads(data, max_bytes=2**20)
    assert re.search(r"; \w+", refused.value.message), "a refusal says what to do"
    assert len(refused.value.message) < 300, "and is short, however long the data"


ACCEPTED: dict[str, tuple[bytes, JsonValue]] = {
    "2^63 - 1": (b"[9223372036854775807]", [2**63 - 1]),
    "-2^63": (b"[-9223372036854775808]", [-(2**63)]),
    "a pair of surrogates": (rb'"\ud83d\ude00"', "\U0001f600"),
    "a backslash before what looks like a surrogate": (rb'"\\ud83d"', r"\ud83d"),
    "a backslash before what looks like NUL": (rb'"\\u0000"', r"\u0000"),
    "32 deep": (b"[" * 31 + b'{"a":1}' + b"]" * 31, json.loads("[" * 31 + '{"a":1}' + "]" * 31)),
    "brackets in a text": (b'"' + b"[{" * 100 + b'"', "[{" * 100),
    "quotes and backslashes before brackets": (rb'["\\\"' + b"[" * 99 + b'"]', ['\\"' + "[" * 99]),
    "much, but shallow": (b"[" + b"{}," * 99 + b"[]]", [*({} for _ in range(99)), []]),
    "white space around": (b" \n{} \r\n", {}),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_what_only_looks_dangerous_is_read(case: str) -> None:
    data, value = ACCEPTED[case]
    assert loads(data, max_bytes=MAX_BYTES) == value


@settings(deadline=None)
@given(bracketed)
def test_depth_is_counted_exactly(text: str) -> None:
    depth = depth_of(json.loads(text))
    loads(text.encode(), max_bytes=MAX_BYTES, max_depth=depth)
    if depth > 0:
        with pytest.raises(TooDeep):
            loads(text.encode(), max_bytes=MAX_BYTES, max_depth=depth - 1)


def test_size_is_looked_at_first_and_in_bytes() -> None:
    assert loads('"é"'.encode(), max_bytes=4) == "é"
    with pytest.raises(TooLarge, match="4 bytes, at most 3"):
        loads(b"\xff\xff\xff\xff", max_bytes=3)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud83d", {"a": [float("-inf")]}])
def test_what_could_not_be_read_back_is_not_written(value: JsonValue) -> None:
    with pytest.raises(NotJson, match="finite numbers and whole characters"):
        dumps(value)


def test_writing_is_compact_utf8_and_sorts_keys_only_on_request() -> None:
    value: JsonValue = {"b": "é", "a": [1, 2]}
    assert dumps(value) == '{"b":"é","a":[1,2]}'.encode()
    assert dumps(value, sort_keys=True) == '{"a":[1,2],"b":"é"}'.encode()
