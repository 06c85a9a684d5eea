"""Where a bus is, as people write it: ``tls://HOST:PORT``, or HOST:PORT alone."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

__all__ = ["bus_url", "is_loopback"]


def bus_url(text: str) -> str:
    """Return *text* as a full URL; ValueError, with the remedy, for what is not where a bus can be.

    What is written ``nats://`` is meant, too: there is no other way to it than TLS.
    """
    url = f"tls://{text.removeprefix('tls://').removeprefix('nats://')}"
    if not _is_address(url):
        raise ValueError(f"{text!r} is not a server's address; write tls://HOST:PORT")
    return url


def _is_address(url: str) -> bool:
    """Return whether it is a host, perhaps a port, and nothing else: no password, no path."""
    try:
        parts = urlsplit(url)
        # As whoever looks its address up writes it; what cannot be written so is no name.
        is_whole = bool((parts.hostname or "").encode("idna")) and parts.port != 0
    except ValueError:
        return False
    return is_whole and url == f"tls://{parts.netloc}" and not set("@ \t\r\n") & set(url)


def is_loopback(url: str) -> bool:
    """Return whether *url* leads back to whatever machine it is used on."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
