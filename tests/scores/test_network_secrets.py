"""Secrets of the fleet in network profiles: in the profile alone, and tried as any other change is."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from harmony_core import Failure, Noop, Success
from harmony_core.interpretation import interpret
from harmony_core.resources import NetworkProfile, SecretRef, Wifi, first_problem
from harmony_core.secret_values import find_words, secret_word
from harmony_core.stage import Stage
from harmony_core.testing import AllowAll, FakePi, ListAudit, NoClaims, interpret_once, inventory
from harmony_pi_topology.network.link_settings import find_secrets
from harmony_scores import NetworkConfigScore

VALUES = [b64encode(bytes([n]) * 32).decode() for n in range(1, 5)]
"""Keys of WireGuard, and passwords."""
PUBLIC = b64encode(bytes([9]) * 32).decode()
IN_THE_TUNNEL = {"method": "manual", "addresses": ["10.8.0.2/24"]}


def tunnel(**fields: object) -> dict[str, object]:
    peer = {"public_key": PUBLIC, "allowed_ips": ["10.8.0.0/24"]}
    preshared = {"preshared_key": fields.pop("preshared_key", None)}
    link = {"type": "wireguard", "interface": "wg0", "peers": [{**peer, **preshared}], **fields}
    return {"link": link, "ipv4": IN_THE_TUNNEL}


def point(psk: object) -> dict[str, object]:
    link = {"type": "wifi", "mode": "ap", "ssid": "kiosk", "interface": "wlan0", "psk": psk}
    return {"link": link, "ipv4": {"method": "shared"}}


def login(**fields: object) -> dict[str, object]:
    enterprise = {"eap": "peap", "identity": "pi-7", "allow_any_server": True, **fields}
    link = {"type": "wifi", "ssid": "office", "security": "wpa-eap", "enterprise": enterprise}
    return {"link": link}


def locked(word: object) -> dict[str, object]:
    files = {"client_certificate": "/etc/ssl/pi.pem", "private_key": "/etc/ssl/pi.key"}
    return login(eap="tls", **files, private_key_password=word)


WITH: Mapping[str, Callable[[object], dict[str, object]]] = {
    "psk": point,
    "private key": lambda word: tunnel(private_key=word),
    "preshared key": lambda word: tunnel(preshared_key=word),
    "password": lambda word: login(password=word),
    "password of a key": locked,
}
LIVE = [name for name in WITH if not name.startswith("password")]
"""Those of profiles that are in use by themselves."""


def word_of(number: int) -> str:
    return secret_word("net", "wifi", f"{number:016x}")


def score_with(kind: str, given: object) -> NetworkConfigScore:
    return NetworkConfigScore.model_validate({"name": "it", **WITH[kind](given)})


def pi_with(*values: str) -> FakePi:
    """A device that knows *values*, each by the word of its place."""
    pi = FakePi()
    for number, value in enumerate(values):
        pi.network.put_value(word_of(number), value)
    return pi


async def run(pi: FakePi, score: NetworkConfigScore, *, apply: bool = True) -> tuple[Any, Stage]:
    stage = Stage(
        offers=pi.offers,
        policy=AllowAll(),
        claims=NoClaims(),
        audit=ListAudit(),
        apply=apply,
        secret_words=find_words(score.model_dump_json()),
    )
    return (await interpret(score, inventory(), stage)).outcome, stage


@pytest.mark.parametrize("kind", WITH)
async def test_a_secret_comes_into_the_profile_alone(kind: str) -> None:
    pi = pi_with(VALUES[0])
    score = score_with(kind, word_of(0))
    planned = await run(pi, score, apply=False)
    first, stage = await run(pi, score)
    assert isinstance(first, Success)
    assert VALUES[0] in pi.network.read_secrets("it").values()
    assert (await run(pi, score))[0] == Noop()
    told = repr([planned, first, stage.changes, stage.states, stage.wanted])
    told += repr(vars(stage)) + score.model_dump_json()
    assert VALUES[0] not in told


@pytest.mark.parametrize("kind", WITH)
async def test_the_same_value_set_anew_changes_nothing_and_another_does(kind: str) -> None:
    pi = pi_with(VALUES[0], VALUES[0], VALUES[1])
    await run(pi, score_with(kind, word_of(0)))
    assert (await run(pi, score_with(kind, word_of(1))))[0] == Noop()
    assert isinstance((await run(pi, score_with(kind, word_of(2))))[0], Success)
    assert VALUES[1] in pi.network.read_secrets("it").values()
    assert (await run(pi, score_with(kind, word_of(2))))[0] == Noop()


@pytest.mark.parametrize("kind", LIVE)
async def test_another_value_that_cuts_the_device_off_is_taken_back_and_the_next_is_tried(
    kind: str,
) -> None:
    pi = pi_with(*VALUES)
    await run(pi, score_with(kind, word_of(0)))
    before = pi.network.read_secrets("it")
    pi.network.silent_after_changes = True
    for _ in range(2):
        outcome = (await run(pi, score_with(kind, word_of(1))))[0]
        assert isinstance(outcome, Failure)
        assert outcome.error.code == "NetworkRolledBack"
        assert pi.network.read_secrets("it") == before
    pi.network.silent_after_changes = False
    outcome = (await run(pi, score_with(kind, word_of(1))))[0]
    assert isinstance(outcome, Failure), "it was taken back, and is not tried again"
    outcome, stage = await run(pi, score_with(kind, word_of(2)))
    assert isinstance(outcome, Success)
    assert any("confirmed" in str(change.actions) for change in stage.changes)
    assert VALUES[2] in pi.network.read_secrets("it").values()


@pytest.mark.parametrize("kind", LIVE)
async def test_a_secret_of_the_device_that_is_corrected_is_tried_too(kind: str) -> None:
    pi = FakePi()
    score = score_with(kind, {"secret": "own"})
    pi.network.put_secret("own", VALUES[0].encode())
    await interpret_once(score, pi.offers)
    pi.network.silent_after_changes = True
    pi.network.put_secret("own", VALUES[1].encode())
    assert isinstance((await interpret_once(score, pi.offers)).outcome, Failure)
    pi.network.silent_after_changes = False
    assert isinstance((await interpret_once(score, pi.offers)).outcome, Failure)
    pi.network.put_secret("own", VALUES[2].encode())
    assert isinstance((await interpret_once(score, pi.offers)).outcome, Success)
    assert VALUES[2] in pi.network.read_secrets("it").values()


async def test_one_that_is_not_used_by_itself_has_its_secret_back_too() -> None:
    """The daemon itself puts back what was in use, and this is not."""
    pi = pi_with(*VALUES)
    score = score_with("psk", word_of(0)).model_copy(update={"autoconnect": False})
    await run(pi, score)
    await pi.network.take_down("it")
    before = pi.network.read_secrets("it")
    pi.network.silent_after_changes = True
    changed = score_with("psk", word_of(1)).model_copy(update={"autoconnect": False})
    assert isinstance((await run(pi, changed))[0], Failure)
    assert pi.network.read_secrets("it") == before


async def test_what_is_previewed_has_no_say_in_what_is_written_or_tried() -> None:
    pi = pi_with(VALUES[0])
    await run(pi, score_with("psk", word_of(0)))
    lent = pi.network.secret_values.lend(word_of(0), VALUES[1])
    outcome, stage = await run(pi, score_with("psk", lent), apply=False)
    assert isinstance(outcome, Success)
    assert VALUES[1] not in repr(stage.changes)
    assert pi.network.read_secrets("it") == {"802-11-wireless-security.psk": VALUES[0]}
    assert (await run(pi, score_with("psk", word_of(0))))[0] == Noop()


@pytest.mark.parametrize("value", ["short", "x" * 64, "x" * 65, "cor\nrect horse", "correct\x7fh"])
async def test_a_value_that_is_no_password_is_a_failure_and_is_not_told(value: str) -> None:
    pi = pi_with(value)
    outcome, _ = await run(pi, score_with("psk", word_of(0)))
    assert isinstance(outcome, Failure)
    assert outcome.error.code == "InvalidResource"
    assert "link.psk" in outcome.error.message
    assert "harmony secret set" in outcome.error.message
    assert value not in outcome.error.message
    assert await pi.network.profiles() == set()


async def test_what_is_not_known_is_missing() -> None:
    outcome, _ = await run(FakePi(), score_with("psk", word_of(0)))
    assert isinstance(outcome, Failure)
    assert outcome.error.code == "SecretMissing"


@pytest.mark.parametrize("kind", WITH)
@pytest.mark.parametrize("given", ["correct horse", "${labels.psk}", "", 12345678, ["hunter22"]])
def test_a_password_in_clear_is_refused_and_not_shown(kind: str, given: object) -> None:
    with pytest.raises(ValidationError) as caught:
        score_with(kind, given)
    told = first_problem(caught.value, NetworkConfigScore)
    assert "write ${secret.NAME}" in told
    assert not any(each in told for each in ("horse", "12345678", "hunter"))


@pytest.mark.parametrize("text", ["${secret.wifi}", word_of(0)])
@pytest.mark.parametrize("field", ["identity", "anonymous_identity", "phase2", "ca_certificate"])
def test_a_secret_elsewhere_is_refused(field: str, text: str) -> None:
    with pytest.raises(ValidationError):
        NetworkConfigScore.model_validate(
            {"name": "it", **login(**{"password": "${secret.x}", field: text})}
        )


def test_a_secret_as_a_network_s_name_is_refused() -> None:
    with pytest.raises(ValidationError, match="ssid: it cannot be a secret"):
        Wifi(ssid=secret_word("a", "b", "0" * 16))


@pytest.mark.parametrize("kind", WITH)
def test_every_secret_of_a_profile_is_one_that_the_stage_knows(kind: str) -> None:
    profile = NetworkProfile.model_validate({"name": "it", **WITH[kind](word_of(0))})
    assert profile.find_secret_words() == {word_of(0)}
    assert word_of(0) in find_secrets(profile.link).values()
    same = NetworkProfile.model_validate_json(profile.model_dump_json())
    assert same == profile
    assert (
        same.spec_hash
        != NetworkProfile.model_validate({"name": "it", **WITH[kind](word_of(1))}).spec_hash
    )
    own = NetworkProfile.model_validate({"name": "it", **WITH[kind]({"secret": "own"})})
    assert SecretRef(secret="own") in find_secrets(own.link).values()
    assert own.find_secret_words() == frozenset()
