"""Invitations to devices, and what becomes of who comes with one.

    invite -> server/invitations.json (public key -> for whom, how often, until when) -> nats.conf
    admit  <- a request that came with an invitation's key -> agents.json, or server/pending.json -> nats.conf

Both hold `Home.editing`, so that no invitation counts for more devices than it says, from whatever process.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import attrs

from harmony_core.close_names import did_you_mean
from harmony_core.errors import ConfigError, ManifestRejected, UsageError
from harmony_core.wire.enrolment import EnrolAnswer, EnrolRequest, Invitation, fingerprint
from harmony_core.wire.times import parse_rfc3339, rfc3339

from .enrol import device_url
from .server.apply import changing
from .store import operator_key
from .store.home import Enrolled, Home, check_agent_id, write_whole
from .store.nkey import Nkey

__all__ = [
    "Pending",
    "accept",
    "admit",
    "invite",
    "read_pending",
    "refuse",
    "withdraw",
    "withdraw_all",
]

_PENDING_MOST = 1_000


@attrs.frozen(kw_only=True)
class _Invited:
    """What the server knows of an invitation, by its public key."""

    agent_id: str | None
    left: int
    """How many devices may still come with it."""
    expires_at: str
    asks: bool
    """Whether a person must accept each."""
    replaces: bool
    """Whether a device that is enrolled may come with a new key."""


@attrs.frozen(kw_only=True)
class Pending:
    """A device that waits to be accepted."""

    invitation: str
    """The public key of the one with which it came."""
    agent_id: str
    nkey: str
    mailbox: str
    since: str

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.nkey)


_Invitations: TypeAlias = dict[str, _Invited]


def invite(
    home: Home,
    *,
    agent_id: str | None = None,
    url: str | None = None,
    count: int = 1,
    expires_in: timedelta = timedelta(days=1),
    asks: bool = False,
    replaces: bool = False,
) -> Invitation:
    """Make an invitation for *count* devices, within *expires_in*.

    With *asks* each of them waits until `accept`. With *agent_id* it is for that device alone, and unless
    *replaces*, `UsageError` where it is enrolled. A running server knows of it when this returns; its secret
    is kept nowhere.
    """
    if agent_id is not None:
        check_agent_id(agent_id)
    if count < 1:
        raise UsageError(f"an invitation cannot be for {count} devices; give a number from 1 on")
    if agent_id is not None and count != 1:
        raise UsageError(f"an invitation for {agent_id} is for one device; leave --count away")
    trusted = tuple(key.to_text() for key in operator_key.load_trusted(home))
    with changing(home, home.invitations_json):
        config = home.control()
        servers = (device_url(home, url),)
        if agent_id in home.agents() and not replaces:
            raise UsageError(
                f"{agent_id} is enrolled; choose another id, or have it come with a new key by --replace"
            )
        key = Nkey.new()
        invited = _Invited(
            agent_id=agent_id,
            left=count,
            expires_at=rfc3339(datetime.now(UTC) + expires_in),
            asks=asks,
            replaces=replaces,
        )
        _save(home, _valid(_read(home)) | {key.public: invited})
    return Invitation(
        fleet=config.fleet,
        servers=servers,
        ca=home.read_authority(config),
        tls_server_name=config.server_name,
        operator_keys=trusted,
        seed=key.seed,
        agent_id=agent_id,
    )


def admit(home: Home, invitation: str, data: bytes) -> EnrolAnswer:
    """Return what becomes of the request *data* that came with the key *invitation*. Never raises for what a
    stranger sends.

    The same request may come again, since its answer may be lost: it counts once.
    """
    try:
        request = EnrolRequest.from_json(data)
    except (ManifestRejected, ValueError):
        return _refused("the request cannot be read; is the agent of this server's version?")
    if home.agents().get(request.agent_id) == Enrolled(request.nkey, request.mailbox):
        return EnrolAnswer(status="accepted")
    invited = _read(home).get(invitation)
    if invited is not None and invited.asks:
        with home.editing():
            return _ask(home, invitation, request)
    try:
        _enter(home, invitation, request)
    except _NotAdmitted as error:
        return _refused(error.message)
    return EnrolAnswer(status="accepted")


class _NotAdmitted(UsageError):
    """A device is not let in; the message says why."""


def _enter(home: Home, invitation: str, request: EnrolRequest) -> None:
    """Let in who asks, and count it; `_NotAdmitted`. All of it, or nothing."""
    with changing(home, home.agents_json, home.invitations_json, home.revoked_json):
        agents, invitations = home.agents(), _read(home)
        invited = invitations.get(invitation)
        _refuse(home, invited, request, agents.get(request.agent_id))
        assert invited is not None
        _save(home, invitations | {invitation: attrs.evolve(invited, left=invited.left - 1)})
        home.note_revoked(request.agent_id)
        home.save_agents(agents | {request.agent_id: Enrolled(request.nkey, request.mailbox)})


def _refuse(
    home: Home, invited: _Invited | None, request: EnrolRequest, known: Enrolled | None
) -> None:
    if (why_not := _why_not(invited, request, known)) is not None:
        raise _NotAdmitted(why_not)
    revoked = home.revoked()
    if request.nkey in revoked:
        raise _NotAdmitted(
            "this key was revoked; enroll with a new one: delete agent.toml.new first"
        )
    if request.agent_id in revoked.values() and (invited is None or invited.agent_id is None):
        raise _NotAdmitted(
            f"there was a device {request.agent_id} whose key was revoked; under that id one comes with an "
            f"invitation of its own: harmony invite {request.agent_id}"
        )


def withdraw(home: Home, agent_id: str | None = None) -> int:
    """Forget all invitations for *agent_id*; of None, all that there are. Return how many.

    To be called while `changing` is held.
    """
    invitations = _read(home)
    left = {key: each for key, each in invitations.items() if agent_id not in {None, each.agent_id}}
    if len(left) < len(invitations):
        _save(home, left)
    return len(invitations) - len(left)


def withdraw_all(home: Home) -> int:
    """Have no invitation let anybody in any more. Return how many were open."""
    with changing(home, home.invitations_json):
        return withdraw(home)


def _why_not(invited: _Invited | None, request: EnrolRequest, known: Enrolled | None) -> str | None:
    if invited is None or _is_over(invited):
        return "the invitation has expired, or is not known; ask for another one (`harmony invite`)"
    if invited.left < 1:
        return "the invitation is used up; ask for another one (`harmony invite`)"
    if invited.agent_id not in {None, request.agent_id}:
        return f"the invitation is for {invited.agent_id}; enroll with --id {invited.agent_id}"
    if known is not None and not invited.replaces:
        return (
            f"another device is enrolled as {request.agent_id}, with the key {fingerprint(known.nkey)}; "
            "choose another id, or ask for an invitation with --replace"
        )
    return None


def _ask(home: Home, invitation: str, request: EnrolRequest) -> EnrolAnswer:
    invited = _read(home).get(invitation)
    try:
        _refuse(home, invited, request, home.agents().get(request.agent_id))
    except _NotAdmitted as error:
        return _refused(error.message)
    waiting = _read_pending(home)
    with_it = [each for each in waiting.values() if each.invitation == invitation]
    before = waiting.get(request.agent_id)
    if before is not None and before.nkey != request.nkey:
        return _refused(
            f"another device waits to be accepted as {request.agent_id}, with the key {before.fingerprint}; "
            "choose another id, or have the operator refuse it"
        )
    if before is None and (
        len(waiting) >= _PENDING_MOST or (invited is not None and len(with_it) >= invited.left)
    ):
        return _refused("too many devices wait to be accepted; try again later")
    if before is None:
        pending = Pending(
            invitation=invitation,
            agent_id=request.agent_id,
            nkey=request.nkey,
            mailbox=request.mailbox,
            since=rfc3339(datetime.now(UTC)),
        )
        _save_pending(home, waiting | {request.agent_id: pending})
    return EnrolAnswer(status="pending")


def read_pending(home: Home) -> list[Pending]:
    """Return the devices that wait to be accepted, by id."""
    return [each for _, each in sorted(_read_pending(home).items())]


def accept(home: Home, agent_id: str, *, shown: str) -> None:
    """Let in the device that waits as *agent_id* with the key whose fingerprint was *shown*.

    `UsageError` where none waits, or by now another.
    """
    pending = _waiting_as(_read_pending(home), agent_id)
    if pending.fingerprint != shown:
        raise UsageError(
            f"by now another device waits as {agent_id}, with the key {pending.fingerprint}; look again"
        )
    request = EnrolRequest(agent_id=agent_id, nkey=pending.nkey, mailbox=pending.mailbox)
    _enter(home, pending.invitation, request)
    with home.editing():
        waiting = _read_pending(home)
        if waiting.get(agent_id) == pending:
            del waiting[agent_id]
            _save_pending(home, waiting)


def refuse(home: Home, agent_id: str) -> None:
    """Forget the device that waits as *agent_id*. `UsageError` where none does."""
    with home.editing():
        waiting = _read_pending(home)
        _waiting_as(waiting, agent_id)
        del waiting[agent_id]
        _save_pending(home, waiting)


def _waiting_as(waiting: Mapping[str, Pending], agent_id: str) -> Pending:
    try:
        return waiting[agent_id]
    except KeyError:
        hint = did_you_mean(agent_id, waiting)
        raise UsageError(f"no device waits to be accepted as {agent_id!r}{hint}") from None


def _refused(message: str) -> EnrolAnswer:
    return EnrolAnswer(status="refused", message=message)


def _is_over(invited: _Invited) -> bool:
    return parse_rfc3339(invited.expires_at) < datetime.now(UTC)


def _valid(invitations: _Invitations) -> _Invitations:
    """Return those that have not expired. Used up ones stay until then: who used them may ask again."""
    return {key: each for key, each in invitations.items() if not _is_over(each)}


def _read(home: Home) -> _Invitations:
    try:
        table = json.loads(home.invitations_json.read_text())
        return {key: _Invited(**each) for key, each in table.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{home.invitations_json}: {error}; delete it, and invite again who has not come yet"
        ) from error


def _save(home: Home, invitations: _Invitations) -> None:
    table = {key: attrs.asdict(each) for key, each in sorted(invitations.items())}
    write_whole(home.invitations_json, json.dumps(table, indent=1) + "\n")


def _read_pending(home: Home) -> dict[str, Pending]:
    try:
        table = json.loads(home.pending_json.read_text())
        return {key: Pending(**each) for key, each in table.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{home.pending_json}: {error}; delete it: who waits asks again"
        ) from error


def _save_pending(home: Home, waiting: Mapping[str, Pending]) -> None:
    table = {key: attrs.asdict(each) for key, each in sorted(waiting.items())}
    write_whole(home.pending_json, json.dumps(table, indent=1) + "\n")
