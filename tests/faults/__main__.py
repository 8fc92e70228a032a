"""``python -m tests.faults``: the long form. Prints SECURITY's table; exit code 1 when it fails."""

from __future__ import annotations

import argparse
import sys

from tests.faults.run import Plan, carry_out, table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    for name in ("deliveries", "repositories", "branches", "steps", "lease", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Plan, name))
    parser.add_argument("--per-second", type=float, default=Plan.per_second)
    parser.add_argument("--pause", type=float, default=Plan.pause, help="seconds between kills")
    parser.add_argument("--outage", type=float, default=Plan.outage, help="seconds without Redis")
    parser.add_argument("--minutes", type=float, default=30, help="for what is queued to be built")
    parser.add_argument("--calm", action="store_true", help="kill nothing; what grows with builds?")
    parser.add_argument("--postgresql", action="store_true", help="instead of SQLite")
    given = vars(parser.parse_args())
    outcome = carry_out(Plan(settle=60 * given.pop("minutes"), **given))
    print(table(outcome))
    for reason, count in outcome.verdict.reasons.most_common():
        print(f"{count} failed: {reason}")
    for line in [*outcome.verdict.wrong, *outcome.left_behind]:
        print(line, file=sys.stderr)
    return 1 if outcome.verdict.wrong or outcome.left_behind or outcome.double_pushes else 0


if __name__ == "__main__":
    sys.exit(main())
