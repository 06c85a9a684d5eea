"""``harmony serve``: the fleet in a browser and over HTTP; ``harmony serve-user``: who may sign in there."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import logging
import sys
from contextlib import AsyncExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from harmony_core.errors import ConfigError, UsageError

from .common import home_of, out, warn
from .exits import CONVERGED

if TYPE_CHECKING:
    from harmony_control.alerts.settings import Settings
    from harmony_control.store.home import Home
    from harmony_control.web.oidc.signing_in import OidcSignIn

__all__ = ["run"]

_NEEDED = (
    *("litestar", "uvicorn", "httptools", "argon2", "prometheus_client"),
    *("authlib", "joserfc"),
)


def run(options: argparse.Namespace) -> int:
    """Serve until interrupted; or add, remove or list users."""
    if missing := [each for each in _NEEDED if find_spec(each) is None]:
        raise ConfigError(
            f"harmony serve needs {', '.join(missing)}, which is not installed here; install Harmony with "
            "serve.lock in the place of control.lock"
        )
    if options.name == "serve-user":
        return _change_users(options)
    asyncio.run(_serve(options))
    out(options, {"event": "stopped"}, "stopped")
    return CONVERGED


async def _serve(options: argparse.Namespace) -> None:
    from harmony_control.alerts.channels import make_channels
    from harmony_control.fleet import Fleet
    from harmony_control.server.beside import running_beside
    from harmony_control.store.gate_key import load_gate_key
    from harmony_control.web.app import make_web
    from harmony_control.web.listen import parse_listen, parse_metrics_listen
    from harmony_control.web.metrics import AlertsCollector
    from harmony_control.web.metrics_app import MetricsApp, TokenFile
    from harmony_control.web.serving import Serving, open_socket, serving_beside
    from harmony_control.web.users import Users

    logging.basicConfig(format="harmony serve: %(message)s", level=logging.WARNING)
    listen = parse_listen(
        options.listen,
        certificate=options.tls_cert,
        key=options.tls_key,
        is_behind_proxy=options.behind_proxy,
    )
    beside = parse_metrics_listen(options.metrics_listen) if options.metrics_listen else None
    token = TokenFile(Path(options.metrics_token_file)) if options.metrics_token_file else None
    if token is not None:
        await asyncio.to_thread(token.read)
    settings = await _read_settings(options.alerts)
    home = home_of(options)
    users = Users(home)
    oidc = await asyncio.to_thread(_load_oidc, home, is_https=listen.is_https)
    if oidc is None and not await asyncio.to_thread(users.read):
        warn(options, f"nobody can sign in yet: harmony serve-user add NAME --home {home.root}")
    config = await asyncio.to_thread(home.control)
    opens_waves = await asyncio.to_thread(load_gate_key, home) is not None
    rollouts = "opens waves" if opens_waves else "opens no waves, since there is no gate.key"
    async with Fleet.connect(home) as fleet:
        web = make_web(
            fleet,
            users,
            name=config.fleet,
            is_https=listen.is_https,
            is_behind_proxy=listen.is_behind_proxy,
            is_measured=beside is not None or settings is not None,
            metrics_token=token,
            oidc=oidc,
        )
        async with AsyncExitStack() as stack:
            if settings is not None:
                notifier = await fleet.alerts(web.overview, settings, make_channels(settings))
                web.registry.register(AlertsCollector(notifier))
                await stack.enter_async_context(running_beside(notifier.run(), name="alerts"))
            listening = stack.enter_context(open_socket(listen))
            if beside is not None:
                metrics = stack.enter_context(open_socket(beside, "--metrics-listen"))
                await stack.enter_async_context(serving_beside(MetricsApp(web.registry), metrics))
            out(
                options,
                {
                    "event": "serve",
                    "url": listen.url,
                    "fleet": config.fleet,
                    "opens_waves": opens_waves,
                },
                f"fleet {config.fleet}: look at {listen.url}; it {rollouts}; Ctrl-C ends it",
            )
            await Serving(web, listen).serve([listening])


def _load_oidc(home: Home, *, is_https: bool) -> OidcSignIn | None:
    """Return the single sign-on provider, if the operator's directory names one. Raise `ConfigError`."""
    from harmony_control.web.oidc.settings import load_oidc_settings
    from harmony_control.web.oidc.signing_in import OidcSignIn

    settings = load_oidc_settings(home, is_https=is_https)
    if settings is None:
        return None
    from harmony_control.web.oidc.provider import Provider

    return OidcSignIn(settings, Provider(settings))


async def _read_settings(file: str | None) -> Settings | None:
    from harmony_control.alerts.settings import read_settings

    return await asyncio.to_thread(read_settings, Path(file)) if file else None


def _change_users(options: argparse.Namespace) -> int:
    from harmony_control.web.users import Users

    users = Users(home_of(options))
    if (options.user is None) != (options.verb == "list"):
        raise UsageError("write: harmony serve-user add NAME, remove NAME, or list")
    match options.verb:
        case "add":
            is_new = users.add(options.user, options.role, _read_password(options.user))
            verb = "added" if is_new else "changed"
            out(
                options,
                {"event": verb, "name": options.user, "role": options.role},
                f"{verb} {options.user}, {options.role}",
            )
        case "remove":
            users.remove(options.user)
            out(
                options,
                {"event": "removed", "name": options.user},
                f"removed {options.user}; who is signed in as {options.user} is signed out",
            )
        case _:
            for each in users.read().values():
                out(
                    options,
                    {"name": each.name, "role": each.role},
                    f"{each.name:<20} {each.role}",
                )
    return CONVERGED


def _read_password(name: str) -> str:
    """Return a password: at a terminal, typed twice and not shown; otherwise the first line of standard
    input."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    first = getpass.getpass(f"password of {name}: ")
    if getpass.getpass("once more: ") != first:
        raise UsageError("the two were not the same; nothing was changed")
    return first
