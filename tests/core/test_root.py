"""Root documents: only what enough root keys have signed counts, and only from one version to the next."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError
from securesystemslib.signer._crypto_signer import CryptoSigner
from securesystemslib.signer._key import SSlibKey
from tuf.api._payload import Root as TufRoot
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata
from tuf.api.serialization.json import JSONSerializer
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
from tuf.ngclient.config import EnvelopeType

from harmony_core.errors import OutOfScope, RootExpired, RootRejected, WrongEpoch
from harmony_core.wire import strict_json
from harmony_core.wire.envelope import SigningKey, format_envelope, pae, pin_keys, seal
from harmony_core.wire.manifest import Manifest, SerializedScore, accept
from harmony_core.wire.names import FLEET_WIDE
from harmony_core.wire.root import (
    ROOT_MAX_BYTES,
    ROOT_TYPE,
    Root,
    Scope,
    check_kinds,
    check_target,
    open_first_root,
    open_next_root,
    open_pinned_root,
    parse_root,
)
from tests.soak import seed

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
KEYS = [SigningKey(hashlib.sha256(b"root %d" % n).digest()) for n in range(8)]
ALICE, BOB, CAROL = (SigningKey(hashlib.sha256(name).digest()) for name in (b"a", b"b", b"c"))


def texts(keys: Iterable[SigningKey]) -> tuple[str, ...]:
    return tuple(each.public.to_text() for each in keys)


def scope(name: str, *keys: SigningKey, **more: Any) -> Scope:
    return Scope(name=name, keys=texts(keys), **more)


def root(version: int, keys: Sequence[SigningKey] = KEYS[:3], k: int = 2, **more: Any) -> Root:
    fields: dict[str, Any] = {
        "fleet": "home",
        "issued_at": NOW,
        "scopes": (scope("alice", ALICE), scope("bob", BOB)),
        **more,
    }
    return Root(version=version, root_keys=texts(keys), root_threshold=k, **fields)


def signed(document: Root, *keys: SigningKey) -> bytes:
    return seal(document.payload(), *keys, payload_type=ROOT_TYPE)


FIRST = root(1)


def test_the_next_one_counts_if_enough_of_both_have_signed_it() -> None:
    new = root(2, KEYS[2:5], k=3)
    assert open_next_root(signed(new, KEYS[1], *KEYS[2:5]), FIRST) == new


@pytest.mark.parametrize(
    ("document", "keys", "why"),
    [
        (root(2), KEYS[:1], "signed by 1 root key of version 1, 2 must"),
        (root(2), KEYS[5:8], "signed by 0 root keys of version 1, 2 must"),
        (root(2, KEYS[2:5], k=3), KEYS[:4], "signed by 2 root keys of version 2, 3 must"),
        (root(2, KEYS[4:6]), KEYS[4:6], "signed by 0 root keys of version 1, 2 must"),
        (root(1), KEYS[:2], "1 does not follow 1"),
        (root(3), KEYS[:2], "3 does not follow 1"),
        (root(2, fleet="barn"), KEYS[:2], "is of 'barn', and this is 'home'"),
    ],
)
def test_any_other_does_not(document: Root, keys: Sequence[SigningKey], why: str) -> None:
    with pytest.raises(RootRejected, match=why):
        open_next_root(signed(document, *keys), FIRST)


def test_an_epoch_never_goes_back() -> None:
    with pytest.raises(RootRejected, match="epoch: 3 is before 4"):
        open_next_root(signed(root(2, epoch=3), *KEYS[:2]), root(1, epoch=4))


def test_one_key_under_two_ids_counts_once() -> None:
    """As in a fault that python-tuf once had: a threshold counts keys, not signatures."""
    new = root(2)
    signature = KEYS[0].sign(pae(new.payload(), ROOT_TYPE))
    ids = [KEYS[0].public.id, KEYS[1].public.id, "0" * 64]
    forged = format_envelope(new.payload(), dict.fromkeys(ids, signature), payload_type=ROOT_TYPE)
    with pytest.raises(RootRejected, match="signed by 1 root key of version 1, 2 must"):
        open_next_root(forged, FIRST)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"root_keys": texts([KEYS[0], KEYS[0]])}, "names one more than once"),
        ({"root_threshold": 4}, "root_threshold is 4, and there are 3 root keys"),
        ({"scopes": (scope("a", ALICE), scope("a", BOB))}, "two have the same name"),
        ({"scopes": (scope("a", KEYS[0]),)}, "is a root key and in a scope"),
        ({"scopes": ()}, "at least 1 item"),
    ],
)
def test_what_cannot_be_one_is_none(fields: dict[str, Any], why: str) -> None:
    document = FIRST.model_copy(update=fields)
    with pytest.raises(RootRejected, match=why):
        open_pinned_root(signed(document, *KEYS[:3]), fleet="home")


def test_the_first_one_is_signed_by_an_operator_who_is_pinned_too() -> None:
    pinned = pin_keys([ALICE.public])
    taken = open_first_root(signed(FIRST, *KEYS[:2], ALICE), fleet="home", operator_keys=pinned)
    assert taken == FIRST
    for keys in (KEYS[:2], [*KEYS[:2], BOB], [KEYS[0], ALICE]):
        with pytest.raises(RootRejected):
            open_first_root(signed(FIRST, *keys), fleet="home", operator_keys=pinned)
    with pytest.raises(RootRejected, match="2 is not the first"):
        open_first_root(signed(root(2), *KEYS[:2], ALICE), fleet="home", operator_keys=pinned)


def test_a_manifest_or_a_request_that_root_keys_sign_is_no_root_document() -> None:
    with pytest.raises(RootRejected, match="payloadType"):
        open_next_root(seal(root(2).payload(), *KEYS[:2]), FIRST)


def entry(id: str, kind: str = "FileScore", text: str = "") -> SerializedScore:
    return SerializedScore(id=id, kind=kind, version=1, spec={"text": text})


def manifest(generation: int, *entries: SerializedScore, **more: Any) -> Manifest:
    fields: dict[str, Any] = {"fleet": "home", "target": "agent:pi-1", "issued_at": NOW, **more}
    return Manifest(generation=generation, scores=entries, **fields)


def taken(
    rules: Root,
    new: Manifest,
    *keys: SigningKey,
    before: Manifest | None = None,
    now: datetime = NOW,
) -> None:
    """Accepted by a device on which *rules* count, and *before* is in force."""
    trusted = pin_keys(each.public for each in (ALICE, BOB, CAROL))
    identity: dict[str, Any] = {"fleet": "home", "agent_id": "pi-1", "now": now}
    current = None
    if before is not None:
        current = accept(seal(before.payload(), ALICE), trusted=trusted, current=None, **identity)
    accept(
        seal(new.payload(), *keys),
        trusted=rules.find_keys("manifest", now),
        current=current,
        root=rules,
        **identity,
    )


RULES = root(
    1,
    scopes=(
        scope("files", ALICE, BOB),
        scope("network", ALICE, CAROL, threshold=2, kinds=("NetworkConfigScore",)),
    ),
)
OLD = manifest(1, entry("a"), entry("wifi", "NetworkConfigScore"))


def test_each_kind_is_changed_by_who_may() -> None:
    wifi = entry("wifi", "NetworkConfigScore", "other")
    taken(RULES, manifest(2, entry("a", text="new"), OLD.scores[1]), BOB, before=OLD)
    taken(RULES, manifest(2, OLD.scores[0], wifi), ALICE, CAROL, before=OLD)
    # What is named for somebody is nobody else's, and a threshold is one.
    for keys in ([BOB], [ALICE], [ALICE, BOB], [CAROL]):
        with pytest.raises(OutOfScope, match="NetworkConfigScore are changed by 2 of network"):
            taken(RULES, manifest(2, OLD.scores[0], wifi), *keys, before=OLD)


def test_nor_removed_made_another_kind_or_taken_over_by_anybody_else() -> None:
    gone = manifest(2, OLD.scores[0])
    other_kind = manifest(2, OLD.scores[0], entry("wifi"))
    for new in (gone, other_kind):
        with pytest.raises(OutOfScope, match="NetworkConfigScore"):
            taken(RULES, new, BOB, before=OLD)
    with pytest.raises(OutOfScope):
        taken(RULES, OLD, BOB)  # a device that has nothing in force: everything changes
    with pytest.raises(
        OutOfScope, match="labels, removals, `without` and all at once are changed by"
    ):
        taken(RULES, manifest(2, *OLD.scores, labels={"site": "x"}), CAROL, before=OLD)


def test_labels_change_every_kind_and_leave_for_removals_is_nobody_s_in_a_scope_of_kinds() -> None:
    with pytest.raises(OutOfScope, match="NetworkConfigScore"):
        taken(RULES, manifest(2, *OLD.scores, labels={"site": "x"}), ALICE, before=OLD)
    allowed = manifest(2, *OLD.scores, removals_allowed=9)
    with pytest.raises(OutOfScope, match="removals"):
        taken(RULES, allowed, CAROL, before=OLD)


def test_where_nothing_is_known_to_be_in_force_an_empty_manifest_may_remove_anything() -> None:
    with pytest.raises(OutOfScope, match="all at once"):
        taken(RULES, manifest(2), CAROL)
    taken(RULES, manifest(2), ALICE)


def test_whose_a_resource_is_is_changed_by_no_order_that_its_kind_s_keys_have_not_signed() -> None:
    """The first entry that names a resource has it, of whatever kind it is."""
    a, wifi = OLD.scores
    b = entry("b")
    for turned in (
        [wifi, a],
        [b, a, wifi],  # what is new comes last, or is put before what was there
        [a, b, wifi],
    ):
        with pytest.raises(OutOfScope, match="NetworkConfigScore"):
            taken(RULES, manifest(2, *turned), BOB, before=OLD)
    taken(RULES, manifest(2, *OLD.scores, b), BOB, before=OLD)
    taken(RULES, manifest(2, wifi, a), ALICE, BOB, CAROL, before=OLD)


def test_an_order_concerns_those_alone_of_which_one_has_passed_the_other() -> None:
    a, wifi = OLD.scores
    b, c = entry("b"), entry("c")
    old = manifest(1, a, b, wifi, c)
    taken(RULES, manifest(2, b, a, wifi, c), BOB, before=old)
    taken(
        RULES, manifest(2, b, wifi, c), BOB, before=old
    )  # one is gone, and none has passed another
    for turned in ([b, a, c, wifi], [c, b, wifi, a], [wifi, a, b, c], [a, wifi, b, c]):
        with pytest.raises(OutOfScope, match="NetworkConfigScore"):
            taken(RULES, manifest(2, *turned), BOB, before=old)


def test_what_a_device_does_without_of_its_classes_may_be_of_any_kind() -> None:
    new = manifest(2, *OLD.scores, without=("clock",))
    with pytest.raises(OutOfScope, match="without"):
        taken(RULES, new, CAROL, before=OLD)
    taken(RULES, new, BOB, before=OLD)
    with pytest.raises(OutOfScope, match="without"):
        taken(RULES, manifest(3, *OLD.scores), CAROL, before=new)


def test_what_python_takes_for_equal_is_a_change_and_no_date_ahead_helps() -> None:
    one = SerializedScore(id="a", kind="NetworkConfigScore", version=1, spec={"x": True})
    other = SerializedScore(id="a", kind="NetworkConfigScore", version=1, spec={"x": 1})
    with pytest.raises(OutOfScope):
        taken(RULES, manifest(2, other), BOB, before=manifest(1, one))
    ahead = manifest(2, entry("a"), issued_at=NOW + timedelta(days=999))
    with pytest.raises(RootExpired):
        taken(root(1, expires_at=NOW + timedelta(days=9)), ahead, ALICE)


def test_who_is_only_for_requests_signs_no_manifest_and_no_longer_than_until() -> None:
    rules = root(
        1,
        scopes=(
            scope("alice", ALICE, until=NOW + timedelta(days=1)),
            scope("ci", BOB, signs=("request",)),
        ),
    )
    taken(rules, manifest(1, entry("a")), ALICE)
    assert rules.find_keys("request", NOW).keys() == {ALICE.public.id, BOB.public.id}
    assert rules.find_keys("manifest", NOW).keys() == {ALICE.public.id}
    assert not rules.find_keys("manifest", NOW + timedelta(days=1))


LIMITED = root(
    1,
    scopes=(
        scope("admin", ALICE),
        scope("site", BOB, agents=("pi-1", "attic-*"), signs=("manifest", "request")),
        scope("ci", CAROL, classes=("kiosk", "sign-?"), signs=("manifest",)),
    ),
)
ELSEWHERE = (
    "and by the root document what is for the device pi-1 is signed by admin, site; have one"
)


@pytest.mark.parametrize(
    ("target", "may"),
    [
        ("agent:pi-1", {BOB}),
        ("agent:attic-7", {BOB}),
        ("agent:pi-10", set[SigningKey]()),
        ("agent:kiosk", set[SigningKey]()),  # a device that is called as a class
        ("class:kiosk", {CAROL}),
        ("class:sign-1", {CAROL}),
        ("class:sign-10", set[SigningKey]()),
        ("class:pi-1", set[SigningKey]()),  # and the other way round
        (FLEET_WIDE, set[SigningKey]()),
    ],
)
def test_a_scope_that_names_classes_or_devices_signs_for_nothing_else(
    target: str, may: set[SigningKey]
) -> None:
    keys = LIMITED.find_keys("manifest", NOW, target).keys()
    assert keys == {each.public.id for each in (ALICE, *may)}
    for each in (ALICE, *may):
        check_target(LIMITED, [each.public.id], NOW, target)
        check_kinds(LIMITED, ["*", "FileScore"], [each.public.id], NOW, target)
    for each in {BOB, CAROL} - may:
        with pytest.raises(OutOfScope, match="is signed by admin"):
            check_target(LIMITED, [each.public.id], NOW, target)
        with pytest.raises(OutOfScope):
            check_kinds(LIMITED, ["FileScore"], [each.public.id], NOW, target)
    asks = LIMITED.find_keys("request", NOW, target).keys()
    assert asks == {each.public.id for each in (ALICE, *(may - {CAROL}))}
    assert LIMITED.find_keys("device", NOW).keys() == {ALICE.public.id}


def test_who_signs_for_another_device_changes_nothing_not_even_the_generation() -> None:
    taken(LIMITED, manifest(2, entry("b")), BOB, before=OLD)
    # It would use up the generations, and say until when others may be accepted and how late it is.
    for new in (manifest(2, *OLD.scores), manifest(2, entry("b")), manifest(2)):
        with pytest.raises(OutOfScope, match=ELSEWHERE):
            taken(LIMITED, new, CAROL, before=OLD)
    other = LIMITED.model_copy(
        update={
            "scopes": (LIMITED.scopes[0], scope("site", BOB, agents=("pi-2",), signs=("manifest",)))
        }
    )
    with pytest.raises(OutOfScope, match="is for the device pi-1 is signed by admin; have one"):
        taken(other, manifest(2, *OLD.scores), BOB, before=OLD)


def test_no_threshold_is_met_by_a_key_for_something_else_and_no_kind_taken_away_elsewhere() -> None:
    rules = root(
        1,
        scopes=(
            scope("all", ALICE),
            scope("net", ALICE, BOB, threshold=2, kinds=("NetworkConfigScore",)),
            scope("here", CAROL, agents=("pi-1",), signs=("manifest",)),
            scope(
                "there",
                BOB,
                agents=("pi-2",),
                kinds=("FileScore", "NetworkConfigScore"),
                signs=("manifest",),
            ),
        ),
    )
    # That a scope names a kind for one device takes it from nobody on another.
    taken(rules, manifest(2, entry("a", text="new"), OLD.scores[1]), CAROL, before=OLD)
    wifi = manifest(2, OLD.scores[0], entry("wifi", "NetworkConfigScore", "other"))
    for keys in ([CAROL], [BOB, CAROL], [BOB]):
        with pytest.raises(OutOfScope):
            taken(rules, wifi, *keys, before=OLD)
    taken(rules, wifi, ALICE, BOB, before=OLD)
    check_kinds(rules, ["FileScore"], [BOB.public.id], NOW, "agent:pi-2")
    with pytest.raises(OutOfScope, match="FileScore are changed by 1 of there"):
        check_kinds(rules, ["FileScore"], [ALICE.public.id], NOW, "agent:pi-2")


def test_a_scope_without_limits_is_written_as_ever_so_that_older_agents_read_it() -> None:
    fields = strict_json.loads(root(1).payload(), max_bytes=ROOT_MAX_BYTES)
    assert isinstance(fields, dict)
    assert b"classes" not in root(1).payload()
    assert b"agents" not in root(1).payload()
    assert parse_root(LIMITED.payload()) == LIMITED
    # One that does not know a field of a scope takes in nothing: never less of it.
    scopes: Any = fields["scopes"]
    scopes[0]["sites"] = ["attic"]
    with pytest.raises(RootRejected, match="sites"):
        parse_root(strict_json.dumps(fields))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"agents": ("pi-1",)}, "who a device is concerns the whole fleet: leave `device` out"),
        ({"classes": ("kiosk",), "signs": ("manifest", "device")}, "leave `device` out"),
        ({"classes": ("kiosk",), "signs": ("manifest", "request")}, "or name the `agents`"),
        ({"classes": (), "signs": ("manifest",)}, "at least 1 item"),
        ({"agents": ("pi-1", "pi-1"), "signs": ("manifest",)}, "names one more than once"),
        ({"agents": ("Pi 1",), "signs": ("manifest",)}, "agents"),
        ({"agents": ("pi.>",), "signs": ("manifest",)}, "agents"),
        ({"classes": ("[a-z]*",), "signs": ("manifest",)}, "classes"),
        ({"classes": ("kiosk\n",), "signs": ("manifest",)}, "classes"),
    ],
)
def test_a_limit_that_says_nothing_or_too_much_is_none(fields: dict[str, Any], why: str) -> None:
    given: dict[str, Any] = {"name": "site", "keys": texts([BOB]), **fields}
    with pytest.raises(ValidationError, match=why):
        Scope.model_validate(given)


def test_another_epoch_is_refused_and_so_is_all_once_the_document_has_expired() -> None:
    with pytest.raises(WrongEpoch):
        taken(root(1, epoch=1), manifest(2, entry("a")), ALICE)
    taken(root(1, epoch=1), manifest(2, entry("a"), epoch=1), ALICE)
    expired = root(1, expires_at=NOW)
    with pytest.raises(RootExpired, match="harmony trust renew"):
        taken(expired, manifest(2, entry("a")), ALICE)


def test_what_is_in_force_stays_whoever_was_taken_out() -> None:
    envelope = seal(OLD.payload(), CAROL)
    identity: dict[str, Any] = {"fleet": "home", "agent_id": "pi-1", "now": NOW}
    current = accept(envelope, trusted=pin_keys([CAROL.public]), current=None, **identity)
    rules = root(2, epoch=5)
    keys = rules.find_keys("manifest", NOW)
    assert accept(envelope, trusted=keys, current=current, root=rules, **identity) is current


# The same chains, as python-tuf judges them.
_TUF_KEYS = [CryptoSigner.generate_ed25519() for _ in KEYS]


def _tuf(version: int, keys: Sequence[int], k: int, signers: Sequence[int]) -> bytes:
    document = TufRoot(version=version, expires=NOW + timedelta(days=36500))
    for role in document.roles.values():
        role.threshold = 1
    document.roles["root"].threshold = k
    for each in keys:
        key = _TUF_KEYS[each].public_key
        assert isinstance(key, SSlibKey)
        document.add_key(key, "root")
    metadata = Metadata(document)
    for each in signers:
        metadata.sign(_TUF_KEYS[each], append=True)
    return metadata.to_bytes(JSONSerializer())


def _ours(version: int, keys: Sequence[int], k: int, signers: Sequence[int]) -> bytes:
    return signed(
        root(version, [KEYS[each] for each in keys], k), *(KEYS[each] for each in signers)
    )


def test_a_chain_is_judged_as_python_tuf_judges_it() -> None:
    """At random: key sets, thresholds, who signs, versions that are left out or come twice."""
    chance = random.Random(seed())
    verdicts = {True: 0, False: 0}
    for _ in range(600):
        n, k = (count := chance.randint(1, 4)), chance.randint(1, count)
        old = chance.sample(range(8), n)
        new = chance.sample(range(8), m := chance.randint(1, 4))
        if chance.random() < 0.5:
            new = [*old]
            m = n
        k_new = chance.randint(1, m)
        version = chance.choice([2, 2, 2, 2, 1, 3])
        signers = chance.sample(range(8), chance.randint(1, 6))
        theirs = TrustedMetadataSet(_tuf(1, old, k, old), EnvelopeType.METADATA)
        try:
            theirs.update_root(_tuf(version, new, k_new, signers))
            expected = True
        except RepositoryError:
            expected = False
        before = open_pinned_root(_ours(1, old, k, old), fleet="home")
        try:
            open_next_root(_ours(version, new, k_new, signers), before)
            found = True
        except RootRejected:
            found = False
        assert found == expected, (old, k, new, k_new, version, signers)
        verdicts[found] += 1
    assert min(verdicts.values()) > 50, verdicts
