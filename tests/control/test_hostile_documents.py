"""Documents of every kind, as somebody hostile would have them: none is believed, none breaks its reader.

Each case is an honest document that was damaged as bytes, or rewritten as what it is by somebody who knows
its form. Of what is signed, *accepted* is whatever came out that nobody has signed. *Crashed* is any end but
the error that the reader promises.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import attrs
import pytest

from harmony_control.score_files.read import read_score_files
from harmony_control.store.nkey import Nkey
from harmony_core.errors import (
    ConfigError,
    EntryRefused,
    InvalidManifest,
    InvalidReply,
    InvalidRequest,
    ManifestRejected,
    ScoreFileError,
)
from harmony_core.outcome import ErrorInfo, Failure
from harmony_core.plugins import load
from harmony_core.wire.actual_state import ActualState, CapabilityState, Heartbeat, ScoreStatus
from harmony_core.wire.actual_state import from_json as report_from_json
from harmony_core.wire.actual_state import to_json as report_to_json
from harmony_core.wire.enrolment import EnrolAnswer, EnrolRequest, Invitation
from harmony_core.wire.envelope import (
    PAYLOAD_MAX_BYTES,
    SigningKey,
    generate_key,
    open_envelope,
    pin_keys,
    seal,
)
from harmony_core.wire.manifest import Manifest, SerializedScore, accept, parse_manifest
from harmony_core.wire.replies import Alive, End, Failed, Item, from_frame, to_frame
from harmony_core.wire.requests import (
    Diff,
    Events,
    Logs,
    Reconcile,
    new_request,
    open_request,
    seal_request,
)
from tests.core.damage import damaged, rewritten
from tests.core.test_manifest import FULL
from tests.soak import runs, seed, tell

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
AT = "2026-01-31T12:00:00.000Z"
KEY = SigningKey(bytes(range(32)))
STRANGER = SigningKey(bytes(range(1, 33)))
TRUSTED = pin_keys([KEY.public])
ENTRY = SerializedScore(
    id="web", kind="FileScore", version=1, spec={"path": "/etc/motd", "content": "a"}
)
MANIFESTS = [
    Manifest(fleet="home", target="agent:pi-1", generation=number, issued_at=NOON, scores=scores)
    for number, scores in ((8, (ENTRY,)), (9, ()))
]
MANIFESTS.append(FULL.model_copy(update={"epoch": 0}))
REQUESTS = [
    new_request(ask, fleet="home", agent_id="pi-1", now=NOON)
    for ask in (Reconcile(), Logs(score="web", lines=7), Events(), Diff(entries=(ENTRY,)))
]
PAYLOADS = [*(each.payload() for each in MANIFESTS), *(each.payload() for each in REQUESTS)]


@attrs.frozen(kw_only=True)
class Kind:
    """One kind of document, and how it is read."""

    honest: Sequence[bytes]
    read: Callable[[bytes], bytes | None]
    """What was signed, of what is signed; None of what is not."""
    refusals: tuple[type[Exception], ...]
    """The errors that its reader promises."""
    share: int = 10
    """How many of a hundred cases are of it."""


def _read_envelope(data: bytes) -> bytes:
    return open_envelope(data, TRUSTED).payload


def _read_manifest(data: bytes) -> bytes:
    new = accept(data, trusted=TRUSTED, fleet="home", agent_id="pi-1", current=None, now=NOON)
    return new.manifest.payload()


def _read_request(data: bytes) -> bytes:
    asked = open_request(data, trusted=TRUSTED, fleet="home", agent_id="pi-1")
    return asked.request.payload()


def _read_payload(data: bytes) -> None:
    """Read what an operator has signed without looking: it is a manifest as it stands, or refused."""
    try:
        read = parse_manifest(data)
    except ManifestRejected as error:
        if "; " not in error.message:
            raise AssertionError(
                f"a refusal that does not say what to do: {error.message}"
            ) from error
        raise
    assert parse_manifest(read.payload()) == read


def _read_frame(data: bytes) -> None:
    from_frame(data)


def _read_report(data: bytes) -> None:
    report_from_json(data, ActualState)


def _read_heartbeat(data: bytes) -> None:
    report_from_json(data, Heartbeat)


def _read_enrolment(data: bytes) -> None:
    read = EnrolRequest.from_json(data)
    assert EnrolRequest.from_json(read.to_json()) == read


def _read_answer(data: bytes) -> None:
    EnrolAnswer.from_json(data)


def _read_invitation(data: bytes) -> None:
    encoded = base64.urlsafe_b64encode(data).decode()
    read = Invitation.from_text(f"harmony-invitation:{encoded}")
    assert Invitation.from_text(read.to_text()) == read


def _report() -> bytes:
    failed = Failure(
        error=ErrorInfo(code="TimedOut", message="slow", resource="unit:x", retry_at=AT)
    )
    page = ScoreStatus(kind="FileScore", version=1, observed_generation=7, since=AT, outcome=failed)
    return report_to_json(
        ActualState(
            agent_id="pi-1",
            agent_version="1.2.3",
            boot_id="b00t",
            generation=7,
            observed_generation=7,
            capabilities={"FileSystemHost": CapabilityState(offered=True, available=True)},
            kinds={"FileScore": (1,)},
            scores={"web": page},
            conditions=(),
        )
    )


def _heartbeat() -> bytes:
    return report_to_json(
        Heartbeat(
            agent_id="pi-1",
            boot_id="b00t",
            agent_version="1.2.3",
            generation=7,
            observed_generation=7,
            queue_seq=1,
        )
    )


def _invitation() -> bytes:
    made = Invitation(
        fleet="home",
        servers=("tls://192.0.2.5:4222",),
        ca="certificate",
        tls_server_name="harmony-server",
        operator_keys=(KEY.public.to_text(),),
        seed="SU" + "A" * 56,
        agent_id="pi-1",
    )
    return base64.urlsafe_b64decode(made.to_text().partition(":")[2])


def _kinds(directory: Path) -> Mapping[str, Kind]:
    registry = load()
    path = directory / "scores.json"
    yaml = directory / "scores.yaml"

    def read_file(file: Path) -> Callable[[bytes], None]:
        def read(data: bytes) -> None:
            file.write_bytes(data)
            read_score_files([str(file)], registry)

        return read

    entries = json.dumps(
        [{"id": "web", "kind": "FileScore", "spec": {"path": "/etc/motd", "content": "a"}}]
    ).encode()
    as_yaml = b"- id: web\n  kind: FileScore\n  spec: {path: /etc/motd, content: &a hello}\n"
    signed = [seal(each, KEY) for each in PAYLOADS]
    manifests = [seal(each.payload(), KEY) for each in MANIFESTS]
    mailbox = "a" * 26
    return {
        "envelopes": Kind(
            honest=signed, read=_read_envelope, refusals=(ManifestRejected,), share=20
        ),
        "manifests": Kind(
            honest=manifests, read=_read_manifest, refusals=(ManifestRejected,), share=20
        ),
        "requests": Kind(
            honest=[seal_request(each, KEY) for each in REQUESTS],
            read=_read_request,
            refusals=(ManifestRejected, InvalidRequest),
            share=15,
        ),
        "payloads": Kind(
            honest=[each.payload() for each in MANIFESTS],
            read=_read_payload,
            refusals=(ManifestRejected,),
        ),
        "replies": Kind(
            honest=[
                to_frame(each)
                for each in (
                    Alive(seq=0, at=AT),
                    Item(seq=1, item={"text": "grüezi", "n": [1, None]}),
                    End(seq=2),
                    Failed(seq=3, error=ErrorInfo(code="UnknownScore", message="no")),
                )
            ],
            read=_read_frame,
            refusals=(InvalidReply,),
        ),
        "reports": Kind(honest=[_report()], read=_read_report, refusals=(InvalidManifest,)),
        "heartbeats": Kind(
            honest=[_heartbeat()], read=_read_heartbeat, refusals=(InvalidManifest,), share=3
        ),
        "enrolment": Kind(
            honest=[
                EnrolRequest(
                    agent_id="pi-1",
                    nkey=Nkey.new().public,
                    mailbox=mailbox,
                    report_key=generate_key().public.to_text(),
                ).to_json()
            ],
            read=_read_enrolment,
            refusals=(ManifestRejected, ValueError),
            share=4,
        ),
        "answers": Kind(
            honest=[EnrolAnswer(status="refused", message="no").to_json()],
            read=_read_answer,
            refusals=(InvalidReply,),
            share=2,
        ),
        "invitations": Kind(
            honest=[_invitation()], read=_read_invitation, refusals=(ConfigError,), share=3
        ),
        "Score files": Kind(
            honest=[entries], read=read_file(path), refusals=(ScoreFileError, EntryRefused), share=2
        ),
        "Score files in YAML": Kind(
            honest=[as_yaml], read=read_file(yaml), refusals=(ScoreFileError, EntryRefused), share=1
        ),
    }


def _hostile(honest: Sequence[bytes], random: Random) -> bytes:
    """Return one of *honest* as somebody hostile would have it."""
    original = random.choice(honest)
    way = random.randrange(4)
    if way == 0 or original[:1] not in {b"{", b"["}:
        return next(damaged(honest, random.getrandbits(64)))
    if way == 1 and original.startswith(b'{"payload'):
        return _repacked(original, random)
    return rewritten(original, random)


def _repacked(envelope: bytes, random: Random) -> bytes:
    """Return *envelope* around another payload, with the signature that it had, or a stranger's."""
    fields = json.loads(envelope)
    payload = rewritten(base64.b64decode(fields["payload"]), random)[:PAYLOAD_MAX_BYTES]
    if random.random() < 0.5:
        return seal(payload, STRANGER)
    fields["payload"] = base64.b64encode(payload).decode()
    return json.dumps(fields).encode()


def test_honest_documents_are_read(tmp_path: Path) -> None:
    for name, kind in _kinds(tmp_path).items():
        for document in kind.honest:
            signed = kind.read(document)
            assert signed is None or signed in PAYLOADS, name


def _attack(
    kinds: Mapping[str, Kind], names: Sequence[str], random: Random
) -> tuple[list[str], list[str]]:
    """Have a hostile document read for each of *names*; return what was accepted, and what crashed."""
    accepted: list[str] = []
    crashed: list[str] = []
    for name in names:
        kind = kinds[name]
        data = _hostile(kind.honest, random)
        try:
            signed = kind.read(data)
        except kind.refusals:
            continue
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told with its case
            crashed.append(f"{name}: {error!r:.300} of {data[:400]!r}")
        else:
            if signed is not None and signed not in PAYLOADS:
                accepted.append(f"{name}: {data[:400]!r}")
    return accepted, crashed


@pytest.mark.security
@pytest.mark.timeout(3600)
def test_nothing_hostile_is_believed_or_ends_otherwise_than_by_the_error_that_is_promised(
    tmp_path: Path,
) -> None:
    kinds = _kinds(tmp_path)
    random = Random(seed())
    shares = [each.share for each in kinds.values()]
    names = random.choices(list(kinds), shares, k=runs(1_000_000, part=200))
    accepted, crashed = _attack(kinds, names, random)
    counts = ", ".join(f"{count} {name}" for name, count in Counter(names).most_common())
    tell(
        "documents",
        f"{len(names)} hostile, {len(accepted)} accepted, {len(crashed)} crashed ({counts})",
    )
    wrong = accepted + crashed
    assert not wrong, f"{len(wrong)}, such as\n" + "\n".join(wrong[:: max(1, len(wrong) // 10)])


def test_this_battery_would_see_a_forgery_and_a_crash(tmp_path: Path) -> None:
    kind = _kinds(tmp_path)["envelopes"]
    believing = pin_keys([KEY.public, STRANGER.public])

    def believe(data: bytes) -> bytes:
        return open_envelope(data, believing).payload

    kinds = {
        "believes a stranger": attrs.evolve(kind, read=believe),
        "promises nothing": attrs.evolve(kind, refusals=()),
    }
    names = list(kinds) * 200
    accepted, crashed = _attack(kinds, names, Random(1))
    assert {each.partition(":")[0] for each in accepted} == {"believes a stranger"}
    assert {each.partition(":")[0] for each in crashed} == {"promises nothing"}
