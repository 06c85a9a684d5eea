"""AptSourceScore: what it takes, and what the apt of a Pi with signed repositories makes of it."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import timedelta

import pytest
from pydantic import ValidationError

from harmony_agent.apply.policy import DevicePolicy
from harmony_agent.policy_toml import PolicyTable
from harmony_core import Noop, Success
from harmony_core.outcome import Failure
from harmony_core.reconciler import Offers
from harmony_core.resources import Job
from harmony_core.testing import FakePi
from harmony_scores import AptSourceScore, PackageScore
from tests.box import Box
from tests.scores.apt_repository import Signer, installed
from tests.scores.jobs_in_box import ask_again, offer_jobs, offer_without_records, remove, settle

NOBODYS_KEY = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmDMEaw==\n-----END PGP PUBLIC KEY BLOCK-----"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
SPEC = {
    "name": "docker",
    "uris": ["https://download.docker.com/linux/debian"],
    "suites": ["bookworm"],
    "components": ["stable"],
    "architectures": ["arm64"],
    "key": NOBODYS_KEY,
}


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"name": "../x"}, "small letters"),
        ({"name": "a.b"}, "small letters"),
        ({"name": "x" * 53}, "at most 52"),
        ({"uris": []}, "at least 1"),
        ({"uris": ["download.docker.com"]}, "no place that apt"),
        ({"uris": ["https://a b"]}, "no place that apt"),
        ({"uris": ["https://a\nTrusted: yes"]}, "no place that apt"),
        ({"uris": ["ssh://a/b"]}, "no place that apt"),
        ({"uris": ["https://a/[x"]}, "no place that apt"),
        ({"uris": ["https:///x"]}, "no place that apt"),
        ({"uris": ["https://ada:hunter2@a/b"]}, "auth.conf.d"),
        ({"suites": []}, "at least 1"),
        ({"suites": ["a b"]}, "pattern"),
        ({"suites": ["-a"]}, "pattern"),
        ({"suites": ["./"]}, "leave them out"),
        ({"components": []}, "give components"),
        ({"components": ["main\n"]}, "pattern"),
        ({"architectures": ["ARM"]}, "pattern"),
        ({"types": []}, "at least 1"),
        ({"types": ["rpm"]}, "'deb' or 'deb-src'"),
        ({"key": None}, "exactly one of key and keyring"),
        ({"keyring": KEYRING}, "exactly one of key and keyring"),
        ({"key": None, "keyring": "/srv/x.gpg"}, "pattern"),
        ({"key": None, "keyring": "/usr/share/keyrings/../../srv/x.gpg"}, "pattern"),
        ({"key": None, "keyring": "/etc/apt/keyrings/docker.asc"}, "choose another name"),
        ({"key": "mDMEaw=="}, "must be armored"),
        ({"key": NOBODYS_KEY[:-1]}, "must be armored"),
        ({"key": NOBODYS_KEY.replace("PUBLIC", "PRIVATE")}, "that is a private key"),
        ({"trusted": True}, "Extra inputs"),
    ],
)
def test_what_apt_would_read_otherwise_is_refused(fields: Mapping[str, object], why: str) -> None:
    AptSourceScore.model_validate(SPEC)
    with pytest.raises(ValidationError, match=re.escape(why)):
        AptSourceScore.model_validate({**SPEC, **fields})


async def test_it_says_all_in_one_file_and_is_for_root_to_allow() -> None:
    pi = FakePi()
    assert isinstance(await settle(AptSourceScore.model_validate(SPEC), pi.offers), Success)
    question, place = sorted(pi.jobs.begun)
    assert place[1].startswith("https://download.docker.com/linux/debian bookworm is signed by")
    name, text, key, index = question[5:]
    assert (name, key) == ("docker", NOBODYS_KEY)
    assert text.splitlines() == [
        "# Written by Harmony, which puts it back where somebody changes it.",
        "Types: deb",
        "URIs: https://download.docker.com/linux/debian",
        "Suites: bookworm",
        "Components: stable",
        "Architectures: arm64",
        "Signed-By: /etc/apt/keyrings/docker.asc",
    ]
    assert index == " https://download.docker.com/linux/debian/ bookworm Packages stable arm64 "
    job = Job(name="apt-source-docker", command=question, privileged=True)
    assert DevicePolicy(rules=PolicyTable(preset="open", jobs="confined")).refusal(job) is not None


GOOD, OTHER = "/srv/harmony-signed", "/srv/harmony-signed-too"
FILE, KEY = "/etc/apt/sources.list.d/signed.sources", "/etc/apt/keyrings/signed.asc"


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer(tmp_path_factory.mktemp("signer") / "home")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer(tmp_path_factory.mktemp("stranger") / "home")


@pytest.fixture
async def offers(pi: Box, signer: Signer) -> AsyncGenerator[Offers]:
    async with offer_jobs(pi, "apt-source-signed", "apt-source-more", "packages-tools") as offers:
        pi.run(["rm", "/etc/apt/sources.list"])
        signer.sign(pi, GOOD)
        yield offers


def source(key: str | None, path: str = GOOD, **fields: object) -> AptSourceScore:
    spec = {
        "name": "signed",
        "uris": [f"file:{path}"],
        "suites": ["stable"],
        "components": ["main"],
    }
    return AptSourceScore.model_validate({**spec, "key": key, **fields})


def is_there(pi: Box, path: str) -> bool:
    return (pi.root / path.lstrip("/")).exists()


TOOLS = PackageScore(name="tools", packages=("harmony-two",))


async def test_packages_come_from_it_as_long_as_it_is_there(
    offers: Offers, pi: Box, signer: Signer
) -> None:
    score = source(signer.key)
    assert isinstance(await settle(score, offers), Success)
    assert await settle(score, offers) == Noop()
    assert pi.text("stat", "-c", "%a %U %G", FILE, KEY) == "644 root root\n644 root root"
    assert isinstance(await settle(TOOLS, offers), Success)
    assert "harmony-two" in await installed(pi)
    await remove(offers, "apt-source-signed")
    for gone in (FILE, KEY, "/var/lib/harmony-apt-sources"):
        assert not is_there(pi, gone)
    assert "harmony-two" in await installed(pi)
    assert pi.text("apt-get", "indextargets") == ""


async def test_it_is_trusted_no_more_though_the_agent_has_lost_its_state(
    offers: Offers, pi: Box, signer: Signer
) -> None:
    await settle(source(signer.key), offers)
    async with offer_without_records(pi) as offers_again:
        assert not isinstance(await settle(source(signer.key), offers_again), Failure)
        await remove(offers_again, "apt-source-signed")
    assert not is_there(pi, FILE)
    assert not is_there(pi, KEY)


UNREADABLE: Sequence[tuple[Mapping[str, object], str]] = [
    ({"key": NOBODYS_KEY}, "is not signed"),
    ({"key": None, "keyring": KEYRING}, "is not signed"),
    ({"key": None, "keyring": "/usr/share/keyrings/none.gpg"}, "/usr/share/keyrings/none.gpg"),
    ({"uris": ["file:/srv/none"]}, "does not have a Release file"),
    ({"suites": ["stable", "unstable"]}, "does not have a Release file"),
    ({"components": ["main", "contrib"]}, f"no index: file:{GOOD}/ stable Packages contrib"),
    ({"architectures": ["s390x"]}, f"no index: file:{GOOD}/ stable Packages main s390x"),
    ({"types": ["deb", "deb-src"]}, f"no index: file:{GOOD}/ stable Sources main"),
]


async def test_what_apt_cannot_read_leaves_nothing_that_other_calls_would_fail_by(
    offers: Offers, pi: Box, signer: Signer
) -> None:
    for fields, why in UNREADABLE:
        spec = {**source(signer.key).model_dump(), **fields}
        outcome = await settle(AptSourceScore.model_validate(spec), offers)
        assert isinstance(outcome, Failure), fields
        assert outcome.error.code == "JobAttemptFailed"
        assert why in outcome.error.message, fields
        assert not is_there(pi, FILE)
        assert not is_there(pi, KEY)
    assert pi.text("apt-get", "indextargets") == ""


INSECURE = "/etc/apt/apt.conf.d/99insecure"


async def test_a_key_that_is_another_and_a_date_that_is_over_are_told(
    offers: Offers, pi: Box, signer: Signer, stranger: Signer
) -> None:
    # Whatever somebody has set for other sources.
    pi.write(INSECURE, 'Acquire::AllowInsecureRepositories "true";\n')
    try:
        outcome = await settle(source(stranger.key), offers)
    finally:
        pi.run(["rm", INSECURE])
    assert isinstance(outcome, Failure)
    assert signer.fingerprint[-16:] in outcome.error.message
    signer.sign(pi, OTHER, valid_for=-timedelta(hours=1))
    outcome = await settle(source(signer.key, OTHER), offers)
    assert isinstance(outcome, Failure)
    assert "is expired" in outcome.error.message
    assert not is_there(pi, FILE)


async def test_what_was_read_stays_as_it_is_when_what_is_to_follow_cannot_be_read(
    offers: Offers, pi: Box, signer: Signer, stranger: Signer
) -> None:
    score = source(signer.key)
    await settle(score, offers)
    before = pi.read(FILE), pi.read(KEY)
    for worse in (source(stranger.key), source(signer.key, "/srv/none")):
        assert isinstance(await settle(worse, offers), Failure)
        assert (pi.read(FILE), pi.read(KEY)) == before
    assert isinstance(await settle(TOOLS, offers), Success)
    stranger.sign(pi, GOOD)
    assert isinstance(await settle(source(stranger.key), offers), Success)
    assert pi.read(KEY).decode().strip() == stranger.key


async def test_what_somebody_changes_is_put_back_also_while_it_cannot_be_reached(
    offers: Offers, pi: Box, signer: Signer
) -> None:
    pi.run(
        [
            "systemd-run",
            "-q",
            "--unit=repository",
            "python3",
            "-m",
            "http.server",
            "-d",
            GOOD,
            "8000",
        ]
    )
    pi.wait_for(["python3", "-c", "import socket; socket.create_connection(('127.0.0.1', 8000))"])
    score = source(signer.key, uris=["http://127.0.0.1:8000"])
    try:
        outcome = await settle(source(signer.key, uris=["http://127.0.0.1:8000/none"]), offers)
        assert isinstance(outcome, Failure)
        assert "8000/none stable Release' does not have a Release file" in outcome.error.message
        assert isinstance(await settle(score, offers), Success)
    finally:
        pi.run(["systemctl", "stop", "repository"])
    before = pi.read(FILE), pi.read(KEY)
    for change in (
        f"echo '# by hand' >> {FILE}",
        f"ln -sf /srv/none {KEY}; chmod 666 {FILE}",
        f"rm {KEY}",
    ):
        pi.run(["sh", "-c", change])
        ask_again(offers)
        assert isinstance(await settle(score, offers), Success), change
        assert (pi.read(FILE), pi.read(KEY)) == before
        assert pi.text("stat", "-c", "%a %F", FILE, KEY) == "644 regular file\n644 regular file"
    assert await settle(score, offers) == Noop()


async def test_what_others_have_at_its_names_is_neither_overwritten_nor_taken_away(
    offers: Offers, pi: Box, signer: Signer
) -> None:
    for path, name in ((FILE, "name"), (KEY, "key")):
        pi.write(path, "# by hand\n")
        outcome = await settle(source(signer.key), offers)
        assert isinstance(outcome, Failure)
        assert f"{name}: {path} is there" in outcome.error.message
        await remove(offers, "apt-source-signed")
        assert pi.read(path) == b"# by hand\n"
        pi.run(["rm", path])
    # The very key is no fault, and stays.
    pi.write(KEY, f"{signer.key}\n")
    assert isinstance(await settle(source(signer.key), offers), Success)
    await remove(offers, "apt-source-signed")
    assert not is_there(pi, FILE)
    assert is_there(pi, KEY)
    pi.run(["rm", KEY])
    # A key of ours that somebody has put another one in place of is theirs.
    await settle(source(signer.key), offers)
    pi.write(KEY, "# by hand\n")
    await remove(offers, "apt-source-signed")
    assert pi.read(KEY) == b"# by hand\n"


MORE = "/etc/apt/sources.list.d/more.sources"


async def test_by_another_name_it_takes_the_place_of_what_it_was(
    offers: Offers, pi: Box, signer: Signer, stranger: Signer
) -> None:
    await settle(source(signer.key), offers)
    before = pi.read(FILE), pi.read(KEY)
    for worse in (source(stranger.key, name="more"), source(signer.key, "/srv/none", name="more")):
        assert isinstance(await settle(worse, offers), Failure)
        assert (pi.read(FILE), pi.read(KEY)) == before
        assert not is_there(pi, MORE)
        await remove(offers, "apt-source-more")
    more = source(signer.key, name="more")
    assert isinstance(await settle(more, offers), Success)
    assert not is_there(pi, FILE)
    assert isinstance(await settle(TOOLS, offers), Success)
    await remove(offers, "apt-source-signed")
    assert not is_there(pi, KEY)
    assert await settle(more, offers) == Noop()
    assert "/etc/apt/keyrings/more.asc" in pi.read(MORE).decode()
    pi.run(["apt-get", "-q", "update"])


async def test_by_another_name_nothing_else_gives_way(
    offers: Offers, pi: Box, signer: Signer
) -> None:
    signer.sign(pi, OTHER)
    await settle(source(signer.key, OTHER), offers)
    assert isinstance(await settle(source(signer.key, name="more"), offers), Success)
    assert is_there(pi, FILE)
    # A file of ours that is noted no more is somebody's.
    pi.run(["rm", "/var/lib/harmony-apt-sources/signed"])
    outcome = await settle(source(signer.key, OTHER, name="more"), offers)
    assert isinstance(outcome, Failure)
    assert "Conflicting values set for option Signed-By" in outcome.error.message
    pi.run(["rm", FILE, KEY])


BY_HAND = "/etc/apt/sources.list.d/by-hand.list"


BESIDE: Sequence[tuple[str, str | None]] = [
    (f"deb [signed-by={KEYRING}] file:{GOOD} stable main", "Conflicting values set for option Signed-By"),
    (f"deb [trusted=yes] file:{GOOD} stable main", "Conflicting values set for option Trusted"),
    ("nonsense", f"Malformed line 1 in source list {BY_HAND}"),
    (f"deb [signed-by={KEY}] file:{GOOD} stable main", None),
    (f"deb file:{GOOD} stable main", None),
]  # fmt: skip


async def test_beside_others_it_is_there_only_if_apt_reads_all_of_them(
    offers: Offers, pi: Box, signer: Signer
) -> None:
    for line, why in BESIDE:
        pi.write(BY_HAND, f"{line}\n")
        outcome = await settle(source(signer.key), offers)
        if why is None:
            assert not isinstance(outcome, Failure), line
            continue
        assert isinstance(outcome, Failure), line
        assert why in outcome.error.message
        assert not is_there(pi, FILE)
        done = pi.run(["apt-get", "indextargets"], check=False)
        assert (done.returncode == 0) is (line != "nonsense")
    assert isinstance(await settle(TOOLS, offers), Success)


async def test_a_directory_without_components_is_a_source_too(
    offers: Offers, pi: Box, signer: Signer
) -> None:
    signer.sign_flat(pi, OTHER)
    flat = source(signer.key, OTHER, name="more", suites=["./"], components=[])
    assert isinstance(await settle(flat, offers), Success)
    assert isinstance(await settle(TOOLS, offers), Success)
