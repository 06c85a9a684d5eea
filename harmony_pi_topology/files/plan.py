"""What is to become of one file, in steps and as a diff. Shared by every reconciler of files.

    found, wished -> steps (``wrote 5 → 12 bytes``, ``mode 0600 → 0644``), and a diff where one may be shown

A diff is shown only of what everybody on the device may read, before *and* after. Whoever tells it cuts it to
what its readers can bear. Of a secret not even the hash is told, since a short one could be guessed from it;
and so it is of what was one until now, whatever is wished in its place.
"""

from __future__ import annotations

import hashlib

import attrs

from harmony_core.resources import Download, File, PresentAt
from harmony_core.steps import Changed, Created, Downloaded, Left, PutBack, Removed, Step, Wrote
from harmony_pi_topology.posix.safe_write import CopiedContent

__all__ = [
    "CHANGED_SINCE",
    "COMPARED_MAX_BYTES",
    "LEFT",
    "REMOVED",
    "RESTORED",
    "DesiredFile",
    "diff_of",
    "in_place_of",
    "may_be_shown",
    "resolve_desired",
    "steps_due",
]

COMPARED_MAX_BYTES = 16 * 1024
"""Beyond that, comparing line by line costs more than anybody learns from it."""
_OTHERS_MAY_READ = 0o004

REMOVED = Removed()
LEFT = Left("it was there before")
CHANGED_SINCE = Left("somebody changed it since")
RESTORED = PutBack("what was there before")


@attrs.frozen(kw_only=True)
class DesiredFile:
    """A `File` whose content is known and hashed."""

    content: bytes = attrs.field(repr=False)
    """Empty where it is too large to be held."""
    sha256: str
    state: PresentAt
    """What will be found once it is so; ``sha256`` is empty for a secret."""
    mode: int
    is_secret: bool
    replaces_secret: bool = False
    """What is there is a secret of ours."""
    downloaded_from: str = ""
    """The address, for people, from which its content comes for this, or would."""

    @property
    def hides_found(self) -> bool:
        """Whether nothing but the size may be told of the content that is there."""
        return self.is_secret or self.replaces_secret

    def as_told(self, found: PresentAt) -> PresentAt:
        """Return *found* as it may be reported."""
        return attrs.evolve(found, sha256="") if self.hides_found else found


def resolve_desired(
    file: File,
    content: bytes | CopiedContent,
    *,
    replaces_secret: bool = False,
    downloaded: bool = False,
) -> DesiredFile:
    """Return *file* with its *content*, or the content of its secret or asset.

    *downloaded* says that a download was, or would be, fetched for this.
    """
    if isinstance(content, bytes):
        sha256, held = hashlib.sha256(content).hexdigest(), content
    else:
        sha256, held = content.sha256, b""
    is_secret = file.has_secret
    state = PresentAt(
        sha256="" if is_secret else sha256,
        mode=f"{file.mode:04o}",
        size_bytes=len(content) if isinstance(content, bytes) else content.size_bytes,
        owner=file.owner,
        group=file.group,
    )
    return DesiredFile(
        content=held,
        sha256=sha256,
        state=state,
        mode=file.mode,
        is_secret=is_secret,
        replaces_secret=replaces_secret,
        downloaded_from=file.content.name
        if downloaded and isinstance(file.content, Download)
        else "",
    )


def steps_due(found: PresentAt | None, desired: DesiredFile) -> tuple[Step, ...]:
    """Return what is to be done; nothing when *found*, with its true hash, is as desired.

    A file that was not hashed, since it is too large to be the desired one, has an empty hash.
    """
    if found is None:
        return (*_download_steps(desired), Created())
    attributes = (
        Changed("mode", found.mode, desired.state.mode),
        Changed("owner", found.owner, desired.state.owner),
        Changed("group", found.group, desired.state.group),
    )
    changed = (each for each in attributes if each.before != each.after)
    return (*_content_steps(found, desired), *changed)


def in_place_of(kind: str, desired: DesiredFile) -> tuple[Step, ...]:
    """Return the steps to do where a file of ours was, and a *kind* of something else is now."""
    return (Removed(f"a {kind} that had taken its place"), *steps_due(None, desired))


def _content_steps(found: PresentAt, desired: DesiredFile) -> tuple[Step, ...]:
    if found.sha256 == desired.sha256:
        return ()
    size_bytes = "?" if desired.state.size_bytes is None else desired.state.size_bytes
    wrote = f"{found.size_bytes} → {size_bytes} bytes"
    if found.sha256 and not desired.hides_found:
        wrote += f", sha256 {found.sha256[:12]}… → {desired.sha256[:12]}…"
    return (*_download_steps(desired), Wrote(wrote))


def _download_steps(desired: DesiredFile) -> tuple[Step, ...]:
    return (Downloaded(desired.downloaded_from),) if desired.downloaded_from else ()


def may_be_shown(found: PresentAt, desired: DesiredFile) -> bool:
    """Return whether a diff from *found* to *desired* may be shown to everybody, and is worth the work."""
    return (
        not desired.hides_found
        and len(desired.content) == desired.state.size_bytes  # else it is not held
        and bool(int(found.mode, 8) & desired.mode & _OTHERS_MAY_READ)
        and max(found.size_bytes or 0, len(desired.content)) <= COMPARED_MAX_BYTES
    )


def diff_of(path: str, before: bytes, after: bytes) -> str | None:
    """Return a unified diff of text; None when either is not text, or when they are equal. See
    `may_be_shown`."""
    old, new = _as_lines(before), _as_lines(after)
    if old is None or new is None:
        return None
    import difflib  # noqa: PLC0415 - most agents never show a diff, and would carry it for life

    diff = "".join(difflib.unified_diff(old, new, f"a{path}", f"b{path}"))
    return diff or None


def _as_lines(content: bytes) -> list[str] | None:
    """Return lines that all end in a newline; None for what is not plain text."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    if not all(character.isprintable() or character in "\t\n" for character in text):
        return None
    lines = text.split("\n")
    whole = [f"{line}\n" for line in lines[:-1]]
    return [*whole, f"{lines[-1]}\n\\ No newline at end of file\n"] if lines[-1] else whole
