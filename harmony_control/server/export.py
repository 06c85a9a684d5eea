"""Writes what somebody needs who runs a NATS server of their own for a fleet.

    nats.conf                the whole configuration, with the reason of each part as a comment
    server.pem, server.key   with which the server proves who it is
    buckets/*.json           the streams to be made, as `nats stream add --config` reads them

It is the configuration of `harmony server`, but for what belongs to that one's process: its log and its pid.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import wrap
from typing import cast

import attrs

from harmony_control.store.home import Home, read_if_there, write_json, write_whole
from harmony_core.errors import ConfigError, UsageError

from .apply import server_config, server_pid
from .buckets import describe_buckets
from .config import ServerConfig, to_document
from .process import IssuedCertificate, prepare

__all__ = ["export"]

STORE = Path("/var/lib/nats")
_COMMENT_WIDTH = 100
_OWN = ("pid_file", "log_file", "logfile_size_limit", "logfile_max_num")
_COMMENTS = {
    "": (
        "For NATS 2.12 or newer, written by `harmony server --export`. Whenever a device or an "
        "operator was added or removed, write it again, and have the server read it again: "
        "nats-server --signal reload."
    ),
    "tls": (
        "TLS 1.3 alone, and before a word of NATS' own protocol, so that nobody on the way can "
        "change one. Devices and operators trust the authority that has issued this "
        "certificate, and no other."
    ),
    "max_payload": "The largest message of any bucket, with room for headers.",
    "max_control_line": (
        "What one stolen key could use up: lengths of lines, connections, subscriptions of each "
        "(a device needs three), what one has not read, and how long it may take to read it."
    ),
    "jetstream": (
        "An acknowledged write must be on the disk: by default NATS waits up to two minutes, "
        "and a power cut takes back what an operator was told is kept."
    ),
    "accounts.CTRL": (
        "The control plane: operators, by their public keys, and JetStream. What devices may "
        "ask of it is exported one by one."
    ),
    "accounts.FLEET": (
        "The devices. They have an account of their own, without JetStream: NATS checks to "
        "which subject a message goes, and not where its reply is to go, so in one account with "
        "the buckets a device could have the server write into another's. Each may publish and "
        "subscribe to what its own id or mailbox is part of, and to nothing else: no stream's "
        "information, no consumer, no DIRECT.GET without a subject behind it."
    ),
    "accounts.LOOK": (
        "Operators who may only look. They read the buckets, and are in an account of their own for "
        "the same reason as devices."
    ),
    "accounts.DOOR": (
        "Who has an invitation, and is no device yet. Who answers them is `harmony server`, and "
        "no other; with this one, let devices in by `harmony add-agent`."
    ),
}


def export(
    home: Home,
    directory: Path,
    *,
    listen: str | None,
    fleet: str | None,
    issued: IssuedCertificate | None,
) -> None:
    """Write the files to *directory*, after the home's newest state. What was there of them is replaced.

    *listen*, *fleet* and *issued* are as of `running`, and remembered; `UsageError` where one is given and a
    server of *home* runs, and where *directory* is that server's own.
    """
    own = home.server.resolve()
    if directory.resolve().is_relative_to(own) or own.is_relative_to(directory.resolve()):
        raise UsageError(
            f"in {directory} are the files of the server that is run from this home; name another directory"
        )
    if server_pid(home) is None:
        prepare(home, listen, fleet, issued)
    elif (listen, fleet, issued) != (None, None, None):
        raise UsageError(
            f"a server runs from {home.root}, with options of its own; end it first, or leave --listen, "
            "--fleet and --tls-… away"
        )
    with home.editing():
        config = server_config(home, home.control())
    certificate, key = directory / "server.pem", directory / "server.key"
    for source, target in ((config.certificate, certificate), (config.key, key)):
        content = read_if_there(source)
        if content is None:
            raise ConfigError(
                f"there is no {source}; start `harmony server` once, which looks at it"
            )
        write_whole(target, content)
    moved = attrs.evolve(
        config, directory=STORE, certificate=certificate.absolute(), key=key.absolute()
    )
    write_whole(directory / "nats.conf", _render_with_comments(moved))
    for name, options in describe_buckets().items():
        write_json(directory / "buckets" / f"{name}.json", options)


def _render_with_comments(config: ServerConfig) -> str:
    document = {name: each for name, each in to_document(config).items() if name not in _OWN}
    return "\n".join([*_comment(""), *_lines(document)]) + "\n"


def _lines(table: Mapping[str, object], path: str = "", indent: str = "") -> Iterator[str]:
    """Yield *table* in NATS' own format, of which JSON is a part. A table in which something has a comment is
    opened."""
    for name, value in table.items():
        at = f"{path}{name}"
        yield from (indent + line for line in _comment(at))
        if any(each.startswith(f"{at}.") for each in _COMMENTS):
            yield f"{indent}{name} {{"
            yield from _lines(cast("Mapping[str, object]", value), f"{at}.", f"{indent} ")
            yield f"{indent}}}"
        else:
            text = json.dumps(value, indent=1, ensure_ascii=False).replace("\n", f"\n{indent}")
            yield f"{indent}{name}: {text}"


def _comment(at: str) -> Iterator[str]:
    if at in _COMMENTS:
        yield ""
        yield from (
            f"# {line}" for line in wrap(_COMMENTS[at], _COMMENT_WIDTH, break_on_hyphens=False)
        )
