"""``harmony-agent enroll``: let this device into a fleet, by an invitation.

    the invitation -> keys made here -> agent.toml.new (0600) -> asked, until accepted -> agent.toml

The keys are kept before anything is asked. So a lost answer, or a power cut, leaves nobody in the bus whose
key is nowhere: asked again, the same is asked.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import sys
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import nkeys as _untyped  # type: ignore[import-untyped] # pyright: ignore[reportMissingTypeStubs] - it has no types
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout

from harmony_core.errors import BusUnreachable, ConfigError
from harmony_core.wire.enrolment import EnrolAnswer, EnrolRequest, Invitation, fingerprint
from harmony_core.wire.names import ENROL_SUBJECT, is_id, new_mailbox

from . import config as configuration
from .bus.connection import Bus
from .bus.link import Account, explain
from .store.flushing import flush_directory

__all__ = ["enroll"]

_nkeys: Any = _untyped

_ANSWERED_WITHIN_S = 30.0
_ASKED_AGAIN_S = 3.0
_LET_IN_WITHIN_S = 20.0


@attrs.frozen(kw_only=True)
class _Candidate:
    """Who asks to be let in, and with what."""

    agent_id: str
    seed: str = attrs.field(repr=False)
    mailbox: str = attrs.field(repr=False)

    @property
    def nkey(self) -> str:
        public: str = _nkeys.from_seed(bytearray(self.seed.encode())).public_key.decode()
        return public


async def enroll(
    path: Path, text: str, *, agent_id: str | None, waits_s: float, replaces: bool = False
) -> int:
    """Ask to be let in by the invitation *text*, and write agent.toml to *path*. Return 0, once it is.

    A device that is to be accepted by a person waits *waits_s* for it; 1 when that is over, and it may be
    asked again. `ConfigError` where this device is enrolled already and does not *replace* its key, and for
    what is no invitation, or none for this device; `BusUnreachable`.
    """
    invitation = Invitation.from_text(text)
    candidate = _candidate(path, invitation, agent_id, replaces=replaces)
    print(f"device        {candidate.agent_id}, of the fleet {invitation.fleet}")
    print(f"key           {fingerprint(candidate.nkey)}")
    answer = await _ask_until(candidate, invitation, waits_s=waits_s)
    if answer.status == "pending":
        print("nobody has accepted it yet; run this again to go on waiting", file=sys.stderr)
        return 1
    if answer.status == "refused":
        raise ConfigError(f"not let in: {_printable(answer.message)}")
    _draft(path).rename(path)
    flush_directory(path.parent)
    await _prove(path)
    print(f"{path} is written; now: systemctl enable --now harmony-agent")
    return 0


def _candidate(
    path: Path, invitation: Invitation, agent_id: str | None, *, replaces: bool
) -> _Candidate:
    """Return who asks: as begun before with the same id, else with keys that are new, and kept."""
    if path.exists() and not replaces:
        raise ConfigError(
            f"{path} exists, so this device is in a fleet already; to have it come with a new key, add "
            "--replace"
        )
    named = invitation.agent_id or agent_id or socket.gethostname().partition(".")[0].lower()
    if not is_id(named):
        raise ConfigError(
            f"{named!r} cannot be a device's id; give one with --id: 1 to 63 lower-case letters, digits and "
            "inner hyphens, such as pi-1"
        )
    if agent_id is not None and agent_id != named:
        raise ConfigError(f"the invitation is for {named}; leave --id away, or ask for another one")
    draft = _draft(path)
    candidate = _begun(draft, named) or _Candidate(
        agent_id=named, seed=_new_seed(), mailbox=new_mailbox()
    )
    _write(draft, _to_toml(candidate, invitation).encode())
    return candidate


def _begun(draft: Path, agent_id: str) -> _Candidate | None:
    try:
        table = tomllib.loads(draft.read_text())
        if table["agent_id"] != agent_id:
            return None
        nats = table["nats"]
        return _Candidate(agent_id=agent_id, seed=nats["seed"], mailbox=nats["mailbox"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _draft(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")


def _new_seed() -> str:
    seed: str = _nkeys.encode_seed(secrets.token_bytes(32), _nkeys.PREFIX_BYTE_USER).decode()
    return seed


def _to_toml(candidate: _Candidate, invitation: Invitation) -> str:
    # Each text is quoted as JSON does it, which TOML's basic strings include.
    servers = ", ".join(map(_quoted, invitation.servers))
    keys = ",\n  ".join(map(_quoted, invitation.operator_keys))
    return (
        f"agent_id = {_quoted(candidate.agent_id)}\n"
        f"fleet = {_quoted(invitation.fleet)}\n\n"
        f"[nats]\nservers = [{servers}]\n"
        f"seed = {_quoted(candidate.seed)}\n"
        f"mailbox = {_quoted(candidate.mailbox)}\n"
        f"tls_server_name = {_quoted(invitation.tls_server_name)}\n"
        f"ca = {_quoted(invitation.ca)}\n\n"
        f"[trust]\noperator_keys = [\n  {keys},\n]\n"
    )


def _quoted(text: str) -> str:
    return json.dumps(text)


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        flush_directory(path.parent)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}; run this as root, and make room on the disk"
        ) from error


async def _ask_until(
    candidate: _Candidate, invitation: Invitation, *, waits_s: float
) -> EnrolAnswer:
    """Ask, and while a person has to accept it, ask again."""
    request = EnrolRequest(
        agent_id=candidate.agent_id, nkey=candidate.nkey, mailbox=candidate.mailbox
    )
    loop = asyncio.get_running_loop()
    until = loop.time() + waits_s
    is_told = False
    while True:
        answer = await _ask(request, invitation)
        if answer.status != "pending" or loop.time() >= until:
            return answer
        if not is_told:
            print(f"waiting       for: harmony accept {candidate.agent_id}", flush=True)
            is_told = True
        await asyncio.sleep(_ASKED_AGAIN_S)


async def _ask(request: EnrolRequest, invitation: Invitation) -> EnrolAnswer:
    public = _Candidate(agent_id="", seed=invitation.seed, mailbox="").nkey
    account = Account(
        # Its inbox, and all that it may do, are named for the invitation.
        agent_id=public,
        servers=invitation.servers,
        seed=invitation.seed,
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
        raise BusUnreachable(_explain(error, invitation)) from error
    finally:
        # A connection that was cut while it stood half-way may complain of just that.
        with suppress(OSError):
            await client.close()
    return EnrolAnswer.from_json(found.data)


def _explain(error: Exception, invitation: Invitation) -> str:
    servers = ", ".join(invitation.servers)
    if "authorization" in str(error).lower():
        return f"{servers} does not know the invitation; it has expired, or is of another server"
    return f"{servers} cannot be asked: {explain(error)}"


async def _prove(path: Path) -> None:
    """Connect with what was written. The server has only just been told of it."""
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
