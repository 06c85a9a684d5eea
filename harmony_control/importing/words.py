"""Words as a shell, and as systemd, splits them; and amounts as podman takes them.

What cannot be read is a ValueError with the remedy.
"""

from __future__ import annotations

import re

__all__ = [
    "duration_s",
    "is_true",
    "size_bytes",
    "split_for_shell",
    "split_for_systemd",
    "unescape_specifiers",
]

_TRUE = {"1", "t", "T", "true", "TRUE", "True"}
_FALSE = {"0", "f", "F", "false", "FALSE", "False"}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(?:([kmgt])(?:i?b)?|b)?", re.IGNORECASE)
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_SPAN = re.compile(r"([0-9]+(?:\.[0-9]*)?)(ns|us|µs|ms|s|m|h)")
_OPERATORS = "|&;<>()"


def is_true(text: str) -> bool:
    """Return what a switch is set to: ``--rm=false``."""
    if text not in _TRUE | _FALSE:
        raise ValueError(f"{text!r} is neither true nor false; write one of them")
    return text in _TRUE


def size_bytes(text: str, *, thousand: int = 1024) -> int:
    """Return ``64m`` in bytes; *thousand* is 1000 where podman counts so."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no size; write one as in 64m")
    power = " kmgt".index((found[2] or " ").lower())
    return int(float(found[1]) * thousand**power)


def duration_s(text: str) -> float:
    """Return ``1m30s`` in seconds."""
    if not text or _SPAN.sub("", text):
        raise ValueError(f"{text!r} is no duration; write one as in 30s or 1m30s")
    return round(sum(float(n) * _SECONDS[unit] for n, unit in _SPAN.findall(text)), 9)


_SHELL = re.compile(
    r"""(?P<single>'[^']*')|(?P<double>"(?:\\.|[^"\\])*")|(?P<goes_on>\\\n)|(?P<escaped>\\.)"""
    r"""|(?P<space>\s+)|(?P<remark>(?<!\S)\#[^\n]*)|(?P<plain>.)""",
    re.DOTALL,
)
_IN_DOUBLE = re.compile(r"\\(?P<kept>[$`\"\\])|\\\n|(?P<shell>[$`])")


def split_for_shell(text: str) -> list[str]:
    """Return the words of one command, as a POSIX shell does with quotes and lines that go on.

    What only the shell of its author could work out is refused: variables, other commands, a home directory.
    """
    words: list[str] = []
    word: str | None = None
    is_over = False
    for found in _SHELL.finditer(text):
        match found.lastgroup:
            case "goes_on":
                pass
            case "space" | "remark":
                words += [] if word is None else [word]
                word = None
                is_over = is_over or (bool(words) and "\n" in found[0])
            case kind if not is_over:
                if word is None and found[0] == "~":
                    raise ValueError("~ stands for somebody's home directory; write the path out")
                word = (word or "") + _unquote(str(kind), found[0])
            case _:
                raise ValueError(
                    "there is more than one line; give one command, and end a line that goes on with \\"
                )
    return words if word is None else [*words, word]


def _unquote(kind: str, text: str) -> str:
    match kind:
        case "single":
            return text[1:-1]
        case "double":
            return _IN_DOUBLE.sub(_keep, text[1:-1])
        case "escaped":
            return text[1]
        case _ if text in {"'", '"'}:
            raise ValueError(f"a {text} is not closed; add the other one")
        case _ if text == "\\":
            raise ValueError("a \\ is at the end; remove it, or write what it is to go on with")
        case _ if text in _OPERATORS:
            raise ValueError(f"{text} joins commands of a shell; give the one command alone")
        case _ if text in {"$", "`"}:
            raise _worked_out(text)
        case _:
            return text


def _keep(found: re.Match[str]) -> str:
    if found["shell"]:
        raise _worked_out(found["shell"])
    return found["kept"] or ""


def _worked_out(char: str) -> ValueError:
    return ValueError(
        f"{char} is worked out by the shell of whoever runs it; write what it comes to, or quote it by ' "
        "where it is meant as it stands"
    )


_ESCAPES = {"n": "\n", "t": "\t", "s": " ", "r": "\r", "\\": "\\", '"': '"', "'": "'"}


def split_for_systemd(text: str) -> list[str]:
    """Return the words of a value as systemd splits it: quotes around a word or a part of it, and escapes."""
    words: list[str] = []
    word, quote = None, ""
    rest = iter(text)
    for char in rest:
        if char == "\\":
            following = next(rest, "")
            if following not in _ESCAPES:
                raise ValueError(f"\\{following} is an escape that is not read; write it out")
            word = (word or "") + _ESCAPES[following]
        elif quote:
            word, quote = (word, "") if char == quote else ((word or "") + char, quote)
        elif char in "'\"":
            word, quote = word or "", char
        elif char.isspace():
            if word is not None:
                words.append(word)
            word = None
        else:
            word = (word or "") + char
    if quote:
        raise ValueError(f"a {quote} is not closed; add the other one")
    return words if word is None else [*words, word]


_SPECIFIER = re.compile(r"%(.?)")


def unescape_specifiers(text: str) -> str:
    """Return *text* with %% as %; what systemd would put in the place of another one is refused."""
    for name in _SPECIFIER.findall(text):
        if name != "%":
            raise ValueError(
                f"%{name} is a specifier, which systemd replaces; write what it comes to, or %% for a %"
            )
    return text.replace("%%", "%")
