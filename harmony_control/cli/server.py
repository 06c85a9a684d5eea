"""``harmony server``: the bus, in the foreground until interrupted or told to end.

Or, without running one: what a NATS server of one's own needs (``--export``), and has (``--check``).
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path

import attrs

from harmony_control.server.apply import bring_up_to_date
from harmony_control.server.check import check_server
from harmony_control.server.config import Listen
from harmony_control.server.duties import doing_duties
from harmony_control.server.export import export
from harmony_control.server.process import IssuedCertificate, running
from harmony_control.store.home import Home
from harmony_control.times_typed import lasting
from harmony_core.errors import UsageError

from .common import home_of, out
from .exits import CONVERGED, FAILED

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Serve until interrupted; return 0 at once when a server runs already. With --check, return 1 where
    something is wrong."""
    if options.device is not None and options.check is None:
        raise UsageError("--device goes with --check URL")
    if (options.jwt or options.expire) and options.export is None:
        raise UsageError("--jwt and --expire go with --export DIR")
    if options.cluster and options.export is None:
        raise UsageError("--cluster goes with --export DIR")
    if (options.leaf or options.new_key or options.remove_leaf) and options.export is None:
        raise UsageError("--leaf, --new-key and --remove-leaf go with --export DIR")
    if options.cluster and options.listen:
        raise UsageError("--listen names a single server, and --cluster three; give one of both")
    # What is empty was a variable that is not set: no server is meant to be started by it.
    if options.export is not None:
        if not options.export:
            raise UsageError("--export names no directory; write --export DIR")
        return _export(options)
    if options.check is not None:
        return asyncio.run(_check(options))
    try:
        asyncio.run(_serve(options))
    except (KeyboardInterrupt, asyncio.CancelledError):
        # It was told to end, and nats-server has ended before it.
        out(options, {"event": "stopped"}, "stopped")
    return 0


def _export(options: argparse.Namespace) -> int:
    directory = Path(options.export)
    export(
        home_of(options),
        directory,
        listen=options.listen,
        fleet=options.fleet,
        issued=_issued(options),
        with_jwts=options.jwt,
        device_life=lasting(options.expire, "--expire"),
        cluster=options.cluster,
        leaf=options.leaf,
        with_new_key=options.new_key,
        without_leaf=options.remove_leaf,
    )
    then = (
        "; start NATS by it, then `harmony server`, which tells it of users and makes the streams"
    )
    where = "for each server a folder with " if home_of(options).control().cluster else ""
    out(
        options,
        {"event": "exported", "directory": str(directory)},
        f"{directory} has {where}nats.conf, the certificate with its key, and the streams to make (buckets/)"
        f"{then if home_of(options).issuers_json.exists() else ''}",
    )
    return CONVERGED


async def _check(options: argparse.Namespace) -> int:
    device = Path(options.device) if options.device else None
    found = await check_server(home_of(options), options.check, device)
    for each in found:
        out(
            options,
            attrs.asdict(each),
            f"{each.verdict:<14} {each.what}{': ' if each.detail else ''}{each.detail}",
        )
    return FAILED if any(each.verdict == "wrong" for each in found) else CONVERGED


async def _serve(options: argparse.Namespace) -> None:
    home = home_of(options)
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    # As systemd and `kill` say it. Ctrl-C cancels by itself.
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        await _serve_until_told(options, home)
    finally:
        # It ends already; a loop that is told so once more while it closes complains.
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


async def _serve_until_told(options: argparse.Namespace, home: Home) -> None:
    issued = _issued(options)
    if home.issuers_json.exists():
        if options.listen or options.fleet or issued:
            raise UsageError(
                "the server is run by somebody else; --listen, --fleet and --tls-… go with --export DIR"
            )
        await _serve_beside(options, home)
        return
    async with running(home, listen=options.listen, fleet=options.fleet, issued=issued) as server:
        fleet = home.control().fleet
        listen = Listen.parse(home.control().listen or "")
        state = "running" if server.started_here else "running already"
        out(
            options,
            {"event": "server", "url": server.url, "pid": server.pid, "fleet": fleet},
            f"fleet {fleet}: {state} at {server.url} (pid {server.pid}), home {home.root}"
            + (f", for devices at {listen.fleet_url}" if listen.fleet_url != server.url else "")
            + ("; Ctrl-C ends it" if server.started_here else ""),
        )
        if server.started_here:
            async with doing_duties(home):
                await server.wait()


async def _serve_beside(options: argparse.Namespace, home: Home) -> None:
    """Run, beside a NATS server that somebody else runs, the parts that are not NATS' own."""
    await asyncio.to_thread(bring_up_to_date, home)
    async with doing_duties(home, makes_buckets=True):
        config = home.control()
        out(
            options,
            {"event": "server", "url": config.url, "pid": None, "fleet": config.fleet},
            f"fleet {config.fleet}: the server at {config.url} is told of users, home {home.root}; "
            "Ctrl-C ends this, and it goes on",
        )
        await asyncio.Event().wait()


def _issued(options: argparse.Namespace) -> IssuedCertificate | None:
    given = [options.tls_cert, options.tls_key, options.tls_ca]
    if not any(given):
        return None
    if not all(given):
        raise UsageError("--tls-cert, --tls-key and --tls-ca belong together; give all three")
    certificate, key, authority = (Path(each).absolute() for each in given)
    return IssuedCertificate(certificate=certificate, key=key, authority=authority)
