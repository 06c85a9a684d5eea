"""The fleet's secrets, in the operator's home: each sealed to every operator, and read by nobody else.

    secrets/<name>.json    an envelope, signed by an operator: name, version, and a box for each operator's
                           key, with name, version and value

A box is for the key with which an operator signs, as X25519 has it: all that is needed of another operator
is its ``operator.pub``, which lies in ``operators/`` anyway. So the folder may be copied to another home, or
kept in a repository, and a disk that is lost without ``operator.key`` tells nothing but names. Who may write
the folder can make no secret, nor rename one: what no operator has signed who counts here is not opened.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Annotated, Literal

import attrs
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from harmony_core.close_names import did_you_mean
from harmony_core.errors import ConfigError, TooLarge, UntrustedSignature, UsageError, WireError
from harmony_core.wire import strict_json
from harmony_core.wire.envelope import PAYLOAD_MAX_BYTES, VerifyKey, open_envelope, pin_keys, seal
from harmony_core.wire.names import FLEET_WIDE
from harmony_core.wire.sealed import VALUE_MAX_BYTES, open_box, seal_box
from harmony_core.wire.times import rfc3339

from .home import Home, read_if_there, remove_file, write_whole
from .operator_key import load_to_open, load_trusted
from .roots import read_believed

__all__ = ["FleetSecrets", "KeptSecret", "SecretValue"]

_PAYLOAD_TYPE = "application/vnd.harmony.secret.v1+json"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_KEY_ID = re.compile(r"[0-9a-f]{16,64}")
_MS = timedelta(milliseconds=1)
_BEGIN = datetime(1970, 1, 1, tzinfo=UTC)


def _refuse_no_time(version: str) -> str:
    try:
        _time_of(version)
    except OverflowError as error:
        raise ValueError("its first 12 digits are no time") from error
    return version


_Version = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$"), AfterValidator(_refuse_no_time)]


class KeptSecret(BaseModel):
    """What an operator has signed in a file of ``secrets/``."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    v: Literal[1] = 1
    name: str
    version: _Version
    """When it was set, in milliseconds since 1970 (12 digits), and 4 random ones; the greater is newer."""
    boxes: dict[str, str]
    """By the id of an operator's key."""

    @property
    def set_at(self) -> str:
        """When it was set, by the clock of who did."""
        return rfc3339(_time_of(self.version))


class _Boxed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str
    version: str
    value: str


@attrs.frozen(kw_only=True)
class SecretValue:
    """A secret that could be opened here."""

    version: str
    value: str = attrs.field(repr=False)


@attrs.frozen(slots=False)
class FleetSecrets:
    """All secrets of *home*."""

    home: Home

    @cached_property
    def _operators(self) -> Sequence[VerifyKey]:
        """Whose secrets count here, and who can open them: who may sign manifests, too, for every device,
        since a secret may be for any."""
        believed = read_believed(self.home).find_keys("manifest", FLEET_WIDE)
        return [each for each in load_trusted(self.home) if each.id in believed]

    def find_left_out(self) -> Sequence[str]:
        """Return the ids of operators' keys that are known here, but may sign no manifest by the root
        document: nothing is sealed to them."""
        operators = self._operators
        return [each.id for each in load_trusted(self.home) if each not in operators]

    def names(self) -> Sequence[str]:
        """Return the names of all, sorted."""
        return sorted(name for name in self._stems() if _NAME.fullmatch(name))

    def find_strange_files(self) -> Sequence[str]:
        """Return the names of files that cannot be secrets, such as a copy that a sync has made."""
        return sorted(f"{name}.json" for name in self._stems() if not _NAME.fullmatch(name))

    def _stems(self) -> Sequence[str]:
        return [path.stem for path in self.home.secrets.glob("*.json")]

    def read(self, name: str) -> KeptSecret:
        """Return what is kept of *name*. `UsageError` where there is none; `ConfigError` of a damaged one,
        and of one that nobody has signed who counts here."""
        path = self.home.secrets / f"{_check_name(name)}.json"
        data = read_if_there(path)
        if data is None:
            known = self.names()
            raise UsageError(
                f"there is no secret {name!r} in {self.home.secrets}{did_you_mean(name, known)}; set it: "
                f"harmony secret set {name}"
            )
        self.home.refuse_open(path)
        try:
            opened = open_envelope(data, pin_keys(self._operators), payload_type=_PAYLOAD_TYPE)
            fields = strict_json.loads(opened.payload, max_bytes=PAYLOAD_MAX_BYTES, max_depth=3)
            kept = KeptSecret.model_validate(fields)
        except UntrustedSignature as error:
            raise ConfigError(
                f"{path} is not as an operator has written it who may push, by what is known here; "
                "add the one who has set it with `harmony add-operator`, or find out who has changed it, "
                f"and set it again: harmony secret set {name}"
            ) from error
        except (WireError, ValidationError) as error:
            raise ConfigError(
                f"{path} is damaged; set it again: harmony secret set {name}"
            ) from error
        if kept.name != name:
            raise ConfigError(
                f"{path} is the secret {kept.name!r} under another name; find out who has renamed it, and "
                f"set it again: harmony secret set {name}"
            )
        return kept

    def is_kept(self, name: str) -> bool:
        """Return whether there is such a secret."""
        return name in self.names()

    def open(self, name: str) -> SecretValue:
        """Return *name* with its value. `UsageError` where there is none, or it is not for this operator."""
        kept, key = self.read(name), load_to_open(self.home)
        box = kept.boxes.get(key.public.id)
        if box is None:
            raise UsageError(
                f"the secret {name!r} is not sealed to this operator; have another one run `harmony "
                f"add-operator` with {self.home.operator_pub} and `harmony secret share`, and copy its "
                f"{self.home.secrets.name}/ here"
            )
        try:
            boxed = _Boxed.model_validate_json(open_box(box, key))
        except ValueError:
            boxed = None  # nothing of what was in it is told
        if boxed is None or (boxed.name, boxed.version) != (name, kept.version):
            raise ConfigError(
                f"the secret {name!r} does not open: it is damaged, or another was put in its place; set it "
                f"again: harmony secret set {name}"
            )
        return SecretValue(version=kept.version, value=boxed.value)

    def set(self, name: str, value: str) -> Sequence[str]:
        """Keep *value* as *name*, sealed to every operator known here. Return their key ids; `UsageError`."""
        _check_name(name)
        if not value or len(value.encode()) > VALUE_MAX_BYTES or "\0" in value:
            raise UsageError(
                f"a secret's value has 1 to {VALUE_MAX_BYTES} bytes, and no NUL; put what is larger into the "
                "device's own secrets directory"
            )
        return self._write(name, self._next_version(name), value)

    def share(self) -> Mapping[str, Sequence[str]]:
        """Seal every secret to the operators that are known now; nothing changes for devices."""
        opened = {name: self.open(name) for name in self.names()}
        return {name: self._write(name, each.version, each.value) for name, each in opened.items()}

    def remove(self, name: str) -> None:
        """Forget *name*; `UsageError` where there is none."""
        path = self.home.secrets / f"{_check_name(name)}.json"
        if not path.exists():
            self.read(name)
        remove_file(path)

    def accept_key(self, agent_id: str, key_id: str) -> None:
        """Seal the secrets of that device to the key with that id, or these first digits of it, and to no
        other, whatever was before. Raise `UsageError`."""
        if not _KEY_ID.fullmatch(key_id):
            raise UsageError(
                f"{key_id!r} is not the id of a key; give its first 16 hexadecimal digits, or more"
            )
        self.home.note_sealed_to(agent_id, key_id)

    def _next_version(self, name: str) -> str:
        """Return one that is newer than what is kept, also where the clock here is behind."""
        now_ms = (datetime.now(UTC) - _BEGIN) // _MS
        try:
            before_ms = int(self.read(name).version[:12], 16)
        except UsageError:
            before_ms = 0  # there is none that counts
        return f"{max(now_ms, before_ms + 1):012x}{secrets.token_hex(2)}"

    def _write(self, name: str, version: str, value: str) -> Sequence[str]:
        own, operators = load_to_open(self.home), self._operators
        if own.public not in operators:
            raise UsageError(
                f"{own.public.id[:16]}… may sign no manifest by the root document, or not for every device, "
                "so no secret that it has signed counts; have the one who holds the root keys let it: "
                "harmony trust add NAME operator.pub"
            )
        boxed = strict_json.dumps(_Boxed(name=name, version=version, value=value).model_dump())
        kept = KeptSecret(
            name=name,
            version=version,
            boxes={key.id: seal_box(boxed, key) for key in operators},
        )
        payload = strict_json.dumps(kept.model_dump())
        try:
            envelope = seal(payload, own, payload_type=_PAYLOAD_TYPE)
        except TooLarge as error:
            raise UsageError(
                f"the secret {name!r} is too large for {len(operators)} operators; make it smaller, or put "
                "it into the device's own secrets directory"
            ) from error
        write_whole(self.home.secrets / f"{name}.json", envelope)
        return [key.id for key in operators]


def _time_of(version: str) -> datetime:
    return _BEGIN + int(version[:12], 16) * _MS


def _check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be a secret's name: use 1 to 63 lower-case letters, digits and inner ._-, such "
            "as db.password"
        )
    return name
