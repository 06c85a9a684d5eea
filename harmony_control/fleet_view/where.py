"""Which devices are meant: ``temperature > 70 and not labels.site in (attic, "top floor")``.

    any  = all ("or" all)*          all  = one ("and" one)*
    one  = "not" one | "(" any ")" | test
    test = FIELD | FIELD ("==" | "!=" | "<" | "<=" | ">" | ">=") VALUE | FIELD "not"? "in" "(" VALUE, … ")"

What is not known of a device equals nothing, and is neither more nor less than anything: `!=` and ``not in``
are true of it. Nothing of an expression is ever run as code.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import NoReturn

import attrs

from harmony_core.close_names import did_you_mean
from harmony_core.errors import UsageError

from .fields import ALIASES, FIELDS, LABEL_PREFIX, Field, Kind, Value, label_field
from .row import DeviceRow

__all__ = ["Predicate", "find_field", "parse_where"]

Predicate = Callable[[DeviceRow], bool]

_TOKEN = re.compile(
    r"""\s*(?: (?P<text>"[^"]*"|'[^']*')
             | (?P<word>[-+]?[\w.%/-]+)
             | (?P<sign>==|!=|<=|>=|[<>(),]) )""",
    re.VERBOSE | re.ASCII,
)
_NUMBER = re.compile(r"([-+]?\d{1,15}(?:\.\d{1,9})?)([A-Za-z%]*)", re.ASCII)
_UNITS: Mapping[Kind, Mapping[str, float]] = {
    "bytes": {
        "": 1,
        "B": 1,
        **{f"{each}B": 1_000.0**power for power, each in enumerate("kMGT", 1)},
        **{f"{each}iB": 1_024.0**power for power, each in enumerate("KMGT", 1)},
    },
    "seconds": {"": 1, "s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400},
    "percent": {"": 1, "%": 1},
    "celsius": {"": 1, "C": 1},
    "count": {"": 1},
}
_ORDER: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_MOST_CHARACTERS = 4_096
_DEEPEST = 64


@attrs.frozen
class _Token:
    kind: str
    text: str
    at: int


def parse_where(text: str) -> Predicate:
    """Return what *text* says of a row. `UsageError` shows where it cannot be understood."""
    return _Parser(text).parse()


def find_field(name: str, option: str) -> Field:
    """Return the field of that *name*. `UsageError` where there is none, which is said of *option*."""
    if name.startswith(LABEL_PREFIX) and name != LABEL_PREFIX:
        return label_field(name.removeprefix(LABEL_PREFIX))
    if (found := FIELDS.get(ALIASES.get(name, name))) is not None:
        return found
    hint = did_you_mean(name, [*FIELDS, *ALIASES]) or f"; there are: {_list_fields()}"
    raise UsageError(f"{option}: there is no field {name!r}{hint}")


def _list_fields() -> str:
    """Return every field, with what else it may be called."""
    also = {field: [each for each in ALIASES if ALIASES[each] == field] for field in FIELDS}
    told = [f"{field} (or {', '.join(names)})" if names else field for field, names in also.items()]
    return ", ".join([*told, f"{LABEL_PREFIX}NAME"])


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        if len(text) > _MOST_CHARACTERS:
            raise UsageError(f"--where: longer than {_MOST_CHARACTERS} characters")
        self._tokens = list(self._split())
        self._next = 0
        self._depth = 0

    def parse(self) -> Predicate:
        found = self._any()
        if (left := self._peek()).kind != "end":
            self._refuse("here `and`, `or` or the end was expected", left)
        return found

    def _split(self) -> Iterable[_Token]:
        at, end = 0, len(self._text.rstrip())
        while at < end:
            found = _TOKEN.match(self._text, at)
            if found is None:
                begin = at + len(self._text[at:]) - len(self._text[at:].lstrip())
                self._refuse("this cannot be understood", _Token("", "", begin))
            kind = str(found.lastgroup)
            yield _Token(kind, found[kind], found.start(kind))
            at = found.end()
        yield _Token("end", "", end)

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._peek()
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def _takes(self, text: str) -> bool:
        token = self._peek()
        if token.kind in {"word", "sign"} and token.text == text:
            self._take()
            return True
        return False

    def _any(self) -> Predicate:
        each = [self._all()]
        while self._takes("or"):
            each.append(self._all())
        return each[0] if len(each) == 1 else lambda row: any(one(row) for one in each)

    def _all(self) -> Predicate:
        each = [self._one()]
        while self._takes("and"):
            each.append(self._one())
        return each[0] if len(each) == 1 else lambda row: all(one(row) for one in each)

    def _one(self) -> Predicate:
        token = self._peek()
        self._depth += 1
        if self._depth > _DEEPEST:
            self._refuse(f"this is nested deeper than {_DEEPEST} times", token)
        try:
            if self._takes("not"):
                denied = self._one()
                return lambda row: not denied(row)
            if self._takes("("):
                found = self._any()
                self._need(")")
                return found
            return self._test()
        finally:
            self._depth -= 1

    def _need(self, text: str) -> None:
        if not self._takes(text):
            self._refuse(f"here {text!r} was expected", self._peek())

    def _test(self) -> Predicate:
        name = self._take()
        if name.kind != "word" or name.text in {"and", "or", "in"}:
            self._refuse("here the name of a field was expected", name)
        try:
            field = find_field(name.text, "--where")
        except UsageError as error:
            self._refuse(error.message.removeprefix("--where: "), name)
        read, sign = field.read, self._peek()
        if is_denied := self._takes("not"):
            self._need("in")
        if is_denied or self._takes("in"):
            among = self._values(field)
            return lambda row: (read(row) in among) != is_denied
        if sign.kind != "sign" or sign.text in {"(", ")", ","}:
            if field.kind != "flag":
                self._refuse("here a comparison was expected, such as ==", sign)
            return lambda row: read(row) is True
        self._take()
        value = self._value(field)
        if sign.text in {"==", "!="}:
            return lambda row: (read(row) == value) == (sign.text == "==")
        if isinstance(value, str | bool):
            self._refuse(f"{name.text} is neither more nor less; ask with == or in", sign)
        limit, compare = value, _ORDER[sign.text]
        return lambda row: _compares(read(row), compare, limit)

    def _values(self, field: Field) -> frozenset[str | bool | float]:
        self._need("(")
        found = {self._value(field)}
        while self._takes(","):
            found.add(self._value(field))
        self._need(")")
        return frozenset(found)

    def _value(self, field: Field) -> str | bool | float:
        token = self._take()
        if token.kind not in {"text", "word"}:
            self._refuse("here a value was expected", token)
        if field.kind == "text":
            text = token.text[1:-1] if token.kind == "text" else token.text
            if field.choices and text not in field.choices:
                self._refuse(f"it is one of {', '.join(field.choices)}", token)
            return text
        if field.kind == "flag":
            if token.kind != "word" or token.text not in {"true", "false"}:
                self._refuse("it is true or false", token)
            return token.text == "true"
        units, found = _UNITS[field.kind], _NUMBER.fullmatch(token.text)
        if found is None or found[2] not in units:
            known = ", ".join(each for each in units if each)
            such = f"with one of {known}, or none" if known else "without a unit"
            self._refuse(f"here a number was expected, {such}", token)
        return float(found[1]) * units[found[2]]

    def _refuse(self, why: str, token: _Token) -> NoReturn:
        # A tab or a line end would put the caret elsewhere.
        shown = re.sub(r"\s", " ", self._text)
        raise UsageError(f"--where: {why}\n{shown}\n{' ' * token.at}^")


def _compares(value: Value, compare: Callable[[float, float], bool], limit: float) -> bool:
    return value is not None and not isinstance(value, str) and compare(value, limit)
