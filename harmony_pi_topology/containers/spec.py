"""What makes a container, by which it is recognised, and what is told of it. Shared by every runtime.

    Container, content of the files it reads -> the hash of each field -> labels of what is made
    labels of what is there, desired        -> the fields that have changed

All hashes together are the label ``harmony.spec``, by which "has its specification changed?" is
answered; one by one they are the label ``harmony.fields``, by which is told *what* has changed. Fields
left at their defaults are not hashed, so that a newer agent, which knows more fields, does not make every
container anew. What is only judged by (readiness, settling, the time for a pull) is no part of it, nor is
who owns it: the labels of what runs cannot be changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import attrs
from pydantic import TypeAdapter, ValidationError

from harmony_core.images import parse_image
from harmony_core.resources import HOLD_MOST_S, Container, Mount

from .podman_reply import ENDED, FoundContainer

__all__ = [
    "ABSENT",
    "FIELDS_LABEL",
    "MAX_HOLD_LABEL",
    "RESOURCE_LABEL",
    "SPEC_LABEL",
    "DesiredContainer",
    "has_completed",
    "is_followed",
    "max_hold_s",
    "resolve_desired",
    "runs_once",
]

RESOURCE_LABEL = "harmony.resource"
SPEC_LABEL = "harmony.spec"
FIELDS_LABEL = "harmony.fields"
MAX_HOLD_LABEL = "harmony.max-hold-s"
"""For how long what runs may hold: known of it also when its Score is gone."""

RUNS_LABEL = "harmony.runs"
"""Set to ``once`` where it may end: known of it also where nothing but what is there is asked."""
_ONCE = "once"

ABSENT = "absent"
"""Stands for the content of a used file that is not there, which differs from an empty one's."""

_JUDGED_BY: dict[str, Any] = {
    **dict.fromkeys(
        ("name", "image", "image_blobs", "login", "uses", "ready", "settle_s", "pull_timeout_s"),
        True,
    ),
    "mounts": {"__all__": {"live"}},
}
_FIELDS = TypeAdapter(dict[str, str])


@attrs.frozen(kw_only=True)
class DesiredContainer:
    """A `Container`, together with what the files hold now that it uses, or has mounted."""

    container: Container
    image: str
    """What to fetch and to run: by digest where there is one."""
    fields: Mapping[str, str]
    """The hash of each field that is not its default, and of each file read and each device."""
    devices: tuple[str, ...] = ()
    """Its devices, as podman takes them."""

    @property
    def spec(self) -> str:
        return _hash(dict(self.fields))

    @property
    def labels(self) -> dict[str, str]:
        """The labels by which a container, once made, is recognised. All are there, empty where they have
        nothing to say: for a label that is missing, podman takes that of the image."""
        may_hold = self.container.max_hold_s
        return {
            MAX_HOLD_LABEL: str(may_hold) if may_hold is not None else "",
            RUNS_LABEL: _ONCE if self.container.runs == _ONCE else "",
            RESOURCE_LABEL: self.container.id,
            SPEC_LABEL: self.spec,
            FIELDS_LABEL: json.dumps(dict(self.fields), sort_keys=True, separators=(",", ":")),
        }

    def differences_from(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        """Return the fields and files in which this differs from a container with *labels*; empty where
        nothing differs."""
        if labels.get(SPEC_LABEL) == self.spec:
            return ()
        before = _fields(labels.get(FIELDS_LABEL, ""))
        names = before.keys() | self.fields.keys()
        changed = sorted(name for name in names if before.get(name) != self.fields.get(name))
        return tuple(changed) or ("specification",)


def is_followed(mount: Mount) -> bool:
    """Return whether the container is made anew when the source of *mount*, a file, changes.

    Return False for a file that the container may write, and for a directory: the container sees changes in
    it at once.
    """
    return mount.read_only and not mount.live


def resolve_desired(
    container: Container, read: Mapping[str, str], devices: tuple[str, ...] = ()
) -> DesiredContainer:
    """Return *container* with all that it depends on. *read* has the hash of the content, or `ABSENT`, of
    each file that it `uses`, of each file that it mounts and follows (`is_followed`), and of the target of
    each of its devices. *devices* are the devices in podman's form."""
    image = parse_image(container.image).pull
    values = container.model_dump(mode="json", exclude=_JUDGED_BY, exclude_defaults=True)
    if container.max_hold_s is not None:
        # Its directory is a file system of its own since: what has the older one is made anew.
        values["max_hold_s"] = {"s": container.max_hold_s, "on": "tmpfs"}
    if any(not mount.read_only for mount in container.mounts):
        # It may set no set-user-ID bit since: what was made before, and may write here, is made anew.
        values["confinement"] = {"sets_ids": False}
    fields = {name: _hash(value)[:16] for name, value in {**values, "image": image}.items()}
    fields.update({path: digest[:16] for path, digest in read.items()})
    return DesiredContainer(container=container, image=image, fields=fields, devices=devices)


def runs_once(labels: Mapping[str, str]) -> bool:
    """Return whether a container with *labels* may end."""
    return labels.get(RUNS_LABEL) == _ONCE


def has_completed(found: FoundContainer) -> bool:
    """Return whether *found* runs once, and has ended by itself with exit code 0.

    podman reports 0 also for a container that ended with the device itself. Then it knows no end after the
    start.
    """
    return (
        runs_once(found.labels)
        and found.status in ENDED
        and found.exit_code == 0
        and not found.stopped_by_user
        and found.finished_at >= found.started_at
    )


def max_hold_s(labels: Mapping[str, str]) -> int | None:
    """Return the longest time in seconds that a container with *labels* may hold. Return None where it may
    not hold, and where the label has a value that no Score can have, which somebody else wrote."""
    text = labels.get(MAX_HOLD_LABEL, "")
    if not (text.isascii() and text.isdecimal()) or len(text) > len(str(HOLD_MOST_S)):
        return None
    return seconds if 1 <= (seconds := int(text)) <= HOLD_MOST_S else None


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _fields(label: str) -> dict[str, str]:
    try:
        return _FIELDS.validate_json(label)
    except ValidationError:
        return {}
