"""One file over https: asked for, from where it was cut where that is known, and read piece by piece.

    address -> allowed here? -> the proxy of the environment, or its server -> is its certificate believed?
       ^                                                                            |
       +------ leads elsewhere: at most five times, by https, and into no nearer network
                                                                                    |
    200: from its begin; 206: from where it was cut <-------------------------------+

All of it blocks, and belongs into a thread. Each call ends by itself: by silence, or by `end` from another
thread. What answers is believed in nothing but its certificate: how much of its head is read is bounded, and
whether the content is the right one, its hash tells whoever has asked.
"""

from __future__ import annotations

import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from io import BufferedReader
from typing import Any, NoReturn, cast
from urllib.parse import urljoin, urlsplit

import attrs

from harmony_core.errors import DownloadFailed, DownloadRefused, PolicyRefused
from harmony_core.resources import ASSET_MAX_BYTES, Download, check_url, place_of
from harmony_core.visible import cut, word
from harmony_core.wire.tls import describe_tls_error

__all__ = ["Answer", "Exchange"]

_CONNECTED_WITHIN_S = 15.0
"""For each address of a server, and for each answer in the handshake."""
_SILENT_S = 30.0
_HEAD_MOST_BYTES = 64 * 1024
_REDIRECTS_MOST = 5
_ADDRESS_MOST = 8192
"""Of an address that is led to: those of stores of objects carry a signature."""
_READ_AT_ONCE_BYTES = 64 * 1024
_ASKED_AGAIN_S = 900.0
"""What a server does not give, it seldom gives a minute later."""
_ASKED_AGAIN_MOST_S = 3600.0
_SHOWN_MOST = 160
_HTTPS = 443
_PROXY = 8080
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BUSY = frozenset({429, 503})
_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15}|\*)")
_VALIDATOR = re.compile(r'"[\x21\x23-\x7e]{0,256}"')


@attrs.frozen(kw_only=True)
class Answer:
    """What a server is about to send."""

    offset: int
    """Where in the content it begins: at 0, or where it was asked to."""
    total_bytes: int | None
    """Of the whole content; None where it does not say so."""
    validator: str
    """By which it knows this very content again; empty where it says none."""


class _Head:
    """*Reader*, for the lines of a head alone: of all of them only so much."""

    def __init__(self, reader: BufferedReader) -> None:
        self.reader = reader
        self._left_bytes = _HEAD_MOST_BYTES

    def readline(self, most: int = -1) -> bytes:
        line = self.reader.readline(min(most if most >= 0 else self._left_bytes, self._left_bytes))
        self._left_bytes -= len(line)
        if self._left_bytes <= 0:
            raise http.client.LineTooLong("head")
        return line

    def flush(self) -> None:
        """Do nothing; it must exist, since closing an answer flushes what it is read from."""

    def close(self) -> None:
        self.reader.close()


class _Response(http.client.HTTPResponse):
    """An answer whose head is bounded as a whole; by itself each of its lines is."""

    def begin(self) -> None:
        head = _Head(self.fp)
        self.fp = cast("BufferedReader", head)
        super().begin()
        if cast("object", self.fp) is head:
            self.fp = head.reader


class Exchange:
    """Asks for *download* from *offset* on, if that is still what *validator* was told of.

    *find_refusal* says of an address why this device does not fetch from there; None where it does.
    """

    def __init__(
        self,
        download: Download,
        find_refusal: Callable[[str], str | None],
        *,
        offset: int = 0,
        validator: str = "",
    ) -> None:
        self._download = download
        self._url = download.url
        self._find_refusal = find_refusal
        self._offset = offset
        self._validator = validator
        self._socket: socket.socket | None = None
        self._response: http.client.HTTPResponse | None = None
        self._left_bytes: int | None = None
        self._broken: Exception | None = None
        self._reach: int | None = None
        self._in_use = threading.Lock()
        self._is_ended = False
        self.is_over = False
        """Whether all that was announced was read."""

    @property
    def name(self) -> str:
        """What is asked for, for people."""
        return self._download.name

    def open(self) -> Answer:
        """Return what comes next, which `read` then reads.

        `DownloadFailed`, `DownloadRefused`, `PolicyRefused`.
        """
        with self._using():
            return self._open()

    def read(self, most_bytes: int, within_s: float) -> bytes:
        """Return what comes within *within_s*, or until nothing does, at most so much. `DownloadFailed`."""
        with self._using(), self._in_words(self._url):
            return self._read(most_bytes, within_s)

    def end(self) -> None:
        """Close the connection. A call that waits in another thread fails now, and closes it."""
        self._is_ended = True
        if (found := self._socket) is not None:
            with suppress(OSError):
                # Not TLS's own, which takes away what the other thread reads from.
                socket.socket.shutdown(found, socket.SHUT_RDWR)
        if self._in_use.acquire(blocking=False):
            try:
                self._close()
            finally:
                self._in_use.release()

    @contextmanager
    def _using(self) -> Generator[None]:
        try:
            with self._in_use:
                yield
        finally:
            # Who has ended it meanwhile has left the closing to this thread.
            if self._is_ended:
                self.end()

    def _open(self) -> Answer:
        with self._in_words(self._url):
            context = ssl.create_default_context()
            context.set_alpn_protocols(["http/1.1"])
        for _ in range(_REDIRECTS_MOST + 1):
            with self._in_words(self._url):
                response = self._ask(self._url, context)
            status = response.status
            if status in _REDIRECTS:
                self._url = self._follow(response.headers.get("Location", ""))
            elif self._offset and status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                self._offset = 0
            elif status == HTTPStatus.OK:
                return self._take(response, offset=0, total_bytes=response.length)
            elif self._offset and status == HTTPStatus.PARTIAL_CONTENT:
                if (found := self._read_range(response)) is not None:
                    return self._take(response, offset=self._offset, total_bytes=found)
                self._offset = 0
            else:
                self._raise_status(response)
            self._close()
        raise DownloadFailed(
            f"{self._download.name} leads elsewhere more than {_REDIRECTS_MOST} times; give the address "
            "at the end of that",
            retry_after_s=_ASKED_AGAIN_S,
        )

    def _read(self, most_bytes: int, within_s: float) -> bytes:
        until_s, pieces, left = time.monotonic() + within_s, list[bytes](), most_bytes
        while left and time.monotonic() < until_s:
            try:
                piece = self._read_once(min(left, _READ_AT_ONCE_BYTES))
            except (OSError, http.client.HTTPException) as error:
                if not pieces:
                    raise
                self._broken = error
                break  # what has come until then counts
            if not piece:
                self.is_over = True
                break
            pieces.append(piece)
            left -= len(piece)
            if self._left_bytes is not None:
                self._left_bytes -= len(piece)
        return b"".join(pieces)

    def _read_once(self, most_bytes: int) -> bytes:
        """Return what comes next; nothing at the end of the content."""
        assert self._response is not None
        if self._broken is not None:
            raise self._broken
        piece = self._response.read1(most_bytes)
        # What comes in chunks says itself where it ends; else that may be where it was cut.
        if not piece and self._left_bytes and not self._response.chunked:
            raise http.client.IncompleteRead(b"")
        return piece

    def _close(self) -> None:
        for each in (self._response, self._socket):
            if each is not None:
                with suppress(OSError):
                    each.close()
        self._response = self._socket = None

    def _ask(self, url: str, context: ssl.SSLContext) -> http.client.HTTPResponse:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _HTTPS
        if (proxy := _find_proxy(host, port)) is None:
            connection = http.client.HTTPSConnection(
                host, port, timeout=_CONNECTED_WITHIN_S, context=context
            )
        else:
            connection = http.client.HTTPSConnection(
                proxy.host, proxy.port, timeout=_CONNECTED_WITHIN_S, context=context
            )
            connection.set_tunnel(host, port, proxy.headers)
        connection.response_class = _Response
        connection.connect()
        self._socket = connection.sock
        if self._is_ended:
            raise TimeoutError
        connection.sock.settimeout(_SILENT_S)
        if proxy is None:
            self._refuse_nearer(url, connection.sock.getpeername()[0])
        target = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
        headers = {"User-Agent": "harmony-agent", "Accept": "*/*", "Connection": "close"}
        if self._offset:
            headers["Range"] = f"bytes={self._offset}-"
            if self._validator:
                headers["If-Range"] = self._validator
        connection.request("GET", target, headers=headers)
        self._response = connection.getresponse()
        return self._response

    def _refuse_nearer(self, url: str, address: str) -> None:
        """Raise `DownloadRefused` if *address* is in a nearer network than the first server: a server outside
        must not have a device ask what only the device, or its own network, can reach."""
        reach = measure_reach(address)
        if self._reach is None:
            self._reach = reach
        elif reach < self._reach:
            there = cut(place_of(url), _SHOWN_MOST)
            raise DownloadRefused(
                f"{self._download.name} leads to {there} ({address}), which is in a network of the device's "
                "own, and it is not itself; give that address in the Score if it is meant"
            )

    def _follow(self, location: str) -> str:
        """Return where an answer leads. `DownloadRefused`, `PolicyRefused`."""
        name = self._download.name
        try:
            target = _join(self._url, location)
        except ValueError as error:
            raise DownloadRefused(
                f"{name} leads to {word(cut(location, _SHOWN_MOST))!r}, which is not fetched: {error}; give "
                "another address"
            ) from None
        if (why := self._find_refusal(target)) is not None:
            raise PolicyRefused(f"{name} leads elsewhere, and {why}")
        return target

    def _take(
        self, response: http.client.HTTPResponse, *, offset: int, total_bytes: int | None
    ) -> Answer:
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        download = self._download
        if encoding != "identity":
            raise DownloadFailed(
                f"{download.name} is sent as {word(cut(encoding, _SHOWN_MOST))!r}, though it was asked for "
                "as it is; give an address that gives the file itself",
                retry_after_s=_ASKED_AGAIN_S,
            )
        if total_bytes is None and not response.chunked and download.size_bytes is None:
            raise DownloadFailed(
                f"{download.name}: its server does not say how large it is, so that nobody could tell when "
                "it is whole; give size_bytes",
                retry_after_s=_ASKED_AGAIN_S,
            )
        if total_bytes is not None and download.size_bytes not in {None, total_bytes}:
            raise DownloadRefused(
                f"{download.name} has {total_bytes} bytes, and size_bytes says {download.size_bytes}; look "
                "at what is there now, and correct sha256 and size_bytes, or give another address"
            )
        if total_bytes is not None and total_bytes > ASSET_MAX_BYTES:
            raise DownloadRefused(
                f"{download.name} has {total_bytes} bytes, and at most {ASSET_MAX_BYTES // 1024**2} MiB are "
                "fetched; put it into an image, or into a package"
            )
        known = download.size_bytes if total_bytes is None else total_bytes
        self._left_bytes = None if known is None else known - offset
        return Answer(offset=offset, total_bytes=known, validator=_find_validator(response.headers))

    def _read_range(self, response: http.client.HTTPResponse) -> int | None:
        """Return how large the whole is of which a part comes; None where it is not the part, or not of the
        content, that was asked for."""
        found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        validator = _find_validator(response.headers)
        if found is None or int(found[1]) != self._offset or found[3] == "*":
            return None
        is_to_the_end = int(found[2]) + 1 == int(found[3])
        is_same = not self._validator or validator in {"", self._validator}
        return int(found[3]) if is_to_the_end and is_same else None

    def _raise_status(self, response: http.client.HTTPResponse) -> NoReturn:
        status = response.status
        try:
            said = f"{status} {HTTPStatus(status).phrase}"
        except ValueError:
            said = str(status)
        retry_after_s: float | None = _ASKED_AGAIN_S
        match status:
            case 401 | 403:
                remedy = "give an address that anybody may read, or push the file as an asset (asset_from)"
            case 404 | 410:
                remedy = "correct the address, or put the file there"
            case _ if status in _BUSY:
                retry_after_s = _read_retry_after(response.headers.get("Retry-After", ""))
                wait = f"in {retry_after_s:.0f} s" if retry_after_s else "later"
                remedy = f"it has too much to do, and is asked again {wait}"
            case _ if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                retry_after_s, remedy = None, "look at that server; it is asked again"
            case _:
                remedy = "try the address with curl, and give one that answers with the file"
        raise DownloadFailed(
            f"{self._download.name}: {place_of(self._url).partition('/')[0]} answers {said}; {remedy}",
            retry_after_s=retry_after_s,
        )

    @contextmanager
    def _in_words(self, url: str) -> Generator[None]:
        """Raise what goes wrong on the way to *url*, or back, as `DownloadFailed`."""
        server = place_of(url).partition("/")[0]
        try:
            yield
        except ssl.SSLCertVerificationError as error:
            self._fail(
                f"the certificate of {server} is not believed: {describe_tls_error(error)}; look at that "
                "server, at the device's clock, and whether its ca-certificates are installed and have who "
                "vouches for it (update-ca-certificates)"
            )
        except ssl.SSLError as error:
            self._fail(
                f"{server} does not speak TLS as it should: {describe_tls_error(error)}; look at that server"
            )
        except socket.gaierror as error:
            self._fail(
                f"the name {server} is not found: {error.strerror}; correct the address, or look at the "
                "device's network and name servers"
            )
        except TimeoutError:
            self._fail(f"{server} says nothing; look at that server and the device's network")
        except (http.client.IncompleteRead, ConnectionResetError, BrokenPipeError):
            self._fail(f"{server} has ended the connection; it is asked again for the rest")
        except OSError as error:
            why = error.strerror or word(cut(str(error), _SHOWN_MOST))
            self._fail(
                f"{server} is not reached: {why}; look at that server, at the device's network, and at the "
                "proxy, if it has one"
            )
        except (http.client.HTTPException, ValueError) as error:
            self._fail(
                f"{server} answers what is no HTTP ({type(error).__name__}); look at that server"
            )

    def _fail(self, why: str) -> NoReturn:
        raise DownloadFailed(f"{self._download.name}: {why}") from None


def _join(url: str, location: str) -> str:
    """Return the address to which *location* leads from *url*. ValueError for what is not fetched."""
    if not location or len(location) > _ADDRESS_MOST:
        raise ValueError("it is empty, or too long")
    parts = urlsplit(urljoin(url, location))
    return check_url(parts._replace(netloc=parts.netloc.lower(), fragment="").geturl())


@attrs.frozen
class _Proxy:
    host: str
    port: int
    headers: dict[str, str] = attrs.field(repr=False)


def _find_proxy(host: str, port: int) -> _Proxy | None:
    """Return the proxy by which the environment has *host* be reached, as curl reads it."""
    # Nothing else of the agent needs what this needs.
    from urllib.request import getproxies_environment, proxy_bypass  # noqa: PLC0415

    proxies = getproxies_environment()
    if not (found := proxies.get("https", "")) or proxy_bypass(f"{host}:{port}"):
        return None
    parts = urlsplit(found if "://" in found else f"http://{found}")
    try:
        proxy_port = parts.port or _PROXY
    except ValueError:
        proxy_port = 0
    if parts.scheme != "http" or not parts.hostname or not proxy_port:
        raise DownloadFailed(
            "https_proxy, in the environment of the agent, is no address of a proxy; write http://HOST:PORT"
        )
    return _Proxy(parts.hostname, proxy_port, _make_login(parts.username, parts.password))


def _make_login(name: str | None, password: str | None) -> dict[str, str]:
    if name is None:
        return {}
    from base64 import b64encode  # noqa: PLC0415
    from urllib.parse import unquote  # noqa: PLC0415

    login = f"{unquote(name)}:{unquote(password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {b64encode(login).decode()}"}


def measure_reach(address: str) -> int:
    """Return from where *address* is reached: 0 from this machine or its link, 1 a private network, 2 all."""
    found = ipaddress.ip_address(address.partition("%")[0])
    found = getattr(found, "ipv4_mapped", None) or found
    if found.is_loopback or found.is_link_local or found.is_unspecified:
        return 0
    return 2 if found.is_global else 1


def _find_validator(headers: Any) -> str:
    """Return by what a server knows this very content again: not by a weak tag, which is of the like, too."""
    tag = str(headers.get("ETag", ""))
    if _VALIDATOR.fullmatch(tag):
        return tag
    return ""


def _read_retry_after(text: str) -> float | None:
    """Return in how many seconds a server wants to be asked again; None where it does not say so."""
    if text.isascii() and text.isdecimal():
        return min(float(text[:9]), _ASKED_AGAIN_MOST_S)
    try:
        wait_s = parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(wait_s, 0.0), _ASKED_AGAIN_MOST_S)
