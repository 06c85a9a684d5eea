"""docs/wire.md is true: every named block in it is what the code and a real server say."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from harmony_agent.config import AgentConfig
from harmony_agent.store.database import Database
from harmony_agent.store.desired import Desired
from harmony_agent.store.events import Events as Journal
from harmony_agent.store.signers import Signers
from harmony_agent.store.trust import Trust
from harmony_control.server.config import permissions
from harmony_core import resources
from harmony_core.change import Change
from harmony_core.errors import HarmonyError, WrongTarget
from harmony_core.holds import Hold, read_hold
from harmony_core.inventory import Facts, Inventory
from harmony_core.plugins import load
from harmony_core.references import find_references, look_up, replace_references
from harmony_core.resources import Asset, State
from harmony_core.steps import Did
from harmony_core.wire import strict_json
from harmony_core.wire.actual_state import ActualState, Heartbeat, from_json, state_to_json, to_json
from harmony_core.wire.admission import find_place
from harmony_core.wire.assets import chunk_key, open_chunk, seal_chunk
from harmony_core.wire.audit import hash_event
from harmony_core.wire.bundle import parse_index as parse_bundle_index
from harmony_core.wire.class_manifest import CLASS_TYPE, parse_class_manifest
from harmony_core.wire.device_record import DeviceRecord, open_record, seal_record
from harmony_core.wire.device_signature import (
    ACTUAL_STATE_TYPE,
    HEARTBEAT_TYPE,
    REPLY_TYPE,
    is_signed_by,
    reply_content,
)
from harmony_core.wire.enrolment import EnrolAnswer, EnrolRequest
from harmony_core.wire.envelope import SigningKey, VerifyKey, open_envelope, pae, pin_keys, seal
from harmony_core.wire.fleet_index import FLEET_TYPE, parse_index
from harmony_core.wire.gate import GATE_TYPE, parse_gate
from harmony_core.wire.inventory import inventory_from_json, inventory_to_json
from harmony_core.wire.manifest import (
    Accepted,
    Manifest,
    ScorePolicy,
    SerializedScore,
    accept,
    hash_entry,
    parse_manifest,
)
from harmony_core.wire.names import ID_PATTERN
from harmony_core.wire.replies import (
    Alive,
    ChainedEvent,
    End,
    Item,
    ListedVolume,
    LoggedLine,
    Planned,
    PlannedChange,
    RebootAsked,
    VolumeArchived,
    VolumeLoaded,
    VolumePiece,
    VolumeProgress,
    from_frame,
    item_as,
    to_frame,
    to_item,
)
from harmony_core.wire.requests import (
    REQUEST_TYPE,
    Audit,
    Diff,
    Events,
    Logs,
    Nonces,
    Reconcile,
    Request,
    accept_request,
    open_request,
    seal_request,
)
from harmony_core.wire.root import open_first_root, open_pinned_root
from harmony_core.wire.sealed import SealedFor, SealedSecret, open_sealed
from tests.authority import NATS, REPORT
from tests.nats import serving

PAGE = (Path(__file__).parents[2] / "docs" / "wire.md").read_text()
_BLOCK = re.compile(r"^```\w+ ([\w-]+)\n(.*?)\n```$", re.MULTILINE | re.DOTALL)

Fields = dict[str, Any]


def blocks(name: str) -> list[str]:
    found = [text for block, text in _BLOCK.findall(PAGE) if block == name]
    assert found, f"docs/wire.md has no block {name}"
    return found


def block(name: str) -> str:
    (text,) = blocks(name)
    return text


def lines(name: str) -> list[Fields]:
    return [json.loads(line) for line in block(name).splitlines()]


def why(case: Fields) -> str:
    return str(case["why"])


def code_of(action: Callable[[], object]) -> str | None:
    """The code of what *action* was refused with; None when it was not."""
    try:
        action()
    except HarmonyError as error:
        return error.code
    return None


def changed(original: Fields, changes: Fields) -> Fields:
    """*original* with the fields replaced that *changes* names by their paths."""
    fields = copy.deepcopy(original)
    for path, value in changes.items():
        *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
        inner: Any = fields
        for step in steps:
            inner = inner[step]
        inner[last] = value
    return fields


KEY = SigningKey.from_text(block("signing-key"))
TRUSTED = pin_keys([KEY.public])
PAYLOAD = block("payload").encode()
ENVELOPE: Fields = json.loads(block("envelope"))
NOON_OF_1_FEBRUARY = datetime(2026, 2, 1, 12, tzinfo=UTC)


def accepted(envelope: bytes, current: Accepted | None) -> Accepted:
    return accept(
        envelope,
        trusted=TRUSTED,
        fleet="home",
        agent_id="pi-1",
        current=current,
        now=NOON_OF_1_FEBRUARY,
    )


def test_every_block_with_a_name_is_checked_here() -> None:
    checked = re.findall(r'(?:blocks?|lines)\("([\w-]+)"\)', Path(__file__).read_text())
    assert {name for name, _ in _BLOCK.findall(PAGE)} == set(checked)


def test_the_pattern_of_names_is_the_code_s() -> None:
    assert block("id-pattern") == ID_PATTERN


@pytest.mark.parametrize("case", lines("strict-json"), ids=why)
def test_strict_json_reads_and_refuses_as_told(case: Fields) -> None:
    data = base64.b64decode(case["base64"], validate=True)
    assert code_of(lambda: strict_json.loads(data, max_bytes=2**18)) == case["code"]


def test_a_device_has_the_rights_that_are_told() -> None:
    assert json.loads(block("rights")) == permissions("pi-1", "q2w3e4r5t6y7u2i3o4p5a6s7d2")


async def test_a_real_server_has_the_streams_that_are_told(tmp_path: Path) -> None:
    told: list[Fields] = [json.loads(text) for text in blocks("stream")]
    async with serving(tmp_path) as bus:
        names = json.loads((await bus.admin.request("$JS.API.STREAM.NAMES")).data)["streams"]
        assert sorted(names) == sorted(config["name"] for config in told)
        for config in told:
            answer = await bus.admin.request(f"$JS.API.STREAM.INFO.{config['name']}")
            found: Fields = json.loads(answer.data)["config"]
            assert {name: found.get(name) for name in config} == config


async def test_a_device_reads_its_manifest_by_hint_and_by_request_as_told(tmp_path: Path) -> None:
    read = "$JS.API.DIRECT.GET.KV_desired-state.$KV.desired-state.pi-1"
    async with serving(tmp_path, "pi-1") as bus:
        connected = await bus.device("pi-1")
        hints, device = await connected.subscribe(connected.mail("desired-state")), connected.client
        nothing = await device.request(read)
        assert (nothing.headers or {})["Status"] == "404"

        revision = await bus.bucket("desired-state").put("pi-1", b"envelope")
        assert (await hints.next_msg()).data == b"envelope"
        found = await device.request(read)
        assert (found.data, (found.headers or {})["Nats-Sequence"]) == (b"envelope", str(revision))

        await bus.admin.request("$KV.desired-state.pi-1", headers={"KV-Operation": "DEL"})
        deleted = await device.request(read)
        assert (deleted.data, (deleted.headers or {})["KV-Operation"]) == (b"", "DEL")


async def test_a_device_writes_by_compare_and_swap_as_told(tmp_path: Path) -> None:
    async with serving(tmp_path, "pi-1") as bus:
        device = (await bus.device("pi-1")).client

        async def write(last: int) -> Fields:
            answer = await device.request(
                "$KV.actual-state.pi-1",
                block("actual-state").encode(),
                headers={"Nats-Expected-Last-Subject-Sequence": str(last)},
            )
            fields: Fields = json.loads(answer.data)
            return fields

        first = await write(0)
        assert (await write(0))["error"]["err_code"] == 10071
        assert (await write(first["seq"]))["seq"] > first["seq"]


def test_the_published_key_has_the_public_half_and_the_id_that_are_told() -> None:
    assert VerifyKey.from_text(block("public-key")) == KEY.public
    assert block("keyid") == KEY.public.id


def test_the_payload_has_the_length_and_the_hash_that_are_told() -> None:
    assert f"{len(PAYLOAD)} bytes, their SHA-256 is `{hashlib.sha256(PAYLOAD).hexdigest()}`" in PAGE
    assert f"manifest.v1+json {len(PAYLOAD)} `" in PAGE
    assert block("pae-sha256") == hashlib.sha256(pae(PAYLOAD)).hexdigest()


def test_the_signature_of_the_envelope_is_real() -> None:
    opened = open_envelope(block("envelope").encode(), TRUSTED)
    assert (opened.payload, opened.keyids) == (PAYLOAD, (KEY.public.id,))


def test_signing_the_payload_again_gives_this_envelope() -> None:
    assert json.loads(seal(PAYLOAD, KEY)) == ENVELOPE


@pytest.mark.parametrize("case", lines("envelope-changes"), ids=why)
def test_a_changed_envelope_is_judged_as_told(case: Fields) -> None:
    data = json.dumps(changed(ENVELOPE, case["change"])).encode()
    assert code_of(lambda: open_envelope(data, TRUSTED)) == case["code"]


def test_the_manifest_is_what_the_payload_says() -> None:
    assert json.loads(block("manifest")) == json.loads(PAYLOAD)
    assert parse_manifest(block("manifest").encode()) == parse_manifest(PAYLOAD)
    assert parse_manifest(PAYLOAD).payload() == PAYLOAD


def test_the_least_manifest_has_everything_else_at_its_default() -> None:
    least = parse_manifest(block("manifest-least").encode())
    assert least == Manifest(
        fleet="home",
        target="agent:pi-1",
        generation=1,
        issued_at=datetime(2026, 1, 31, 12, tzinfo=UTC),
    )


def test_the_scores_of_the_example_are_ones_that_can_be_read() -> None:
    registry = load()
    for entry in parse_manifest(PAYLOAD).scores:
        assert registry.decode(entry).kind == entry.kind


@pytest.mark.parametrize("case", lines("manifest-changes"), ids=why)
def test_a_changed_manifest_is_judged_as_told(case: Fields) -> None:
    current = accepted(block("envelope").encode(), None)
    fields = changed(json.loads(PAYLOAD), case["change"])
    payload = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
    assert code_of(lambda: accepted(seal(payload, KEY), current)) == case["code"]


def test_the_sealed_secret_opens_for_what_it_was_sealed() -> None:
    told = json.loads(block("sealed"))
    sealed = SealedSecret.model_validate(
        {name: told[name] for name in ("version", "key", "entry", "box")}
    )
    assert sealed.entry == hash_entry(SerializedScore.model_validate(told["of"]))
    names = ("agent_id", "score", "name", "entry", "epoch", "generation")
    what_for = SealedFor(**{name: told[name] for name in names})
    assert open_sealed(sealed, what_for, KEY) == told["value"]


def test_the_piece_of_an_asset_is_sealed_and_opened_as_told() -> None:
    told = json.loads(block("asset"))
    asset, plain = Asset.model_validate(told["asset"]), told["plain"].encode()
    piece = base64.b64decode(told["piece"])
    assert asset.sha256 == hashlib.sha256(plain).hexdigest()
    assert chunk_key(asset, told["number"]) == told["bucket_key"]
    assert seal_chunk(asset, told["number"], plain) == piece
    assert open_chunk(asset, told["number"], piece) == plain


@pytest.mark.parametrize("case", lines("references"), ids=lambda case: case["text"])
def test_a_reference_is_resolved_as_told(case: Fields) -> None:
    labels = parse_manifest(PAYLOAD).labels
    facts = Facts(
        model=None,
        architecture="aarch64",
        memory_bytes=None,
        os=None,
        kernel="6.12",
        hostname="pi",
        agent_version="1",
        kinds={},
    )
    device = Inventory(agent_id="pi-1", facts=facts, labels=labels)

    def resolve() -> object:
        spec = {"content": case["text"]}
        values = {each: look_up(each, device) for each in find_references(spec)}
        return replace_references(spec, values.__getitem__)

    assert code_of(resolve) == case["code"]
    if case["code"] is None:
        assert resolve() == {"content": case["resolved"]}


@pytest.mark.parametrize(
    "name",
    [
        *Manifest.model_fields,
        *SerializedScore.model_fields,
        *(f"policy.{name}" for name in ScorePolicy.model_fields),
    ],
)
def test_every_field_of_a_manifest_stands_in_a_table(name: str) -> None:
    assert re.search(rf"^\| `{re.escape(name)}` \|", PAGE, re.MULTILINE)


def test_the_root_document_is_signed_and_read_as_told() -> None:
    envelope = block("root-envelope").encode()
    root = open_pinned_root(envelope, fleet="home")
    assert root.model_dump(mode="json") == json.loads(block("root"))
    assert open_first_root(envelope, fleet="home", operator_keys=TRUSTED) == root


def test_the_actual_state_is_read_and_written_as_told() -> None:
    state = from_json(block("actual-state").encode(), ActualState)
    assert json.loads(to_json(state)) == json.loads(block("actual-state"))


def test_the_inventory_is_read_and_written_as_told() -> None:
    found = inventory_from_json(block("inventory").encode())
    assert json.loads(inventory_to_json(found)) == json.loads(block("inventory"))


def test_the_heartbeat_is_read_and_written_as_told() -> None:
    beat = from_json(block("heartbeat").encode(), Heartbeat)
    assert json.loads(to_json(beat)) == json.loads(block("heartbeat"))


STATES: dict[str, type[State]] = {
    name: value
    for name, value in vars(resources).items()
    if isinstance(value, type) and issubclass(value, State) and value is not State
}


def test_every_resource_that_is_shown_has_exactly_its_state_s_fields() -> None:
    state = from_json(block("actual-state").encode(), ActualState)
    for score in state.scores.values():
        for fields in score.resources.values():
            known = attrs.fields_dict(STATES[fields["state"]])
            found = STATES[fields["state"]](**{name: fields[name] for name in known})
            assert state_to_json(found) == fields


@pytest.mark.parametrize("name", STATES)
def test_every_state_of_a_resource_stands_in_the_table_with_its_fields(name: str) -> None:
    rows = re.findall(r"^\| `[a-z-]+` \| `[A-Z][a-z].*$", PAGE, re.MULTILINE)
    (row,) = [row for row in rows if f"`{name}`" in row]
    for field in attrs.fields_dict(STATES[name]):
        assert f"`{field}`" in row


REQUEST = block("request-payload").encode()
HALF_A_MINUTE_LATER = datetime(2026, 1, 31, 12, tzinfo=UTC) + timedelta(seconds=30)


def test_the_type_of_a_request_is_the_code_s() -> None:
    assert block("request-type") == REQUEST_TYPE
    assert f"{len(REQUEST)} of them" in PAGE


def test_the_envelope_of_a_request_is_what_signing_it_gives() -> None:
    envelope = block("request-envelope").encode()
    asked = open_request(envelope, trusted=TRUSTED, fleet="home", agent_id="pi-1")
    assert asked.request.payload() == REQUEST
    assert json.loads(seal_request(asked.request, KEY)) == json.loads(envelope)


@pytest.mark.parametrize("case", lines("request-changes"), ids=why)
def test_a_changed_request_is_judged_as_told(case: Fields) -> None:
    nonces = Nonces()

    def asked(payload: bytes) -> Any:
        envelope = seal(payload, KEY, payload_type=REQUEST_TYPE)
        return open_request(envelope, trusted=TRUSTED, fleet="home", agent_id="pi-1")

    def accept_it(payload: bytes) -> None:
        accept_request(asked(payload), nonces=nonces, now=HALF_A_MINUTE_LATER)

    accept_it(REQUEST)
    payload = json.dumps(changed(json.loads(REQUEST), case["change"])).encode()
    # What is wrong with a request that can be opened is told, unless it was answered before.
    is_told = code_of(lambda: asked(payload)) is None and case["code"] != "RequestReplayed"
    assert is_told == case["answered"]
    assert code_of(lambda: accept_it(payload)) == case["code"]


def test_an_answer_is_read_and_written_as_told() -> None:
    frames = [from_frame(line.encode()) for line in block("reply").splitlines()]
    assert [type(frame) for frame in frames] == [Alive, Item, End]
    assert [json.loads(to_frame(frame)) for frame in frames] == lines("reply")
    assert isinstance(frames[1], Item)
    assert to_item(item_as(LoggedLine, frames[1].item)) == frames[1].item


def test_what_would_change_is_read_and_written_as_told() -> None:
    for item in lines("diff-items"):
        planned = item_as(PlannedChange if "resource" in item else Planned, item)
        assert isinstance(planned, Planned | PlannedChange)
        assert json.loads(json.dumps(to_item(planned))) == item


def test_a_volume_that_is_listed_is_read_and_written_as_told() -> None:
    for item in lines("volumes-items"):
        assert json.loads(json.dumps(to_item(item_as(ListedVolume, item)))) == item


def test_what_is_answered_to_a_reboot_is_read_and_written_as_told() -> None:
    for item in lines("reboot-items"):
        assert json.loads(json.dumps(to_item(item_as(RebootAsked, item)))) == item


def test_what_is_told_of_a_volumes_data_is_read_and_written_as_told() -> None:
    saving, saved = lines("volume-save-items")
    (written,) = lines("volume-write-items")
    for item in (saving, written):
        assert json.loads(json.dumps(to_item(item_as(VolumeProgress, item)))) == item
    assert json.loads(json.dumps(to_item(item_as(VolumeArchived, saved)))) == saved
    (piece,) = lines("volume-read-items")
    assert to_item(item_as(VolumePiece, piece)) == piece
    (loaded,) = lines("volume-load-items")
    assert json.loads(json.dumps(to_item(item_as(VolumeLoaded, loaded)))) == loaded


def test_the_chain_of_events_is_as_told() -> None:
    first, second = (item_as(ChainedEvent, item) for item in lines("audit-items"))
    assert [to_item(each) for each in (first, second)] == lines("audit-items")
    assert hash_event(first.prior, first.text.encode()) == second.prior
    head = hash_event(second.prior, second.text.encode())
    assert head == block("audit-head")
    told = from_json(block("actual-state").encode(), ActualState).audit
    assert told is not None
    assert (told.seq, told.head) == (second.seq, head)
    assert json.loads(second.text) == json.loads(block("event"))


def test_a_hold_is_read_as_told() -> None:
    hold = read_hold(block("hold").encode())
    assert isinstance(hold, Hold)
    assert hold.model_dump() == json.loads(block("hold"))


def test_a_request_to_be_let_in_and_its_answer_are_as_told() -> None:
    request = EnrolRequest.from_json(block("enrol-request").encode())
    assert json.loads(request.to_json()) == json.loads(block("enrol-request"))
    answer = EnrolAnswer.from_json(block("enrol-answer").encode())
    assert json.loads(answer.to_json()) == json.loads(block("enrol-answer"))


def test_what_a_device_signs_is_as_told() -> None:
    told = json.loads(block("device-signatures"))
    public = VerifyKey.from_text(told["public_key"]).public
    for name, content_type in (
        ("actual_state", ACTUAL_STATE_TYPE),
        ("heartbeat", HEARTBEAT_TYPE),
    ):
        content = told[name]["content"].encode()
        assert is_signed_by(public, content_type, content, told[name]["signature"])
    reply = told["reply"]
    content = reply_content(reply["nonce"], reply["frame"].encode())
    assert is_signed_by(public, REPLY_TYPE, content, reply["signature"])
    # Each as what it is, and nothing else.
    assert not is_signed_by(public, REPLY_TYPE, content, told["heartbeat"]["signature"])
    assert told["heartbeat"]["content"] == told["actual_state"]["content"]
    assert told["heartbeat"]["signature"] != told["actual_state"]["signature"]


def test_who_a_device_is_is_read_as_told() -> None:
    record = DeviceRecord.model_validate_json(block("device-record"))
    assert json.loads(record.model_dump_json()) == json.loads(block("device-record"))
    sealed = seal_record(record, KEY)
    assert open_record(sealed, trusted=TRUSTED, fleet="home", agent_id="pi-1") == record
    with pytest.raises(WrongTarget):
        open_record(sealed, trusted=TRUSTED, fleet="home", agent_id="pi-2")


async def test_an_event_has_exactly_the_fields_that_are_told(tmp_path: Path) -> None:
    told = json.loads(block("event"))
    config = AgentConfig.model_validate(
        {
            "agent_id": "pi-1",
            "fleet": "home",
            "path": "/etc/harmony/agent.toml",
            "nats": NATS,
            "report": REPORT,
            "trust": {"operator_keys": [KEY.public.to_text()]},
        }
    )
    fields = {name: value for name, value in told["after"].items() if name != "state"}
    async with await Database.open(tmp_path / "agent.db") as database:
        events = await Journal.load(
            database, Desired(config, database, Trust(config, database)), Signers(database)
        )
        change = Change(
            resource=told["resource"],
            steps=tuple(map(Did, told["actions"])),
            after=resources.PresentAt(**fields),
        )
        events.record(told["score"], change, "desired")
        (event,) = await events.recent()
    # No manifest is in force here, and it was now.
    varying = {"seq", "at", "generation", "signed_by"}
    assert event.keys() == told.keys() > varying
    assert {name: event[name] for name in event.keys() - varying} == {
        name: told[name] for name in told.keys() - varying
    }


@pytest.mark.parametrize(
    "name",
    [
        *Request.model_fields,
        *Logs.model_fields,
        *Events.model_fields,
        *Audit.model_fields,
        *Diff.model_fields,
        *Reconcile.model_fields,
    ],
)
def test_every_field_of_a_request_stands_in_a_table(name: str) -> None:
    section = PAGE[PAGE.index("## 7. Requests") :]
    assert re.search(rf"^\| `{re.escape(name)}` \|", section, re.MULTILINE)


def test_the_documents_of_classes_are_read_and_written_as_told() -> None:
    index = parse_index(block("fleet-index").encode(), fleet="home")
    manifest = parse_class_manifest(block("class-manifest").encode(), fleet="home", name="kiosk")
    gate = parse_gate(block("gate").encode(), fleet="home", name="kiosk")
    assert json.loads(index.payload()) == json.loads(block("fleet-index"))
    assert json.loads(manifest.payload()) == json.loads(block("class-manifest"))
    assert json.loads(gate.payload()) == json.loads(block("gate"))
    assert (gate.generation, gate.stable_generation) == (manifest.generation, manifest.supersedes)
    assert gate.places == manifest.rollout.steps[gate.step].places
    for payload_type in (FLEET_TYPE, CLASS_TYPE, GATE_TYPE):
        assert f"`{payload_type}`" in PAGE


def test_the_place_of_a_device_is_the_one_that_is_told() -> None:
    assert str(find_place("home", "kiosk", 7, "pi-1")) in PAGE


def test_the_index_of_a_bundle_is_read_as_it_is_shown() -> None:
    found = parse_bundle_index(block("bundle-index").encode())
    assert json.loads(found.to_bytes()) == json.loads(block("bundle-index"))
