"""The manifest: what is accepted, in which order it is judged, and what never gets through."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from harmony_core.errors import (
    DuplicateKey,
    DuplicateScoreId,
    Equivocation,
    InvalidManifest,
    ManifestExpired,
    ManifestRejected,
    NotJson,
    NotUtf8,
    StaleGeneration,
    TooDeep,
    TooLarge,
    UnknownDependency,
    UntrustedSignature,
    WrongEpoch,
    WrongFleet,
    WrongTarget,
)
from harmony_core.wire.envelope import PAYLOAD_MAX_BYTES, SigningKey, pin_keys, seal
from harmony_core.wire.manifest import (
    GENERATION_MAX,
    Accepted,
    Manifest,
    ScorePolicy,
    SerializedScore,
    accept,
    parse_manifest,
    reinstate,
    spec_hash,
)
from harmony_core.wire.ordering import graph_faults
from harmony_core.wire.root import Root, Scope
from harmony_core.wire.strict_json import JsonValue

KEY = SigningKey(bytes(range(32)))
STRANGER = SigningKey(bytes(range(1, 33)))
TRUSTED = pin_keys([KEY.public])
ISSUED = datetime(2026, 1, 31, 12, tzinfo=UTC)

Fields = dict[str, Any]


def manifest(**changes: Any) -> Manifest:
    entry = SerializedScore(id="web", kind="FileScore", version=1, spec={"path": "/etc/motd"})
    fields: Fields = {
        "fleet": "home",
        "target": "agent:pi-1",
        "generation": 7,
        "issued_at": ISSUED,
        "scores": (entry,),
    }
    return Manifest.model_validate(fields | changes)


def sealed(**changes: Any) -> bytes:
    return seal(manifest(**changes).payload(), KEY)


def accepted(
    envelope: bytes,
    current: Accepted | None = None,
    now: datetime = ISSUED,
    root: Root | None = None,
) -> Accepted:
    return accept(
        envelope,
        trusted=TRUSTED,
        fleet="home",
        agent_id="pi-1",
        current=current,
        now=now,
        root=root,
    )


def root(**fields: Any) -> Root:
    """By which the key that is trusted here may sign everything."""
    scope = Scope(name="all", keys=(KEY.public.to_text(),))
    keys = (STRANGER.public.to_text(),)
    whole: dict[str, Any] = {"fleet": "home", "version": 1, "issued_at": ISSUED, **fields}
    return Root(root_keys=keys, root_threshold=1, scopes=(scope,), **whole)


def payload_with(change: Callable[[Fields], Any]) -> bytes:
    fields: Fields = json.loads(manifest().payload())
    change(fields)
    return json.dumps(fields).encode()


def entry_with(**changes: JsonValue) -> bytes:
    return payload_with(lambda fields: fields["scores"][0].update(changes))


FULL = Manifest(
    fleet="home",
    target="agent:pi-1",
    epoch=1,
    generation=GENERATION_MAX,
    issued_at=ISSUED,
    expires_at=ISSUED + timedelta(days=90),
    labels={"site": "Zürich", "example.org/rack": ""},
    removals_allowed=12,
    scores=(
        SerializedScore(id="base", kind="FileScore", version=1, spec={}),
        SerializedScore(
            id="web",
            kind="WebAppScore",
            version=2,
            spec={"ports": [1.5, None, {"a": True}]},
            after=("base",),
            policy=ScorePolicy(drift="report", on_failure="rollback", deadline_s=60),
        ),
    ),
)


@pytest.mark.parametrize("original", [manifest(), FULL], ids=["least", "everything set"])
def test_a_manifest_survives_its_payload(original: Manifest) -> None:
    assert parse_manifest(original.payload()) == original


def test_the_payload_spells_out_every_field() -> None:
    assert json.loads(manifest().payload()) == {
        "api_version": "harmony/v1",
        "fleet": "home",
        "target": "agent:pi-1",
        "epoch": 0,
        "generation": 7,
        "issued_at": "2026-01-31T12:00:00.000Z",
        "expires_at": None,
        "labels": {},
        "removals_allowed": 0,
        "scores": [
            {
                "id": "web",
                "kind": "FileScore",
                "version": 1,
                "spec": {"path": "/etc/motd"},
                "after": [],
                "policy": {"drift": "enforce", "on_failure": "keep", "deadline_s": None},
            }
        ],
    }


def test_fields_with_defaults_may_be_left_out() -> None:
    def strip(fields: Fields) -> None:
        for name in ("epoch", "expires_at", "labels", "removals_allowed"):
            del fields[name]
        for name in ("after", "policy"):
            del fields["scores"][0][name]

    assert parse_manifest(payload_with(strip)) == manifest()


def test_times_are_written_in_utc_and_cut_to_milliseconds() -> None:
    zurich = timezone(timedelta(hours=1))
    issued = datetime(2026, 1, 31, 13, 0, 0, 123_999, tzinfo=zurich)
    original = manifest(issued_at=issued)
    assert json.loads(original.payload())["issued_at"] == "2026-01-31T12:00:00.123Z"
    assert parse_manifest(original.payload()) == original


def test_a_time_without_its_zone_is_refused_where_it_is_made() -> None:
    with pytest.raises(ValidationError, match="must know its time zone"):
        manifest(issued_at=datetime(2026, 1, 31))  # noqa: DTZ001 - what is refused here


def test_a_spec_that_no_device_would_read_is_refused_before_it_is_signed() -> None:
    entry = SerializedScore(id="a", kind="K", version=1, spec={"n": 2**63})
    with pytest.raises(NotJson, match="64 bits"):
        manifest(scores=(entry,)).payload()


def test_a_manifest_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(manifest(), "generation", 8)  # noqa: B010 - an assignment would be a type error


@pytest.mark.parametrize(
    "spec", ["{}", '{"kind":1,"unknown":[{}]}', '{"version":-1,"id":"NOT AN ID"}', '{"":null}']
)
def test_what_is_wrong_inside_a_spec_is_not_the_manifest_s_business(spec: str) -> None:
    wanted = json.loads(spec)
    assert parse_manifest(entry_with(spec=wanted)).scores[0].spec == wanted


def test_an_unknown_kind_and_version_are_not_the_manifest_s_business() -> None:
    entry = parse_manifest(entry_with(kind="NeverHeardOf", version=9_999)).scores[0]
    assert (entry.kind, entry.version) == ("NeverHeardOf", 9_999)


def test_an_unknown_or_circular_dependency_is_not_the_manifest_s_business() -> None:
    assert parse_manifest(entry_with(after=["web", "missing"])).scores[0].after == (
        "web",
        "missing",
    )


BAD_PAYLOADS: dict[str, tuple[bytes, type[ManifestRejected], str]] = {
    "empty": (b"", NotJson, "empty"),
    "cut short": (manifest().payload()[:-1], NotJson, "byte"),
    "not UTF-8": (b"\xff", NotUtf8, "byte 0"),
    "too many bytes": (b" " * (PAYLOAD_MAX_BYTES + 1), TooLarge, "at most 262144"),
    "a key twice": (
        manifest().payload().replace(b'"epoch":0', b'"epoch":0,"epoch":1'),
        DuplicateKey,
        "'epoch'",
    ),
    "a key twice in a spec": (
        manifest().payload().replace(b'"path":', b'"path":"/a","path":'),
        DuplicateKey,
        r"'path'.*scores\[0\]\.spec",
    ),
    "NaN in a spec": (manifest().payload().replace(b'"/etc/motd"', b"NaN"), NotJson, "NaN"),
    "a spec that is too deep": (
        manifest().payload().replace(b'"/etc/motd"', b"[" * 100_000 + b"]" * 100_000),
        TooDeep,
        "deeper than 32",
    ),
    "a list": (b"[]", InvalidManifest, "value"),
    "null": (b"null", InvalidManifest, "value"),
    "one id twice": (
        payload_with(lambda f: f["scores"].append(f["scores"][0])),
        DuplicateScoreId,
        "'web'.*rename one",
    ),
}

BAD_FIELDS: dict[str, list[JsonValue]] = {
    "api_version": ["harmony/v2", "", None, 1],
    "fleet": ["", "Home", "home\n", "a" * 64, "*", ">", "a.b", "-a", "ä", None, 1, ["home"]],
    "target": [
        "",
        "pi-1",
        "agent:",
        "agent:*",
        "agent:>",
        "agent:pi.1",
        "agent:pi-1\n",
        "agent:agent:pi-1",
        "class:kiosk",
        "AGENT:pi-1",
        "agent:" + "a" * 64,
        None,
        7,
    ],
    "epoch": [-1, 2**53, 1.0, "1", True, None],
    "generation": [0, -1, 2**53, 2**62, 1.0, 7.5, "7", True, False, None, [7]],
    "issued_at": [
        "",
        "2026-01-31",
        "2026-01-31T12:00:00Z",
        "2026-01-31T12:00:00.000000Z",
        "2026-01-31T12:00:00.000+00:00",
        "2026-01-31T12:00:00.000z",
        "2026-01-31 12:00:00.000Z",
        "2026-01-31T12:00:00.000",
        "2026-02-30T12:00:00.000Z",
        "2026-01-31T24:00:00.000Z",
        "2026-01-31T23:59:60.000Z",
        "0000-01-01T00:00:00.000Z",
        "٢٠٢٦-01-31T12:00:00.000Z",
        "2026-01-31T12:00:00.000Z\n",
        1769860800,
        True,
        None,
    ],
    "expires_at": ["", "never", "2026-01-31T12:00:00.000Z", "1970-01-01T00:00:00.000Z", 0, False],
    "labels": [
        None,
        [],
        {"": "x"},
        {"a b": "x"},
        {"a\n": "x"},
        {"a" * 64: "x"},
        {"site": 1},
        {"site": None},
        {"site": "a\nb"},
        {"site": "a" * 257},
        {f"label{n}": "" for n in range(65)},
    ],
    "removals_allowed": [-1, 2**53, 1.0, "0", True, None],
    "scores": [None, {}, "web", [None], ["web"], [[]]],
    "unknown": [None, "", {}],
}

BAD_ENTRY_FIELDS: dict[str, list[JsonValue]] = {
    "id": ["", "Web", "web\n", "a.b", "*", "a" * 64, "-a", "a-", None, 1],
    "kind": ["", "1Kind", "File Score", "File.Score", "K" * 64, "Kind\n", None, 1],
    "version": [0, -1, 1.0, "1", True, None, 2**31],
    "spec": [None, [], "", 1],
    "after": [None, "web", {}, [1], [None], ["NOT"], ["a", "a"], [["a"]]],
    "policy": [
        None,
        [],
        {"drift": "ignore"},
        {"drift": None},
        {"on_failure": "explode"},
        {"deadline_s": 0},
        {"deadline_s": 1.5},
        {"deadline_s": True},
        {"deadline_s": "60"},
        {"deadline_s": 2**40},
        {"retries": 3},
    ],
    "when": [None],
}


def of_each(table: dict[str, list[JsonValue]]) -> list[tuple[str, JsonValue]]:
    return [(name, value) for name, values in table.items() for value in values]


@pytest.mark.parametrize("case", BAD_PAYLOADS)
def test_a_payload_that_is_not_a_manifest_is_refused_with_its_reason(case: str) -> None:
    payload, error, message = BAD_PAYLOADS[case]
    with pytest.raises(error, match=message):
        parse_manifest(payload)


@pytest.mark.parametrize(("name", "value"), of_each(BAD_FIELDS))
def test_a_wrong_field_is_named_with_a_remedy(name: str, value: JsonValue) -> None:
    with pytest.raises(InvalidManifest, match="; correct it and push again") as refused:
        parse_manifest(payload_with(lambda fields: fields.update({name: value})))
    assert name in refused.value.message


@pytest.mark.parametrize(("name", "value"), of_each(BAD_ENTRY_FIELDS))
def test_a_wrong_field_of_an_entry_is_named_with_its_path(name: str, value: JsonValue) -> None:
    with pytest.raises(InvalidManifest, match=rf"^scores\.0\.{name}.*; correct it"):
        parse_manifest(entry_with(**{name: value}))


@pytest.mark.parametrize(
    "name", ["fleet", "target", "generation", "issued_at", "id", "kind", "version", "spec"]
)
def test_a_field_without_default_must_be_there(name: str) -> None:
    def drop(fields: Fields) -> None:
        fields.pop(name, None)
        fields["scores"][0].pop(name, None)

    with pytest.raises(InvalidManifest, match=f"{name}: is missing; add it"):
        parse_manifest(payload_with(drop))


def test_the_first_manifest_is_accepted_with_its_proof() -> None:
    envelope = sealed()
    new = accepted(envelope)
    assert new.manifest == manifest()
    assert new.envelope == envelope
    assert new.keyids == (KEY.public.id,)


def test_a_newer_generation_replaces_an_older_one() -> None:
    assert accepted(sealed(generation=8), accepted(sealed())).manifest.generation == 8


def test_the_same_payload_leaves_what_is_in_force_untouched() -> None:
    current = accepted(sealed())
    assert accepted(sealed(), current) is current


def test_the_same_payload_in_another_envelope_leaves_what_is_in_force_untouched() -> None:
    current = accepted(sealed())
    again = seal(manifest().payload(), STRANGER, KEY)
    assert accepted(again, current) is current


def test_the_same_generation_with_other_content_is_an_equivocation() -> None:
    with pytest.raises(Equivocation, match="7 is in force with other content"):
        accepted(sealed(removals_allowed=1), accepted(sealed()))


def test_the_same_content_in_other_bytes_is_an_equivocation_too() -> None:
    respaced = json.dumps(json.loads(manifest().payload())).encode()
    with pytest.raises(Equivocation):
        accepted(seal(respaced, KEY), accepted(sealed()))


@pytest.mark.parametrize("generation", [1, 6])
def test_an_older_generation_is_refused(generation: int) -> None:
    with pytest.raises(StaleGeneration, match=rf"{generation} of epoch 0 is older than 7"):
        accepted(sealed(generation=generation), accepted(sealed()))


def test_the_epoch_of_a_root_document_lets_generations_begin_anew() -> None:
    current = accepted(sealed(generation=GENERATION_MAX))
    new = accepted(sealed(epoch=1, generation=1), current, root=root(epoch=1))
    assert new.manifest.order == (1, 1)


def test_an_older_epoch_is_refused_whatever_its_generation() -> None:
    current = accepted(sealed(epoch=2), root=root(epoch=2))
    for rules in (None, root(epoch=2)):
        with pytest.raises(StaleGeneration):
            accepted(sealed(epoch=1, generation=GENERATION_MAX), current, root=rules)


@pytest.mark.parametrize("epoch", [1, GENERATION_MAX])
def test_without_a_root_document_nobody_begins_an_epoch(epoch: int) -> None:
    """Else a stolen key, before there is a root document, uses up those of all that come."""
    for current in (None, accepted(sealed())):
        with pytest.raises(
            WrongEpoch, match=rf"epoch: {epoch}, and it is 0 here.*harmony trust init"
        ):
            accepted(sealed(epoch=epoch, generation=8), current)


def test_without_one_the_epoch_of_what_was_accepted_last_goes_on() -> None:
    current = accepted(sealed(epoch=2), root=root(epoch=2))
    assert accepted(sealed(epoch=2, generation=8), current).manifest.order == (2, 8)
    with pytest.raises(WrongEpoch, match="epoch: 3, and it is 2 here"):
        accepted(sealed(epoch=3, generation=8), current)


def test_a_date_of_an_epoch_that_is_over_makes_nothing_expire() -> None:
    """Else a stolen key, on a device whose clock nobody sets, dates all that comes out of its time."""
    ahead = ISSUED + timedelta(days=365_000)
    current = accepted(sealed(issued_at=ahead))
    new = {"generation": 8, "expires_at": ISSUED + timedelta(days=1)}
    with pytest.raises(ManifestExpired):
        accepted(sealed(**new), current, root=root())
    rules = root(epoch=1, expires_at=ISSUED + timedelta(days=1))
    assert accepted(sealed(epoch=1, **new), current, root=rules).manifest.order == (1, 8)


def test_a_manifest_past_its_expiry_is_refused() -> None:
    envelope = sealed(expires_at=ISSUED + timedelta(hours=1))
    assert accepted(envelope, now=ISSUED + timedelta(minutes=59)).envelope == envelope
    with pytest.raises(ManifestExpired, match=r"2026-01-31T13:00:00\.000Z has passed"):
        accepted(envelope, now=ISSUED + timedelta(hours=1))


def test_what_is_in_force_stays_in_force_after_its_expiry() -> None:
    envelope = sealed(expires_at=ISSUED + timedelta(hours=1))
    current = accepted(envelope)
    assert accepted(envelope, current, now=ISSUED + timedelta(days=1)) is current


def test_a_clock_that_woke_in_1970_cannot_revive_an_expired_manifest() -> None:
    current = accepted(sealed(issued_at=ISSUED + timedelta(hours=2)))
    expired = sealed(generation=8, expires_at=ISSUED + timedelta(hours=1))
    with pytest.raises(ManifestExpired, match=r"it is 2026-01-31T14:00:00\.000Z here"):
        accepted(expired, current, now=datetime(1970, 1, 1, tzinfo=UTC))


def test_a_clock_that_woke_in_1970_does_not_keep_a_device_from_its_manifest() -> None:
    assert accepted(sealed(), now=datetime(1970, 1, 1, tzinfo=UTC)).manifest == manifest()


def test_a_kept_envelope_is_reinstated_after_its_expiry() -> None:
    envelope = sealed(expires_at=ISSUED + timedelta(hours=1))
    assert reinstate(envelope, trusted=TRUSTED, fleet="home", agent_id="pi-1") == accepted(envelope)


def test_a_kept_envelope_of_a_key_no_longer_pinned_is_not_reinstated() -> None:
    with pytest.raises(UntrustedSignature):
        reinstate(sealed(), trusted=pin_keys([STRANGER.public]), fleet="home", agent_id="pi-1")


CURRENT = accepted(sealed(expires_at=ISSUED + timedelta(hours=1)))
LATE = ISSUED + timedelta(days=1)
PAST = {"issued_at": ISSUED, "expires_at": ISSUED + timedelta(hours=1)}
IN_ORDER: list[tuple[bytes, type[ManifestRejected]]] = [
    (b"\xff" * 400_000, TooLarge),
    (seal(b"\xff", STRANGER), UntrustedSignature),
    (seal(b"\xff", KEY), NotUtf8),
    (seal(b'{"fleet":"other"}', KEY), InvalidManifest),
    (sealed(fleet="other", target="agent:pi-2", generation=1, **PAST), WrongFleet),
    (sealed(target="agent:pi-2", generation=1, **PAST), WrongTarget),
    (sealed(generation=1, **PAST), StaleGeneration),
    (sealed(removals_allowed=1, **PAST), Equivocation),
    (sealed(generation=8, **PAST), ManifestExpired),
]


@pytest.mark.parametrize(("envelope", "error"), IN_ORDER)
def test_of_several_faults_the_outermost_is_named(
    envelope: bytes, error: type[ManifestRejected]
) -> None:
    with pytest.raises(error) as refused:
        accepted(envelope, CURRENT, now=LATE)
    assert type(refused.value) is error


def test_a_spec_hash_follows_what_is_wanted_and_not_its_spelling() -> None:
    entry = SerializedScore(id="a", kind="K", version=1, spec={"x": 1, "y": {"z": 2}})
    respelt = SerializedScore(
        id="b", kind="K", version=1, spec={"y": {"z": 2}, "x": 1}, after=("c",)
    )
    assert spec_hash(entry) == spec_hash(respelt)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "L"},
        {"version": 2},
        {"spec": {"x": 1.0}},
        {"spec": {"x": "1"}},
        {"policy": ScorePolicy(drift="report")},
    ],
)
def test_a_spec_hash_changes_with_what_is_wanted(change: Fields) -> None:
    entry = SerializedScore(id="a", kind="K", version=1, spec={"x": 1})
    assert spec_hash(entry.model_copy(update=change)) != spec_hash(entry)


GENUINE = {
    envelope: accepted(envelope, CURRENT).payload_sha256
    for envelope in (sealed(generation=8), sealed(generation=9, scores=()))
}


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_no_single_flipped_bit_of_a_signed_manifest_is_accepted() -> None:
    envelope = min(GENUINE, key=len)
    through: list[int] = []
    for bit in range(len(envelope) * 8):
        flipped = bytearray(envelope)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            accepted(bytes(flipped), CURRENT)
        except ManifestRejected:
            continue
        through.append(bit)
    assert through == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
PLACES: list[tuple[str | int, ...]] = [
    *((name,) for name in Manifest.model_fields),
    *(("scores", 0, name) for name in SerializedScore.model_fields),
    *(("scores", 0, "policy", name) for name in ScorePolicy.model_fields),
]


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(PLACES), json_values)
def test_any_value_in_any_field_is_a_manifest_or_a_typed_refusal(
    place: tuple[str | int, ...], value: Any
) -> None:
    fields: Any = json.loads(manifest().payload())
    inner = fields
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    try:
        read = parse_manifest(json.dumps(fields).encode())
    except ManifestRejected:
        return
    assert parse_manifest(read.payload()) == read


def test_what_was_accepted_does_not_show_its_bytes() -> None:
    assert "envelope" not in repr(attrs.evolve(CURRENT, envelope=b"envelope"))


@pytest.mark.parametrize(
    "scores",
    [
        '{{"id":"a","kind":"K","version":1,"spec":{{}},"after":[{}]}}'.format(
            ",".join(['"b"'] * 50_000)
        ),
        '{{"id":"a","kind":"K","version":1,"spec":{{}},"after":[{}]}}'.format(
            ",".join(f'"b{number}","b{number}"' for number in range(10_000))
        ),
        ",".join(['{"id":"a"}'] * 10_000),
        ",".join(['{"id":"a","kind":"K","version":1,"spec":{}}'] * 5_000),
    ],
)
def test_very_long_lists_are_refused_in_few_words_and_in_one_walk(scores: str) -> None:
    """Compared each with each, the first of them alone would take longer than any test may."""
    head = '{"fleet":"home","target":"agent:pi-1","generation":1,"issued_at":"2026-01-31T12:00:00.000Z"'
    with pytest.raises(ManifestRejected) as refused:
        parse_manifest(f'{head},"scores":[{scores}]}}'.encode())
    assert len(refused.value.message) < 1_000


def test_what_waits_for_very_much_that_is_not_there_is_found_out_in_one_walk() -> None:
    entries = [
        SerializedScore(
            id=f"s{number}",
            kind="Note",
            version=1,
            spec={},
            after=(f"s{number - 1}", *(f"x{each}" for each in range(2_000))),
        )
        for number in range(400)
    ]
    faults = graph_faults(entries)
    assert {type(each) for each in faults.values()} == {UnknownDependency}
    assert len(faults) == len(entries)
