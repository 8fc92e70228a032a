"""``python -m ciserver.ops up|demo|admin|collect|test``, as ./gantry calls it.

``prepare`` alone makes folders and keys; the compose file begins with it.
"""

from __future__ import annotations

import atexit
import gc
import sys

from ciserver.cli.errors import CliError
from ciserver.config import Config, ConfigError
from ciserver.ops.errors import OpsError

USAGE = (
    "./gantry up | demo [--exit] | admin [--new-password] | collect [--dry-run]"
    " | test [PYTEST-ARGUMENTS]"
)


def main(arguments: list[str]) -> int:
    try:
        return run(*arguments)
    except KeyboardInterrupt:
        return 130
    except (OpsError, CliError, ConfigError) as error:
        return _report(error)


def run(command: str = "", *rest: str) -> int:
    """Each command imports what it needs and no more: ``up`` must start quickly."""
    match command, rest:
        case "up", ():
            from ciserver.ops.up import up

            up(Config.from_env())
        case "demo", () | ("--exit",):
            from ciserver.ops.demo import demo

            return demo(Config.from_env(), leave=bool(rest))
        case "admin", () | ("--new-password",):
            from ciserver.ops.admin import admin

            admin(Config.from_env(), new_password=bool(rest))
        case "collect", () | ("--dry-run",):
            from ciserver.ops.collecting import collect

            collect(Config.from_env(), dry_run=bool(rest))
        case "prepare", ():
            from ciserver.ops.layout import prepare

            prepare(Config.from_env().home)
        case "test", _:
            from ciserver.ops.testing import run_tests

            return run_tests(rest)
        case _:
            print(f"Usage: {USAGE}", file=sys.stderr)
            return 2
    return 0


def _report(error: Exception) -> int:
    for line in getattr(error, "details", "").splitlines():
        print(f"    | {line}", file=sys.stderr)
    print(f"gantry: {error}", file=sys.stderr)
    if next_step := getattr(error, "next_step", ""):
        print(f"        {next_step}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    atexit.register(gc.freeze)  # its last collections free nothing
    sys.exit(main(sys.argv[1:]))
