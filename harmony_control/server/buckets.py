"""The buckets and the watch on heartbeats, as JetStream streams. Made once, brought up to date after.

* desired-state: on disk, eight revisions, republished to the device concerned
* desired-class: class manifests, one key for each generation, never written again and not republished: a
  device fetches what it may begin with
* fleet, rollout: the fleet index, and the gates of classes, and their past. Who writes one hints it to the
  devices concerned: a republished message would have one subject for all, to which any device could have the
  server send something
* actual-state, heartbeat, inventory: written by devices, one revision a key; nothing that one device may
  send can remove or hide another's key, hence no roll-up, no purge, and next to no duplicate window. That
  its report was written is told to the device, which may not have been the one
* devices: who each device is, signed by an operator, for operators alone
* trust: the root documents, by version, for everybody; no version is ever written over
* assets: content that is too large for manifests, in pieces, encrypted; written by operators, once, and read
  by whoever has a manifest with its id. An operator has it forget what nobody needs
* alerts: what people were told, for the control plane alone, so that several `harmony serve` tell it once
* HEARTBEAT_WATCH: a copy of heartbeat for the control plane alone, in which the server announces each
  heartbeat that expired. Not in the bucket itself, because announcing needs roll-ups
"""

from __future__ import annotations

from dataclasses import fields, replace
from enum import Enum
from typing import Any, Protocol

from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import (
    DiscardPolicy,
    PersistMode,
    RePublish,
    StorageType,
    StreamConfig,
    StreamInfo,
    StreamSource,
)
from nats.js.errors import APIError, NotFoundError

from harmony_control.bus.connection import REQUEST_TIMEOUT_S, bus_errors, cluster_of
from harmony_core.errors import ConfigError
from harmony_core.wire.lifetimes import LIFETIME_LEAST_S, LIFETIME_MOST_S
from harmony_core.wire.names import (
    ACTUAL_STATE,
    ALERTS,
    ASSETS,
    DESIRED_CLASS,
    DESIRED_STATE,
    DEVICES,
    FLEET,
    HEARTBEAT,
    INVENTORY,
    MAIL,
    ROLLOUT,
    TRUST,
)

__all__ = [
    "HEARTBEAT_AGE_S",
    "HEARTBEAT_WATCH",
    "REPLICAS",
    "describe_buckets",
    "ensure_buckets",
    "find_differences",
]

HEARTBEAT_WATCH = "HEARTBEAT_WATCH"
HEARTBEAT_AGE_S = LIFETIME_LEAST_S
"""How long a heartbeat counts that does not say otherwise: three intervals of the agent."""
REPLICAS = 3
"""How many servers of a cluster keep each bucket."""

_KIB = 1_024
_MIB = 1_024 * _KIB
_SHORTEST_MARKER_S = 1.0
_ALERTS_AGE_S = 90 * 86_400.0
"""What is so for longer is told again."""


class _Streams(Protocol):
    """What is used of JetStreamContext, whose own signatures are half typed."""

    async def stream_info(self, name: str) -> StreamInfo: ...
    async def add_stream(self, config: StreamConfig) -> StreamInfo: ...
    async def update_stream(self, config: StreamConfig) -> StreamInfo: ...


async def ensure_buckets(client: Client, *, heartbeat_age_s: float = LIFETIME_MOST_S) -> None:
    """Make every stream that is missing and change those that differ. Idempotent.

    *heartbeat_age_s* is how many seconds a heartbeat is kept at most, whatever it says itself. Raise
    ConfigError when a stream exists with an option that cannot be changed on an existing one.
    """
    streams = JetStreamContext(client, timeout=REQUEST_TIMEOUT_S)
    for wanted in _streams(heartbeat_age_s, _replicas_of(client)):
        with bus_errors(f"setting up {wanted.name}"):
            await _ensure(streams, wanted)


def _replicas_of(client: Client) -> int:
    return REPLICAS if cluster_of(client) else 1


def describe_buckets(replicas: int = 1) -> dict[str, dict[str, object]]:
    """Return the options of each stream that so many servers keep, by its name, in the JSON form that NATS'
    own tools read."""
    return {
        str(wanted.name): {
            name: value for name, value in wanted.as_dict().items() if name in _to_options(wanted)
        }
        for wanted in _streams(LIFETIME_MOST_S, replicas)
    }


async def find_differences(client: Client) -> dict[str, list[str]]:
    """Return what differs from what it should be, by the stream's name; one that is right has nothing. Change
    nothing."""
    streams: _Streams = JetStreamContext(client, timeout=REQUEST_TIMEOUT_S)
    found: dict[str, list[str]] = {}
    for wanted in _streams(LIFETIME_MOST_S, _replicas_of(client)):
        assert wanted.name is not None
        with bus_errors(f"looking at {wanted.name}"):
            try:
                info = await streams.stream_info(wanted.name)
            except NotFoundError:
                found[wanted.name] = ["it is missing"]
            else:
                found[wanted.name] = [*_differences(wanted, info.config), *_missing_copies(info)]
    return found


async def _ensure(streams: _Streams, wanted: StreamConfig) -> None:
    assert wanted.name is not None
    try:
        found = (await streams.stream_info(wanted.name)).config
    except NotFoundError:
        found = (await streams.add_stream(wanted)).config
    if not (differing := _differences(wanted, found)):
        return
    try:
        updated = (await streams.update_stream(replace(found, **_to_options(wanted)))).config
    except APIError as error:
        raise _unchangeable(wanted.name, differing, str(error.description)) from error
    if left := _differences(wanted, updated):
        raise _unchangeable(wanted.name, left, "it keeps the old value; is it NATS 2.12 or newer?")


def _streams(heartbeat_age_s: float, replicas: int) -> tuple[StreamConfig, ...]:
    return tuple(
        # NATS takes `persist_mode: async` of no stream that several servers keep.
        each if replicas == 1 else replace(each, num_replicas=replicas, persist_mode=None)
        for each in _single_streams(heartbeat_age_s)
    )


def _single_streams(heartbeat_age_s: float) -> tuple[StreamConfig, ...]:
    return (
        replace(
            _signed_bucket(
                DESIRED_STATE,
                "What each device is to be, signed",
                keys=">",
                past=8,
                max_bytes=1_024 * _MIB,
            ),
            republish=RePublish(
                src=f"$KV.{DESIRED_STATE}.*", dest=f"{MAIL}.{{{{wildcard(1)}}}}.{DESIRED_STATE}"
            ),
        ),
        _signed_bucket(
            DESIRED_CLASS,
            "What the devices of a class are to be, generation by generation, signed",
            keys=">",
            max_bytes=512 * _MIB,
        ),
        _signed_bucket(FLEET, "Which classes there are, signed", past=64, max_msg_bytes=256 * _KIB),
        _signed_bucket(
            ROLLOUT,
            "How far the newest of each class is let, signed",
            past=64,
            max_msg_bytes=16 * _KIB,
        ),
        replace(
            _actual_bucket(ACTUAL_STATE, "What each device is", max_msg_bytes=256 * _KIB),
            storage=StorageType.FILE,
            # To the device itself: so it sees at once that another one has its key.
            republish=RePublish(
                src=f"$KV.{ACTUAL_STATE}.*",
                dest=f"{MAIL}.{{{{wildcard(1)}}}}.{ACTUAL_STATE}",
                headers_only=True,
            ),
            # A report lost with the power is sent again; to wait for the disk at each would cost five
            # times as much. Can be chosen only when the stream is made.
            persist_mode=PersistMode.ASYNC,
        ),
        replace(
            _actual_bucket(HEARTBEAT, "Who is alive", max_msg_bytes=64 * _KIB),
            storage=StorageType.MEMORY,
            # The shorter of the two counts: this, and what each heartbeat says itself.
            max_age=heartbeat_age_s,
            allow_msg_ttl=True,
        ),
        replace(
            _actual_bucket(INVENTORY, "Of what each device consists", max_msg_bytes=64 * _KIB),
            storage=StorageType.FILE,
            # As above: a device tells it again whenever it starts.
            persist_mode=PersistMode.ASYNC,
        ),
        StreamConfig(
            name=f"KV_{DEVICES}",
            description="Who each device is, signed",
            subjects=[f"$KV.{DEVICES}.>"],
            storage=StorageType.FILE,
            max_msgs_per_subject=1,
            max_msg_size=16 * _KIB,
            allow_direct=True,
            deny_delete=True,
        ),
        _signed_bucket(
            TRUST,
            "Who may sign what, version by version, signed by root keys",
            max_msg_bytes=64 * _KIB,
        ),
        _signed_bucket(
            ASSETS,
            "Content that is too large for manifests, in pieces, encrypted",
            keys="*.*.*",
            max_bytes=4_096 * _MIB,
        ),
        StreamConfig(
            name=f"KV_{ALERTS}",
            description="What people were told",
            subjects=[f"$KV.{ALERTS}.*"],
            storage=StorageType.FILE,
            max_age=_ALERTS_AGE_S,
            max_msgs_per_subject=1,
            max_msg_size=16 * _KIB,
            max_bytes=64 * _MIB,
            allow_direct=True,
        ),
        StreamConfig(
            name=HEARTBEAT_WATCH,
            description="Announces each heartbeat that expired",
            sources=[StreamSource(name=f"KV_{HEARTBEAT}")],
            storage=StorageType.MEMORY,
            max_age=heartbeat_age_s,
            subject_delete_marker_ttl=max(
                min(heartbeat_age_s, HEARTBEAT_AGE_S), _SHORTEST_MARKER_S
            ),
            allow_rollup_hdrs=True,
            max_msgs_per_subject=1,
            allow_direct=True,
        ),
    )


def _signed_bucket(
    name: str,
    description: str,
    *,
    keys: str = "*",
    past: int = 1,
    max_msg_bytes: int = _MIB,
    max_bytes: int = 256 * _MIB,
) -> StreamConfig:
    """Return a bucket that the control plane writes and devices read. It keeps *past* values of each of
    *keys*."""
    return StreamConfig(
        name=f"KV_{name}",
        description=description,
        subjects=[f"$KV.{name}.{keys}"],
        storage=StorageType.FILE,
        max_msgs_per_subject=past,
        max_msg_size=max_msg_bytes,
        max_bytes=max_bytes,
        # Full is an error for who pushes: never the silent loss of another device's oldest value.
        discard=DiscardPolicy.NEW,
        allow_direct=True,
        deny_delete=True,
    )


def _actual_bucket(name: str, description: str, *, max_msg_bytes: int) -> StreamConfig:
    """Return a bucket that devices write, each its own key."""
    return StreamConfig(
        name=f"KV_{name}",
        description=description,
        subjects=[f"$KV.{name}.>"],
        max_msgs_per_subject=1,
        max_msg_size=max_msg_bytes,
        allow_direct=True,
        deny_delete=True,
        deny_purge=True,
        allow_rollup_hdrs=False,
        # Message ids are the whole stream's: one device could have another's report taken for a
        # duplicate. This is the shortest window that the server accepts.
        duplicate_window=0.1,
    )


def _to_options(config: StreamConfig) -> dict[str, Any]:
    """Return the options that are ours to set; the others are the server's defaults."""
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    if not values["duplicate_window"]:
        del values["duplicate_window"]
    return {name: value for name, value in values.items() if value is not None}


def _differences(wanted: StreamConfig, found: StreamConfig) -> list[str]:
    """Return what differs in words: ``storage is memory instead of file``."""
    return [
        f"{name} is {_plain(getattr(found, name))} instead of {_plain(value)}"
        for name, value in _to_options(wanted).items()
        if getattr(found, name) != value
    ]


def _missing_copies(info: StreamInfo) -> list[str]:
    """Return which servers' copies are missing at the moment, or behind."""
    cluster = info.cluster
    if cluster is None or info.config.num_replicas in {None, 1}:
        return []
    return [
        f"the copy on {peer.name} is behind, or not reached"
        for peer in cluster.replicas or []
        if peer.offline or not peer.current
    ]


def _plain(value: object) -> str:
    return str(value.value if isinstance(value, Enum) else value)


def _unchangeable(stream: str, differing: list[str], reason: str) -> ConfigError:
    return ConfigError(
        f"the stream {stream} exists with other options ({'; '.join(differing)}) that cannot be "
        f"changed: {reason}. Stop `harmony server`, move its directory jetstream away, start it again "
        "and push again"
    )
