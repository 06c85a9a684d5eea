"""A podman on a UNIX socket that holds containers, and can hang, die and come back; for faults of a fleet.

What it holds does not end with its service, as with the real one. The containers have no processes: how
they run is tested in boxes; here they are the host that the model is compared with.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import attrs

__all__ = ["HeldContainer", "StandInPodman"]

_NEVER = "0001-01-01T00:00:00Z"
_ANSWER_S = (0.001, 0.06)
"""An answer takes at least and at most so long."""
_REASONS = {200: "OK", 201: "Created", 204: "No Content", 304: "Not Modified", 404: "Not Found"}


@attrs.define
class HeldContainer:
    """One container."""

    id: str
    name: str
    request: Mapping[str, Any]
    """With which it was created."""
    status: str = "created"
    started_at: str = _NEVER
    finished_at: str = _NEVER
    stopped_by_user: bool = False

    @property
    def environment(self) -> Mapping[str, str]:
        return dict(self.request.get("env") or {})

    def start(self) -> None:
        self.status, self.stopped_by_user = "running", False
        self.started_at = datetime.now(UTC).isoformat()

    def end(self) -> None:
        if self.status == "running":
            self.status, self.stopped_by_user = "exited", True
            self.finished_at = datetime.now(UTC).isoformat()

    def inspected(self) -> dict[str, Any]:
        return {
            "Id": self.id,
            "Name": self.name,
            "ImageName": self.request["image"],
            "ImageDigest": "",
            "RestartCount": 0,
            "State": {
                "Status": self.status,
                "StartedAt": self.started_at,
                "FinishedAt": self.finished_at,
                "ExitCode": 0,
                "StoppedByUser": self.stopped_by_user,
            },
            "Config": {
                "Labels": self.request["labels"],
                "StopTimeout": self.request["stop_timeout"],
            },
            "HostConfig": {
                "NetworkMode": "bridge",
                "RestartPolicy": {"Name": self.request["restart_policy"]},
            },
            "NetworkSettings": {"Networks": {"podman": {"GlobalIPv6Address": ""}}},
        }

    def listed(self) -> dict[str, Any]:
        return {
            "Id": self.id,
            "Names": [self.name],
            "Labels": self.request["labels"],
            "Image": self.request["image"],
            "State": self.status,
        }


Answer = tuple[int, Any]
_NO_SUCH: Answer = (404, {"message": "no such container"})


class StandInPodman:
    """podman at the socket *path*; *dice* say how long it takes."""

    def __init__(self, path: Path, dice: random.Random) -> None:
        self.path = path
        self.containers: dict[str, HeldContainer] = {}
        """By id."""
        self.answers = asyncio.Event()
        """Cleared, it takes questions, and neither does nor answers anything."""
        self.answers.set()
        self._dice = dice
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Listen, until `die`."""
        self._server = await asyncio.start_unix_server(self._take, self.path)

    async def die(self) -> None:
        """Hang up on everybody; what was just being done is done or not. Idempotent."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self.path.unlink(missing_ok=True)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def named(self, name: str) -> HeldContainer | None:
        """Return the container of this name or id; None when there is none."""
        return next((c for c in self.containers.values() if name in {c.name, c.id}), None)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(asyncio.CancelledError, ConnectionError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = re.search(r"(?i)content-length: (\d+)", head)
        body = await reader.readexactly(int(length[1])) if length else b""
        method, url, *_ = head.split()
        await self.answers.wait()
        await asyncio.sleep(self._dice.uniform(*_ANSWER_S))
        status, answer = self._do(method, url, json.loads(body) if body else {})
        await self.answers.wait()
        text = b"" if answer is None else json.dumps(answer).encode()
        reason = _REASONS.get(status, "Error")
        writer.write(f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\n".encode())
        writer.write(f"Content-Length: {len(text)}\r\n\r\n".encode() + text)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    def _do(  # noqa: PLR0911 - one for each question
        self, method: str, url: str, body: Mapping[str, Any]
    ) -> Answer:
        parts = urlsplit(url)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        path = re.sub(r"^/v[0-9.]+/libpod", "", parts.path)
        match [method, *(unquote(each) for each in path.strip("/").split("/"))]:
            case ["GET", "_ping"]:
                return 200, "OK"
            case ["GET", "containers", "json"]:
                return 200, self._list(json.loads(query.get("filters", "{}")))
            case ["POST", "containers", "create"]:
                return self._create(body)
            case ["GET", "images", _, "exists"]:
                return 204, None
            case ["GET", "images", *_, "json"]:
                return 200, {"Config": {"Volumes": None}}
            case ["GET", "networks", _, "json"]:
                return 200, {"subnets": [{"subnet": "10.88.0.0/16"}]}
            case [_, "containers", name, *verb]:
                found = self.named(name)
                return _NO_SUCH if found is None else self._to_one(found, method, verb, query)
            case _:
                return 404, {"message": f"not here: {method} {url}"}

    def _to_one(  # noqa: PLR0911 - one for each question
        self, found: HeldContainer, method: str, verb: list[str], query: Mapping[str, str]
    ) -> Answer:
        match method, verb:
            case "GET", ["json"]:
                return 200, found.inspected()
            case "GET", ["logs"]:
                return 200, None
            case "DELETE", []:
                del self.containers[found.id]
                return 200, []
            case "POST", ["start"] if found.status != "running":
                found.start()
            case "POST", ["start"]:
                return 304, None
            case "POST", ["kill" | "stop"]:
                found.end()
            case "POST", ["rename"]:
                if self.named(query["name"]) is not None:
                    return 409, {"message": "that name is in use"}
                found.name = query["name"]
            case _:
                return 404, {"message": f"not here: {method} {verb}"}
        return 204, None

    def _create(self, request: Mapping[str, Any]) -> Answer:
        if self.named(request["name"]) is not None:
            return 409, {"message": "that name is already in use"}
        made = HeldContainer(f"{self._dice.getrandbits(256):064x}", request["name"], request)
        self.containers[made.id] = made
        return 201, {"Id": made.id, "Warnings": []}

    def _list(self, filters: Mapping[str, list[str]]) -> list[dict[str, Any]]:
        wanted = [each.partition("=") for each in filters.get("label", [])]
        return [
            each.listed()
            for each in self.containers.values()
            if all(
                name in each.request["labels"]
                and (not equals or each.request["labels"][name] == value)
                for name, equals, value in wanted
            )
        ]
