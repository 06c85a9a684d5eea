"""The operator's directory: keys, addresses, and what was last signed for each device.

``$HARMONY_HOME``, else ``~/.harmony``::

    operator.key          the signing key (0600)             harmony keygen
    bus.nk                the key for the bus (0600)         harmony keygen
    bus.jwt               what lets that key in, where the server wants a JWT    harmony join
    operator.pub          the public halves of both          harmony keygen
    secrets/<name>.json   the fleet's secrets, each sealed to every operator    harmony secret set
    operators/*.pub       the same of every other operator whose pushes are built upon    harmony add-operator
    readers/*.pub         the same of who may only look    harmony add-operator --read-only
    control.toml          where the bus is, and the fleet    harmony server, harmony join
    server/               the embedded NATS: nats.conf, nats.log, nats.pid, jetstream/,
                          admin.nk (0600), and admin.jwt where the server wants one, agents.json (agent id
                          -> public nkey and mailbox), ca.pem with ca.key and server.pem with server.key
                          (0600), by which the server proves who it is;
                          invitations.json, pending.json, revoked.json: devices that are to come, that wait,
                          and that may not come again; issuers.json (0600) and issued.json, where the users
                          of a server elsewhere have JWTs: what signs them, and who was given one
    trust/<version>.json  who may sign what: the root documents, signed by root keys    harmony trust
    root.key              a root key (0600), until it is taken off line    harmony trust init
    agents/<id>/          agent.toml (0600), to be carried to the device    harmony add-agent
    manifests/<id>.json   the envelope pushed last, so that it can be pushed again; beside it, .pending,
                          the one on its way, .lock, held while one is, .sealed-to, the id of the device's
                          key for which secrets were sealed, where another home has enrolled it, and .named,
                          the entries with secrets that were pushed by name from here
    manifests/<id>/       the last 50, by generation, so that one can be returned to

Every file is replaced whole and durably, or left as it was. What is deleted stays so after a power cut, too:
it may have let somebody in. What is missing is a `ConfigError` that names the command which makes it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
import tomllib
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias, cast

import attrs
import tomli_w

from harmony_control.bus_url import bus_url
from harmony_core.errors import ConfigError, UsageError
from harmony_core.wire.names import SERVER_NAME, fingerprint, is_id, is_mailbox

from .access import refuse_open

__all__ = [
    "ControlConfig",
    "Enrolled",
    "FileVersion",
    "Home",
    "check_agent_id",
    "flush_all",
    "put_back",
    "read_if_there",
    "remove_file",
    "write_json",
    "write_toml",
    "write_whole",
]


FileVersion: TypeAlias = tuple[int, int, int]
"""What tells a file from the one that takes its place."""
_PAST_MOST = 50
"""Generations of a device that are kept; of 256 KiB each at the most."""


@attrs.frozen(kw_only=True)
class ControlConfig:
    """What ``control.toml`` says: how the control plane reaches its bus."""

    fleet: str
    url: str
    """Where this machine reaches the bus: ``tls://127.0.0.1:4222``."""
    admin_seed: Path
    """The file with the control plane's own nkey seed."""
    authority: Path
    """The file with the certificate of who vouches for the server, in PEM. Nobody else is believed."""
    server_name: str = SERVER_NAME
    """The name that the server's certificate must have, whatever its address is."""
    cluster: str | None = None
    """Where each server of a cluster listens, HOST:PORT with commas between; None for a single server."""
    listen: str | None = None
    """What the server run from this home listens on, HOST:PORT; None where it runs elsewhere."""
    certificate: Path | None = None
    """The server's certificate, in PEM, where somebody else has issued it; None is one of its own."""
    certificate_key: Path | None = None
    """The key of *certificate*."""

    @property
    def jwt(self) -> Path:
        """The file beside the seed with what lets that key in, where the server wants a JWT."""
        return self.admin_seed.with_suffix(".jwt")

    def read_jwt(self) -> str | None:
        """Return the content of `jwt`; None where there is none, since keys alone let users in. Raise
        `ConfigError`."""
        found = read_if_there(self.jwt)
        return None if found is None else found.decode("utf-8", "replace").strip()


@attrs.frozen
class Enrolled:
    """What the server knows of a device that may enter the bus."""

    nkey: str
    """Its public nkey."""
    mailbox: str
    """The part that nobody can guess of the subjects on which it is sent something."""
    report_key: str
    """The public half of the key with which it signs what it says."""
    site: str | None = None
    """The site by whose server it enters; None where it enters the fleet's own."""

    @property
    def fingerprint(self) -> str:
        """What people compare; see `harmony_core.wire.names.fingerprint`."""
        return fingerprint(self.nkey, self.report_key)


class Home:
    """One operator's directory. Cheap: nothing is read or made before it is asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.operator_key = self.root / "operator.key"
        self.operator_pub = self.root / "operator.pub"
        self.bus_seed = self.root / "bus.nk"
        self.joined_authority = self.root / "ca.pem"
        self.operators = self.root / "operators"
        self.readers = self.root / "readers"
        self.secrets = self.root / "secrets"
        self.asset_key = self.root / "assets.key"
        self.control_toml = self.root / "control.toml"
        self.seen = self.root / "seen.db"
        self.trust = self.root / "trust"
        self.root_key = self.root / "root.key"
        self.next_root = self.trust / "next.json"
        self.server = self.root / "server"
        self.admin_seed = self.server / "admin.nk"
        self.authority = self.server / "ca.pem"
        self.authority_key = self.server / "ca.key"
        self.server_certificate = self.server / "server.pem"
        self.server_key = self.server / "server.key"
        self.agents_json = self.server / "agents.json"
        self.invitations_json = self.server / "invitations.json"
        self.revoked_json = self.server / "revoked.json"
        self.pending_json = self.server / "pending.json"
        self.issuers_json = self.server / "issuers.json"
        self.issued_json = self.server / "issued.json"
        self.server_lock = self.server / "running.lock"
        self.nats_conf = self.server / "nats.conf"
        self.nats_log = self.server / "nats.log"
        self.nats_pid = self.server / "nats.pid"
        self.jetstream = self.server / "jetstream"
        self.cluster = self.server / "cluster"
        self.sites = self.server / "sites"
        self.sites_json = self.sites / "sites.json"
        self._agents: tuple[FileVersion | None, dict[str, Enrolled]] | None = None

    @classmethod
    def of(cls, home: Home | Path | str | None) -> Home:
        """Return *home* itself, the directory of that name (``~`` is one's own), or, for None, what `find`
        finds."""
        if isinstance(home, Home):
            return home
        return cls(Path(home).expanduser()) if home else cls.find()

    @classmethod
    def find(cls, environ: Mapping[str, str] = os.environ) -> Home:
        """Return ``$HARMONY_HOME``, else ``~/.harmony``, whether it exists or not."""
        named = environ.get("HARMONY_HOME")
        return cls(Path(named).expanduser() if named else Path.home() / ".harmony")

    def refuse_open(self, path: Path) -> None:
        """Raise `ConfigError` if others may write the file *path*, which this home relies on; see
        `refuse_open`."""
        refuse_open(path, self.root)

    def agent_toml(self, agent_id: str) -> Path:
        """Return the path of the configuration of that device. Raise UsageError unless it may be a device's
        id."""
        return self.root / "agents" / check_agent_id(agent_id) / "agent.toml"

    def make(self) -> None:
        """Make the directory, readable by its owner alone. Idempotent."""
        _private_directory(self.root)

    def make_server(self) -> None:
        """Make the directory of the embedded server. Idempotent."""
        self.make()
        _private_directory(self.server)

    def control(self) -> ControlConfig:
        """Return what ``harmony server`` wrote, or a person for a server elsewhere."""
        self.refuse_open(self.control_toml)
        table = _read_toml(self.control_toml, made_by="harmony server")
        try:
            config = _control_of(table, self.root)
        except ValueError as error:
            raise ConfigError(f"{self.control_toml}: {error}") from error
        for each in (config.admin_seed, config.authority):
            self.refuse_open(each)
        return config

    def read_authority(self, config: ControlConfig) -> str:
        """Return the certificate of the authority that vouches for the server, in PEM."""
        found = read_if_there(config.authority)
        if found is None:
            raise ConfigError(
                f"there is no {config.authority}, by which to know the server; `harmony server` makes it, "
                "and where the server runs elsewhere, copy its server/ca.pem"
            )
        return found.decode("utf-8", "replace")

    def save_control(self, config: ControlConfig) -> None:
        fields = attrs.asdict(config)
        write_toml(
            self.control_toml,
            {name: self._to_text(each) for name, each in fields.items() if each is not None},
        )

    def _to_text(self, value: str | Path) -> str:
        if isinstance(value, Path) and value.is_relative_to(self.root):
            return str(value.relative_to(self.root))
        return str(value)

    def agents_version(self) -> FileVersion | None:
        """Return a value that differs between one agents.json and the next, each a file of its own; None for
        no file."""
        return _version_of(self.agents_json)

    def roster_version(self) -> Mapping[Path, FileVersion | None]:
        """Return what tells apart all from which the records of devices follow: who is enrolled, the key that
        signs them, and who may. `ConfigError`."""
        roots = [self.trust / f"{each}.json" for each in self.root_versions()]
        return {path: _version_of(path) for path in (self.agents_json, self.operator_key, *roots)}

    def root_versions(self) -> list[int]:
        """Return which root documents are kept here, the oldest first."""
        return sorted(int(each.stem) for each in self.trust.glob("*.json") if each.stem.isdigit())

    def agents(self) -> dict[str, Enrolled]:
        """Return the devices that may enter the bus, by id. Empty before the first."""
        # One command asks several times, and of a large fleet it is a large file.
        version = self.agents_version()
        if self._agents is None or self._agents[0] != version:
            self._agents = version, self._read_agents()
        return dict(self._agents[1])

    def _read_agents(self) -> dict[str, Enrolled]:
        self.refuse_open(self.agents_json)
        found = read_if_there(self.agents_json)
        if found is None:
            return {}
        try:
            return _agents_of(json.loads(found))
        except (ValueError, AttributeError) as error:
            raise ConfigError(
                f"{self.agents_json}: {error}; put back a copy of it, or delete it and run "
                "`harmony add-agent` for every device"
            ) from error

    def save_agents(self, agents: Mapping[str, Enrolled]) -> None:
        table = {agent_id: _to_table(each) for agent_id, each in sorted(agents.items())}
        self._agents = None
        write_json(self.agents_json, table)

    def revoked(self) -> dict[str, str]:
        """Return the public nkeys that are no longer accepted, each with the id that it had."""
        found = read_if_there(self.revoked_json)
        try:
            return {str(key): str(each) for key, each in json.loads(found).items()} if found else {}
        except (ValueError, AttributeError) as error:
            raise ConfigError(
                f"{self.revoked_json}: {error}; put back a copy of it, or delete it: then a key that was "
                "revoked may come in again by an open invitation"
            ) from error

    def note_revoked(self, agent_id: str, known: Enrolled | None) -> None:
        """Never accept again the key by which *agent_id* was *known*; do nothing for None."""
        if known is not None:
            write_json(self.revoked_json, {**self.revoked(), known.nkey: agent_id})

    def agents_pushed_to(self) -> list[str]:
        """Return the devices to which something was pushed from here."""
        return sorted(path.stem for path in (self.root / "manifests").glob("*.json"))

    def knows(self, agent_id: str) -> bool:
        """Return whether anything of that device is kept here."""
        return any(path.exists() for path in self._all_of(agent_id))

    def forget(self, agent_id: str) -> None:
        """Delete all that is kept of that device: its agent.toml and its manifests. Idempotent."""
        try:
            for path in self._all_of(agent_id):
                if path.is_dir():
                    shutil.rmtree(path)
                    _flush_directory(path.parent)
                else:
                    remove_file(path)
        except OSError as error:
            raise ConfigError(
                f"cannot delete what is kept of {agent_id} in {self.root}: {error.strerror}; delete it "
                "by hand"
            ) from error

    def _all_of(self, agent_id: str) -> list[Path]:
        kept = [
            self.manifest_json(agent_id, suffix)
            for suffix in (".json", ".pending", ".sealed-to", ".named", ".lock", "")
        ]
        return [self.agent_toml(agent_id).parent, *kept]

    @contextmanager
    def editing(self) -> Generator[None]:
        """Hold the server's configuration: agents.json and nats.conf. Others wait, also processes."""
        self.make_server()
        with (self.server / "editing.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def read_stored_manifest(self, agent_id: str) -> bytes | None:
        """Return the envelope that the bus accepted last for that device, or None. The bus may lose it; this
        copy is ours."""
        return read_if_there(self.manifest_json(agent_id))

    def pending_manifest(self, agent_id: str) -> bytes | None:
        """Return the envelope of which it is not known whether the bus has accepted it, or None."""
        return read_if_there(self.manifest_json(agent_id, ".pending"))

    def store_pending(self, agent_id: str, envelope: bytes) -> None:
        """Store *envelope* before it is sent: what a device may have seen is never unknown here."""
        write_whole(self.manifest_json(agent_id, ".pending"), envelope)
        # The names of those before it. Now, since after the flush above this one costs next to nothing.
        if (past := self.manifest_json(agent_id, "")).is_dir():
            _flush_directory(past)

    def confirm_pending(self, agent_id: str, generation: int) -> None:
        """Store the pending envelope, of *generation*, as the confirmed one: the bus has accepted it."""
        self._keep_past(agent_id, generation)
        # Not flushed: after a power cut it is pending still, and the bus has it.
        self.manifest_json(agent_id, ".pending").replace(self.manifest_json(agent_id))

    def past_manifests(self, agent_id: str) -> list[bytes]:
        """Return the envelopes that the bus has accepted, as far as they are kept here, the oldest first."""
        found = [read_if_there(path) for path in self._past(agent_id)]
        return [each for each in found if each is not None]

    def _keep_past(self, agent_id: str, generation: int) -> None:
        directory = self.manifest_json(agent_id, "")
        _private_directory(directory)
        kept = directory / f"{generation:016}.json"
        kept.unlink(missing_ok=True)
        kept.hardlink_to(self.manifest_json(agent_id, ".pending"))
        for old in self._past(agent_id)[:-_PAST_MOST]:
            old.unlink(missing_ok=True)

    def _past(self, agent_id: str) -> list[Path]:
        return sorted(self.manifest_json(agent_id, "").glob("*.json"))

    def drop_pending(self, agent_id: str) -> None:
        """Delete the pending envelope: the bus has refused it. Idempotent."""
        remove_file(self.manifest_json(agent_id, ".pending"))

    @contextmanager
    def pushing(self, agent_id: str) -> Generator[bool]:
        """Hold what is stored for that device; False when somebody else does. Never waits."""
        path = self.manifest_json(agent_id, ".lock")
        _private_directory(path.parent)
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def read_sealed_to(self, agent_id: str) -> str:
        """Return the id, or its first digits, of the key to which that device's secrets may be sealed; empty
        where none were yet."""
        found = read_if_there(self.manifest_json(agent_id, ".sealed-to"))
        return "" if found is None else found.decode("ascii", "replace").strip()

    def note_sealed_to(self, agent_id: str, key_id: str) -> None:
        """Seal that device's secrets to that key from now on, and to no other."""
        path = self.manifest_json(agent_id, ".sealed-to")
        _private_directory(path.parent)
        write_whole(path, f"{key_id}\n")

    def manifest_json(self, agent_id: str, suffix: str = ".json") -> Path:
        """Return where the envelope pushed last is kept; with another *suffix*, what goes with it."""
        return self.root / "manifests" / f"{check_agent_id(agent_id)}{suffix}"


def check_agent_id(text: str) -> str:
    """Return *text*, if it may be a device's id.

    This protects every template: a permission made from ``*`` would be a real wildcard.
    """
    if not is_id(text):
        raise UsageError(
            f"{text!r} cannot be a device's id: use 1 to 63 lower-case letters, digits and inner "
            "hyphens, such as pi-1"
        )
    return text


def write_whole(path: Path, content: str | bytes, *, mode: int = 0o600) -> None:
    """Replace *path*: whole and durable when this returns, untouched if it raises `ConfigError`."""
    data = content.encode() if isinstance(content, str) else content
    try:
        _private_directory(path.parent)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".harmony.", delete=False) as file:
            try:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink()
                raise
        _flush_directory(path.parent)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}; make it writable") from error


def write_toml(path: Path, table: Mapping[str, object], *, mode: int = 0o600) -> None:
    """Replace *path* by *table*, as `write_whole` does."""
    write_whole(path, tomli_w.dumps(table, multiline_strings=True), mode=mode)


def write_json(path: Path, table: Mapping[str, object]) -> None:
    """Replace *path* by *table*, as `write_whole` does."""
    write_whole(path, json.dumps(table, indent=1) + "\n")


def put_back(path: Path, content: bytes | None) -> None:
    """Restore *path* to what `read_if_there` has returned of it before. Raise `ConfigError`."""
    if content is None:
        remove_file(path)
    elif read_if_there(path) != content:
        write_whole(path, content)


def remove_file(path: Path) -> None:
    """Delete *path*, if it is there: durably, so that no power cut brings it back. Raises `OSError`."""
    if path.exists():
        path.unlink(missing_ok=True)
        _flush_directory(path.parent)


def flush_all(directory: Path) -> None:
    """Return once *directory* is on the disk, and all that is in it. Raises `OSError`."""
    for folder, _, names in os.walk(directory):
        for name in names:
            # Something may be deleted meanwhile: then it need not be there.
            with suppress(FileNotFoundError), (Path(folder) / name).open("rb") as file:
                os.fsync(file.fileno())
        with suppress(FileNotFoundError):
            _flush_directory(Path(folder))
    _flush_directory(directory.parent)


def _private_directory(path: Path) -> None:
    # Only what is made here is closed to others: a directory that exists may have its reasons.
    try:
        _make_directory(path, mode=0o700)
    except OSError as error:
        raise ConfigError(
            f"cannot make the directory {path}: {error.strerror}; make it writable, or name another "
            "with --home or $HARMONY_HOME"
        ) from error


def _make_directory(path: Path, *, mode: int) -> None:
    """Make *path* and what is missing above it, durably."""
    if path.is_dir():
        return
    if not path.parent.exists():
        _make_directory(path.parent, mode=0o777)
    path.mkdir(mode=mode, exist_ok=True)
    _flush_directory(path.parent)


def _flush_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_if_there(path: Path) -> bytes | None:
    """Return what is in *path*; None where there is no such file. `ConfigError` where it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error) from error


def _read_toml(path: Path, *, made_by: str) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(
            f"there is no {path}; run `{made_by}` first, or name the home that you have by HARMONY_HOME or "
            "--home"
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from error
    except ValueError as error:
        raise ConfigError(f"{path} is not TOML: {error}; correct it") from error


_CONTROL = tuple(field.name for field in attrs.fields(ControlConfig))


def _control_of(table: Mapping[str, object], root: Path) -> ControlConfig:
    if unknown := sorted(table.keys() - set(_CONTROL)):
        raise ValueError(f"unknown field {unknown[0]}; allowed: {', '.join(_CONTROL)}")
    fields = {name: value for name, value in table.items() if isinstance(value, str) and value}
    if other := sorted(table.keys() - fields.keys()):
        raise ValueError(f'{other[0]} is not a text; write {other[0]} = "…"')
    if missing := [name for name in _CONTROL[:3] if name not in fields]:
        raise ValueError(f'{missing[0]} = "…" is missing; add it')
    if not is_id(fields["fleet"]):
        raise ValueError(
            f"fleet: {fields['fleet']!r} cannot be a fleet's name; use 1 to 63 lower-case letters, "
            "digits and inner hyphens, such as home"
        )
    if ("certificate" in fields) != ("certificate_key" in fields):
        raise ValueError("certificate and certificate_key belong together; write both, or neither")
    return ControlConfig(
        fleet=fields["fleet"],
        url=bus_url(fields["url"]),
        admin_seed=root / fields["admin_seed"],
        # Written by an earlier version there is none; `harmony server` makes it at its next start.
        authority=root / fields.get("authority", "server/ca.pem"),
        server_name=fields.get("server_name", SERVER_NAME),
        cluster=fields.get("cluster"),
        listen=fields.get("listen"),
        certificate=root / fields["certificate"] if "certificate" in fields else None,
        certificate_key=root / fields["certificate_key"] if "certificate" in fields else None,
    )


def _to_table(device: Enrolled) -> dict[str, str]:
    # By hand: of ten thousand, attrs' own way takes a tenth of a second.
    table = {"nkey": device.nkey, "mailbox": device.mailbox, "report_key": device.report_key}
    return table if device.site is None else {**table, "site": device.site}


def _agents_of(decoded: object) -> dict[str, Enrolled]:
    agents: dict[str, Enrolled] = {}
    for agent_id, each in cast("dict[object, object]", decoded).items():
        if not (isinstance(agent_id, str) and is_id(agent_id)):
            raise ValueError(f"{agent_id!r} is not a device's id")
        match each:
            case {
                "nkey": str(nkey),
                "mailbox": str(mailbox),
                "report_key": str(report_key),
            } if is_mailbox(mailbox):
                site = cast("dict[str, object]", each).get("site")
                if not (site is None or (isinstance(site, str) and is_id(site))):
                    raise ValueError(f"{agent_id}: {site!r} is not a site's name")
                agents[agent_id] = Enrolled(nkey, mailbox, report_key, site)
            case _:
                raise ValueError(f"{agent_id} has no public nkey, mailbox and report key")
    return agents


def _version_of(path: Path) -> FileVersion | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error) from error
    return found.st_ino, found.st_mtime_ns, found.st_size


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"cannot read {path}: {error.strerror}; make it readable to you")
