"""The small language of ``when: if:``. It compares words and nothing else, so it always ends.

    expr    = all { "||" all }
    all     = not { "&&" not }
    not     = "!" not | "(" expr ")" | value [ ("==" | "!=" | "matches") value ]
    value   = name | 'text' | "text"

Names are those of ``Trigger.names``; every value is a word, and one that is not there is empty.
``matches`` takes a pattern in which ``*`` is any letters. A value alone holds unless it is empty
or ``false``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

MOST = 500  # characters
DEEPEST = 20  # parentheses and '!' within one another
NAMES = ("ref", "branch", "tag", "event", "protected", "fork", "by")
_INPUT = re.compile(r"inputs\.[A-Za-z_][A-Za-z0-9_]*\Z")
_TOKEN = re.compile(
    r"\s*(?:(?P<text>'[^']*'|\"[^\"]*\")|(?P<name>[A-Za-z_][A-Za-z0-9_.]*)"
    r"|(?P<sign>==|!=|&&|\|\||[()!]))"
)
Names = Mapping[str, str]
Test = Callable[[Names], bool]
Value = Callable[[Names], str]


class ExpressionError(ValueError):
    """An expression that cannot be read; the sentence says where."""


@dataclass(frozen=True, slots=True)
class Expression:
    """``holds`` tells whether it is true for the values of names; ``names`` are those it asks."""

    holds: Test
    names: tuple[str, ...]


def parse(text: str) -> Expression:
    """Raises ExpressionError."""
    if len(text) > MOST:
        raise ExpressionError(f"expected {MOST} characters at the most")
    parser = _Parser(_tokens(text))
    test = parser.expression()
    if parser.ahead:
        raise parser.wrong("expected '&&', '||' or the end")
    return Expression(test, tuple(dict.fromkeys(parser.names)))


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


def _tokens(text: str) -> list[_Token]:
    found, place = [], 0
    while text[place:].strip():
        match = _TOKEN.match(text, place)
        if match is None:
            at = place + len(text[place:]) - len(text[place:].lstrip())
            raise ExpressionError(f"cannot read {text[at : at + 10]!r} at character {at + 1}")
        kind = match.lastgroup or ""
        found.append(_Token(kind, match[kind], match.start(kind)))
        place = match.end()
    return found


class _Parser:
    def __init__(self, tokens: Sequence[_Token]) -> None:
        self.names: list[str] = []
        self._tokens = tokens
        self._next = 0
        self._depth = 0

    @property
    def ahead(self) -> str:
        """The sign or word that comes next; of a text, its quote; empty at the end."""
        if self._next == len(self._tokens):
            return ""
        token = self._tokens[self._next]
        return token.text[0] if token.kind == "text" else token.text

    def wrong(self, what: str) -> ExpressionError:
        if self._next == len(self._tokens):
            return ExpressionError(f"{what}, but it ends there")
        token = self._tokens[self._next]
        return ExpressionError(f"{what}, not {token.text[:20]} at character {token.at + 1}")

    def expression(self) -> Test:
        return self._joined("||", lambda: self._joined("&&", self._not, all), any)

    def _joined(
        self, sign: str, part: Callable[[], Test], join: Callable[[Sequence[bool]], bool]
    ) -> Test:
        tests = [part()]
        while self.ahead == sign:
            self._next += 1
            tests.append(part())
        return tests[0] if len(tests) == 1 else lambda names: join([test(names) for test in tests])

    def _not(self) -> Test:
        if self._depth == DEEPEST:
            raise ExpressionError(f"expected at most {DEEPEST} parentheses within one another")
        if self.ahead == "!":
            inner = self._inside(self._not)
            return lambda names: not inner(names)
        if self.ahead == "(":
            inner = self._inside(self.expression)
            if self.ahead != ")":
                raise self.wrong("expected ')'")
            self._next += 1
            return inner
        return self._comparison()

    def _inside(self, part: Callable[[], Test]) -> Test:
        self._next += 1
        self._depth += 1
        inner = part()
        self._depth -= 1
        return inner

    def _comparison(self) -> Test:
        left = self._value()
        sign = self.ahead
        if sign not in {"==", "!=", "matches"}:
            return lambda names: left(names) not in {"", "false"}
        self._next += 1
        right = self._value()
        if sign == "matches":
            return lambda names: fnmatchcase(left(names), right(names))
        return lambda names: (left(names) == right(names)) is (sign == "==")

    def _value(self) -> Value:
        token = self._tokens[self._next] if self._next < len(self._tokens) else None
        if token is None or token.kind == "sign" or token.text == "matches":
            raise self.wrong("expected a name or a text in quotes")
        self._next += 1
        if token.kind == "text" or token.text in {"true", "false"}:
            return lambda _: token.text.strip("'\"")
        if token.text not in NAMES and not _INPUT.match(token.text):
            near = difflib.get_close_matches(token.text, NAMES, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(NAMES)}"
            raise ExpressionError(f"there is no name {token.text[:40]!r}; {hint}")
        self.names.append(token.text)
        return lambda names: names.get(token.text, "")
