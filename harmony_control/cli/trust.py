"""``harmony trust``: who may sign what, said by root keys."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import attrs

from harmony_control.fleet import Fleet
from harmony_control.roots import Taken
from harmony_control.signers import (
    create_key,
    create_key_in_token,
    load_signer,
    public_path,
    read_public_key,
)
from harmony_control.store.home import Home
from harmony_control.store.roots import read_hashes
from harmony_control.store.token_uri import is_token_uri
from harmony_control.times_typed import lasting
from harmony_control.trust import (
    Proposal,
    add_scope,
    change_root,
    first_root,
    propose,
    read_before,
    remove_scope,
)
from harmony_core import plugins
from harmony_core.close_names import did_you_mean
from harmony_core.errors import UsageError
from harmony_core.wire.envelope import Signer, VerifyKey
from harmony_core.wire.root import Root

from .common import home_of, out, warn
from .confirm import confirm
from .exits import CONVERGED, FAILED
from .trust_text import describe_changes, describe_root

__all__ = ["run"]

_TAKEN_WITHIN_S = 5.0
_NAMED = 10


def run(options: argparse.Namespace) -> int:
    """Run the command that the options name."""
    runs: dict[str, Callable[[argparse.Namespace], int]] = {
        "init": _init,
        "key": _key,
        "show": _show,
        "add": _add,
        "remove": _remove,
        "rotate": _rotate,
        "renew": _renew,
        "sign": _sign,
        "publish": _publish,
    }
    return runs[options.what](options)


def _key(options: argparse.Namespace) -> int:
    if is_token_uri(options.file):
        return _key_in_token(options)
    if options.public:
        raise UsageError("a key in a file has its public half beside it; leave --public out")
    public = create_key(Path(options.file))
    half = public_path(Path(options.file))
    out(
        options,
        {"event": "key", "key": public.to_text(), "id": public.id},
        f"{options.file} is made: keep it off line. Its public half, {half}, is what others need",
    )
    return CONVERGED


def _key_in_token(options: argparse.Namespace) -> int:
    half = Path(options.public) if options.public else None
    public, is_made = create_key_in_token(options.file, half)
    out(
        options,
        {"event": "key", "key": public.to_text(), "id": public.id, "made": is_made},
        f"{options.file} {'is made' if is_made else 'was there already'}. Its public half, which others need"
        + (f", is in {half}" if half else f":\n{public.to_text()}"),
    )
    return CONVERGED


def _init(options: argparse.Namespace) -> int:
    home = home_of(options)
    keys = _read_keys(options.root_key)
    made = not keys
    if made:
        keys = [_own_root_key(home)]
    expires_in = lasting(options.expires_in)
    proposal = first_root(home, keys, threshold=options.threshold, expires_in=expires_in)
    told = (
        f"root key      {home.root_key}: copy it to where no thief of this machine finds it, and delete it "
        "here; it is needed only to change who may sign"
    )
    if made and not options.json:
        print(told)
    return asyncio.run(_go_on(options, home, proposal))


def _own_root_key(home: Home) -> VerifyKey:
    if home.root_key.exists():
        return load_signer(str(home.root_key)).public
    return create_key(home.root_key)


def _add(options: argparse.Namespace) -> int:
    until = lasting(options.until, "--until")
    scope: dict[str, object] = {
        "name": options.name,
        "keys": tuple(key.to_text() for key in _read_keys(options.files)),
        "threshold": options.threshold,
        "kinds": _split(options.kinds),
        "classes": _split(options.classes),
        "agents": _split(options.agents),
        "until": None if until is None else datetime.now(UTC) + until,
    }
    if options.kinds:
        known = plugins.load().kinds
        for kind in options.kinds.split(","):
            if kind not in known:
                warn(
                    options,
                    f"only {options.name} may change Scores of the kind {kind} now, and no such kind is "
                    f"installed here{did_you_mean(kind, known)}",
                )
        scope["signs"] = ("manifest", "request")  # who a device is concerns all kinds
    if options.agents:
        scope["signs"] = ("manifest", "request")  # and the whole fleet
    elif options.classes:
        scope["signs"] = ("manifest",)  # a request is for a device
    if options.signs:
        scope["signs"] = tuple(options.signs.split(","))
    return _change(options, add_scope(scope))


def _split(names: str | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names.split(","))


def _remove(options: argparse.Namespace) -> int:
    return _change(options, remove_scope(options.name, is_stolen=options.stolen))


def _rotate(options: argparse.Namespace) -> int:
    keys = _read_keys(options.root_key)
    if not keys and options.threshold is None:
        raise UsageError("name the root keys that are to sign from now on, with --root-key")
    return _change(options, change_root(root_keys=keys or None, threshold=options.threshold))


def _renew(options: argparse.Namespace) -> int:
    expires_in = lasting(options.expires_in)
    if expires_in is None and not options.new_epoch:
        raise UsageError("say for how long, with --expires-in, or --new-epoch")
    change = change_root(expires_in=expires_in, is_new_epoch=options.new_epoch)
    return _change(options, change)


def _change(options: argparse.Namespace, change: Callable[[Root], Root]) -> int:
    async def do() -> int:
        home = home_of(options)
        async with Fleet.connect(home) as fleet:
            newest = await fleet.roots.read_newest()
        if newest is None:
            raise UsageError("this fleet has no root document; make one with `harmony trust init`")
        if home.next_root.exists():
            waiting = Proposal.read(home.next_root)
            if waiting.root.version > newest.version:
                raise UsageError(
                    f"{home.next_root} waits to be signed; go on with `harmony trust sign`, or delete it"
                )
        return await _go_on(options, home, propose(newest, change), newest)

    return asyncio.run(do())


def _sign(options: argparse.Namespace) -> int:
    """Sign a proposal. This needs neither a home nor a network: where a root key is, there may be neither."""
    home = home_of(options)
    path = Path(options.file) if options.file else home.next_root
    proposal = Proposal.read(path)
    if not options.key:
        raise UsageError("name the root key to sign with: --key FILE")
    before = read_before(
        proposal.root, home, path, Path(options.before) if options.before else None
    )
    signers = _load_signers(options)
    for signer in signers:
        proposal.refuse_key(before, signer.public.id)
    root, changes = proposal.root, describe_changes(proposal.root, before)
    document = {"event": "to sign", "root": root.model_dump(mode="json"), "changes": changes}
    out(
        options,
        {**document, "sha256": proposal.sha256},
        "\n".join([*describe_root(root, proposal.sha256), *_head_changes(before), *changes]),
    )
    if not options.yes and not asyncio.run(confirm("sign this?")):
        out(options, {"event": "not signed"}, "nothing was signed")
        return CONVERGED
    for signer in signers:
        proposal = proposal.sign(signer)
    proposal.write(path)
    count = len(proposal.signatures)
    out(
        options,
        {"event": "signed", "root": root.model_dump(mode="json"), "sha256": proposal.sha256},
        f"{path} is signed by {count} key{'s' * (count != 1)}",
    )
    return CONVERGED


def _head_changes(before: Root | None) -> list[str]:
    return [] if before is None else [f"of version {before.version} it changes:"]


def _publish(options: argparse.Namespace) -> int:
    home = home_of(options)
    path = Path(options.file) if options.file else home.next_root
    return asyncio.run(_publish_now(options, home, Proposal.read(path)))


async def _go_on(
    options: argparse.Namespace, home: Home, proposal: Proposal, newest: Root | None = None
) -> int:
    """Sign with the root keys that are at hand, and publish if that is enough."""
    given = _load_signers(options)
    for signer in given:
        proposal.refuse_key(newest, signer.public.id)
    own = [load_signer(str(home.root_key))] if home.root_key.exists() else []
    for signer in (*given, *own):
        if proposal.can_sign(newest, signer.public.id):
            proposal = proposal.sign(signer)
    proposal.write(home.next_root)
    if missing := proposal.find_missing(newest):
        _tell(
            options,
            proposal.root,
            f"not published yet: to be signed by {', and '.join(missing)}. Take {home.next_root} to where "
            "they are (harmony trust sign FILE --key KEY), then: harmony trust publish FILE",
            event="proposed",
            sha256=proposal.sha256,
        )
        return CONVERGED
    return await _publish_now(options, home, proposal)


async def _publish_now(options: argparse.Namespace, home: Home, proposal: Proposal) -> int:
    replaces: str | None = getattr(options, "replace", None)
    async with Fleet.connect(home) as fleet:
        root = await fleet.roots.publish(proposal.envelope, replaces=replaces)
        home.next_root.unlink(missing_ok=True)
        taken = await fleet.roots.look_who_has(root.version, within_s=_TAKEN_WITHIN_S)
    _tell(
        options,
        root,
        f"published; {_describe_taken(taken)}",
        event="published",
        taken=taken,
        sha256=proposal.sha256,
    )
    return _find_others(options, taken)


def _find_others(options: argparse.Namespace, taken: Taken) -> int:
    """Warn about the devices that follow another root document. Return the exit code for that."""
    if not taken.others:
        return CONVERGED
    warn(
        options,
        f"ANOTHER root document than is known here counts on {_names(taken.others)}. Enough root keys have "
        "signed that, too, or for a first one an operator whom those devices trust: find out who, and take "
        "out that key. Then let each device in again, so that it follows this one: harmony enroll root@HOST",
    )
    return FAILED


def _describe_taken(taken: Taken) -> str:
    told = [f"it counts on {len(taken.by)} device{'s' * (len(taken.by) != 1)}"]
    if taken.others:
        told.append(f"ANOTHER root document counts on {_names(taken.others)}")
    if taken.untold:
        each = [f"{name} (version {version})" for name, version in taken.untold.items()]
        told.append(f"not known which, since the agent is an older one: {_names(each)}")
    if taken.not_by:
        told.append(f"not yet: {_names(taken.not_by)}")
    if taken.away:
        told.append(f"away, and will fetch it: {_names(taken.away)}")
    return "; ".join(told)


def _names(agent_ids: Sequence[str]) -> str:
    more = len(agent_ids) - _NAMED
    return ", ".join(agent_ids[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _load_signers(options: argparse.Namespace) -> list[Signer]:
    public = Path(options.public) if options.public else None
    uris: list[str] = options.key or []
    return [load_signer(each, public) for each in uris]


def _read_keys(files: list[str] | None) -> list[VerifyKey]:
    return [read_public_key(each) for each in files or []]


def _show(options: argparse.Namespace) -> int:
    async def read() -> tuple[Root, Taken, str] | None:
        home = home_of(options)
        async with Fleet.connect(home) as fleet:
            root = await fleet.roots.read_newest()
            if root is None:
                return None
            taken = await fleet.roots.look_who_has(root.version)
        return root, taken, read_hashes(home)[root.version]

    if options.file:
        proposal = Proposal.read(Path(options.file))
        _tell(options, proposal.root, "", event="trust", sha256=proposal.sha256)
        return CONVERGED
    found = asyncio.run(read())
    if found is None:
        out(
            options,
            {"event": "trust", "root": None},
            "this fleet has no root document: devices trust the keys in their agent.toml; harmony trust init",
        )
        return CONVERGED
    root, taken, sha256 = found
    _tell(options, root, _describe_taken(taken), event="trust", taken=taken, sha256=sha256)
    return _find_others(options, taken)


def _tell(
    options: argparse.Namespace,
    root: Root,
    said: str,
    *,
    sha256: str,
    event: str,
    taken: Taken | None = None,
) -> None:
    document = {"event": event, "root": root.model_dump(mode="json"), "sha256": sha256}
    if taken is not None:
        document["devices"] = attrs.asdict(taken)
    out(options, document, "\n".join([*describe_root(root, sha256), *([said] if said else [])]))
