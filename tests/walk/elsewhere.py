"""What is not typed by the walk, and why; some of it is typed elsewhere."""

from __future__ import annotations

from collections.abc import Iterable

# (page, command): why. Whatever is of ours among them is given to the parser of its program.
ELSEWHERE: dict[tuple[str, str], str] = {}


def _add(why: str, commands: Iterable[tuple[str, str]]) -> None:
    ELSEWHERE.update(dict.fromkeys(commands, why))


_add(
    "Makes a base from a package mirror, and starts the service that tests/e2e use: they type it.",
    [("README.md", "./gantry demo"), ("install.md", "./gantry demo")],
)
_add(
    "It is what runs these tests.",
    [("README.md", "./gantry test"), ("install.md", "./gantry test")],
)
_add(
    "Makes a base from a package mirror, which the walk's machine has no way to, in half a minute"
    " of a core. tests/e2e/test_real_bases.py types the one of tests.md.",
    [
        ("tests.md", "./gantry base gantry/postgres:15"),
        ("settings.md", "./gantry base debian:bookworm-slim"),
        ("install.md", "./gantry base debian:bookworm-slim"),
    ],
)
_add(
    "Asks a package index: tests/ciserver/cli/test_standalone.py installs ./client without one.",
    [("cli.md", "pip install ./client")],
)
_add(
    "Writes the page that names it, which tests/ciserver compares with what it would write.",
    [
        ("api-reference.md", "python docs/api_reference.py"),
        ("cli.md", "python docs/reference.py"),
        ("gantry-yml.md", "python docs/manual.py"),
    ],
)
_add(
    "Measures for minutes on a machine that does nothing else; its parser is given the options.",
    [
        ("README.md", "sudo .venv/bin/python benchmarks/sandbox.py --rounds 15"),
        ("README.md", "sudo .venv/bin/python benchmarks/pipeline.py --rounds 9"),
        ("README.md", "sudo .venv/bin/python -m benchmarks.build --rounds 5"),
        ("README.md", "python -m tests.faults"),
        ("README.md", "python -m tests.faults.deployments --kills 100 --lanes 4"),
    ],
)
_add(
    "No instruction: a sentence about what a program does, or measured against.",
    [
        ("README.md", "git push"),
        ("README.md", "podman run --network none"),
        ("README.md", "docker run --network none"),
        ("README.md", "docker build && docker run && docker push"),
        ("README.md", "ssh HOST 'podman pull && podman run'"),
        ("builds.md", "docker build"),
        ("hosts.md", "sudo -n nft"),
        ("install.md", "git push"),
        ("operations.md", "kill -9"),
        ("settings.md", "chmod 600"),
        ("settings.md", "docker login"),
        ("settings.md", "python -m builders"),
        ("starting.md", "git push"),
        ("webhooks.md", "git push"),
    ],
)
_add(
    "Asks the distribution's mirror; tests/builders/test_platforms.py says when it is wanted.",
    [("builds.md", "apt-get install qemu-user-static")],
)
_add(
    "What 'gantry hosts prepare' does there, where it is typed.",
    [("hosts.md", "loginctl enable-linger")],
)
