"""Requests to podman's REST socket, in the calling thread. The only importer of podman-py.

One request, one connection: an idle connection would keep podman's service from exiting. Imported on
first use and in a worker's thread, since it costs a tenth of a second and ten mebibytes.

podman-py's client gives up when *one* read takes too long, however often that happens. The deadline of
a whole request is its `Cutoff`, by which the event loop shuts down the socket under a hanging thread.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import requests
from podman.api.client import APIClient
from podman.api.parse_utils import frames
from podman.api.uds import UDSConnection, UDSConnectionPool
from podman.errors import APIError

from .podman_wire import Answer, Cutoff, PodmanSilent, Question

_CONNECT_S = 10.0
_PART_BYTES = 64 * 1024


def ask(url: str, cutoff: Cutoff, question: Question, read_timeout_s: float) -> Answer:
    """Send one request and read the whole answer, whatever its status.

    Raise `PodmanSilent` when there is no answer, or only a part of one.
    """
    with _Client(url, cutoff) as client:
        if question.most_bytes is not None:
            response = _send(client, question, read_timeout_s, stream=True)
            body = _beginning(response, question.most_bytes)
            return Answer(status=response.status_code, body=body)
        response = _send(client, question, read_timeout_s, stream=False)
        framed = question.framed and response.ok
        body = b"".join(frames(response)) if framed else response.content
        return Answer(status=response.status_code, body=body)


def lines(
    url: str, cutoff: Cutoff, question: Question, read_timeout_s: float | None
) -> Iterator[Answer]:
    """Send one request and yield its answer line by line, as the lines come."""
    with _Client(url, cutoff) as client:
        response = _send(client, question, read_timeout_s, stream=True)
        try:
            for line in response.iter_lines(chunk_size=None):
                yield Answer(status=response.status_code, body=line)
        except OSError as error:
            raise _silent(error) from error


class _Client:
    """A podman-py client whose connections can be cut off, closed at the end of the block."""

    def __init__(self, url: str, cutoff: Cutoff) -> None:
        path = url.removeprefix("http+").removeprefix("unix://")

        class Connection(UDSConnection):
            def connect(self) -> None:
                sock = socket.socket(socket.AF_UNIX)
                sock.settimeout(self.timeout)
                cutoff.connect(sock, path)
                self.sock = sock

        class Pool(UDSConnectionPool):
            ConnectionCls = Connection

        self._cutoff = cutoff
        self._client = APIClient(base_url=url)
        adapter: Any = self._client.get_adapter("http://")
        adapter.poolmanager.pool_classes_by_scheme = {"http": Pool}
        self._client.headers["Connection"] = "close"

    def __enter__(self) -> APIClient:
        return self._client

    def __exit__(self, *_: object) -> None:
        self._client.close()
        # podman-py leaves open what it could not connect, or could not read to the end.
        self._cutoff.close()


def _send(
    client: APIClient, question: Question, read_timeout_s: float | None, *, stream: bool
) -> Any:
    send: Any = getattr(client, question.method)
    body: dict[str, Any] = {"headers": dict(question.headers)} if question.headers else {}
    if question.body is not None:
        body = {"data": json.dumps(question.body), "headers": {"Content-Type": "application/json"}}
    elif question.content is not None:
        body = {"data": question.content, "headers": {"Content-Type": "application/octet-stream"}}
    timeout = (_CONNECT_S, read_timeout_s)
    try:
        return send(question.path, params=question.params, timeout=timeout, stream=stream, **body)
    except APIError as error:
        raise _silent(error.__cause__ or error) from error


def _beginning(response: Any, most_bytes: int) -> bytes:
    body = bytearray()
    try:
        for part in response.iter_content(_PART_BYTES):
            body += part
            if len(body) >= most_bytes:
                break
    except OSError as error:
        raise _silent(error) from error
    return bytes(body[:most_bytes])


def _silent(error: BaseException) -> PodmanSilent:
    timed_out = isinstance(error, requests.exceptions.Timeout)
    reason, inner = str(error), error.__cause__ or error.__context__
    while inner is not None:
        # The system's own words, below those of requests and urllib3.
        if isinstance(inner, OSError) and inner.strerror:
            reason = inner.strerror
        inner = inner.__cause__ or inner.__context__
    return PodmanSilent(reason, timed_out=timed_out)
