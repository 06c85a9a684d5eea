"""What can be typed after ``harmony trust``. Imports nothing but argparse, as `.parser` does."""

from __future__ import annotations

import argparse
from collections.abc import Callable

__all__ = ["add_trust"]

Completes = Callable[[argparse.Action], None]


def add_trust(
    made: argparse.ArgumentParser, common: argparse.ArgumentParser, completes: Completes
) -> None:
    """Add the commands to *made*. *completes* marks what is completed as the name of a file."""
    whats = made.add_subparsers(required=True, metavar="WHAT", dest="what")

    def what(name: str, text: str) -> argparse.ArgumentParser:
        return whats.add_parser(
            name, parents=[common], help=text, description=text, allow_abbrev=False
        )

    show = what("show", "show the newest root document: who may sign what")
    _file(show, completes)

    init = what("init", "make the first root document, with all who are trusted now")
    _root_keys(init, completes)
    init.add_argument("--threshold", type=int, default=1, metavar="K", help="how many must sign")
    init.add_argument("--expires-in", metavar="TIME", help="such as 365d (default: never expires)")
    _signing(init, completes)

    key = what("key", "make a root key, in a file or a hardware token")
    completes(
        key.add_argument(
            "file", metavar="KEY", help="such as root-a.key, or 'pkcs11:token=NAME;object=root-a'"
        )
    )
    completes(
        key.add_argument(
            "--public", metavar="FILE", help="of a key in a token: write its public half there"
        )
    )

    add = what("add", "let keys sign, or change what they may sign")
    add.add_argument("name", metavar="NAME", help="of the operator, or of what the keys are for")
    completes(
        add.add_argument(
            "files",
            nargs="+",
            metavar="FILE",
            help="public keys: operator.pub, or the pkcs11: URI of a key in a token",
        )
    )
    add.add_argument("--kinds", metavar="KIND,…", help="only these, and nobody else these")
    add.add_argument(
        "--classes",
        metavar="CLASS,…",
        help="only for these classes, by their names or patterns ('kiosk-*')",
    )
    add.add_argument(
        "--agents",
        metavar="AGENT,…",
        help="only for these devices, by their ids or patterns; with --classes, for both",
    )
    add.add_argument("--threshold", type=int, default=1, metavar="N", help="how many must sign")
    add.add_argument("--until", metavar="TIME", help="from now on, such as 90d (default: for ever)")
    add.add_argument(
        "--signs",
        metavar="WHAT,…",
        help="of manifest, request, device (default: all of them; with --kinds or --agents, not device; with "
        "--classes alone, only manifest)",
    )
    _signing(add, completes)

    remove = what("remove", "let keys sign no more, on any device")
    remove.add_argument("name", metavar="NAME", help="as in `harmony trust show`")
    remove.add_argument(
        "--stolen",
        action="store_true",
        help="begin a new epoch: nothing that was signed before is accepted any more",
    )
    _signing(remove, completes)

    rotate = what("rotate", "replace the root keys")
    _root_keys(rotate, completes)
    rotate.add_argument("--threshold", type=int, metavar="K", help="how many must sign")
    _signing(rotate, completes)

    renew = what("renew", "have the root document count for longer")
    renew.add_argument("--expires-in", metavar="TIME", help="from now on, such as 365d")
    renew.add_argument(
        "--new-epoch", action="store_true", help="make void all that was signed so far"
    )
    _signing(renew, completes)

    sign = what("sign", "sign a root document that waits for it; needs no network")
    _file(sign, completes)
    completes(
        sign.add_argument(
            "--before",
            metavar="FILE",
            help="the version before, such as 3.json (default: of this home, or beside FILE)",
        )
    )
    _signing(sign, completes)
    sign.add_argument("--yes", action="store_true", help="do not ask")

    publish = what("publish", "publish a root document that enough root keys have signed")
    _file(publish, completes)
    publish.add_argument(
        "--replace",
        metavar="SHA256",
        help="put it in the place of a first one that somebody else has published",
    )


def _file(made: argparse.ArgumentParser, completes: Completes) -> None:
    completes(
        made.add_argument("file", nargs="?", metavar="FILE", help="one that waits to be published")
    )


def _root_keys(made: argparse.ArgumentParser, completes: Completes) -> None:
    completes(
        made.add_argument(
            "--root-key",
            action="append",
            metavar="FILE",
            help="the public half of a root key (.pub), or the pkcs11: URI of one in a token; once for each",
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
            "--public", metavar="FILE", help="with a URI: the file of its public half"
        )
    )
