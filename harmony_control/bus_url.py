"""Where a bus is, as people write it: ``tls://HOST:PORT``, or HOST:PORT alone; of a cluster several of them,
with commas between, as NATS' own tools take them.
"""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

__all__ = ["bus_url", "is_loopback", "split_url"]


def bus_url(text: str) -> str:
    """Return *text* as a full URL, or several. Raise ValueError, with the remedy, for what is no address of a
    bus.

    ``nats://`` is accepted, too: the connection is TLS in any case.
    """
    return ",".join(_one_url(each.strip()) for each in text.split(","))


def split_url(url: str) -> tuple[str, ...]:
    """Return each server of what `bus_url` has returned."""
    return tuple(url.split(","))


def _one_url(text: str) -> str:
    url = f"tls://{text.removeprefix('tls://').removeprefix('nats://')}"
    if not _is_address(url):
        raise ValueError(f"{text!r} is not a server's address; write tls://HOST:PORT")
    return url


def _is_address(url: str) -> bool:
    """Return whether it is a host, with or without a port, and nothing else: no password, no path."""
    try:
        parts = urlsplit(url)
        # As whoever looks its address up writes it; what cannot be written so is no name.
        is_whole = bool((parts.hostname or "").encode("idna")) and parts.port != 0
    except ValueError:
        return False
    return is_whole and url == f"tls://{parts.netloc}" and not set("@ \t\r\n") & set(url)


def is_loopback(url: str) -> bool:
    """Return whether *url*, or one of several, always leads to the machine that uses it."""
    return any(_leads_back(urlsplit(each).hostname or "") for each in split_url(url))


def _leads_back(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
