"""A registry for as long as one pull: podman has from it what is at hand, as from any other.

podman itself hashes whatever it pulls; and what it pulls goes straight into its storage, where an archive
given to it would first lie in /tmp twice. The image is called by a tag here, so that it can be given its own
name afterwards: podman gives none by digest.

A manifest that has podman fetch a part from another place is not served: so it would fetch from wherever the
device reaches.

    GET /v2/<secret>/manifests/<tag or digest>, /v2/<secret>/blobs/<digest>; for this machine alone
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import secrets
import socket
import threading
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer

from harmony_core.errors import InvalidResource
from harmony_core.images import names_elsewhere
from harmony_core.nearby import Blobs

__all__ = ["TAG", "NearbyRegistry"]

log = logging.getLogger(__name__)

TAG = "nearby"
_PATH = re.compile(r"/v2/([0-9a-f]{32})/(manifests|blobs)/([\w:]+)\Z")
_MEDIA_TYPE = re.compile(r"application/vnd\.[\w.+-]{1,100}\Z")
_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_MANIFEST_MAX_BYTES = 4 * 1024 * 1024
_SILENT_WITHIN_S = 300.0
_TLS = b"\x16"


class NearbyRegistry:
    """Has the image of *digest*, which *blobs* has, from `begin` until `end`; both block for a moment."""

    def __init__(self, blobs: Blobs, digest: str) -> None:
        self._server = _Server(blobs, digest)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="images", daemon=True
        )

    @property
    def repository(self) -> str:
        """podman's name for the image, without TLS and without the tag."""
        return f"127.0.0.1:{self._server.server_address[1]}/{self._server.secret}"

    @property
    def failure(self) -> InvalidResource | None:
        """What is wrong with the image, because of which podman did not get it."""
        return self._server.failure

    def begin(self) -> None:
        """Start to answer requests."""
        self._thread.start()

    def end(self) -> None:
        """Accept no new connection. What is being sent ends with its connection."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingTCPServer):
    # Not HTTP's own server, which first asks for this machine's name: that may take long.
    daemon_threads = True
    block_on_close = False

    def __init__(self, blobs: Blobs, digest: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.blobs = blobs
        self.digest = digest
        self.secret = secrets.token_hex(16)
        """Who does not know it is told nothing."""
        self.failure: InvalidResource | None = None

    def handle_error(self, request: object, client_address: object) -> None:
        """Report nothing: the end of the connection tells podman."""
        log.debug("an answer to %s about %s ends early", client_address, request)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _SILENT_WITHIN_S

    @property
    def _registry(self) -> _Server:
        assert isinstance(self.server, _Server)
        return self.server

    def handle(self) -> None:
        """Close the connection of a client that begins with TLS, as podman tries first: the length of that
        greeting is not known."""
        if self.connection.recv(1, socket.MSG_PEEK) != _TLS:
            super().handle()

    def do_GET(self) -> None:
        if self.path == "/v2/":
            self._answer(200, b"{}", "application/json")
            return
        asked = _PATH.match(self.path)
        if asked is None or not secrets.compare_digest(asked[1], self._registry.secret):
            self._refuse()
            return
        is_manifest, name = asked[2] == "manifests", asked[3]
        wanted = self._registry.digest if is_manifest and name == TAG else name
        size_bytes = self._registry.blobs.find_size(wanted)
        if size_bytes is None or (is_manifest and size_bytes > _MANIFEST_MAX_BYTES):
            self._refuse()
        elif is_manifest:
            content = b"".join(self._registry.blobs.read(wanted))
            # podman asks by a tag, and so compares this with nothing: what is read again may be another.
            if f"sha256:{hashlib.sha256(content).hexdigest()}" != wanted:
                self._refuse()
                return
            if (failure := _find_failure(content, wanted)) is not None:
                self._registry.failure = failure
                self._refuse()
                return
            self._answer(200, content, _media_type_of(content), wanted)
        else:
            self._send_blob(wanted, size_bytes)

    do_HEAD = do_GET  # noqa: N815 - the base's

    def _refuse(self) -> None:
        self._answer(404, b"{}", "application/json")

    def _send_blob(self, wanted: str, size_bytes: int) -> None:
        self._begin(200, size_bytes, "application/octet-stream")
        self.end_headers()
        if self.command != "HEAD":
            for part in self._registry.blobs.read(wanted):
                self.wfile.write(part)

    def _answer(self, status: int, body: bytes, media_type: str, digest: str = "") -> None:
        self._begin(status, len(body), media_type)
        if digest:
            self.send_header("Docker-Content-Digest", digest)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _begin(self, status: int, size_bytes: int, media_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(size_bytes))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's
        log.debug(format, *args)


def _find_failure(content: bytes, digest: str) -> InvalidResource | None:
    """Return why podman must not get this manifest; None where it may."""
    try:
        if not names_elsewhere(content):
            return None
    except (ValueError, RecursionError):
        return InvalidResource(f"the image's manifest {digest} is no JSON; save the image anew")
    return InvalidResource(
        f"the image's manifest {digest} has urls: parts of it are to be fetched from elsewhere, which is not "
        "done; save the image anew, whole"
    )


def _media_type_of(content: bytes) -> str:
    """Return the media type that a manifest states, or, where it states none, the one that its content
    suggests."""
    try:
        said = json.loads(content)
        media_type = said.get("mediaType", "")
        if isinstance(media_type, str) and _MEDIA_TYPE.match(media_type):
            return media_type
        return _INDEX if "manifests" in said else _MANIFEST
    except (ValueError, AttributeError, RecursionError):
        return "application/octet-stream"
