"""``python -m ciserver.ops up|demo|test``, as ./gantry calls it."""

from __future__ import annotations

import sys

from ciserver.config import Config, ConfigError
from ciserver.ops.errors import OpsError


def main(arguments: list[str]) -> int:
    command, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    try:
        if command == "up" and not rest:
            from ciserver.ops.up import up

            up(Config.from_env())
            return 0
        if command == "demo" and rest in ([], ["--exit"]):
            from ciserver.ops.demo import demo

            return demo(Config.from_env(), leave=bool(rest))
        if command == "admin" and rest in ([], ["--new-password"]):
            from ciserver.ops.admin import admin

            admin(Config.from_env(), new_password=bool(rest))
            return 0
        if command == "test":
            from ciserver.ops.testing import run_tests

            return run_tests(rest)
    except (OpsError, ConfigError) as error:
        return _report(error)
    print(
        "Usage: ./gantry up | demo [--exit] | admin [--new-password] | test [PYTEST-ARGUMENTS]",
        file=sys.stderr,
    )
    return 2


def _report(error: OpsError | ConfigError) -> int:
    for line in getattr(error, "details", "").splitlines():
        print(f"    | {line}", file=sys.stderr)
    print(f"gantry: {error}", file=sys.stderr)
    if next_step := getattr(error, "next_step", ""):
        print(f"        {next_step}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
