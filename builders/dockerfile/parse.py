"""Dockerfile text -> Dockerfile, with the place of every mistake.

Raises ``DockerfileError`` with place ``FILE:LINE``, the line, what was expected
and the nearest name that exists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from e2b_dockerfile_utils import DockerfileInstruction, DockerfileSyntaxError, parse_dockerfile_ast

from builders.dockerfile.flags import nearest
from builders.dockerfile.forms import FORMS
from builders.dockerfile.instructions import Arg, From, Instruction, Position
from builders.errors import DockerfileError

MAX_BYTES = 1024 * 1024
MOST_STAGES = 500
MOST_INSTRUCTIONS = 10_000
_PREFIX = re.compile(r"^Dockerfile parse error(?: on line \d+)?: ")
_NO_EQUALS = re.compile(r"^Syntax error - can't find = in (.*)\. Must be of the form: .*$")
_DIRECTIVE = re.compile(r"#\s*(syntax|escape|check)\s*=\s*(.*?)\s*$", re.IGNORECASE)
_TRUE = {"1", "t", "T", "true", "True", "TRUE"}  # as Go has it


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """``head`` holds the ARGs before the first FROM; every later one belongs to a stage."""

    file: str
    head: tuple[Arg, ...]
    instructions: tuple[Instruction, ...]
    escape: str = "\\"
    warnings: tuple[str, ...] = ()


def parse_dockerfile(data: bytes, *, file: str = "Dockerfile") -> Dockerfile:
    """Parse a whole Dockerfile, at most 1 MiB of UTF-8."""
    text = _decode(data, file)
    nodes, escape, warnings = _nodes(text, file)
    if not nodes:
        raise DockerfileError(
            "The Dockerfile is empty.", place=file, hint="It begins with FROM.", code=_EMPTY
        )
    instructions = [_instruction(node, _position(node, file), escape) for node in nodes]
    head = _head(instructions)
    _bound(instructions)
    return Dockerfile(file, head, tuple(instructions[len(head) :]), escape, warnings)


def parse_trigger(text: str, *, at: Position, escape: str = "\\") -> Instruction:
    """The one instruction that an ONBUILD keeps for later."""
    nodes, _, _ = _nodes(text, at.file, line=at.line)
    if len(nodes) != 1:
        raise DockerfileError("ONBUILD needs one instruction.", place=at.place, code="dockerfile")
    name = nodes[0].name
    if name in {"ONBUILD", "FROM", "MAINTAINER"}:
        raise DockerfileError(
            f"ONBUILD cannot trigger {name}.", place=at.place, code="dockerfile.onbuild"
        )
    return _instruction(nodes[0], at, escape)


_EMPTY = "dockerfile.empty"


def _decode(data: bytes, file: str) -> str:
    if len(data) > MAX_BYTES:
        raise DockerfileError("The Dockerfile is larger than 1 MiB.", place=file, code=_EMPTY)
    if b"\0" in data:
        line = data.partition(b"\0")[0].count(b"\n") + 1
        raise DockerfileError(
            "The Dockerfile holds a zero byte, which no command and no name can have.",
            place=f"{file}:{line}",
            hint="Save it as plain UTF-8 text.",
            code="dockerfile.encoding",
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DockerfileError(
            "The Dockerfile is not UTF-8.",
            place=f"{file}:{line}",
            hint="Save it as UTF-8.",
            code="dockerfile.encoding",
        ) from None


def _nodes(
    text: str, file: str, line: int = 0
) -> tuple[list[DockerfileInstruction], str, tuple[str, ...]]:
    try:
        ast = parse_dockerfile_ast(text)
    except DockerfileSyntaxError as error:
        raise _syntax_error(error, text, file, line) from None
    warnings = [f"{file}:{warning.line}: {warning.message}" for warning in ast.warnings]
    warnings += _directives(text, file)
    return list(ast.instructions), str(ast.escape_token), tuple(warnings)


def _directives(text: str, file: str) -> Iterator[str]:
    """What the lines before all others ask for and will not get."""
    for number, line in enumerate(text.splitlines(), 1):
        directive = _DIRECTIVE.match(line)
        if directive is None:
            return
        name, value = directive.group(1).lower(), directive.group(2)
        if name == "syntax" and not value.startswith(("docker/dockerfile", "docker.io/docker/")):
            front = (value.split() or [""])[0]
            yield f"{file}:{number}: the front end {front} is not used: Gantry has its own"
        if name == "check" and _fails_on_warnings(value):
            yield f"{file}:{number}: error=true has no effect: Gantry has no checks of style"


def _fails_on_warnings(check: str) -> bool:
    options = (option.partition("=") for option in check.split(";"))
    return any(key.strip() == "error" and value.strip() in _TRUE for key, _, value in options)


def _syntax_error(error: DockerfileSyntaxError, text: str, file: str, line: int) -> DockerfileError:
    number = line or error.line or 1
    lines = text.splitlines() or [""]
    source = lines[min((error.line or 1), len(lines)) - 1].strip()
    message = _PREFIX.sub("", str(error))
    word = message.removeprefix("unknown instruction: ")
    hint = ""
    code = "dockerfile.syntax"
    if word != message:
        message = f'Unknown instruction "{word}" in `{_short(source)}`.'
        hint = nearest(word.upper(), FORMS) or f"Expected one of {', '.join(sorted(FORMS))}."
        code = "dockerfile.instruction"
    elif message == "unterminated heredoc":
        message = f"The heredoc of `{_short(source)}` has no end."
        hint = "Put its name alone on a line after its text."
    else:
        message = _NO_EQUALS.sub(r"\1 has no '=' between name and value", message)
        message = f"{message[:1].upper()}{message[1:]}, in `{_short(source)}`."
    return DockerfileError(message, place=f"{file}:{number}", hint=hint, code=code)


def _position(node: DockerfileInstruction, file: str) -> Position:
    return Position(file, int(node.start_line), int(node.end_line), str(node.original).strip())


def _instruction(node: DockerfileInstruction, at: Position, escape: str) -> Instruction:
    return FORMS[node.name](node, at, escape)


def _head(instructions: list[Instruction]) -> tuple[Arg, ...]:
    head: list[Arg] = []
    for instruction in instructions:
        if isinstance(instruction, From):
            return tuple(head)
        if not isinstance(instruction, Arg):
            raise DockerfileError(
                f"{instruction.name} stands before the first FROM.",
                place=instruction.at.place,
                hint="Only ARG may; begin the stage with FROM.",
                code="dockerfile.no-stage",
            )
        head.append(instruction)
    raise DockerfileError(
        "There is no FROM.",
        place=instructions[-1].at.place,
        hint="Add one.",
        code="dockerfile.no-stage",
    )


def _bound(instructions: list[Instruction]) -> None:
    """Each stage has a thread, and each instruction looks at all variables before it."""
    stages = [each for each in instructions if isinstance(each, From)]
    for found, most, what in (
        (stages, MOST_STAGES, "stages"),
        (instructions, MOST_INSTRUCTIONS, "instructions"),
    ):
        if len(found) > most:
            raise DockerfileError(
                f"The Dockerfile has more than {most:,} {what}.",
                place=found[most].at.place,
                hint="Split it into several.",
                code="dockerfile.too-long",
            )


def _short(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."
