"""``harmony-agent enroll``: let this device into a fleet, by an invitation.

    the invitation -> keys made here -> agent.toml.new (0600) -> asked, until accepted -> agent.toml

The keys are kept before anything is asked. So a lost answer, or a power cut, leaves nobody in the bus whose
key is nowhere: asked again, the same is asked. A device that has its agent.toml asks with the key in it, and
that file stays as it is.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import secrets
import socket
import ssl
import sys
import tomllib
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import nkeys as _untyped  # type: ignore[import-untyped] # pyright: ignore[reportMissingTypeStubs] - it has no types
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout

from harmony_core.errors import BusUnreachable, ConfigError
from harmony_core.wire.enrolment import EnrolAnswer, EnrolRequest, Invitation
from harmony_core.wire.envelope import SigningKey, generate_key
from harmony_core.wire.names import ENROL_SUBJECT, fingerprint, is_id, new_mailbox

from . import config as configuration
from .bus.connection import Bus
from .bus.link import Account
from .store.flushing import flush_directory, make_directory, replace_file

__all__ = ["enroll"]

_nkeys: Any = _untyped

_ANSWERED_WITHIN_S = 30.0
_ASKED_AGAIN_S = 3.0
_REFUSED_AGAIN_S = 0.5
_REFUSALS_BELIEVED = 3
"""So many in a row: a server that is just being told of another refuses whoever is half-way in, too."""
_LET_IN_WITHIN_S = 20.0


@attrs.frozen(kw_only=True)
class _Candidate:
    """Who asks to be let in, and with what."""

    agent_id: str
    seed: str = attrs.field(repr=False)
    mailbox: str = attrs.field(repr=False)
    report_key: SigningKey

    @property
    def request(self) -> EnrolRequest:
        return EnrolRequest(
            agent_id=self.agent_id,
            nkey=_public_nkey(self.seed),
            mailbox=self.mailbox,
            report_key=self.report_key.public.to_text(),
        )


async def enroll(
    path: Path, text: str, *, agent_id: str | None, waits_s: float, replaces: bool = False
) -> int:
    """Enrol by the invitation *text*, and write agent.toml to *path*. Return 0, once that is done. It may be
    interrupted anywhere, and repeated.

    A device that a person must accept waits *waits_s* for that; return 1 when that time is over, and it may
    be repeated. Raise `ConfigError` where this device is in another fleet, or has another id, and must not
    come with a new key (*replaces*), and for what is no invitation, or none for this device;
    `BusUnreachable`.
    """
    invitation = Invitation.from_text(text)
    with _alone(path):
        return await _enroll(path, invitation, agent_id, waits_s=waits_s, replaces=replaces)


@contextmanager
def _alone(path: Path) -> Generator[None]:
    """Hold *path* for one who enrols this device; `ConfigError` while there is another."""
    try:
        make_directory(path.parent, mode=0o755)
        lock = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(
            f"{path.parent} cannot be used: {error.strerror}; run this as root"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise ConfigError(
            "this device is being enrolled already; wait for that, or end it"
        ) from error
    finally:
        os.close(lock)


async def _enroll(
    path: Path, invitation: Invitation, agent_id: str | None, *, waits_s: float, replaces: bool
) -> int:
    agent_id = _find_id(invitation, agent_id)
    enrolled = None if replaces else _find_enrolled(path, invitation, agent_id)
    candidate = enrolled or _draft_candidate(path, invitation, agent_id)
    print(f"device        {candidate.agent_id}, of the fleet {invitation.fleet}")
    request = candidate.request
    print(f"keys          {fingerprint(request.nkey, request.report_key)}")
    answer = await _ask_until(candidate, invitation, waits_s=waits_s)
    if answer.status == "pending":
        print("nobody has accepted it yet; run this again to go on waiting", file=sys.stderr)
        return 1
    if answer.status == "refused":
        if enrolled is None:
            # Asked again with this key, the answer would be the same.
            _draft(path).unlink(missing_ok=True)
        raise ConfigError(f"not let in: {_printable(answer.message)}")
    written = path if enrolled else _draft(path)
    is_other = answer.jwt is not None and _note_jwt(written, answer.jwt)
    if enrolled is None:
        written.rename(path)
        flush_directory(path.parent)
        print(f"{path} is written")
    else:
        print(f"{path} is as it was{', but for its jwt' if is_other else ''}")
    await _prove(path)
    print("now: systemctl enable --now harmony-agent")
    return 0


def _find_id(invitation: Invitation, agent_id: str | None) -> str:
    """Return the id that this device is to have: the invitation's, the one given, or the host's name."""
    named = invitation.agent_id or agent_id or socket.gethostname().partition(".")[0].lower()
    if not is_id(named):
        raise ConfigError(
            f"{named!r} cannot be a device's id; give one with --id: 1 to 63 lower-case letters, digits and "
            "inner hyphens, such as pi-1"
        )
    if agent_id is not None and agent_id != named:
        raise ConfigError(f"the invitation is for {named}; leave --id away, or ask for another one")
    return named


def _find_enrolled(path: Path, invitation: Invitation, agent_id: str) -> _Candidate | None:
    """Return the device that agent.toml says this is; None where there is none.

    `ConfigError` where it is not the one that the invitation is for.
    """
    if not path.exists():
        return None
    config = configuration.load(path)
    there = (config.agent_id, config.fleet, config.nats.ca)
    if there != (agent_id, invitation.fleet, invitation.ca):
        raise ConfigError(
            f"{path} exists, and by it this device is {config.agent_id} of the fleet {config.fleet}, or of "
            "another authority; to have it come by this invitation, with a new key, add --replace"
        )
    return _Candidate(
        agent_id=agent_id,
        seed=config.nats.seed,
        mailbox=config.nats.mailbox,
        report_key=config.report_key,
    )


def _draft_candidate(path: Path, invitation: Invitation, agent_id: str) -> _Candidate:
    """Return who asks: as begun before with the same id, else with keys that are new; and keep the draft."""
    _refuse_own_settings(path)
    draft = _draft(path)
    candidate = _begun(draft, agent_id) or _Candidate(
        agent_id=agent_id, seed=_new_seed(), mailbox=new_mailbox(), report_key=generate_key()
    )
    _write(draft, _to_toml(candidate, invitation).encode())
    return candidate


def _refuse_own_settings(path: Path) -> None:
    """Raise `ConfigError` where *path* says more than an invitation does: it would be lost without a word."""
    with suppress(OSError, ValueError):
        table = tomllib.loads(path.read_text())
        if own := sorted(table.keys() - {"agent_id", "fleet", "nats", "report", "trust"}):
            raise ConfigError(
                f"{path} has settings of its own ({', '.join(own)}); move it away, enroll, and add them again"
            )


def _begun(draft: Path, agent_id: str) -> _Candidate | None:
    try:
        table = tomllib.loads(draft.read_text())
        if table["agent_id"] != agent_id:
            return None
        nats = table["nats"]
        return _Candidate(
            agent_id=agent_id,
            seed=nats["seed"],
            mailbox=nats["mailbox"],
            report_key=SigningKey.from_text(table["report"]["key"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ConfigError):
        return None


def _draft(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")


def _new_seed() -> str:
    seed: str = _nkeys.encode_seed(secrets.token_bytes(32), _nkeys.PREFIX_BYTE_USER).decode()
    return seed


def _public_nkey(seed: str) -> str:
    public: str = _nkeys.from_seed(bytearray(seed.encode())).public_key.decode()
    return public


def _to_toml(candidate: _Candidate, invitation: Invitation) -> str:
    # Each text is quoted as JSON does it, which TOML's basic strings include.
    servers = ", ".join(map(_quoted, invitation.servers))
    trust = (
        f"root = {_quoted(invitation.root)}\n"
        if invitation.root is not None
        else f"operator_keys = [\n  {_lines(invitation.operator_keys)},\n]\n"
    )
    return (
        f"agent_id = {_quoted(candidate.agent_id)}\n"
        f"fleet = {_quoted(invitation.fleet)}\n\n"
        f"[nats]\nservers = [{servers}]\n"
        f"seed = {_quoted(candidate.seed)}\n"
        f"mailbox = {_quoted(candidate.mailbox)}\n"
        f"tls_server_name = {_quoted(invitation.tls_server_name)}\n"
        f"ca = {_quoted(invitation.ca)}\n\n"
        f"[report]\nkey = {_quoted(candidate.report_key.to_text())}\n\n"
        f"[trust]\n{trust}"
    )


def _note_jwt(path: Path, jwt: str) -> bool:
    """Have *path* say *jwt*, and all else as before. Return whether that is new. `ConfigError`."""
    text = path.read_text("utf-8")
    table = tomllib.loads(text)
    if table["nats"].get("jwt") == jwt:
        return False
    # A person may have edited it: it is changed as they would, by one line.
    line = f"jwt = {_quoted(jwt)}\n"
    text = re.sub(r"^jwt *=.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(
        r"^\[nats\].*\n", lambda found: found[0] + line, text, count=1, flags=re.MULTILINE
    )
    if tomllib.loads(text) != {**table, "nats": {**table["nats"], "jwt": jwt}}:
        raise ConfigError(f"{path}: in its table nats, write the line: {line.strip()}")
    _write(path, text.encode())
    return True


def _lines(texts: Iterable[str]) -> str:
    return ",\n  ".join(map(_quoted, texts))


def _quoted(text: str) -> str:
    return json.dumps(text)


def _write(path: Path, content: bytes) -> None:
    try:
        replace_file(path, path.with_name(f"{path.name}.begun"), content)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}; run this as root, and make room on the disk"
        ) from error


async def _ask_until(
    candidate: _Candidate, invitation: Invitation, *, waits_s: float
) -> EnrolAnswer:
    """Ask, and while a person has to accept it, ask again."""
    request = candidate.request
    loop = asyncio.get_running_loop()
    until = loop.time() + waits_s
    told = ""
    refusals = 0
    while True:
        try:
            answer = await _ask(request, invitation)
        except ConfigError:
            refusals += 1
            if refusals == _REFUSALS_BELIEVED:
                raise
            await asyncio.sleep(_REFUSED_AGAIN_S)
            continue
        except BusUnreachable as error:
            # At the first boot the network comes later; and a server may be started anew meanwhile.
            if loop.time() >= until:
                raise
            now = f"waiting       {error.message}"
        else:
            refusals = 0
            if answer.status != "pending" or loop.time() >= until:
                return answer
            now = f"waiting       for: harmony accept {candidate.agent_id}"
        if now != told:
            print(now, flush=True)
            told = now
        await asyncio.sleep(_ASKED_AGAIN_S)


async def _ask(request: EnrolRequest, invitation: Invitation) -> EnrolAnswer:
    public = _public_nkey(invitation.seed)
    account = Account(
        # Its inbox, and all that it may do, are named for the invitation.
        agent_id=public,
        servers=invitation.servers,
        seed=invitation.seed,
        jwt=invitation.jwt,
        mailbox="",
        ca=invitation.ca,
        server_name=invitation.tls_server_name,
    )
    client = account.client()
    try:
        async with asyncio.timeout(_ANSWERED_WITHIN_S):
            await account.connect(client)
            while True:
                with suppress(NatsTimeout):
                    found = await client.request(
                        f"{ENROL_SUBJECT}.{public}", request.to_json(), timeout=_ASKED_AGAIN_S
                    )
                    break
    except NoRespondersError as error:
        raise BusUnreachable(
            "the message server runs, but nobody lets devices in; it must be started by `harmony server`"
        ) from error
    except (NatsError, OSError, TimeoutError) as error:
        raise _to_error(error, invitation) from error
    finally:
        await client.close()
    return EnrolAnswer.from_json(found.data)


def _to_error(error: Exception, invitation: Invitation) -> BusUnreachable | ConfigError:
    servers = ", ".join(invitation.servers)
    if "authorization" in str(error).lower():
        return ConfigError(
            f"{servers} does not know the invitation; it was withdrawn, has expired, or is of another server"
        )
    if isinstance(error, ssl.SSLError):
        return BusUnreachable(
            f"{servers} does not prove to be the server of this fleet; is there somebody in between, or has "
            "it a new authority? Then ask for another invitation"
        )
    said = str(error) or type(error).__name__
    return BusUnreachable(
        f"{servers} cannot be asked ({said}); is `harmony server` running there, and is this its address as "
        "seen from here? If not, ask for an invitation with --url tls://HOST:4222"
    )


async def _prove(path: Path) -> None:
    """Connect with what was written. The server has only just learnt of it."""
    bus = Bus.of(configuration.load(path))
    loop = asyncio.get_running_loop()
    until = loop.time() + _LET_IN_WITHIN_S
    while (why_not := await bus.why_not(within_s=_ANSWERED_WITHIN_S)) is not None:
        if loop.time() > until:
            raise BusUnreachable(f"the device was accepted, but is not let in: {why_not}")
        await asyncio.sleep(1)
    print("control plane reachable, and this device is authenticated")


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in text[:500])
