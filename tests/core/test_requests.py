"""Requests: what is taken as one, in which order it is judged, and that nothing is answered twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmony_core.errors import (
    BadEnvelope,
    HarmonyError,
    InvalidRequest,
    RequestError,
    RequestExpired,
    RequestReplayed,
    TooDeep,
    TooLarge,
    UnknownVerb,
    UntrustedSignature,
    WrongFleet,
    WrongTarget,
)
from harmony_core.wire.envelope import PAYLOAD_TYPE, SigningKey, pin_keys, seal
from harmony_core.wire.manifest import Manifest, SerializedScore, accept
from harmony_core.wire.requests import (
    REQUEST_TYPE,
    Ask,
    Asked,
    Diff,
    Events,
    Logs,
    Nonces,
    Reconcile,
    Release,
    Request,
    Volumes,
    accept_request,
    new_request,
    open_request,
    seal_request,
)

KEY = SigningKey(bytes(range(32)))
STRANGER = SigningKey(bytes(range(1, 33)))
TRUSTED = pin_keys([KEY.public])
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
ENTRY = SerializedScore(id="web", kind="FileScore", version=1, spec={"path": "/etc/motd"})

ASKS: Sequence[Ask] = (
    Reconcile(),
    Reconcile(score="web"),
    Reconcile(score="web", enforce=True),
    Logs(score="web"),
    Logs(score="web", since=NOON, after={"unit:web.service": "s=1;i=2"}, follow=True, lines=7),
    Events(),
    Events(score="web", since=NOON, after=12, follow=True, lines=1),
    Diff(entries=()),
    Diff(entries=(ENTRY,), whole=True),
    Release(score="web"),
    Volumes(),
)

Fields = dict[str, Any]


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def request(ask: Ask | None = None, *, at: datetime = NOON) -> Request:
    return new_request(ask or Logs(score="web"), fleet="home", agent_id="pi-1", now=at)


def opened(envelope: bytes) -> Asked:
    return open_request(envelope, trusted=TRUSTED, fleet="home", agent_id="pi-1")


def accepted(
    made: Request, nonces: Nonces | None = None, *, now: datetime = NOON, **more: Any
) -> Ask:
    return accept_request(
        opened(seal_request(made, KEY)), nonces=nonces or Nonces(), now=now, **more
    )


def changed(change: Callable[[Fields], Any]) -> bytes:
    fields: Fields = json.loads(request().payload())
    change(fields)
    return seal(json.dumps(fields).encode(), KEY, payload_type=REQUEST_TYPE)


@pytest.mark.parametrize("ask", ASKS, ids=repr)
def test_what_is_asked_arrives_as_it_was_meant(ask: Ask) -> None:
    assert accepted(request(ask)) == ask


def test_two_requests_have_different_nonces_that_fit_into_a_subject() -> None:
    first, second = request(), request()
    assert first.nonce != second.nonce
    assert len(first.nonce) == 32
    assert first.nonce.isalnum()


def test_who_signed_is_told() -> None:
    assert opened(seal_request(request(), KEY)).keyids == (KEY.public.id,)


def test_a_manifest_is_never_a_request() -> None:
    manifest = Manifest(fleet="home", target="agent:pi-1", generation=1, issued_at=NOON)
    with pytest.raises(BadEnvelope, match="payloadType"):
        opened(seal(manifest.payload(), KEY))


def test_a_request_is_never_a_manifest() -> None:
    with pytest.raises(BadEnvelope, match="payloadType"):
        accept(
            seal_request(request(), KEY),
            trusted=TRUSTED,
            fleet="home",
            agent_id="pi-1",
            current=None,
            now=NOON,
        )


def test_what_was_signed_as_a_manifest_cannot_be_relabelled() -> None:
    fields: Fields = json.loads(seal(request().payload(), KEY, payload_type=PAYLOAD_TYPE))
    with pytest.raises(UntrustedSignature):
        opened(json.dumps(fields | {"payloadType": REQUEST_TYPE}).encode())


def test_nothing_is_parsed_that_no_pinned_key_has_signed() -> None:
    with pytest.raises(UntrustedSignature):
        opened(seal(b"not even JSON", STRANGER, payload_type=REQUEST_TYPE))


@pytest.mark.parametrize(
    ("error", "change"),
    [
        (WrongFleet, {"fleet": "away", "target": "agent:pi-2"}),
        (WrongTarget, {"target": "agent:pi-2"}),
        (InvalidRequest, {"target": "agent:*"}),
        (InvalidRequest, {"target": "class:kiosk"}),
        (InvalidRequest, {"api_version": "harmony/v2"}),
        (InvalidRequest, {"nonce": "*"}),
        (InvalidRequest, {"nonce": "a.b"}),
        (InvalidRequest, {"nonce": "0" * 31}),
        (InvalidRequest, {"nonce": "A" * 32}),
        (InvalidRequest, {"nonce": "0" * 32 + "\n"}),
        (InvalidRequest, {"issued_at": "2026-01-31T12:00:00Z"}),
        (InvalidRequest, {"expires_at": "2026-01-31T12:00:00.000Z"}),
        (InvalidRequest, {"expires_at": "2026-01-31T12:01:00.001Z"}),
        (InvalidRequest, {"expires_at": None}),
        (InvalidRequest, {"verb": "rm -rf"}),
        (InvalidRequest, {"verb": ""}),
        (InvalidRequest, {"args": []}),
        (InvalidRequest, {"comment": ""}),
    ],
)
def test_what_is_wrong_around_the_question_is_dropped(
    error: type[HarmonyError], change: Fields
) -> None:
    with pytest.raises(error):
        opened(changed(lambda fields: fields.update(change)))


@pytest.mark.parametrize(
    ("error", "verb", "args"),
    [
        (UnknownVerb, "shell", {}),
        (InvalidRequest, "logs", {}),
        (InvalidRequest, "logs", {"score": "../web"}),
        (InvalidRequest, "logs", {"score": "web", "lines": 0}),
        (InvalidRequest, "logs", {"score": "web", "lines": 10_001}),
        (InvalidRequest, "logs", {"score": "web", "lines": 1.0}),
        (InvalidRequest, "logs", {"score": "web", "follow": 1}),
        (InvalidRequest, "logs", {"score": "web", "after": {"unit:web": "two words"}}),
        (InvalidRequest, "logs", {"score": "web", "after": {"unit:web": "x" * 513}}),
        (InvalidRequest, "logs", {"score": "web", "after": {f"unit:{n}": "x" for n in range(257)}}),
        (InvalidRequest, "logs", {"score": "web", "command": "sh"}),
        (InvalidRequest, "events", {"after": -1}),
        (InvalidRequest, "events", {"since": "yesterday"}),
        (InvalidRequest, "diff", {}),
        (InvalidRequest, "diff", {"entries": [ENTRY.model_dump(), ENTRY.model_dump()]}),
        (InvalidRequest, "diff", {"entries": [{"id": "web"}]}),
        (InvalidRequest, "release", {}),
        (InvalidRequest, "reconcile", {"score": None, "force": True}),
    ],
)
def test_what_is_wrong_in_the_question_is_told_to_who_asks(
    error: type[RequestError], verb: str, args: Fields
) -> None:
    envelope = changed(lambda fields: fields.update(verb=verb, args=args))
    with pytest.raises(error):
        accept_request(opened(envelope), nonces=Nonces(), now=NOON)


def test_it_may_be_answered_until_it_expires_and_not_from_then_on() -> None:
    made = request()
    accepted(made, now=NOON + seconds(59.999))
    with pytest.raises(RequestExpired, match=r"has passed, it is 2026-01-31T12:01:00\.000Z here"):
        accepted(made, now=NOON + seconds(60))


def test_a_clock_that_is_behind_keeps_nobody_from_asking() -> None:
    accepted(request(), now=datetime(1970, 1, 1, tzinfo=UTC))


def test_time_is_at_least_what_a_pinned_key_has_vouched_for() -> None:
    manifest_issued_at = NOON + seconds(60)
    with pytest.raises(RequestExpired):
        accepted(request(), now=datetime(1970, 1, 1, tzinfo=UTC), vouched_for=[manifest_issued_at])


def test_what_was_asked_of_an_agent_that_has_ended_is_not_answered_by_the_next() -> None:
    made = request()
    with pytest.raises(RequestExpired, match="before this agent has started"):
        accepted(made, now=NOON + seconds(2), started_at=NOON + seconds(1))
    accepted(made, now=NOON + seconds(2), started_at=NOON + timedelta(microseconds=999))


def test_a_request_is_answered_once() -> None:
    nonces, made = Nonces(), request()
    accepted(made, nonces)
    with pytest.raises(RequestReplayed):
        accepted(made, nonces, now=NOON + seconds(30))


def test_also_what_cannot_be_answered_is_told_once() -> None:
    nonces = Nonces()
    asked = opened(changed(lambda fields: fields.update(verb="shell")))
    with pytest.raises(UnknownVerb):
        accept_request(asked, nonces=nonces, now=NOON)
    with pytest.raises(RequestReplayed):
        accept_request(asked, nonces=nonces, now=NOON)


def test_an_expired_nonce_is_forgotten() -> None:
    nonces = Nonces()
    accepted(request(), nonces)
    accepted(request(at=NOON + seconds(60)), nonces, now=NOON + seconds(60))
    assert nonces.count == 1


def test_what_is_forgotten_for_want_of_room_has_expired_whatever_the_clock_says() -> None:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    nonces = Nonces(most=2)
    made = [request(at=NOON + seconds(n)) for n in range(3)]
    for each in made:
        accepted(each, nonces, now=epoch)
    assert nonces.count == 2
    with pytest.raises(RequestExpired):
        accepted(made[0], nonces, now=epoch)
    for each in made[1:]:
        with pytest.raises(RequestReplayed):
            accepted(each, nonces, now=epoch)


def test_one_operator_whose_clock_is_ahead_keeps_no_other_from_asking() -> None:
    nonces = Nonces()
    accepted(request(at=NOON + timedelta(days=365)), nonces)
    accepted(request(), nonces)


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(1, 5))
def test_no_order_of_arrival_has_one_request_answered_twice(order: list[int], most: int) -> None:
    nonces = Nonces(most=most)
    answered: list[int] = []
    for n in order:
        made = Request(
            fleet="home",
            target="agent:pi-1",
            nonce=f"{n:032x}",
            issued_at=NOON + seconds(n),
            expires_at=NOON + seconds(n + 1),
            verb="events",
        )
        try:
            accept_request(Asked(request=made, keyids=()), nonces=nonces, now=NOON)
        except RequestError:
            continue
        answered.append(n)
    assert len(set(answered)) == len(answered)
    assert nonces.count <= most


def test_what_fits_into_a_manifest_is_not_too_deep_for_a_diff() -> None:
    spec: Any = 1
    for _ in range(28):
        spec = [spec]
    entry = ENTRY.model_copy(update={"spec": {"deep": spec}})
    manifest = Manifest(
        fleet="home", target="agent:pi-1", generation=1, issued_at=NOON, scores=(entry,)
    )
    manifest.payload()
    assert accepted(request(Diff(entries=(entry,)))) == Diff(entries=(entry,))
    deeper = ENTRY.model_copy(update={"spec": {"deep": [spec]}})
    with pytest.raises(TooDeep):
        seal_request(request(Diff(entries=(deeper,))), KEY)


def test_a_question_that_is_too_large_is_not_even_signed() -> None:
    entry = ENTRY.model_copy(update={"spec": {"content": "x" * 256 * 1024}})
    with pytest.raises(TooLarge):
        seal_request(request(Diff(entries=(entry,))), KEY)
