"""Variable expansion as BuildKit does it: ``$x ${x:-y} ${x:+y} ${x:?m} ${x#p} ${x%p} ${x/a/b}``.

Names without a value expand to nothing; quotes and escapes are removed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from e2b_dockerfile_utils import ShellLex, lexer

from builders.dockerfile.instructions import Position
from builders.dockerfile.patterns import LONGEST, ShellPattern, reverse
from builders.errors import DockerfileError

# The lexer has no other place to give it a matcher.
vars(lexer).update(_shell_pattern_to_regex=ShellPattern, _reverse_pattern=reverse)


class Expander:
    """Expands words with one environment; errors name the instruction's place."""

    def __init__(self, env: Mapping[str, str], *, escape: str, at: Position) -> None:
        self._env = env
        self._escape = escape
        self._at = at

    def seeing(self, env: Mapping[str, str]) -> Expander:
        """The same with another environment."""
        return Expander(env, escape=self._escape, at=self._at)

    def word(self, text: str) -> str:
        if not _special(text, self._escape):
            return text
        try:
            lex = ShellLex(self._escape, env=_Metered(self._env), skip_unset_env=False)
            return str(lex.process_word(text))
        except ValueError as error:
            raise self._error(error) from None

    def words(self, text: str) -> tuple[str, ...]:
        """The text split at unquoted white space after expansion."""
        try:
            lex = ShellLex(self._escape, env=_Metered(self._env), skip_unset_env=False)
            return tuple(lex.process_words(text))
        except ValueError as error:
            raise self._error(error) from None

    def heredoc(self, text: str) -> str:
        """A heredoc's body: names are expanded, quotes stay as they are."""
        try:
            lex = ShellLex(
                "\\", skip_process_quotes=True, env=_Metered(self._env), skip_unset_env=False
            )
            return str(lex.process_word(text))
        except ValueError as error:
            raise self._error(error) from None

    def _error(self, error: ValueError) -> DockerfileError:
        text = str(error).partition(": ")[2] or str(error)
        return DockerfileError(
            f"Cannot expand the variables of `{self._at.text}`: {text}.",
            place=self._at.place,
            code="dockerfile.expansion",
        )


class _Metered(Mapping[str, str]):
    """Variables of one word. Raises ValueError once more than LONGEST characters were read:
    ``ENV A=$A$A`` forty times would fill any memory."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env  # not copied: there may be as many words as variables
        self._left = LONGEST

    def __getitem__(self, name: str) -> str:
        value = self._env[name]
        self._left -= len(value)
        if self._left < 0:
            raise ValueError(f"the result is longer than {LONGEST >> 10} KiB")
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._env)

    def __len__(self) -> int:
        return len(self._env)


def _special(text: str, escape: str) -> bool:
    return any(char in text for char in ("$", "'", '"', escape))
