"""Tries what a device may do on a NATS server, and that it may do no more.

Nothing is changed. What a server with too many rights for devices lets be written is under the id `NOBODY`,
and is taken away again.
"""

from __future__ import annotations

import stat
import tomllib
from contextlib import suppress
from pathlib import Path

import attrs
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from harmony_control.bus.classes import class_key
from harmony_control.bus.connection import Bucket
from harmony_control.store.nkey import Nkey
from harmony_core.errors import ConfigError, HarmonyError
from harmony_core.wire.names import (
    ACTUAL_STATE,
    ASSETS,
    DESIRED_CLASS,
    DESIRED_STATE,
    ENROL_SUBJECT,
    FLEET,
    HEARTBEAT,
    INDEX_KEY,
    INVENTORY,
    MAIL,
    MAILBOXES,
    ROLLOUT,
    TRUST,
    is_id,
)

from .config import MAX_SUBSCRIPTIONS, inbox_prefix
from .finding import Finding

__all__ = ["NOBODY", "Probe", "look_at_device"]

NOBODY = "harmony-check-nobody"
"""The id of another device, as far as rights are concerned."""
_FILE_MAX_BYTES = 64 * 1024
_ANSWERS_WITHIN_S = 5.0
_SENT_AGAIN_S = 0.5
_NEVER_REACHED = str(2**53)
_DIRECT_GET = "$JS.API.DIRECT.GET"


@attrs.frozen
class Probe:
    """A device that is let in, to try its rights."""

    agent_id: str
    seed: str = attrs.field(repr=False)
    mailbox: str = attrs.field(repr=False)
    jwt: str | None = None

    @classmethod
    def read(cls, path: Path) -> Probe:
        """Return the device of the agent.toml at *path*. Raise `ConfigError` where it is none."""
        try:
            table = tomllib.loads(_read_file(path))
            nats = table["nats"]
            probe = cls(table["agent_id"], nats["seed"], nats["mailbox"], nats.get("jwt"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{path} is no agent.toml ({error}); harmony add-agent ID --out FILE makes one"
            ) from error
        if not is_id(probe.agent_id):
            raise ConfigError(f"{path}: {probe.agent_id!r} cannot be a device's id")
        try:
            Nkey.of_seed(probe.seed)
        except ConfigError as error:
            raise ConfigError(
                f"{path}: seed: {error.message}; harmony add-agent ID --out FILE makes one"
            ) from error
        return probe


def _read_file(path: Path) -> str:
    """Return what is in *path*; do not wait for a pipe, and read nothing that has no end."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode) or found.st_size > _FILE_MAX_BYTES:
        raise ValueError("it is no file, or too large to be one")
    return path.read_text()


async def look_at_device(
    client: Client, admin: Client, probe: Probe, refusals: list[str]
) -> list[Finding]:
    """Return what is right and wrong with the rights of *probe*, as which *client* is connected.

    *refusals* collects what the server refuses it; *admin* is the operator's connection.
    """
    try:
        return [
            await _look_at_what_it_needs(client, admin, probe),
            await _look_at_what_it_may_not(client, refusals),
            await _look_at_replies(client, admin, probe),
            await _look_at_subscriptions(client, probe),
        ]
    finally:
        written = dict.fromkeys((DESIRED_STATE, ACTUAL_STATE, HEARTBEAT, INVENTORY), NOBODY)
        for name, key in {**written, ASSETS: f"0.{NOBODY}.0"}.items():
            with suppress(HarmonyError):
                if await Bucket(admin, name).get(key) is not None:
                    await Bucket(admin, name).clear(key)


async def _look_at_what_it_needs(client: Client, admin: Client, probe: Probe) -> Finding:
    what = "a device reads and writes its own, and is sent what is for it"
    keys = {
        DESIRED_STATE: probe.agent_id,
        ACTUAL_STATE: probe.agent_id,
        TRUST: "1",
        FLEET: INDEX_KEY,
        ROLLOUT: NOBODY,
        DESIRED_CLASS: class_key(NOBODY, 1),
        ASSETS: f"0.{NOBODY}.0",
    }
    missing = [
        f"it cannot read {name}"
        for name, key in keys.items()
        if not await _is_answered(client, f"{_DIRECT_GET}.KV_{name}.$KV.{name}.{key}")
    ]
    missing += [
        f"it cannot write {name}"
        for name in (ACTUAL_STATE, HEARTBEAT, INVENTORY)
        if not await _is_answered(client, f"$KV.{name}.{probe.agent_id}", only_if_never=True)
    ]
    mail = await client.subscribe(f"{MAILBOXES}.{probe.mailbox}.*")  # pyright: ignore[reportUnknownMemberType] - nats-py's own
    await client.flush()
    # No device takes it for a request: it is signed by nobody. And a hint is never believed.
    subject = f"{MAIL}.{probe.agent_id}.request"
    if not await _arrives(mail, admin, subject):
        missing.append(f"{subject} does not come into its mailbox")
    await mail.unsubscribe()
    if missing:
        return Finding(
            "wrong", what, f"{'; '.join(missing)}; see its user and the imports of FLEET"
        )
    return Finding("right", what)


async def _arrives(mail: Subscription, admin: Client, subject: str) -> bool:
    # More than once: of a cluster, the operator's server knows of a new subscription later than the device's.
    for _ in range(round(_ANSWERS_WITHIN_S / _SENT_AGAIN_S)):
        await admin.publish(subject, b"{}")
        with suppress(NatsError):
            await mail.next_msg(timeout=_SENT_AGAIN_S)
            return True
    return False


async def _is_answered(client: Client, subject: str, *, only_if_never: bool = False) -> bool:
    """Return whether the one who keeps the buckets answers. *only_if_never* writes nothing: it is refused
    there."""
    headers = {"Nats-Expected-Last-Subject-Sequence": _NEVER_REACHED} if only_if_never else None
    try:
        await client.request(subject, b"", timeout=_ANSWERS_WITHIN_S, headers=headers)
    except NatsError:
        return False
    return True


async def _look_at_what_it_may_not(client: Client, refusals: list[str]) -> Finding:
    what = "a device may do nothing else"
    publish = [
        "$JS.API.INFO",
        "$JS.API.STREAM.NAMES",
        f"$JS.API.STREAM.INFO.KV_{DESIRED_STATE}",
        f"$JS.API.STREAM.INFO.KV_{ASSETS}",
        f"{_DIRECT_GET}.KV_{ASSETS}",
        f"{_DIRECT_GET}.KV_{DESIRED_STATE}",
        f"{_DIRECT_GET}.KV_{DESIRED_STATE}.$KV.{DESIRED_STATE}.{NOBODY}",
        f"{_DIRECT_GET}.KV_{ACTUAL_STATE}.$KV.{ACTUAL_STATE}.{NOBODY}",
        *(f"$KV.{name}.{NOBODY}" for name in (DESIRED_STATE, ACTUAL_STATE, HEARTBEAT, INVENTORY)),
        f"$KV.{ASSETS}.0.{NOBODY}.0",
        f"{MAIL}.{NOBODY}.{DESIRED_STATE}",
        f"{MAIL}.{NOBODY}.request",
        f"harmony.reply.{NOBODY}.nonce",
        f"{MAILBOXES}.{NOBODY}.request",
        f"{ENROL_SUBJECT}.{NOBODY}",
    ]
    subscribe = [
        ">",
        "_INBOX.>",
        f"{inbox_prefix(NOBODY)}.>",
        "$KV.>",
        "$JS.API.>",
        "$SYS.>",
        f"{MAIL}.>",
        "harmony.reply.>",
        f"{MAILBOXES}.*.*",
        f"{ENROL_SUBJECT}.*",
    ]
    for subject in publish:
        await client.publish(subject, b"")
    subscriptions = [
        await client.subscribe(subject)  # pyright: ignore[reportUnknownMemberType] - nats-py's own
        for subject in subscribe
    ]
    await _work_off(client)
    for each in subscriptions:
        with suppress(NatsError):
            await each.unsubscribe()
    allowed = [
        *(f"publish to {each}" for each in publish if not _is_refused(each, refusals)),
        *(f"subscribe to {each}" for each in subscribe if not _is_refused(each, refusals)),
    ]
    if allowed:
        return Finding("wrong", what, f"it may {', '.join(allowed)}; see its permissions in FLEET")
    return Finding("right", what, f"{len(publish) + len(subscribe)} subjects refused")


def _is_refused(subject: str, refusals: list[str]) -> bool:
    return any(f'"{subject.lower()}"' in each.lower() for each in refusals)


async def _look_at_replies(client: Client, admin: Client, probe: Probe) -> Finding:
    what = "what answers a device is never written into a bucket"
    own = f"{_DIRECT_GET}.KV_{DESIRED_STATE}.$KV.{DESIRED_STATE}.{probe.agent_id}"
    await client.publish(own, b"", reply=f"$KV.{ACTUAL_STATE}.{NOBODY}")
    # The answer to this one is sent after the other; and this is written, or not, after what that was.
    await _is_answered(client, own)
    await _is_answered(client, f"$KV.{ACTUAL_STATE}.{probe.agent_id}", only_if_never=True)
    if await Bucket(admin, ACTUAL_STATE).get(NOBODY) is None:
        return Finding("right", what)
    return Finding("wrong", what, "it was; devices need an account apart from JetStream's")


async def _look_at_subscriptions(client: Client, probe: Probe) -> Finding:
    """Check this last: the server disconnects a client that goes beyond the limit."""
    what = "max_subscriptions"
    try:
        for n in range(2 * MAX_SUBSCRIPTIONS):
            await client.subscribe(f"{inbox_prefix(probe.agent_id)}.{n}")  # pyright: ignore[reportUnknownMemberType] - nats-py's own
        await _work_off(client)
    except NatsError:
        pass
    if "maximum subscriptions exceeded" in str(client.last_error).lower():
        return Finding("right", what)
    return Finding(
        "wrong", what, f"a stolen key can use up the server's memory; set {MAX_SUBSCRIPTIONS}"
    )


async def _work_off(client: Client) -> None:
    # Twice: nats-py writes the first PING before what is still in its buffer.
    await client.flush()
    await client.flush()
