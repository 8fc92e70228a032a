"""Writes docs/api-reference.md from the OpenAPI document, which is made from the views.

python docs/api_reference.py
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

FILE = Path(__file__).with_name("api-reference.md")
HEAD = """# API reference

Written by `python docs/api_reference.py` from the OpenAPI 3.1 document, which an installation
gives at `/api/schema/` and shows at `/api/docs/`. What all requests share (errors, lists, ETags,
idempotency keys, rate limits) is told in [api.md](api.md).
"""


def document() -> Any:
    """The OpenAPI document of this checkout."""
    from drf_spectacular.generators import SchemaGenerator

    return SchemaGenerator().get_schema(request=None, public=True)


def reference(made: Any) -> str:
    """The whole page."""
    by_tag: dict[str, list[str]] = {}
    for path, operations in made["paths"].items():
        for method, operation in operations.items():
            told = "".join(_operation(made, method, path, operation))
            by_tag.setdefault(operation["tags"][0], []).append(told)
    page = HEAD
    for tag, operations in by_tag.items():
        page += f"\n## {tag}\n{''.join(operations)}"
    page += "".join(_codes())
    page += "\n## Forms\n\nOf what is sent and answered; `ro`: answered only.\n"
    for name, schema in sorted(made["components"]["schemas"].items()):
        page += "".join(_form(name, schema))
    return page


def _codes() -> Iterator[str]:
    """What ``code`` of a problem document may be, as the code of the service raises it."""
    yield "\n## Codes\n\nWhat `code` of a refusal may be, beside those that Problem names.\n"
    yield "\n| code | for instance |\n|---|---|\n"
    found: dict[str, str] = {}
    for file in sorted((CHECKOUT / "ciserver").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                named = {one.arg: one.value for one in node.keywords}
                code = named.get("code")
                said = named.get("detail", node.args[0] if node.args else None)
                if isinstance(code, ast.Constant) and isinstance(code.value, str):
                    sentence = _sentence(said)
                    if not found.get(code.value):
                        found[code.value] = sentence
    for code, sentence in sorted(found.items()):
        yield f"| `{code}` | {_one_line(sentence)} |\n"


def _sentence(node: ast.AST | None) -> str:
    """The words of a literal; what stands in its braces is an ellipsis."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values
        )
    return ""


def _operation(made: Any, method: str, path: str, operation: Any) -> Iterator[str]:
    yield f"\n### {method.upper()} {path}\n"
    told = " ".join(operation.get(part, "") for part in ("summary", "description")).strip()
    if told:
        yield f"\n{_one_line(told)}\n"
    rows = []
    for one in operation.get("parameters", []):
        if "$ref" not in one:
            needed = "" if one["in"] == "path" or not one.get("required") else ", needed"
            place = "" if one["in"] == "path" else f" ({one['in']}{needed})"
            said = one.get("description", "")
            rows.append(
                f"| `{one['name']}`{place} | {_kind(one['schema'])} | {_one_line(said)} |\n"
            )
    if rows:
        yield "\n| parameter | | |\n|---|---|---|\n" + "".join(rows)
    if body := operation.get("requestBody"):
        kinds = {_kind(content.get("schema", {})) for content in body["content"].values()}
        yield f"\nBody: {' or '.join(sorted(kinds))}.\n"
    yield f"\nAnswers: {'; '.join(_answers(operation['responses']))}.\n"


def _answers(responses: Any) -> Iterator[str]:
    for status, response in sorted(responses.items()):
        if "$ref" in response or status == "304":  # those that every operation has
            continue
        contents = response.get("content", {})
        kinds = {
            _kind(content.get("schema", {})) if "json" in media else f"`{media}`"
            for media, content in contents.items()
        }
        yield f"{status} {' or '.join(sorted(kinds))}".strip()


def _form(name: str, schema: Any) -> Iterator[str]:
    yield f"\n### {name}\n"
    if said := schema.get("description"):
        yield f"\n{_one_line(said)}\n"
    needed = set(schema.get("required", []))
    rows = [
        f"| `{field}`{', needed' if field in needed and not value.get('readOnly') else ''}"
        f"{', ro' if value.get('readOnly') else ''} | {_kind(value)} |"
        f" {_one_line(value.get('description', ''))} |\n"
        for field, value in schema.get("properties", {}).items()
    ]
    if rows:
        yield "\n| field | | |\n|---|---|---|\n" + "".join(rows)
    elif "enum" in schema:
        yield f"\n{_kind(schema)}\n"


def _kind(schema: Any) -> str:
    from ciserver.lib.api_docs import kind

    return kind(schema, lambda name: f"[{name}](#{name.lower()})", lambda one: f"`{one}`")


def _one_line(text: str) -> str:
    return " ".join(text.replace("``", "`").split()).replace("|", "\\|")


if __name__ == "__main__":
    os.environ["DJANGO_SETTINGS_MODULE"] = "ciserver.settings"
    os.environ.setdefault("GANTRY_SECRET_KEY", "of a process that only reads its own code")
    import django

    django.setup()
    FILE.write_text(reference(document()))
