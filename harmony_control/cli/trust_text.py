"""What a root document says, and what it changes of the one before, in words."""

from __future__ import annotations

from collections.abc import Iterator

from harmony_core.wire.envelope import VerifyKey
from harmony_core.wire.root import Root, Scope
from harmony_core.wire.times import rfc3339

__all__ = ["describe_changes", "describe_root"]


def describe_root(root: Root, sha256: str) -> list[str]:
    """Return the content of *root*, one line for each fact."""
    until = _describe_end(root)
    keys = ", ".join(map(_short, root.root_keys))
    return [
        f"root document {root.version} of {root.fleet}, epoch {root.epoch}, {until}",
        f"sha256        {sha256}",
        f"root keys     {root.root_threshold} of {keys}",
        *(f"{each.name:<13} {_describe_scope(each)}" for each in root.scopes),
    ]


def _describe_scope(scope: Scope) -> str:
    kinds = "all kinds" if scope.kinds is None else ", ".join(scope.kinds)
    until = "" if scope.until is None else f", until {rfc3339(scope.until)}"
    signs = "" if len(scope.signs) == 3 else f", only {', '.join(scope.signs)}"
    keys = ", ".join(map(_short, scope.keys))
    return f"{scope.threshold} of {keys}: {kinds}{_describe_limit(scope)}{signs}{until}"


def _describe_limit(scope: Scope) -> str:
    parts = [
        f"{what} {', '.join(patterns)}"
        for what, patterns in (("classes", scope.classes), ("devices", scope.agents))
        if patterns is not None
    ]
    return f", only for {' and '.join(parts)}" if parts else ""


def _short(key: str) -> str:
    return f"{VerifyKey.from_text(key).id[:16]}…"


def _describe_end(root: Root) -> str:
    return "never expires" if root.expires_at is None else f"until {rfc3339(root.expires_at)}"


def describe_changes(root: Root, before: Root | None) -> list[str]:
    """Return the changes from *before* to *root*, one on a line: + is new, - is removed, ~ is changed."""
    if before is None:
        return ["the first root document: from then on it alone says who may sign"]
    return list(_find_changes(root, before)) or ["nothing but its date"]


def _find_changes(root: Root, before: Root) -> Iterator[str]:
    gone = [key for key in before.root_keys if key not in root.root_keys]
    yield from (
        f"+ root key {_short(key)}" for key in root.root_keys if key not in before.root_keys
    )
    yield from (f"- root key {_short(key)}" for key in gone)
    yield from _find_changed_scopes(root, before)
    if root.root_threshold != before.root_threshold:
        yield f"~ root keys that must sign: {root.root_threshold}; was {before.root_threshold}"
    if root.epoch != before.epoch:
        yield f"~ epoch {root.epoch}; was {before.epoch}: makes void all that was signed so far"
    if root.expires_at != before.expires_at:
        yield f"~ {_describe_end(root)}; was: {_describe_end(before)}"


def _find_changed_scopes(root: Root, before: Root) -> Iterator[str]:
    old = {each.name: each for each in before.scopes}
    new = {each.name: each for each in root.scopes}
    for name, scope in new.items():
        if name not in old:
            yield f"+ {name}: {_describe_scope(scope)}"
        elif old[name] != scope:
            yield f"~ {name}: {_describe_scope(scope)}; was {_describe_scope(old[name])}"
    for name, scope in old.items():
        if name not in new:
            yield f"- {name}: {_describe_scope(scope)}"
