"""The application: routes, who may call them, and the task that follows the fleet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.metadata import version

import attrs
from litestar import Litestar, Response, asgi, get
from litestar.datastructures import State
from litestar.handlers import ASGIRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.types import ASGIApp, Receive, Scope, Send
from prometheus_client import CollectorRegistry

from harmony_control.cancelling import cancel_all
from harmony_control.fleet import Fleet

from .board import Board
from .calls import Call, live_of
from .device_routes import ROUTES as DEVICE_ROUTES
from .door import Door
from .fleet_routes import ROUTES as FLEET_ROUTES
from .live import Live, RowSource, Seats
from .metrics import FleetCollector, make_registry
from .metrics_app import MetricsApp, TokenFile
from .oidc.routes import ROUTES as OIDC_ROUTES
from .oidc.signing_in import OidcSignIn
from .page_files import page_routes
from .problems import HANDLERS
from .readings import Overview, Readings
from .rollout_routes import ROUTES as ROLLOUT_ROUTES
from .shield import Shield
from .sign_in import ROUTES as SIGN_IN_ROUTES
from .sign_in import require_role
from .users import Users

__all__ = ["Web", "make_web"]

BODY_MOST = 16 * 1024


@attrs.frozen(kw_only=True)
class Health:
    """Whether it can do its work. ``problem`` says why not."""

    ok: bool
    problem: str = ""


@attrs.frozen(kw_only=True)
class Web:
    """The application, and what ends its streams when it is to end."""

    app: ASGIApp
    live: Live
    watchers: Seats
    followers: Seats
    """Who reads what a device says."""
    registry: CollectorRegistry
    """What it tells Prometheus."""
    overview: Overview


@get("/healthz", opt={"role": None})
async def healthz() -> Health:
    """Return that the process answers."""
    return Health(ok=True)


@get("/readyz", opt={"role": None}, raises=[])
async def readyz(request: Call) -> Response[Health]:
    """Return whether what is shown is what the fleet says now; 503 while it is not."""
    live = live_of(request)
    # Why is for who is signed in: it may name addresses.
    problem = "what is shown may be old" if live.problem else ""
    return Response(Health(ok=not problem, problem=problem), status_code=503 if problem else 200)


def make_web(
    fleet: Fleet,
    users: Users,
    *,
    rows: RowSource | None = None,
    name: str = "",
    is_https: bool = False,
    is_behind_proxy: bool = False,
    is_measured: bool = False,
    metrics_token: TokenFile | None = None,
    oidc: OidcSignIn | None = None,
) -> Web:
    """Return the application that shows *fleet*, called *name*, to *users*.

    Rows are those of *rows*, if given, in the place of the fleet's own. With *is_https*, browsers are told to
    send the session over https only. With *is_measured*, what metrics and alerts need beside is
    read; with *metrics_token*, metrics are at ``/metrics`` for who has that; with *oidc*, a provider signs
    people in, too.
    """
    source = rows or fleet
    live = Live(source, Board(name), fleet)
    watchers = Seats(most=500, most_of_one=50)
    followers = Seats(most=64, most_of_one=8)
    readings = Readings(fleet)
    registry = make_registry(
        FleetCollector(live, readings, is_connected=lambda: source.is_connected)
    )

    @asynccontextmanager
    async def following(_: Litestar) -> AsyncGenerator[None]:
        tasks = [asyncio.create_task(live.run())]
        if is_measured or metrics_token:
            tasks.append(asyncio.create_task(readings.run()))
        try:
            yield
        finally:
            live.close()
            await cancel_all(tasks)

    state = State(
        {
            "door": Door(users, is_https=is_https, is_behind_proxy=is_behind_proxy),
            "fleet": fleet,
            "live": live,
            "oidc": oidc,
            "watchers": watchers,
            "followers": followers,
        }
    )
    metrics = [_metrics_route(MetricsApp(registry, metrics_token))] if metrics_token else []
    app = Litestar(
        [
            *page_routes(),
            *metrics,
            healthz,
            readyz,
            *SIGN_IN_ROUTES,
            *OIDC_ROUTES,
            *FLEET_ROUTES,
            *DEVICE_ROUTES,
            *ROLLOUT_ROUTES,
        ],
        guards=[require_role],
        exception_handlers={**HANDLERS},
        lifespan=[following],
        logging_config=None,
        openapi_config=OpenAPIConfig(
            title="Harmony",
            version=version("harmony"),
            path="/api/schema",
            render_plugins=[JsonRenderPlugin(path="/openapi.json")],
        ),
        request_max_body_size=BODY_MOST,
        state=state,
    )
    return Web(
        app=Shield(app),
        live=live,
        watchers=watchers,
        followers=followers,
        registry=registry,
        overview=Overview(live, readings),
    )


def _metrics_route(app: MetricsApp) -> ASGIRouteHandler:
    @asgi("/metrics", opt={"role": None}, copy_scope=True)
    async def metrics(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    return metrics
