"""Where a part stands in a text, and the text with that part put in or taken out. No effect: bytes to bytes.

    find(content) -> the part's own text, without the end of its last line; None where it is not there
    put(content, text) -> in its place, or where it belongs: every other byte stays
    take(content)      -> without it

What cannot be told for certain is `UnsafePath`, with the remedy: a setting that stands there twice, a marker
without its other one. A line may end in CR LF, as in a file that was edited on Windows; what is put in ends
as the first line of the file does. A text need not be UTF-8 to have a part that is.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import attrs

from harmony_core.errors import InternalError, UnsafePath
from harmony_core.resources import Block, BlockLines, Line, Setting, Word, WordValue
from harmony_core.resources.block import split_block_key

__all__ = ["PartText", "has_section", "is_section_empty", "part_of", "take_header", "wanted_text"]

_HEADER = re.compile(rb"\s*\[([^\]\r\n]+)\]\s*(?:[#;].*)?")
_TOP = "^"


class PartText(ABC):
    """One part, as its key selects it."""

    section: str | None = None
    """The section that it needs a header of."""

    @abstractmethod
    def find(self, content: bytes) -> bytes | None:
        """Return the text of the part; None where it is not there."""

    @abstractmethod
    def put(self, content: bytes, text: bytes) -> bytes:
        """Return *content* with *text* as the part."""

    @abstractmethod
    def take(self, content: bytes) -> bytes:
        """Return *content* without the part, which is there."""


def part_of(key: str) -> PartText:
    """Return the part that the key of a `Block` selects."""
    path, kind, names = split_block_key(key)
    match kind, names:
        case "lines", (name,):
            return _Lines(path, name)
        case (("setting" | "line"), (place, name)):
            and_top, section = place.startswith(_TOP), place.removeprefix(_TOP)
            made = _Setting if kind == "setting" else _Line
            return made(path, name, section=section or None, and_top=and_top)
        case "word", (word,):
            return _Words(path, word, is_name=False)
        case "word-value", (name,):
            return _Words(path, name, is_name=True)
        case _:
            raise InternalError(f"{key} is no part of a file; report it")


def wanted_text(block: Block, found: bytes | None) -> bytes:
    """Return the text that the part of *block* must have, where *found* is its text now.

    Of a setting only its value counts: its indentation, and spaces around the ``=``, are left.
    """
    match block.part:
        case BlockLines(name=name, text=text, comment=comment):
            lines = text.removesuffix("\n").split("\n") if text else []
            marked = [f"{comment} harmony: begin {name}", *lines, f"{comment} harmony: end {name}"]
            return "\n".join(marked).encode()
        case Setting(key=key, value=value):
            if found is not None and (match := _setting(key).fullmatch(found)):
                is_met = match["value"].strip() == value.encode()
                return found if is_met else match["before"] + value.encode()
            return f"{key}={value}".encode()
        case Line(line=line):
            return found if found is not None else line.encode()
        case Word(word=word):
            return word.encode()
        case WordValue(name=name, value=value):
            return f"{name}={value}".encode()


def has_section(content: bytes, section: str | None, *, and_top: bool = False) -> bool:
    """Return whether *content* has a header of *section*, or needs none."""
    if section is None:
        return True
    lines = _lines(content)
    headers = [name for name in map(_header, lines) if name is not None]
    return section in headers or (and_top and not headers)


def is_section_empty(content: bytes, section: str) -> bool:
    """Return whether *content* has one header of *section*, followed by nothing but blank lines."""
    lines = _lines(content)
    return [
        all(not lines[index].strip() for index in range(start + 1, stop))
        for start, stop in _sections(lines, section)
        if start >= 0
    ] == [True]


def take_header(content: bytes, section: str) -> bytes:
    """Return *content* without the header of *section*, which nothing follows."""
    return b"".join(each for each in _lines(content) if _header(each) != section)


def _lines(content: bytes) -> list[bytes]:
    return content.splitlines(keepends=True)


def _bare(line: bytes) -> bytes:
    return line.rstrip(b"\r\n")


def _end_of_lines(lines: Sequence[bytes]) -> bytes:
    return b"\r\n" if lines and lines[0].endswith(b"\r\n") else b"\n"


def _header(line: bytes) -> str | None:
    found = _HEADER.fullmatch(_bare(line))
    return found[1].decode(errors="surrogateescape").strip() if found else None


def _sections(lines: Sequence[bytes], section: str | None) -> Iterator[tuple[int, int]]:
    """Yield where each part of *section* begins, with its header, and where it ends. The top begins at -1."""
    starts = [(-1, None), *((index, _header(line)) for index, line in enumerate(lines))]
    headers = [(index, name) for index, name in starts if index < 0 or name is not None]
    for (start, name), (stop, _) in zip(headers, [*headers[1:], (len(lines), None)], strict=True):
        if name == section:
            yield start, stop


def _insert(lines: list[bytes], index: int, texts: Sequence[bytes]) -> bytes:
    """Return the lines with *texts* before that of *index*, each on a line of its own."""
    end = _end_of_lines(lines)
    before, after = lines[:index], lines[index:]
    if before and not before[-1].endswith((b"\n", b"\r")):
        before[-1] += end
    return b"".join([*before, *(text.replace(b"\n", end) + end for text in texts), *after])


@attrs.frozen
class _Lines(PartText):
    path: str
    name: str

    def find(self, content: bytes) -> bytes | None:
        lines = _lines(content)
        if (span := self._span(lines)) is None:
            return None
        return b"\n".join(map(_bare, lines[slice(*span)]))

    def put(self, content: bytes, text: bytes) -> bytes:
        lines = _lines(content)
        if (span := self._span(lines)) is None:
            return _insert(lines, len(lines), [text])
        return _replace(lines, span, text)

    def take(self, content: bytes) -> bytes:
        lines = _lines(content)
        start, stop = self._span(lines) or (0, 0)
        return b"".join(lines[:start] + lines[stop:])

    def _span(self, lines: Sequence[bytes]) -> tuple[int, int] | None:
        begins, ends = (self._markers(lines, word) for word in ("begin", "end"))
        if not begins and not ends:
            return None
        if len(begins) != 1 or len(ends) != 1 or ends[0] < begins[0]:
            raise UnsafePath(
                f"{self.path} has {len(begins)} times the line 'harmony: begin {self.name}' and {len(ends)} "
                f"times 'harmony: end {self.name}'; leave one of each, in this order, or none"
            )
        return begins[0], ends[0] + 1

    def _markers(self, lines: Sequence[bytes], word: str) -> list[int]:
        marker = re.compile(rf"\s*\S+ harmony: {word} {re.escape(self.name)}\s*".encode())
        return [index for index, line in enumerate(lines) if marker.fullmatch(_bare(line))]


def _replace(lines: list[bytes], span: tuple[int, int], text: bytes) -> bytes:
    """Return the lines with *text* in place of those of *span*, ended as the last of them was."""
    start, stop = span
    last = lines[stop - 1]
    end = last[len(_bare(last)) :]
    replaced = text.replace(b"\n", _end_of_lines(lines)) + end
    return b"".join([*lines[:start], replaced, *lines[stop:]])


@attrs.frozen
class _OneLine(PartText):
    """A part that is one line of a section."""

    path: str
    name: str
    section: str | None = attrs.field(kw_only=True)
    and_top: bool = attrs.field(kw_only=True)

    @abstractmethod
    def is_it(self, line: bytes) -> bool:
        """Return whether *line* is the part."""

    @property
    def in_words(self) -> str:
        where = f" in [{self.section}]" if self.section else ""
        return f"{self.name}{where}"

    def find(self, content: bytes) -> bytes | None:
        lines = _lines(content)
        index = self._index(lines)
        return None if index is None else _bare(lines[index])

    def put(self, content: bytes, text: bytes) -> bytes:
        lines = _lines(content)
        if (index := self._index(lines)) is not None:
            return _replace(lines, (index, index + 1), text)
        if not has_section(content, self.section, and_top=self.and_top):
            return _insert(lines, len(lines), [f"[{self.section}]".encode(), text])
        *_, (start, stop) = self._spans(lines)
        while stop > start + 1 and not lines[stop - 1].strip():
            stop -= 1  # before the blank lines that part it from what follows
        return _insert(lines, stop, [text])

    def take(self, content: bytes) -> bytes:
        lines = _lines(content)
        index = self._index(lines)
        return b"".join(line for number, line in enumerate(lines) if number != index)

    def _spans(self, lines: Sequence[bytes]) -> list[tuple[int, int]]:
        tops = list(_sections(lines, None))[:1] if self.section is None or self.and_top else []
        return [*tops, *(_sections(lines, self.section) if self.section else ())]

    def _index(self, lines: Sequence[bytes]) -> int | None:
        found = [
            index
            for start, stop in self._spans(lines)
            for index in range(start + 1, stop)
            if self.is_it(_bare(lines[index]))
        ]
        if len(found) > 1:
            numbers = ", ".join(str(index + 1) for index in found)
            raise UnsafePath(
                f"{self.path} has {self.in_words} several times (lines {numbers}), and which one "
                "counts is not for Harmony to say; leave one of them"
            )
        if found and _bare(lines[found[0]]).endswith(b"\\"):
            raise UnsafePath(
                f"{self.path} has {self.in_words} on line {found[0] + 1}, which goes on in the next one; "
                "write it on one line"
            )
        return found[0] if found else None


class _Setting(_OneLine):
    def is_it(self, line: bytes) -> bool:
        return _setting(self.name).fullmatch(line) is not None


class _Line(_OneLine):
    def is_it(self, line: bytes) -> bool:
        return line.strip() == self.name.encode()


def _setting(key: str) -> re.Pattern[bytes]:
    return re.compile(rb"(?P<before>\s*" + re.escape(key.encode()) + rb"\s*=\s*)(?P<value>.*)")


@attrs.frozen
class _Words(PartText):
    """A word of the only line."""

    path: str
    name: str
    is_name: bool = attrs.field(kw_only=True)

    def find(self, content: bytes) -> bytes | None:
        found = self._spans(content)
        if self.is_name and len(found) > 1:
            raise UnsafePath(
                f"{self.path} has several words {self.name}=…, and which one counts is not for "
                "Harmony to say; leave one of them, or name the whole word"
            )
        return content[slice(*found[0])] if found else None

    def put(self, content: bytes, text: bytes) -> bytes:
        if found := self._spans(content):
            start, stop = found[0]
            return content[:start] + text + content[stop:]
        start, stop = self._line(content)
        line = content[start:stop].rstrip()
        gap = b" " if line else b""
        return content[:start] + line + gap + text + content[start + len(line) :]

    def take(self, content: bytes) -> bytes:
        ((start, stop), *_) = self._spans(content)
        line_start, line_stop = self._line(content)
        before, after = content[line_start:start], content[stop:line_stop]
        if before.endswith(b" "):
            before = before[:-1]
        else:
            after = after.removeprefix(b" ")
        return content[:line_start] + before + after + content[line_stop:]

    def _spans(self, content: bytes) -> list[tuple[int, int]]:
        start, stop = self._line(content)
        words = re.finditer(rb"\S+", content[start:stop])
        return [
            (start + each.start(), start + each.end()) for each in words if self._is_it(each[0])
        ]

    def _is_it(self, word: bytes) -> bool:
        name = self.name.encode()
        return word.startswith(name + b"=") if self.is_name else word == name

    def _line(self, content: bytes) -> tuple[int, int]:
        """Return where the only line that has words begins and ends, without its line end."""
        at, found = 0, list[tuple[int, int]]()
        for line in _lines(content):
            if line.strip():
                found.append((at, at + len(_bare(line))))
            at += len(line)
        if len(found) != 1:
            raise UnsafePath(
                f"{self.path} has {len(found)} lines with words, and has to have one; put its words "
                "on one line"
            )
        return found[0]
