"""The seccomp profile: a readable table, compiled to the form of runtime-spec "Seccomp".

Deny by default. ``table.txt`` is what people edit, ``profile.json`` what is shipped; a
test holds the two together. ``python -m runtime.seccomp`` writes the second from the first.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TABLE = HERE / "table.txt"
PROFILE = HERE / "profile.json"

EPERM = 1
_CONDITION = re.compile(
    r"(?P<name>\w+) if (?P<index>[0-5]) (?:& (?P<mask>\w+) )?(?P<op>==|!=) (?P<value>\w+)"
)
_ERRNO = re.compile(r"(?P<name>\w+) errno (?P<errno>\d+)")

# The processor's own system calls and those of its 32-bit programs, as Moby does.
ARCHITECTURES = {
    "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
    "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
}


def compile_table(text: str) -> list[dict[str, Any]]:
    """Rules (``linux.seccomp.syscalls`` of config.json) of a table.

    Raises ValueError with the line's number where it cannot be read.
    """
    plain: list[str] = []
    special: list[dict[str, Any]] = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith(("#", "[")):
            continue
        if found := _CONDITION.fullmatch(line):
            special.append(_allow_if(found))
        elif found := _ERRNO.fullmatch(line):
            special.append(_fail_with(found["name"], int(found["errno"])))
        elif re.fullmatch(r"[a-z0-9_ ]+", line) and " if " not in line:
            plain.extend(line.split())
        else:
            raise ValueError(f"table.txt:{number}: {line!r} is no list of system calls")
    doubles = sorted({name for name in plain if plain.count(name) > 1})
    if doubles:
        raise ValueError(f"table.txt names {', '.join(doubles)} twice")
    return [{"names": sorted(plain), "action": "SCMP_ACT_ALLOW"}, *special]


def _allow_if(found: re.Match[str]) -> dict[str, Any]:
    value = int(found["value"], 0)
    argument: dict[str, Any] = {"index": int(found["index"])}
    if found["mask"]:
        argument |= {
            "value": int(found["mask"], 0),
            "valueTwo": value,
            "op": "SCMP_CMP_MASKED_EQ",
        }
    else:
        argument |= {
            "value": value,
            "op": "SCMP_CMP_EQ" if found["op"] == "==" else "SCMP_CMP_NE",
        }
    return {"names": [found["name"]], "action": "SCMP_ACT_ALLOW", "args": [argument]}


def _fail_with(name: str, errno: int) -> dict[str, Any]:
    return {"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": errno}


def render(text: str) -> str:
    """``profile.json`` of a table."""
    return json.dumps(compile_table(text), indent=1) + "\n"


@lru_cache(maxsize=1)
def _rules() -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = json.loads(PROFILE.read_text())
    return rules


def profile(machine: str) -> dict[str, Any]:
    """``linux.seccomp`` of config.json for a processor architecture as uname names it."""
    seccomp: dict[str, Any] = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "syscalls": _rules(),
    }
    if machine in ARCHITECTURES:
        seccomp["architectures"] = ARCHITECTURES[machine]
    return seccomp
