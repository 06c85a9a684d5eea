"""Documents of every kind, as somebody hostile would have them: none is believed, none breaks its reader.

Each case is an honest document that was damaged as bytes, or rewritten as what it is by somebody who knows
its form. Of what is signed, *accepted* is whatever came out that nobody has signed. *Crashed* is any end but
the error that the reader promises. *Slow* is what costs more than `SLOW` times what an honest one of its size
does, counted in calls of functions, Python's and C's: a clock would judge the machine. What one call in C
takes is not seen so; documents are bounded before any of them.
"""

from __future__ import annotations

import base64
import importlib
import inspect
import json
import pkgutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any, Protocol, cast

import attrs
import pytest

from harmony_control.score_files.read import read_score_files
from harmony_control.store.nkey import Nkey
from harmony_core import wire
from harmony_core.errors import (
    BundleRefused,
    ConfigError,
    EntryRefused,
    InvalidManifest,
    InvalidReply,
    InvalidRequest,
    ManifestRejected,
    RootRejected,
    ScoreFileError,
)
from harmony_core.outcome import ErrorInfo, Failure
from harmony_core.plugins import load
from harmony_core.wire.actual_state import ActualState, CapabilityState, Heartbeat, ScoreStatus
from harmony_core.wire.actual_state import from_json as report_from_json
from harmony_core.wire.actual_state import to_json as report_to_json
from harmony_core.wire.bundle import (
    INDEX_NAME,
    BundledFile,
    BundleIndex,
    header_of,
    index_size,
)
from harmony_core.wire.bundle import parse_index as parse_bundle_index
from harmony_core.wire.class_manifest import CLASS_TYPE, ClassManifest, parse_class_manifest
from harmony_core.wire.device_record import DeviceRecord, open_record, seal_record
from harmony_core.wire.enrolment import EnrolAnswer, EnrolRequest, Invitation
from harmony_core.wire.envelope import (
    PAYLOAD_MAX_BYTES,
    SigningKey,
    generate_key,
    open_envelope,
    pin_keys,
    seal,
)
from harmony_core.wire.fleet_index import (
    FLEET_TYPE,
    ClassRule,
    FleetIndex,
    Selected,
    parse_index,
)
from harmony_core.wire.gate import GATE_TYPE, Gate, parse_gate
from harmony_core.wire.inventory import (
    Disk,
    Interface,
    Inventory,
    UsbDevice,
    inventory_from_json,
    inventory_to_json,
)
from harmony_core.wire.manifest import (
    Manifest,
    SerializedScore,
    accept,
    parse_manifest,
    reinstate,
)
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
from harmony_core.wire.root import (
    ROOT_TYPE,
    Root,
    Scope,
    open_first_root,
    open_next_root,
    open_pinned_root,
    parse_root,
)
from tests.core.damage import damaged, rewritten
from tests.core.test_manifest import FULL
from tests.soak import runs, seed, tell

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
AT = "2026-01-31T12:00:00.000Z"
KEY = SigningKey(bytes(range(32)))
STRANGER = SigningKey(bytes(range(1, 33)))
ROOT_KEY = SigningKey(bytes(range(2, 34)))
TRUSTED = pin_keys([KEY.public])
SLOW = 20
"""So many times what an honest document of its size costs is too much."""
ONE_IN = 10
"""Of so many hostile documents, what one costs is counted."""
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
ROOTS = [
    Root(
        fleet="home",
        version=version,
        issued_at=NOON,
        root_keys=(ROOT_KEY.public.to_text(),),
        root_threshold=1,
        scopes=(Scope(name="ada", keys=(KEY.public.to_text(),), until=until), *limited),
    )
    for version, until, limited in (
        (1, None, ()),
        (
            2,
            NOON,
            (
                Scope(
                    name="site",
                    keys=(KEY.public.to_text(),),
                    signs=("manifest", "request"),
                    classes=("kiosk", "sign-*"),
                    agents=("pi-?",),
                ),
            ),
        ),
    )
]
RECORDS = [
    DeviceRecord(fleet="home", agent_id="pi-1", report_key=key, serial=7)
    for key in (KEY.public.to_text(), None)
]
CLASS = ClassManifest(
    fleet="home", target="class:kiosk", generation=3, supersedes=2, issued_at=NOON, scores=(ENTRY,)
)
INDEX = FleetIndex(
    fleet="home",
    generation=4,
    issued_at=NOON,
    classes={
        "kiosk": ClassRule(
            selectors=(Selected(since=2, selector="site=attic"), Selected(since=0, selector=""))
        )
    },
    gate_keys=(KEY.public.to_text(),),
)
GATE = Gate(
    fleet="home",
    name="kiosk",
    generation=3,
    sha256="a" * 64,
    state="running",
    places=1_000,
    term=1,
    seq=2,
    issued_at=NOON,
    reason="a wave",
)
PAYLOADS = [
    *(each.payload() for each in (*MANIFESTS, CLASS)),
    *(each.payload() for each in REQUESTS),
    *(each.payload() for each in ROOTS),
    *(INDEX.payload(), GATE.payload()),
    *(each.model_dump_json().encode() for each in RECORDS),
]

BUNDLE_INDEX = BundleIndex(
    fleet="home",
    agent_id="pi-1",
    made_at=NOON,
    files=(
        BundledFile(name="desired-state/pi-1", sha256="ab" * 32, size_bytes=700),
        BundledFile(name=f"blobs/{'cd' * 32}", sha256="cd" * 32, size_bytes=2**20),
    ),
)


@attrs.frozen(kw_only=True)
class Kind:
    """One kind of document, and how it is read."""

    honest: Sequence[bytes]
    read: Callable[[bytes], bytes | None]
    """What was signed, of what is signed; None of what is not."""
    refusals: tuple[type[Exception], ...]
    """The errors that its reader promises."""
    share: int = 10
    """How many cases are of it, beside those of the others."""
    is_from_elsewhere: bool = True
    """False for files of the operator's own, which are read again for the lines of what is wrong with them:
    what one costs is not counted."""


def _read_envelope(data: bytes) -> bytes:
    return open_envelope(data, TRUSTED).payload


def _read_bundle_header(data: bytes) -> None:
    index_size(data)


def _read_bundle_index(data: bytes) -> None:
    parse_bundle_index(data)


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


class _Payload(Protocol):
    def payload(self) -> bytes: ...


def _read_signed(data: bytes, *, payload_type: str, parse: Callable[[bytes], _Payload]) -> bytes:
    """Read what *parse* reads of an envelope of that type."""
    return parse(open_envelope(data, TRUSTED, payload_type=payload_type).payload).payload()


def _read_unlooked(data: bytes, *, parse: Callable[[bytes], _Payload]) -> None:
    """Read what a key that counts has signed without looking."""
    read = parse(data)
    assert parse(read.payload()) == read


_parse_class = partial(parse_class_manifest, fleet="home", name="kiosk")
_parse_index = partial(parse_index, fleet="home")
_parse_gate = partial(parse_gate, fleet="home", name="kiosk")
OF_CLASSES: Mapping[str, tuple[str, Callable[[bytes], _Payload], _Payload]] = {
    "class documents": (CLASS_TYPE, _parse_class, CLASS),
    "class indices": (FLEET_TYPE, _parse_index, INDEX),
    "gates": (GATE_TYPE, _parse_gate, GATE),
}


def _read_kept_manifest(data: bytes) -> bytes:
    """Read what an agent has kept, as it does when it starts."""
    return reinstate(data, trusted=TRUSTED, fleet="home", agent_id="pi-1").manifest.payload()


def _read_first_root(data: bytes) -> bytes:
    return open_first_root(data, fleet="home", operator_keys=TRUSTED).payload()


def _read_next_root(data: bytes) -> bytes:
    return open_next_root(data, ROOTS[0]).payload()


def _read_pinned_root(data: bytes) -> bytes:
    return open_pinned_root(data, fleet="home").payload()


def _read_record(data: bytes) -> bytes:
    found = open_record(data, trusted=TRUSTED, fleet="home", agent_id="pi-1")
    return found.model_dump_json().encode()


def _read_inventory(data: bytes) -> None:
    read = inventory_from_json(data)
    assert inventory_from_json(inventory_to_json(read)) == read


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


def _inventory() -> bytes:
    return inventory_to_json(
        Inventory(
            agent_id="pi-1",
            agent_version="1.2.3",
            memory_bytes=2**30,
            kinds={"FileScore": (1,)},
            interfaces=(Interface(name="eth0", mac="00:00:5e:00:53:01", addresses=("192.0.2.5",)),),
            disks=(Disk(name="mmcblk0", size_bytes=2**34, removable=True),),
            usb=(UsbDevice(port="1-1.2", vendor_id="1d6b", product_id="0002", product="hub"),),
        )
    )


def _of_roots() -> Mapping[str, Kind]:
    first, following = (each.payload() for each in ROOTS)
    seal_root = partial(seal, payload_type=ROOT_TYPE)
    promised = (RootRejected,)
    return {
        "first roots": Kind(
            honest=[seal_root(first, ROOT_KEY, KEY)], read=_read_first_root, refusals=promised
        ),
        "next roots": Kind(
            honest=[seal_root(following, ROOT_KEY)], read=_read_next_root, refusals=promised
        ),
        "pinned roots": Kind(
            honest=[seal_root(first, ROOT_KEY)], read=_read_pinned_root, refusals=promised, share=3
        ),
        "root payloads": Kind(
            honest=[first, following],
            read=partial(_read_unlooked, parse=parse_root),
            refusals=promised,
        ),
    }


def _of_classes() -> Iterator[tuple[str, Kind]]:
    for name, (payload_type, parse, honest) in OF_CLASSES.items():
        yield (
            name,
            Kind(
                honest=[seal(honest.payload(), KEY, payload_type=payload_type)],
                read=partial(_read_signed, payload_type=payload_type, parse=parse),
                refusals=(ManifestRejected,),
            ),
        )
        yield (
            f"{name} unlooked at",
            Kind(
                honest=[honest.payload()],
                read=partial(_read_unlooked, parse=parse),
                refusals=(ManifestRejected,),
            ),
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
        "bundle headers": Kind(
            honest=[header_of(INDEX_NAME, 700)], read=_read_bundle_header, refusals=(BundleRefused,)
        ),
        "bundle indexes": Kind(
            honest=[BUNDLE_INDEX.to_bytes()], read=_read_bundle_index, refusals=(BundleRefused,)
        ),
        "kept manifests": Kind(
            honest=manifests[:2], read=_read_kept_manifest, refusals=(ManifestRejected,), share=3
        ),
        "records": Kind(
            honest=[seal_record(each, KEY) for each in RECORDS],
            read=_read_record,
            refusals=(ManifestRejected,),
        ),
        "inventories": Kind(
            honest=[_inventory()], read=_read_inventory, refusals=(InvalidManifest,), share=5
        ),
        **_of_roots(),
        **dict(_of_classes()),
        "Score files": Kind(
            honest=[entries],
            read=read_file(path),
            refusals=(ScoreFileError, EntryRefused),
            share=2,
            is_from_elsewhere=False,
        ),
        "Score files in YAML": Kind(
            honest=[as_yaml],
            read=read_file(yaml),
            refusals=(ScoreFileError, EntryRefused),
            share=1,
            is_from_elsewhere=False,
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
        return seal(payload, STRANGER, payload_type=fields["payloadType"])
    fields["payload"] = base64.b64encode(payload).decode()
    return json.dumps(fields).encode()


def test_honest_documents_are_read(tmp_path: Path) -> None:
    for name, kind in _kinds(tmp_path).items():
        for document in kind.honest:
            signed = kind.read(document)
            assert signed is None or signed in PAYLOADS, name


@attrs.frozen
class Found:
    """What came of an attack."""

    accepted: list[str]
    crashed: list[str]
    slow: list[str]
    dearest: float
    """How many times what an honest document costs the dearest did."""
    counted: int
    """Of so many it is known."""

    @property
    def wrong(self) -> list[str]:
        return self.accepted + self.crashed + self.slow


def _attack(kinds: Mapping[str, Kind], names: Sequence[str], random: Random) -> Found:
    """Have a hostile document read for each of *names*."""
    accepted: list[str] = []
    crashed: list[str] = []
    slow: list[str] = []
    ratios: list[float] = []
    calls_a_byte = {name: _find_calls_a_byte(kinds[name]) for name in set(names)}
    for number, name in enumerate(names):
        kind = kinds[name]
        data = _hostile(kind.honest, random)
        try:
            signed = kind.read(data)
        except kind.refusals:
            pass
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told with its case
            crashed.append(f"{name}: {error!r:.300} of {data[:400]!r}")
        else:
            if signed is not None and signed not in PAYLOADS:
                accepted.append(f"{name}: {data[:400]!r}")
        if number % ONE_IN == 0 and kind.is_from_elsewhere:
            # Never less than what the smallest honest one costs, which is mostly the way to its first byte.
            size = max(len(data), min(map(len, kind.honest)))
            ratios.append(_count_calls(kind, data) / (calls_a_byte[name] * size))
            if ratios[-1] > SLOW:
                slow.append(f"{name}: {ratios[-1]:.0f} times an honest one: {data[:400]!r}")
    return Found(accepted, crashed, slow, max(ratios), len(ratios))


def _find_calls_a_byte(kind: Kind) -> float:
    """Return what an honest document of *kind* costs."""
    for each in kind.honest:
        kind.read(each)  # what is only done the first time is done
    return max(_count_calls(kind, each) / len(each) for each in kind.honest)


def _count_calls(kind: Kind, data: bytes) -> int:
    """Return how many functions are called while *data* is read: of two times the fewer, since whatever is
    loaded when it is needed first is no document's fault."""
    return min(_count_calls_once(kind, data) for _ in range(2))


def _count_calls_once(kind: Kind, data: bytes) -> int:
    calls = 0

    def count(_: FrameType, event: str, __: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        kind.read(data)
    except Exception:  # noqa: BLE001 - judged where it was read first
        pass
    finally:
        sys.setprofile(before)
    return calls


def _find_readers() -> dict[str, CodeType]:
    """Return every function of the wire that makes something of bytes, by its name."""
    found: dict[str, CodeType] = {}
    for module in pkgutil.iter_modules(wire.__path__, f"{wire.__name__}."):
        loaded = importlib.import_module(module.name)
        for name, each in _functions_of(loaded):
            given = [
                given.annotation
                for name_there, given in inspect.signature(each).parameters.items()
                if name_there != "cls"
            ]
            makes = str(each.__annotations__.get("return"))
            if given[:1] == ["bytes"] and makes not in _NO_DOCUMENT:
                found[f"{module.name.rpartition('.')[2]}.{name}"] = each.__code__
    return found


_NO_DOCUMENT = {"bytes", "str", "bool", "None"}
"""What is made of bytes that does not read them: signatures, hashes."""


def _functions_of(module: ModuleType) -> Iterator[tuple[str, FunctionType]]:
    """Yield the public functions of *module*, and the class methods of its classes."""
    for name, each in vars(module).items():
        if name.startswith("_") or getattr(each, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(each):
            yield name, each
        elif inspect.isclass(each):
            for method, made in vars(each).items():
                if isinstance(made, classmethod) and not method.startswith("_"):
                    yield f"{name}.{method}", cast("Any", made).__func__


def test_every_document_that_crosses_the_wire_is_in_this_battery(tmp_path: Path) -> None:
    called: set[CodeType] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            called.add(frame.f_code)

    kinds = _kinds(tmp_path)
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        for kind in kinds.values():
            for document in kind.honest:
                kind.read(document)
    finally:
        sys.setprofile(before)
    readers = _find_readers()
    assert readers.keys() >= {"enrolment.EnrolRequest.from_json", "gate.parse_gate"}
    assert not {name for name, code in readers.items() if code not in called}


@pytest.mark.security
@pytest.mark.timeout(3600)
def test_nothing_hostile_is_believed_or_ends_otherwise_than_by_the_error_that_is_promised(
    tmp_path: Path,
) -> None:
    kinds = _kinds(tmp_path)
    random = Random(seed())
    shares = [each.share for each in kinds.values()]
    names = random.choices(list(kinds), shares, k=runs(1_000_000, part=200))
    found = _attack(kinds, names, random)
    counts = ", ".join(f"{count} {name}" for name, count in Counter(names).most_common())
    tell(
        "documents",
        f"{len(names)} hostile, {len(found.accepted)} accepted, {len(found.crashed)} crashed, "
        f"{len(found.slow)} of {found.counted} slow (the dearest {found.dearest:.1f} times an honest one) "
        f"({counts})",
    )
    wrong = found.wrong
    assert not wrong, f"{len(wrong)}, such as\n" + "\n".join(wrong[:: max(1, len(wrong) // 10)])


def test_this_battery_would_see_a_forgery_a_crash_and_what_is_slow(tmp_path: Path) -> None:
    kind = _kinds(tmp_path)["envelopes"]
    believing = pin_keys([KEY.public, STRANGER.public])

    def believe(data: bytes) -> bytes:
        return open_envelope(data, believing).payload

    def compare_all(data: bytes) -> bytes:
        if data not in kind.honest:
            sum(len({one, other}) for one in data[:300] for other in data[:300])
        return open_envelope(data, TRUSTED).payload

    kinds = {
        "believes a stranger": attrs.evolve(kind, read=believe),
        "promises nothing": attrs.evolve(kind, refusals=()),
        "compares each with each": attrs.evolve(kind, read=compare_all),
    }
    names = ["believes a stranger", "promises nothing"] * 200 + ["compares each with each"] * 11
    found = _attack(kinds, names, Random(1))
    assert {each.partition(":")[0] for each in found.accepted} == {"believes a stranger"}
    assert {each.partition(":")[0] for each in found.crashed} == {"promises nothing"}
    assert {each.partition(":")[0] for each in found.slow} == {"compares each with each"}
