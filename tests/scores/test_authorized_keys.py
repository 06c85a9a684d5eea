"""AuthorizedKeysScore: which keys it takes, what it writes, and what a device lets it do."""

from __future__ import annotations

import base64
import re
import subprocess
from pathlib import Path

import pytest
from pydantic import ValidationError

from harmony_agent.apply.policy import DevicePolicy
from harmony_agent.policy_toml import PolicyTable
from harmony_core import Directory
from harmony_core.outcome import Failure
from harmony_core.testing import FakePi, interpret_once, interpret_twice
from harmony_scores import AuthorizedKeysScore

PATH = "/home/pi/.ssh/authorized_keys"


def part(*texts: bytes) -> str:
    return base64.b64encode(
        b"".join(len(each).to_bytes(4, "big") + each for each in texts)
    ).decode()


def ed25519(number: int = 1) -> str:
    return f"ssh-ed25519 {part(b'ssh-ed25519', bytes([number]) * 32)} ada@laptop"


def rsa(bits: int) -> str:
    number = b"\0" + b"\xff" * (bits // 8)
    return "ssh-rsa " + part(b"ssh-rsa", b"\1\0\1", number)


def pi_with_a_home() -> FakePi:
    pi = FakePi()
    pi.directories.homes["pi"] = "/home/pi"
    pi.files.make_directory("/home/pi")
    return pi


async def test_keys_are_put_between_markers_and_other_lines_stay() -> None:
    pi = pi_with_a_home()
    pi.files.write(PATH, b"ssh-ed25519 AAAA theirs\n", 0o600)
    score = AuthorizedKeysScore(
        user="pi", authorized_keys=(ed25519(), f'from="10.0.*" {rsa(2048)}')
    )
    first, second = await interpret_twice(score, pi.offers)
    assert (first.status, second.status) == ("SUCCESS", "NOOP"), first
    lines = (pi.files.read(PATH) or b"").decode().splitlines()
    assert lines[0] == "ssh-ed25519 AAAA theirs"
    assert lines[2:4] == list(score.authorized_keys)
    assert pi.directories.mode("/home/pi/.ssh") == 0o700


async def test_a_file_that_is_made_is_for_the_user_alone() -> None:
    pi = pi_with_a_home()
    await interpret_once(AuthorizedKeysScore(user="pi", authorized_keys=(ed25519(),)), pi.offers)
    assert pi.files.mode(PATH) == 0o600


async def test_exclusive_keys_are_all_there_is() -> None:
    pi = pi_with_a_home()
    pi.files.write(PATH, b"theirs\n")
    score = AuthorizedKeysScore(user="pi", authorized_keys=(ed25519(),), exclusive=True)
    first, second = await interpret_twice(score, pi.offers)
    assert (first.status, second.status) == ("SUCCESS", "NOOP")
    assert pi.files.read(PATH) == f"{ed25519()}\n".encode()
    assert pi.files.mode(PATH) == 0o600


async def test_two_scores_may_have_keys_of_one_user() -> None:
    pi = pi_with_a_home()
    for number, name in enumerate(("office", "backup")):
        score = AuthorizedKeysScore(user="pi", authorized_keys=(ed25519(number),), name=name)
        assert (await interpret_once(score, pi.offers)).outcome.status == "SUCCESS"
    text = (pi.files.read(PATH) or b"").decode()
    assert ed25519(0) in text
    assert ed25519(1) in text


@pytest.mark.parametrize(
    ("home", "mode", "why"),
    [("/srv/pi", 0o755, "which is /srv/pi"), ("/home/pi", 0o775, "chmod go-w /home/pi")],
)
async def test_a_home_that_sshd_does_not_look_into_or_trust_is_a_failure(
    home: str, mode: int, why: str
) -> None:
    pi = pi_with_a_home()
    pi.directories.homes["pi"] = home
    pi.directories.chmod("/home/pi", mode)
    verdict = await interpret_once(
        AuthorizedKeysScore(user="pi", authorized_keys=(ed25519(),)), pi.offers
    )
    outcome = verdict.outcome
    assert isinstance(outcome, Failure)
    assert why in outcome.message
    assert not pi.files.exists("/home/pi/.ssh")


async def test_a_file_that_others_may_write_is_a_failure_and_says_what_to_run() -> None:
    pi = pi_with_a_home()
    pi.files.write(PATH, b"theirs\n", 0o664)
    verdict = await interpret_once(
        AuthorizedKeysScore(user="pi", authorized_keys=(ed25519(),)), pi.offers
    )
    outcome = verdict.outcome
    assert isinstance(outcome, Failure)
    assert f"chmod 600 {PATH}" in outcome.message


PRIVATE = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (PRIVATE, "is a private key"),
        ("PuTTY-User-Key-File-3: ssh-ed25519", "is a private key"),
        ("---- BEGIN SSH2 PUBLIC KEY ----", "ssh-keygen -i"),
        (f"{ed25519()}\n{ed25519(2)}", "no single line"),
        (f" {ed25519()}", "no single line"),
        (f"ssh-dss {part(b'ssh-dss', b'1')}", "DSA key"),
        (f"ssh-ed25519-cert-v01@openssh.com {part(b'x')}", "is a certificate"),
        ("ada@laptop", "no public key"),
        ("", "no public key"),
        ("ssh-ed25519", "not whole"),
        (ed25519()[:60], "not whole"),
        (ed25519().replace("ssh-ed25519 ", "ssh-rsa "), "not whole"),
        (f"ssh-ed25519 {part(b'ssh-ed25519', b'x' * 31)}", "not whole"),
        (rsa(1024), "too short"),
        (f"no-such-option {ed25519()}", "does not know"),
        (f"command=/bin/x {ed25519()}", "does not know"),
        (f"restrict, {ed25519()}", "does not know"),
        (f'pty="yes" {ed25519()}', "does not know"),
        (f"from {ed25519()}", "does not know"),
    ],
)
def test_a_key_that_sshd_would_not_take_is_refused_and_not_told(key: str, why: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(why)) as refused:
        AuthorizedKeysScore(user="pi", authorized_keys=(ed25519(9), key))
    (error,) = refused.value.errors()
    assert "number 2" in error["msg"]
    assert "b3BlbnNz" not in error["msg"]


def test_one_key_twice_is_refused() -> None:
    with pytest.raises(ValidationError, match="numbers 1 and 2 are one key"):
        AuthorizedKeysScore(user="pi", authorized_keys=(ed25519(), f"restrict {ed25519()}"))


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_what_ssh_keygen_makes_is_taken_with_any_of_the_options(tmp_path: Path, kind: str) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "a b c", "-f", tmp_path / "key"],
        check=True,
    )
    line = (tmp_path / "key.pub").read_text().strip()
    options = (
        r'restrict,command="echo \"a, b\"",from="10.0.0.0/8,!10.1.*",No-Pty,expiry-time="20300101"'
    )
    for each in (line, f"{options} {line}"):
        AuthorizedKeysScore(user="pi", authorized_keys=(each,))
    with pytest.raises(ValidationError, match="private key"):
        AuthorizedKeysScore(user="pi", authorized_keys=((tmp_path / "key").read_text(),))


def test_who_may_log_in_is_root_s_to_allow() -> None:
    directory = Directory(path="/home/pi/.ssh", mode=0o700, owner="pi")
    policy = DevicePolicy(rules=PolicyTable(preset="open"))
    assert "as root" in (policy.refusal(directory) or "")
    assert DevicePolicy(rules=PolicyTable(preset="open", jobs="any")).refusal(directory) is None
