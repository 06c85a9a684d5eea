"""The values of secrets, in memory alone: everything else knows a word that stands for each.

    sealed -> opened by the decoder -> a word, in a Score's fields, resources, plans, events, reports
                       |
                     value -> the reconciler, as it writes

So no Score's code, error, diff or record ever holds a value, and nothing has to be searched for one. The
Stage lets a word stand only where a resource's type says that its reconciler puts the value in. A word is of
one Score, name and version: a value that was set anew makes another resource, and replaces the old. What a
word stands for never changes; what is only previewed gets words of its own, so that whoever may ask for a
preview has no say in what is written.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Mapping
from typing import cast

from pydantic import BaseModel

from .errors import SecretMissing, SecretRefused

__all__ = ["SecretValues", "find_words", "find_words_within", "secret_word"]

_WORD = re.compile(r"<secret [a-z0-9-]{1,63}/[a-z0-9][a-z0-9._-]{0,62} [0-9a-f]{16}>")

_WORD_IN_BYTES = re.compile(_WORD.pattern.encode())


def secret_word(score: str, name: str, version: str) -> str:
    """Return the word that stands for that secret of the Score *score*."""
    return f"<secret {score}/{name} {version}>"


def find_words(text: str | bytes) -> frozenset[str]:
    """Return the words in *text* that stand for secrets."""
    if isinstance(text, bytes):
        return find_words(text.decode("latin-1")) if b"<secret " in text else frozenset()
    return frozenset(_WORD.findall(text)) if "<secret " in text else frozenset()


def find_words_within(value: object) -> frozenset[str]:
    """Return the words in *value* and in everything within it, including the names in a mapping."""
    if isinstance(value, str | bytes):
        return find_words(value)
    if isinstance(value, BaseModel):
        # Not dumped: what writes its fields may change their texts.
        value = dict(iter(value))  # not by keys(): that may be a field
    if isinstance(value, Mapping):
        pairs = cast("Mapping[object, object]", value).items()
        inner = [each for pair in pairs for each in pair]
    elif isinstance(value, list | tuple | set | frozenset):
        inner = list(cast("Collection[object]", value))
    else:
        return find_words(str(value))  # such as a path
    return frozenset(word for each in inner for word in find_words_within(each))


class SecretValues:
    """What each word stands for. Never shown: it has no repr but its type's."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}
        self._lent: dict[str, tuple[str, str]] = {}
        """By word: that which it is like, and the value."""

    def put(self, word: str, value: str) -> None:
        """Let *word* stand for *value* from now on. Raise `SecretRefused` where it stands for another
        value."""
        if self._values.setdefault(word, value) != value:
            raise SecretRefused(
                f"{word} stands for another value already, and a new one has a new version: set it anew "
                "(harmony secret set), push the Score again, and find out who has sealed this"
            )

    def lend(self, word: str, value: str) -> str:
        """Return a new word, similar to *word*, that stands for *value* until `take_back`."""
        own = f"{word.rpartition(' ')[0]} {secrets.token_hex(8)}>"
        self._lent[own] = word, value
        return own

    def take_back(self, words: Collection[str]) -> None:
        """Forget *words*, which `lend` returned."""
        for word in words:
            self._lent.pop(word, None)

    def call_as_in_force(self, text: str) -> str:
        """Return *text* with each lent word replaced by the word that it is similar to, so that a preview can
        be compared with what is in force, whose value is not known. The word in force may stand for another
        value: do not reveal the returned text."""
        return _WORD.sub(lambda found: self._lent.get(found[0], (found[0], ""))[0], text)

    def keep_only(self, score: str, words: Collection[str]) -> None:
        """Keep, of the values of *score*, only those of *words*."""
        self._values = {
            word: value
            for word, value in self._values.items()
            if word in words or _score_of(word) != score
        }

    def forget_all_but(self, score_ids: Collection[str]) -> None:
        """Forget the values of all Scores except *score_ids*."""
        self._values = {
            word: value for word, value in self._values.items() if _score_of(word) in score_ids
        }

    def reveal(self, content: bytes) -> bytes:
        """Return *content* with the values in place of the words. Raise `SecretMissing` for a word that
        stands for nothing now."""
        # In one pass: a value that looks like a word is a value.
        return _WORD_IN_BYTES.sub(lambda found: self._value_of(found[0].decode()).encode(), content)

    def reveal_text(self, text: str) -> str:
        """Return *text* with the values in place of the words. Raise `SecretMissing` as `reveal` does."""
        return self.reveal(text.encode()).decode()

    def _value_of(self, word: str) -> str:
        value = self._values.get(word)
        if value is None and word in self._lent:
            _, value = self._lent[word]
        if value is None:
            raise SecretMissing(
                f"{word} is not known here; push its Score again to have it sealed for this device"
            )
        return value


def _score_of(word: str) -> str:
    return word.removeprefix("<secret ").partition("/")[0]
