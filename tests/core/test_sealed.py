"""Sealed secrets: opened by one device, for what they were sealed, and by nobody else."""

from __future__ import annotations

import base64
import json
from typing import Any

import attrs
import pytest

from harmony_core import File
from harmony_core.errors import SecretMissing, SecretRefused
from harmony_core.secret_values import SecretValues, find_words, secret_word
from harmony_core.wire.device_record import DeviceRecord
from harmony_core.wire.enrolment import EnrolRequest
from harmony_core.wire.envelope import VerifyKey, generate_key
from harmony_core.wire.manifest import SerializedScore, hash_entry, spec_hash
from harmony_core.wire.names import new_mailbox
from harmony_core.wire.sealed import SealedFor, SealedSecret, open_sealed, seal_box

KEY = generate_key()
FOR = SealedFor(agent_id="pi-1", score="web", name="db", entry="ab" * 32, epoch=1, generation=7)
VERSION = "00" * 8
VALUE = "hunter2-ü"
NKEY = "UB5MWB4VAQRO4A2X23LQFS7IOYGESHZKVVSQ2UQJQQB67JX55KJYNIUE"


def seal(what_for: SealedFor = FOR) -> SealedSecret:
    return SealedSecret.seal(VALUE, VERSION, what_for, KEY.public)


def test_the_device_opens_it_also_in_later_generations_and_nobody_sees_it() -> None:
    sealed = seal()
    assert open_sealed(sealed, FOR, KEY) == VALUE
    assert open_sealed(sealed, attrs.evolve(FOR, generation=9), KEY) == VALUE
    assert open_sealed(sealed, attrs.evolve(FOR, epoch=2, generation=1), KEY) == VALUE
    assert sealed.box != seal().box
    assert VALUE not in repr(sealed)
    assert VALUE.encode() not in base64.b64decode(sealed.box)


@pytest.mark.parametrize(
    "change",
    [
        {"agent_id": "pi-2"},
        {"score": "mail"},
        {"name": "smtp"},
        {"generation": 6},
        {"epoch": 0, "generation": 99},
    ],
    ids=str,
)
def test_it_is_refused_for_anything_else(change: dict[str, Any]) -> None:
    with pytest.raises(SecretRefused, match="was sealed for 'db' of the Score 'web' on 'pi-1'"):
        open_sealed(seal(), attrs.evolve(FOR, **change), KEY)


@pytest.mark.parametrize(
    "damage",
    [
        {"box": seal().box[:-8]},
        {"box": "#"},
        {"box": seal_box(b"hunter2", KEY.public)},
        {"box": seal_box(json.dumps({"value": VALUE}).encode(), KEY.public)},
        {"box": seal_box(b"[" * 9000, KEY.public)},
        {"version": "11" * 8},
        {"key": "22" * 8},
    ],
    ids=["cut short", "no base64", "no JSON", "fields missing", "too deep", "version", "key"],
)
def test_what_is_damaged_or_no_secret_is_refused_and_nothing_of_it_is_told(
    damage: dict[str, str],
) -> None:
    with pytest.raises(SecretRefused) as refused:
        open_sealed(seal().model_copy(update=damage), FOR, KEY)
    chain = f"{refused.value!r} {refused.value.__cause__!r}"
    assert "hunter2" not in chain


def test_it_is_refused_once_its_score_says_something_else_whatever_stands_beside_it() -> None:
    other = attrs.evolve(FOR, entry="cd" * 32)
    for sealed in (seal(), seal().model_copy(update={"entry": other.entry})):
        with pytest.raises(SecretRefused, match="when the Score 'web' said something else"):
            open_sealed(sealed, other, KEY)


def test_what_an_older_harmony_has_sealed_is_refused_in_words() -> None:
    plain = {**attrs.asdict(FOR), "v": 1, "version": VERSION, "value": VALUE}
    del plain["entry"]
    box = seal_box(json.dumps(plain).encode(), KEY.public)
    former = SealedSecret.model_validate(
        {"version": VERSION, "key": KEY.public.id[:16], "box": box}
    )
    assert "entry" not in former.model_dump(mode="json")
    with pytest.raises(SecretRefused, match=r"by an older harmony.*push the Score again"):
        open_sealed(former, FOR, KEY)
    claimed = former.model_copy(update={"entry": FOR.entry})
    with pytest.raises(SecretRefused, match="cannot be opened"):
        open_sealed(claimed, FOR, KEY)


def test_an_entry_is_its_kind_version_and_spec_as_they_stand() -> None:
    def entry(**changed: Any) -> SerializedScore:
        fields = {
            "id": "web",
            "kind": "FileScore",
            "version": 1,
            "spec": {"a": 1, "b": "${labels.x}"},
        }
        return SerializedScore.model_validate({**fields, **changed})

    same = {"id": "x", "after": ["y"], "policy": {"drift": "report"}, "references": True}
    assert hash_entry(entry(**same, spec={"b": "${labels.x}", "a": 1})) == hash_entry(entry())
    for other in ({"kind": "JobScore"}, {"version": 2}, {"spec": {"a": 1}}):
        assert hash_entry(entry(**other)) != hash_entry(entry())


def test_another_device_cannot_open_it() -> None:
    other = generate_key()
    stolen = seal().model_copy(update={"key": other.public.id[:16]})
    with pytest.raises(SecretRefused, match="cannot be opened"):
        open_sealed(stolen, FOR, other)


def test_a_box_sealed_anew_is_the_same_wish_and_a_version_another() -> None:
    def entry(**secrets: SealedSecret) -> SerializedScore:
        return SerializedScore(
            id="web", kind="FileScore", version=1, spec={}, references=True, secrets=secrets
        )

    assert spec_hash(entry(db=seal())) == spec_hash(entry(db=seal()))
    newer = SealedSecret.seal(VALUE, "11" * 8, FOR, KEY.public)
    assert spec_hash(entry(db=seal())) != spec_hash(entry(db=newer))
    dumped = entry(db=seal()).model_dump_json()
    assert SerializedScore.model_validate_json(dumped).secrets.keys() == {"db"}
    assert "secrets" not in entry().model_dump(mode="json")


def test_a_word_becomes_its_value_once_and_is_told_from_text() -> None:
    values, word = SecretValues(), secret_word("web", "db", VERSION)
    other = secret_word("web", "other", VERSION)
    values.put(word, f"value {other}")
    assert find_words(f"a {word} <secret x> b") == {word}
    assert values.reveal(b"\xff " + word.encode()) == b"\xff value " + other.encode()
    assert "value <" not in repr(values)
    with pytest.raises(SecretMissing):
        values.reveal(other.encode())
    with pytest.raises(SecretRefused, match="stands for another value"):
        values.put(word, "another")
    assert values.reveal(word.encode()) == f"value {other}".encode()
    lent = values.lend(word, "another")
    assert find_words(lent) == {lent} != {word}
    assert values.reveal(f"{lent} {word}".encode()) == f"another value {other}".encode()
    values.take_back([lent])
    with pytest.raises(SecretMissing):
        values.reveal(lent.encode())
    values.put(other, "newer")
    values.keep_only("mail", ())
    values.keep_only("web", {other})
    assert values.reveal(other.encode()) == b"newer"
    with pytest.raises(SecretMissing):
        values.reveal(word.encode())
    values.put(word, "value")
    values.forget_all_but({"mail"})
    with pytest.raises(SecretMissing):
        values.reveal(word.encode())


def test_what_is_lent_is_called_as_in_force_and_keeps_its_own_value() -> None:
    values, word = SecretValues(), secret_word("web", "db", VERSION)
    values.put(word, "mine")
    lent = values.lend(word, "a guess")
    assert values.call_as_in_force(f"a {lent} and {word}") == f"a {word} and {word}"
    assert values.reveal_text(f"{word} {lent}") == "mine a guess"
    values.take_back([lent])
    assert values.call_as_in_force(lent) == lent
    assert "mine" not in repr(values)


def test_a_file_with_a_secret_is_not_for_all() -> None:
    word = secret_word("web", "db", VERSION).encode()
    assert File(path="/etc/a", content=word, mode=0o640).has_secret
    with pytest.raises(ValueError, match='leave it out, which makes it "0600"'):
        File(path="/etc/a", content=word)
    assert not File(path="/etc/a", content=b"<secret a b>").has_secret


def test_a_key_that_is_no_point_is_neither_asked_for_nor_recorded() -> None:
    def ask(key: str) -> None:
        EnrolRequest(agent_id="pi-1", nkey=NKEY, report_key=key, mailbox=new_mailbox())

    def record(key: str) -> None:
        DeviceRecord(fleet="home", agent_id="pi-1", report_key=key, serial=1)

    for use in (ask, record):
        use(KEY.public.to_text())
        for raw in (b"\0" * 32, b"\xff" * 32, b"\1" + b"\0" * 31):
            with pytest.raises(ValueError, match="nothing can be sealed to it"):
                use(VerifyKey(raw).to_text())
