"""Brings nats.conf up to date, and the server that runs with it, from whatever process.

A server runs exactly as long as its lock is held: by its starter, and by the server itself, which has
inherited it. The pid in nats.pid is believed only while that is so.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import attrs

from harmony_control.store.home import (
    ControlConfig,
    Home,
    put_back,
    read_if_there,
    write_whole,
)
from harmony_control.store.invitations import read_invitations
from harmony_control.store.issuers import FLEETS
from harmony_control.store.nkey import Nkey
from harmony_control.store.operator_key import load_bus_keys
from harmony_control.store.sites import Sites, read_sites
from harmony_core.errors import BusUnreachable, ConfigError

from .claims import update_accounts
from .config import Gate, Listen, ServerConfig, refuse_equal_keys, render

__all__ = [
    "RELOADED",
    "RELOAD_REFUSED",
    "apply_configuration",
    "bring_up_to_date",
    "changing",
    "gate_of",
    "local_listen",
    "log_since",
    "log_size_bytes",
    "reload",
    "render_config",
    "server_config",
    "server_pid",
]

_RELOAD_TIMEOUT_S = 10.0
_RELOAD_A_MIB_S = 5.0
"""As much longer for each MiB of configuration: ten thousand devices are 15 of them."""
_LOOK_AGAIN_S = 0.005
# The whole line: what a stranger has sent is logged, too, behind the stranger's address.
RELOADED = re.compile(r"\[\d+\] \S+ \S+ \[INF\] Reloaded server configuration\b.*")
RELOAD_REFUSED = re.compile(
    r"\[\d+\] \S+ \S+ \[ERR\] Failed to reload server configuration: (.*)", re.DOTALL
)


@contextmanager
def changing(home: Home, *paths: Path) -> Generator[None]:
    """Hold the server's configuration, and have the server apply what is written to *paths* within the block.

    All or nothing: where the block fails, or the server does not accept it, *paths* are as before. So
    whatever failed can be repeated.
    """
    with home.editing():
        kept = {path: read_if_there(path) for path in (*paths, home.nats_conf)}
        try:
            yield
            apply_configuration(home)
        except BaseException:
            for path, content in kept.items():
                put_back(path, content)
            raise


def apply_configuration(home: Home) -> bool:
    """Render nats.conf again and have the running server apply it. Return False when none runs here.

    Where the users of a server elsewhere have JWTs, tell that server its accounts: raise `BusUnreachable`,
    `StoreError`.

    When this returns True, the server uses the new file: who was added may connect, who was removed is
    disconnected. Call it while ``home.editing()`` is held, after a change of what the file is rendered from.
    """
    config = server_config(home, home.control())
    if home.issuers_json.exists():
        refuse_equal_keys(config)
        update_accounts(home, config)
        return True
    _refuse_earlier_server(home)
    write_whole(home.nats_conf, render(config))
    return reload(home)


def _refuse_earlier_server(home: Home) -> None:
    """Raise `ConfigError` where the running server has other accounts for devices: those of a reload would
    reach nothing, since NATS shows exports to no account that it did not start with."""
    running = read_if_there(home.nats_conf) if server_pid(home) is not None else None
    if running is not None and not all(f'"{each}"'.encode() in running for each in FLEETS):
        raise ConfigError(
            "`harmony server` was started by an earlier version, and nothing was changed; end it, start it "
            "again, and then do this again"
        )


def bring_up_to_date(home: Home) -> None:
    """Have the server use what the home says now, and change nothing else; see `apply_configuration`."""
    with home.editing():
        apply_configuration(home)


def render_config(home: Home, config: ControlConfig) -> str:
    """Return nats.conf as it should be now. Raise ConfigError where the server is not run from this home."""
    return render(server_config(home, config))


def server_config(home: Home, config: ControlConfig) -> ServerConfig:
    """Return all that nats.conf depends on, as it is now. Raise ConfigError as `render_config` does."""
    listen = local_listen(home, config)
    admin = Nkey.read(config.admin_seed)
    sites = read_sites(home)
    return ServerConfig(
        fleet=config.fleet,
        listen=listen,
        directory=home.server,
        admin=admin.public,
        operators=load_bus_keys(home, home.operators),
        readers=load_bus_keys(home, home.readers),
        agents=home.agents(),
        invitations=sorted(read_invitations(home)),
        certificate=config.certificate or home.server_certificate,
        key=config.certificate_key or home.server_key,
        sites=sites,
        gate=gate_of(home, sites, listen),
    )


def gate_of(home: Home, sites: Sites, listen: Listen, number: int = 0) -> Gate | None:
    """Return where the server at *listen*, with its *number* in a cluster, listens for those of sites."""
    if not sites.hubs:
        return None
    hub = Listen.parse(sites.hubs[number])
    return Gate(
        attrs.evolve(listen, port=hub.port),
        home.sites / f"{hub.host}.pem",
        home.sites / f"{hub.host}.key",
    )


def local_listen(home: Home, config: ControlConfig) -> Listen:
    """Return where the server run from *home* listens. Raise ConfigError when it runs elsewhere."""
    if config.listen is None:
        raise ConfigError(
            f"the server of this fleet ({config.url}) is not run from {home.root}; do this on the "
            "machine, and with the HARMONY_HOME, where `harmony server` runs"
        )
    return Listen.parse(config.listen)


def reload(home: Home) -> bool:
    """Have the running server read nats.conf again, and wait until it has. Return False when none runs."""
    pid = server_pid(home)
    if pid is None:
        return False
    offset = log_size_bytes(home.nats_log)
    try:
        os.kill(pid, signal.SIGHUP)
    except ProcessLookupError:
        return False
    except PermissionError as error:
        raise ConfigError(
            f"the server (pid {pid}) is another user's; do this as the user who runs `harmony server`"
        ) from error
    _await_reload(home, offset)
    return True


def server_pid(home: Home) -> int | None:
    """Return the running server's process; None when none runs, or one is only just being started."""
    if not _is_held(home.server_lock):
        return None
    try:
        return int(home.nats_pid.read_text())
    except (FileNotFoundError, ValueError):
        return None


def log_size_bytes(log: Path) -> int:
    """Return where the server's log ends now, for `log_since`."""
    return log.stat().st_size if log.exists() else 0


def log_since(log: Path, offset_bytes: int) -> str:
    """Return what was logged since *offset_bytes*; after a rotation, all that the new file has."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(offset_bytes if log_size_bytes(log) >= offset_bytes else 0)
        return file.read().decode(errors="replace")


def _await_reload(home: Home, offset_bytes: int) -> None:
    # The server's log is the only place where it says that it has, or why it has not.
    size_mib = home.nats_conf.stat().st_size / 1024**2
    within_s = _RELOAD_TIMEOUT_S + _RELOAD_A_MIB_S * size_mib
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        for line in log_since(home.nats_log, offset_bytes).splitlines():
            if RELOADED.fullmatch(line):
                return
            if refused := RELOAD_REFUSED.fullmatch(line):
                raise ConfigError(f"the server refused its new configuration: {refused[1]}")
        time.sleep(_LOOK_AGAIN_S)
    raise BusUnreachable(
        f"the server did not take its new configuration within {within_s:.0f} s; its log is "
        f"{home.nats_log}"
    )


def _is_held(lock: Path) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
