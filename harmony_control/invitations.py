"""Invitations to devices, and what becomes of who comes with one.

    invite -> server/invitations.json (public key -> for whom, how often, until when) -> nats.conf
    admit  <- a request that came with an invitation's key -> agents.json, or server/pending.json -> nats.conf

Both hold `Home.editing`, so that no invitation counts for more devices than it says, from whatever process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import attrs

from harmony_core.close_names import did_you_mean
from harmony_core.errors import ManifestRejected, UsageError
from harmony_core.wire.enrolment import EnrolAnswer, EnrolRequest, Invitation
from harmony_core.wire.times import rfc3339

from .bus_url import split_url
from .enrol import device_url
from .server.accounts import issue_device, issue_invited
from .server.apply import changing
from .store.home import Enrolled, Home, check_agent_id
from .store.invitations import (
    Invited,
    Pending,
    read_invitations,
    read_waiting,
    save_invitations,
    save_waiting,
    withdraw,
)
from .store.nkey import Nkey
from .store.roots import read_pins

__all__ = [
    "accept",
    "admit",
    "find_pending",
    "invite",
    "read_pending",
    "refuse",
    "renew",
    "withdraw_all",
]

_PENDING_MOST = 1_000


class _NotAdmitted(UsageError):
    """A device is not let in; the message says why."""


def invite(
    home: Home,
    *,
    agent_id: str | None = None,
    url: str | None = None,
    count: int = 1,
    expires_in: timedelta = timedelta(days=1),
    asks: bool = False,
    replaces: bool = False,
    again: bool = False,
) -> Invitation:
    """Make an invitation for *count* devices, within *expires_in*.

    With *asks* each of them waits until `accept`. With *agent_id* it is for that device alone: where it is
    enrolled, for one with another key (*replaces*), or for the very device to go on with what was
    interrupted (*again*); else `UsageError`. A running server knows of it when this returns; its secret is
    kept nowhere.
    """
    if agent_id is not None:
        check_agent_id(agent_id)
    if count < 1:
        raise UsageError(f"an invitation cannot be for {count} devices; give a number from 1 on")
    if agent_id is not None and count != 1:
        raise UsageError(f"an invitation for {agent_id} is for one device; leave --count away")
    pins = read_pins(home)
    with changing(home, home.invitations_json):
        config = home.control()
        servers = split_url(device_url(home, url))
        if agent_id in home.agents() and not (replaces or again):
            raise UsageError(
                f"{agent_id} is enrolled; choose another id, or have it come with a new key by --replace"
            )
        key = Nkey.new()
        expires_at = datetime.now(UTC) + expires_in
        jwt = issue_invited(home, key.public, int(expires_at.timestamp()))
        invited = Invited(
            agent_id=agent_id,
            left=count,
            expires_at=rfc3339(expires_at),
            asks=asks,
            replaces=replaces,
        )
        # One that is used up stays until its time is over: who used it may ask again.
        valid = {key: each for key, each in read_invitations(home).items() if not each.is_over}
        save_invitations(home, valid | {key.public: invited})
    return Invitation(
        fleet=config.fleet,
        servers=servers,
        ca=home.read_authority(config),
        tls_server_name=config.server_name,
        operator_keys=pins.operator_keys,
        root=pins.root,
        seed=key.seed,
        jwt=jwt,
        agent_id=agent_id,
    )


def withdraw_all(home: Home) -> int:
    """Have no invitation let anybody in any more. Return how many were open."""
    with changing(home, home.invitations_json):
        return withdraw(home)


def admit(home: Home, invitation: str, data: bytes) -> EnrolAnswer:
    """Return what becomes of the request *data* that came with the key *invitation*. Never raises for what a
    stranger sends.

    The same request may come again, since its answer may be lost: it counts once.
    """
    try:
        request = EnrolRequest.from_json(data)
    except (ManifestRejected, ValueError):
        return _refused("the request cannot be read; is the agent of this server's version?")
    if _is_let_in(home, request):
        return _accepted(home, request)
    invited = read_invitations(home).get(invitation)
    try:
        if invited is not None and invited.asks:
            _wait(home, invitation, request)
            return EnrolAnswer(status="pending")
        _enter(home, (invitation, request))
    except _NotAdmitted as error:
        if not _is_let_in(
            home, request
        ):  # as it may have been just now, with the last of its invitation
            return _refused(error.message)
    return _accepted(home, request)


def _is_let_in(home: Home, request: EnrolRequest) -> bool:
    return home.agents().get(request.agent_id) == _device_of(request)


def _accepted(home: Home, request: EnrolRequest) -> EnrolAnswer:
    with home.editing():
        jwt = issue_device(home, request.agent_id, _device_of(request))
    return EnrolAnswer(status="accepted", jwt=jwt)


def renew(home: Home, agent_id: str) -> EnrolAnswer:
    """Return another JWT for the device that has that id, to whoever asks: it is of use to that one alone."""
    device = home.agents().get(agent_id)
    if device is None:
        return _refused(f"there is no device {agent_id}")
    with home.editing():
        jwt = issue_device(home, agent_id, device)
    return EnrolAnswer(status="accepted", jwt=jwt)


def _device_of(request: EnrolRequest) -> Enrolled:
    return Enrolled(request.nkey, request.mailbox, request.report_key)


def _enter(home: Home, *comers: tuple[str, EnrolRequest], accepted: Sequence[Pending] = ()) -> None:
    """Let in all who ask, each by its invitation, and count them; `_NotAdmitted`. Those *accepted* wait no
    more. All of it, or nothing."""
    paths = (home.agents_json, home.invitations_json, home.revoked_json, home.pending_json)
    with changing(home, *paths):
        agents, invitations = home.agents(), read_invitations(home)
        for invitation, request in comers:
            known = agents.get(request.agent_id)
            invited = _check(home, invitations.get(invitation), request, known)
            invitations[invitation] = attrs.evolve(invited, left=invited.left - 1)
            home.note_revoked(request.agent_id, known)
            agents[request.agent_id] = _device_of(request)
        save_invitations(home, invitations)
        home.save_agents(agents)
        if accepted:
            waiting = read_waiting(home)
            save_waiting(
                home, {name: each for name, each in waiting.items() if each not in accepted}
            )


def _wait(home: Home, invitation: str, request: EnrolRequest) -> None:
    """Have who asks wait for a person; `_NotAdmitted`."""
    with home.editing():
        known = home.agents().get(request.agent_id)
        invited = _check(home, read_invitations(home).get(invitation), request, known)
        waiting = read_waiting(home)
        before = waiting.get(request.agent_id)
        if before is None:
            with_it = sum(each.invitation == invitation for each in waiting.values())
            if len(waiting) >= _PENDING_MOST or with_it >= invited.left:
                raise _NotAdmitted("too many devices wait to be accepted; try again later")
            pending = Pending(
                invitation=invitation,
                agent_id=request.agent_id,
                nkey=request.nkey,
                mailbox=request.mailbox,
                report_key=request.report_key,
                since=rfc3339(datetime.now(UTC)),
            )
            save_waiting(home, waiting | {request.agent_id: pending})
        elif before.device != _device_of(request):
            raise _NotAdmitted(
                f"another device waits to be accepted as {request.agent_id}, with the keys "
                f"{before.device.fingerprint}; choose another id, or have the operator refuse it"
            )


def _check(
    home: Home, invited: Invited | None, request: EnrolRequest, known: Enrolled | None
) -> Invited:
    """Return *invited*, if who asks may come with it; else `_NotAdmitted`. *known* has the id now."""
    if invited is None or invited.is_over:
        raise _NotAdmitted(
            f"{request.agent_id}: the invitation has expired, or is not known; ask for another one "
            "(`harmony invite`)"
        )
    if invited.left < 1:
        raise _NotAdmitted(
            f"{request.agent_id}: the invitation is used up; ask for another one (`harmony invite`)"
        )
    if invited.agent_id not in {None, request.agent_id}:
        raise _NotAdmitted(
            f"{request.agent_id}: the invitation is for {invited.agent_id}; enroll with --id "
            f"{invited.agent_id}"
        )
    if known is not None and not invited.replaces:
        raise _NotAdmitted(
            f"another device is enrolled as {request.agent_id}, with the keys {known.fingerprint}; "
            "choose another id, or have this one come in its place by --replace"
        )
    revoked = home.revoked()
    if request.nkey in revoked:
        raise _NotAdmitted(
            f"{request.agent_id}: this key was revoked; have the device come with a new one by --replace"
        )
    if request.agent_id in revoked.values() and invited.agent_id is None:
        raise _NotAdmitted(
            f"there was a device {request.agent_id} whose key was revoked; under that id one comes with an "
            f"invitation of its own: harmony invite {request.agent_id}"
        )
    return invited


def read_pending(home: Home) -> list[Pending]:
    """Return the devices that wait to be accepted, by id."""
    return [each for _, each in sorted(read_waiting(home).items())]


def find_pending(home: Home, agent_id: str) -> Pending:
    """Return the device that waits as *agent_id*. `UsageError` where none does."""
    return _waiting_as(read_waiting(home), agent_id)


def accept(home: Home, shown: Mapping[str, str]) -> None:
    """Let in the devices that wait, by id with the fingerprints of the keys that were *shown*: all, or none.
    The server takes it in at once, however many they are.

    `UsageError` where one waits no more, or by now another, or its invitation is for fewer devices.
    """
    found = [find_pending(home, each) for each in shown]
    for pending in found:
        if (by_now := pending.device.fingerprint) != shown[pending.agent_id]:
            raise UsageError(
                f"by now another device waits as {pending.agent_id}, with the keys {by_now}; look again"
            )
    _enter(home, *((each.invitation, _request_of(each)) for each in found), accepted=found)


def _request_of(pending: Pending) -> EnrolRequest:
    return EnrolRequest(
        agent_id=pending.agent_id,
        nkey=pending.nkey,
        mailbox=pending.mailbox,
        report_key=pending.report_key,
    )


def refuse(home: Home, *agent_ids: str) -> None:
    """Forget the devices that wait as *agent_ids*, or none of them. `UsageError` where one does not."""
    with home.editing():
        waiting = read_waiting(home)
        for each in agent_ids:
            _waiting_as(waiting, each)
            del waiting[each]
        save_waiting(home, waiting)


def _waiting_as(waiting: Mapping[str, Pending], agent_id: str) -> Pending:
    try:
        return waiting[agent_id]
    except KeyError:
        hint = did_you_mean(agent_id, waiting)
        raise UsageError(f"no device waits to be accepted as {agent_id!r}{hint}") from None


def _refused(message: str) -> EnrolAnswer:
    return EnrolAnswer(status="refused", message=message)
