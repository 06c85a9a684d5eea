"""A part of a text file that belongs to others: some lines, one setting, one word of its only line."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal, TypeAlias
from urllib.parse import quote, unquote

import attrs
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from harmony_core.claims import alike
from harmony_core.paths import AbsolutePath, is_on_disk
from harmony_core.run_by_root import is_harmless_at_boot, is_read_at_boot, place_run_by_root

from ._base import Privilege, Resource, State, in_words
from .file import UserName

__all__ = [
    "Block",
    "BlockAt",
    "BlockLines",
    "BlockName",
    "BlockPart",
    "BlockText",
    "BootText",
    "CommentPrefix",
    "Line",
    "SectionName",
    "Setting",
    "SettingKey",
    "Word",
    "WordValue",
    "split_block_key",
]

_SAFE = " !$&'()*+,-.:;<=>?@[]_{|}~"
"""What stands as it is in a key; what would end a part of it does not."""
_TOP = "^"
_MARKER = re.compile(r"harmony: (?:begin|end) ")


def _plain(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("write plain text on one line, without spaces around it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("has half a character (a lone surrogate); remove it") from None
    return text


def _one_word(text: str) -> str:
    if " " in _plain(text):
        raise ValueError("is several words; write one Score for each")
    return text


def _plain_lines(text: str) -> str:
    for line in text.split("\n"):
        if not line.replace("\t", " ").isprintable():
            raise ValueError("has a control character; write plain text")
        if _MARKER.search(line):
            raise ValueError("has a line that reads as a marker of Harmony's; leave it out")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("has half a character (a lone surrogate); remove it") from None
    return text


_Plain = AfterValidator(_plain)
BlockName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"),
    in_words("write a name of letters, digits and ._-, as in lab-hosts"),
]
BlockText = Annotated[str, StringConstraints(max_length=64 * 1024), AfterValidator(_plain_lines)]
"""Lines of text. A newline at the end is the same as none."""
CommentPrefix = Annotated[
    str,
    StringConstraints(pattern=r"^[!-/:-@\[-`{-~]{1,4}$"),
    in_words("write what begins a comment in that file, as in #"),
]
SectionName = Annotated[
    str,
    StringConstraints(pattern=r"^[^\[\]]+$", max_length=128),
    _Plain,
    in_words("write the name between [ and ], without them, as in Time"),
]
SettingKey = Annotated[
    str,
    StringConstraints(pattern=r"^[^#;\[\s][^\s]*$", max_length=128),
    _Plain,
    in_words("write the name before the =, as in gpu_mem or dtparam=i2c_arm"),
]
BootText = Annotated[str, StringConstraints(min_length=1, max_length=512), _Plain]
"""Text on one line, without spaces around it."""
_Value = Annotated[str, StringConstraints(max_length=1024), _Plain]
_Word = Annotated[str, StringConstraints(min_length=1, max_length=512), AfterValidator(_one_word)]
_WordName = Annotated[
    str,
    StringConstraints(pattern=r"^[^=\s]+$", max_length=128),
    _Plain,
    in_words("write the name before the =, as in console"),
]
_MaybeEmptyWord = Annotated[str, StringConstraints(max_length=512), AfterValidator(_one_word)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class BlockLines(_Part):
    """Some lines between two markers, at the end of the file unless they stand elsewhere already."""

    kind: Literal["lines"] = "lines"
    """Which kind of part it is."""
    name: BlockName
    """What the markers are named by: ``# harmony: begin NAME``."""
    text: BlockText
    """The lines between the markers."""
    comment: CommentPrefix = "#"
    """What begins a comment in this file."""

    @property
    def selector(self) -> str:
        return f"lines:{_quoted(self.name)}"

    def claims(self, path: str) -> frozenset[str]:  # noqa: ARG002 - its name is all
        return frozenset()

    @property
    def written(self) -> tuple[str, ...]:
        return tuple(self.text.split("\n"))


class _InSection(_Part):
    section: SectionName | None = None
    """The section that it is in; unless set, what stands before the first header."""
    and_top: bool = False
    """Whether what is before the first header belongs to this section too, as to ``all`` in config.txt."""

    @property
    def _place(self) -> str:
        return f"{_TOP if self.and_top else ''}{_quoted(self.section or '')}"


class Setting(_InSection):
    """The setting *key* has this value: ``KEY=VALUE``, on one line, once in its section."""

    kind: Literal["setting"] = "setting"
    """Which kind of part it is."""
    key: SettingKey
    """Its name."""
    value: _Value
    """What stands behind the ``=``."""

    @property
    def selector(self) -> str:
        return f"setting:{self._place}/{_quoted(self.key)}"

    def claims(self, path: str) -> frozenset[str]:
        return frozenset({f"setting:{path} {self.section or ''}/{self.key}"})

    @property
    def written(self) -> tuple[str, ...]:
        return (f"{self.key}={self.value}",)


class Line(_InSection):
    """This very line is there: for what may stand there several times, such as ``dtoverlay=…``."""

    kind: Literal["line"] = "line"
    """Which kind of part it is."""
    line: BootText
    """The line, without spaces around it."""

    @property
    def selector(self) -> str:
        return f"line:{self._place}/{_quoted(self.line)}"

    def claims(self, path: str) -> frozenset[str]:
        """Return the settings to which this line adds a value: others conflict if they set one alone."""
        parts = self.line.split("=")
        names = ("=".join(parts[:count]) for count in range(1, len(parts)))
        section = self.section or ""
        return frozenset(alike(f"setting:{path} {section}/{name}", "many") for name in names)

    @property
    def written(self) -> tuple[str, ...]:
        return (self.line,)


class Word(_Part):
    """This very word is on the file's only line, as in cmdline.txt."""

    kind: Literal["word"] = "word"
    """Which kind of part it is."""
    word: _Word
    """The word, such as ``quiet`` or ``console=tty1``."""

    @property
    def selector(self) -> str:
        return f"word:{_quoted(self.word)}"

    def claims(self, path: str) -> frozenset[str]:
        name, is_value, _ = self.word.partition("=")
        return frozenset({alike(f"word:{path} {name}", "many")} if is_value else ())

    @property
    def written(self) -> tuple[str, ...]:
        return (self.word,)


class WordValue(_Part):
    """The one word ``NAME=…`` of the file's only line has this value."""

    kind: Literal["word-value"] = "word-value"
    """Which kind of part it is."""
    name: _WordName
    """What stands before the ``=``."""
    value: _MaybeEmptyWord
    """What stands behind it."""

    @property
    def selector(self) -> str:
        return f"word-value:{_quoted(self.name)}"

    def claims(self, path: str) -> frozenset[str]:
        return frozenset({f"word:{path} {self.name}"})

    @property
    def written(self) -> tuple[str, ...]:
        return (f"{self.name}={self.value}",)


BlockPart: TypeAlias = Annotated[
    BlockLines | Setting | Line | Word | WordValue, Field(discriminator="kind")
]


def _quoted(text: str) -> str:
    return quote(text, safe=_SAFE)


def split_block_key(key: str) -> tuple[str, str, tuple[str, ...]]:
    """Return the path, the kind of part and its selector, from the *key* of a `Block`.

    For a part of a section, the selector is the section, with ``^`` before it where the top belongs to it
    too, and the setting's name or the line.
    """
    path, _, selector = key.rpartition("#")
    kind, _, names = selector.partition(":")
    return path, kind, tuple(map(unquote, names.split("/")))


class Block(Resource):
    """This part of the file at *path* is as desired; every other byte of the file is somebody else's.

    What the part was before is kept, and comes back when the Score goes, unless somebody else changed it
    since. Several Scores may have parts of one file; none may then have it whole. Mode, owner and whatever
    else the file has stay. A symbolic link, directory or device at *path* is refused.
    """

    resource_type: ClassVar[str] = "block"

    path: AbsolutePath
    """The file."""
    part: BlockPart
    """Which part of it, and what it is to be."""
    create: bool = True
    """Whether a file that is not there is made (0644, root). One with words is never made."""
    made_for: UserName | None = None
    """The user whom a file that is made belongs to, and who alone may read it (0600)."""
    keep_previous: bool = False
    """Keep the file as it was before the last change beside it, as ``NAME.harmony-previous``."""
    read_at_boot: bool = False
    """The file is read at boot alone: whether a change still waits for that is told."""

    @property
    def key(self) -> str:
        return f"{self.path}#{self.part.selector}"

    @classmethod
    def paths_of(cls, key: str) -> tuple[str, ...]:
        return (split_block_key(key)[0],)

    @classmethod
    def units_of(cls, key: str) -> tuple[str, ...]:  # noqa: ARG003 - it has none
        return ()

    @property
    def privileges(self) -> frozenset[Privilege]:
        if is_read_at_boot(self.path):
            is_harmless = all(map(is_harmless_at_boot, self.part.written))
        else:
            is_harmless = place_run_by_root(self.path) is None
        return frozenset(() if is_harmless else {"run-as-root"})

    @property
    def exclusive(self) -> frozenset[str]:
        return frozenset({alike(f"path:{self.path}", "parts")}) | self.part.claims(self.path)

    @classmethod
    def survives_reboot(cls, key: str) -> bool:
        return is_on_disk(key)


@attrs.frozen(kw_only=True)
class BlockAt(State):
    """The part is there. ``sha256`` is of its text, and ``text`` is that itself where everybody may read the
    file and it is short. ``awaits_reboot``: it is another than the device was booted with."""

    sha256: str
    text: str = ""
    awaits_reboot: bool = False

    @property
    def is_ready(self) -> bool:
        return True
