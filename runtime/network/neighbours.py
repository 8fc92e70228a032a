"""Other firewalls on this machine: Docker's and ufw's drop whatever they do not forward themselves.

A packet passes only if every table accepts it, so ours alone is not enough where
iptables' FORWARD has the policy DROP. What we refuse stays refused: our table is first.
"""

from __future__ import annotations

import shutil

from runtime import process
from runtime.errors import HostError
from runtime.network.firewall import DEVICE_PREFIX
from runtime.process import Command

RULES = (
    ("-i", f"{DEVICE_PREFIX}+", "-j", "ACCEPT"),
    (
        *("-o", f"{DEVICE_PREFIX}+", "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"),
        *("-j", "ACCEPT"),
    ),
)


def let_us_through() -> None:
    """Add our two rules where they are needed and missing. Raises HostError."""
    for program in ("iptables", "ip6tables"):
        if shutil.which(program) is None:
            continue
        try:
            rules = process.run(iptables("-S", program=program))
        except HostError:
            continue  # no iptables support in this kernel, so nobody uses it
        for command in commands(rules, program):
            process.run(command)


def commands(rules: str, program: str = "iptables") -> list[Command]:
    """What to run, seeing the output of ``iptables -S``. Pure.

    Docker asks for such rules in its chain DOCKER-USER, which comes before all of its own.
    """
    lines = rules.splitlines()
    if "-P FORWARD DROP" not in lines:
        return []
    chain = "DOCKER-USER" if "-N DOCKER-USER" in lines else "FORWARD"
    missing = [rule for rule in RULES if " ".join(("-A", chain, *rule)) not in lines]
    return [iptables("-I", chain, *rule, program=program) for rule in missing]


def iptables(*args: str, program: str = "iptables") -> Command:
    return Command((program, "-w", *args))
