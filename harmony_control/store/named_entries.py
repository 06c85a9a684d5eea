"""Entries with secrets that this operator has pushed by name: only these get values of his secrets.

    a push names an entry -> its id and the hash of what it says are noted here -> later pushes that name
                                                                                  others seal for it, too

Who changes an entry says where its values go. So one that another operator has changed, and nobody has pushed
by name from here, gets none by a push of something else.

One file for each device, beside its manifests: a line for each entry, the last used last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from harmony_core.wire.manifest import SCORES_MOST, SerializedScore, hash_entry
from harmony_core.wire.names import is_id

from .home import Home, read_if_there, write_whole

__all__ = ["NAMED_MOST", "NamedEntries"]

NAMED_MOST = 5 * SCORES_MOST
"""Entries of one device that are kept: all of its manifest, and some to which it may be rolled back."""

_HASH = re.compile(r"[0-9a-f]{64}")


class NamedEntries:
    """Those of one device, as the file had them when this was made. `ConfigError` where others may write it:
    they would choose who is told values."""

    def __init__(self, home: Home, agent_id: str) -> None:
        self._home, self._agent_id = home, agent_id
        path = home.manifest_json(agent_id, ".named")
        home.refuse_open(path)
        self._lines = dict.fromkeys(
            line
            for line in (read_if_there(path) or b"").decode("ascii", "replace").splitlines()
            if _is_entry(line)
        )

    def __contains__(self, entry: SerializedScore) -> bool:
        return _line_of(entry) in self._lines

    def note(self, entries: Mapping[str, SerializedScore]) -> None:
        """Keep *entries*, of one manifest, too, as the last used: durably. `ConfigError`."""
        used = dict.fromkeys(_line_of(each) for each in entries.values())
        kept = [*(line for line in self._lines if line not in used), *used][-NAMED_MOST:]
        if kept == [*self._lines]:
            return
        self._lines = dict.fromkeys(kept)
        path = self._home.manifest_json(self._agent_id, ".named")
        write_whole(path, "".join(f"{line}\n" for line in kept))


def _line_of(entry: SerializedScore) -> str:
    return f"{hash_entry(entry)} {entry.id}"


def _is_entry(line: str) -> bool:
    digest, _, score = line.partition(" ")
    return bool(_HASH.fullmatch(digest)) and is_id(score)
