"""References in a spec: what is one, what is none, and what they come to."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmony_core.errors import FactMissing, InvalidScore
from harmony_core.inventory import Facts, Inventory
from harmony_core.references import (
    FACTS,
    Reference,
    find_faults,
    find_near_misses,
    find_references,
    has_references,
    look_up,
    replace_references,
)
from harmony_core.wire.manifest import SerializedScore, spec_hash

PI = Inventory(
    agent_id="pi-1",
    facts=Facts(
        model=None,
        architecture="aarch64",
        memory_bytes=512,
        os="Debian",
        kernel="6.12",
        hostname="attic",
        agent_version="1.0",
        kinds={},
    ),
    labels={"site": "Zürich", "odd": "${labels.site}"},
)


def resolve(spec: Any) -> Any:
    return replace_references(spec, lambda each: look_up(each, PI))


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("at ${labels.site}, ${inventory.hostname}", "at Zürich, attic"),
        ("${inventory.memory_bytes}", "512"),
        ("${inventory.agent_id}", "pi-1"),
        ("$${labels.site}", "${labels.site}"),
        ("$$${labels.site}", "$${labels.site}"),
        ("${labels.odd}", "${labels.site}"),
        ("${HOME} $${HOME} ${HOME:-x} $labels.site {labels.site}", None),
        ("${labels}${inventoryx.hostname}${label.site}", None),
    ],
)
def test_a_text_is_resolved_and_what_is_no_reference_stays(text: str, resolved: str | None) -> None:
    assert resolve({"a": [text]}) == {"a": [text if resolved is None else resolved]}
    assert has_references([text]) is (resolved is not None)


@given(st.text(alphabet="${}labes.ite\n"))
def test_any_text_is_refused_or_resolved_and_without_references_it_stays(text: str) -> None:
    faults = list(find_faults({"a": text}))
    try:
        find_references({"a": text})
    except InvalidScore:
        assert faults
        return
    assert not faults
    assert has_references(text) or replace_references(text, str) == text


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"a": "${inventory.hostnam}"}, "did you mean 'hostname'?"),
        ({"a": ["", "${labels.Site!}"]}, "did you mean ${labels.Site}?"),
        ({"a": "${labels.}"}, "a label's name has"),
        ({"a": "${labels.site"}, "has no } at its end"),
        ({"a": "${inventory.kinds}"}, "there are agent_id, "),
        ({"${labels.site}": 1}, "a name cannot have a reference"),
        ({"a": [{"${secret.db}": 1}]}, "a name cannot have a reference"),
    ],
)
def test_what_cannot_be_a_reference_is_named_with_what_was_meant(
    spec: dict[str, object], told: str
) -> None:
    ((_, fault),) = find_faults(spec)
    assert told in fault
    with pytest.raises(InvalidScore, match=re.escape(fault)):
        find_references(spec)


def test_every_fact_that_is_one_text_can_be_referred_to() -> None:
    for name in set(FACTS) - {"model"}:
        assert look_up(Reference("inventory", name), PI)
    assert find_references({"a": "${inventory.model} ${inventory.model}"}) == (
        Reference("inventory", "model"),
    )


@pytest.mark.parametrize("member", ["labels.nowhere", "inventory.model"])
def test_what_is_not_known_is_missing_and_was_read(member: str) -> None:
    namespace, _, name = member.partition(".")
    with pytest.raises(FactMissing, match=name):
        look_up(Reference(namespace, name), PI)
    assert {f"label:{name}", name} & PI.missing
    assert {f"label:{name}", name} & PI.read


def test_an_entry_without_references_is_on_the_wire_as_it_was() -> None:
    plain = SerializedScore(id="a", kind="FileScore", version=1, spec={"a": "${labels.site}"})
    assert "references" not in plain.model_dump(mode="json")
    referring = plain.model_copy(update={"references": True})
    assert referring.model_dump(mode="json")["references"] is True
    assert SerializedScore.model_validate_json(referring.model_dump_json()) == referring
    assert spec_hash(plain) != spec_hash(referring)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("user ${secrets.db}", "secret"),
        ("${label.site}", "labels"),
        ("${ labels.site }", "labels"),
        ("${Secret.db}", "secret"),
        ("${inventry.hostname}", "inventory"),
    ],
)
def test_what_is_nearly_a_reference_is_told(text: str, meant: str) -> None:
    (told,) = find_near_misses({"content": [text]})

    assert f"is no reference, and stays as it is; did you mean {meant!r}?" in told


@pytest.mark.parametrize(
    "text", ["${secret.db}", "$${secrets.db}", "${HOME}", "${spring.profile}", "${env.LABEL}"]
)
def test_what_others_write_is_not_told(text: str) -> None:
    assert list(find_near_misses({"content": text})) == []
