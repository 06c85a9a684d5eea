"""What can be typed after ``harmony trust``. Imports nothing but argparse, as `.parser` does."""

from __future__ import annotations

import argparse
from collections.abc import Callable

__all__ = ["add_trust"]

Completes = Callable[[argparse.Action], None]


def add_trust(
    made: argparse.ArgumentParser, common: argparse.ArgumentParser, completes: Completes
) -> None:
    """Add the commands to *made*. *completes* marks an argument that is completed as a file name."""
    whats = made.add_subparsers(required=True, metavar="WHAT", dest="what")

    def what(name: str, text: str) -> argparse.ArgumentParser:
        return whats.add_parser(
            name, parents=[common], help=text, description=text, allow_abbrev=False
        )

    show = what("show", "show the newest root document: which keys may sign what")
    _file(show, completes)

    init = what("init", "make the first root document, with all keys that are trusted now")
    _root_keys(init, completes)
    init.add_argument(
        "--threshold", type=int, default=1, metavar="K", help="how many of the keys must sign"
    )
    init.add_argument(
        "--expires-in",
        metavar="TIME",
        help="lifetime of the document, such as 365d (default: never expires)",
    )
    _signing(init, completes)

    key = what("key", "make a root key, in a file or a hardware token")
    completes(
        key.add_argument(
            "file",
            metavar="KEY",
            help="the key, such as root-a.key, or 'pkcs11:token=NAME;object=root-a'",
        )
    )
    completes(
        key.add_argument(
            "--public", metavar="FILE", help="for a key in a token: write its public half to FILE"
        )
    )

    add = what("add", "add keys that may sign, or change what they may sign")
    add.add_argument(
        "name", metavar="NAME", help="the name of the operator, or of the purpose of the keys"
    )
    completes(
        add.add_argument(
            "files",
            nargs="+",
            metavar="FILE",
            help="public keys: operator.pub, or the pkcs11: URI of a key in a token",
        )
    )
    add.add_argument(
        "--kinds",
        metavar="KIND,…",
        help="the keys may change only these kinds of Score, and no other key may change them",
    )
    add.add_argument(
        "--classes",
        metavar="CLASS,…",
        help="the keys may sign only for these classes (names or patterns, 'kiosk-*')",
    )
    add.add_argument(
        "--agents",
        metavar="AGENT,…",
        help="the keys may sign only for these devices (ids or patterns); with --classes, for both",
    )
    add.add_argument(
        "--threshold", type=int, default=1, metavar="N", help="how many of the keys must sign"
    )
    add.add_argument(
        "--until",
        metavar="TIME",
        help="how long the keys may sign, such as 90d (default: no limit)",
    )
    add.add_argument(
        "--signs",
        metavar="WHAT,…",
        help="what the keys may sign: manifest, request, device (default: all; with --kinds or "
        "--agents, not device; with --classes alone, only manifest)",
    )
    _signing(add, completes)

    remove = what("remove", "remove keys, so that no device accepts their signatures")
    remove.add_argument("name", metavar="NAME", help="the name, as `harmony trust show` shows it")
    remove.add_argument(
        "--stolen",
        action="store_true",
        help="start a new epoch: devices accept nothing that was signed before",
    )
    _signing(remove, completes)

    rotate = what("rotate", "replace the root keys")
    _root_keys(rotate, completes)
    rotate.add_argument("--threshold", type=int, metavar="K", help="how many of the keys must sign")
    _signing(rotate, completes)

    renew = what("renew", "extend the lifetime of the root document")
    renew.add_argument("--expires-in", metavar="TIME", help="lifetime from now on, such as 365d")
    renew.add_argument(
        "--new-epoch",
        action="store_true",
        help="start a new epoch: devices accept nothing that was signed before",
    )
    _signing(renew, completes)

    sign = what("sign", "sign a root document that is not published yet; needs no network")
    _file(sign, completes)
    completes(
        sign.add_argument(
            "--before",
            metavar="FILE",
            help="the previous version, such as 3.json (default: the one in this home, or beside FILE)",
        )
    )
    _signing(sign, completes)
    sign.add_argument("--yes", action="store_true", help="do not ask")

    publish = what("publish", "publish a root document that enough root keys have signed")
    _file(publish, completes)
    publish.add_argument(
        "--replace",
        metavar="SHA256",
        help="replace a first root document that somebody else has published",
    )


def _file(made: argparse.ArgumentParser, completes: Completes) -> None:
    completes(
        made.add_argument(
            "file", nargs="?", metavar="FILE", help="a root document that is not published yet"
        )
    )


def _root_keys(made: argparse.ArgumentParser, completes: Completes) -> None:
    completes(
        made.add_argument(
            "--root-key",
            action="append",
            metavar="FILE",
            help="the public half of a root key (.pub), or the pkcs11: URI of a key in a token; "
            "repeatable",
        )
    )


def _signing(made: argparse.ArgumentParser, completes: Completes) -> None:
    completes(
        made.add_argument(
            "--key",
            action="append",
            metavar="KEY",
            help="a root key to sign with: a file, or a URI such as 'pkcs11:token=NAME;object=root-a', "
            "hv:NAME/VERSION or file2:root.pem",
        )
    )
    completes(
        made.add_argument(
            "--public", metavar="FILE", help="with a URI: the file with the key's public half"
        )
    )
