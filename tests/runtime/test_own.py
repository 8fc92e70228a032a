"""This machine's own addresses, in a network namespace that has a public one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

pytestmark = pytest.mark.root

NAMESPACE = "gantry-test-own"
ASK = """
import sys
from ipaddress import ip_address
from runtime.network.own import is_own
print(*(is_own(ip_address(word)) for word in sys.argv[1:]))
"""


@pytest.fixture
def namespace() -> Iterator[str]:
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    try:
        ip = ["ip", "-n", NAMESPACE]
        subprocess.run([*ip, "link", "set", "lo", "up"], check=True)
        subprocess.run([*ip, "address", "add", "8.8.8.8/32", "dev", "lo"], check=True)
        subprocess.run([*ip, "address", "add", "2001:4860::1/128", "dev", "lo"], check=True)
        yield NAMESPACE
    finally:
        subprocess.run(["ip", "netns", "delete", NAMESPACE], check=True)


def test_a_public_address_of_this_machine_is_its_own(namespace: str) -> None:
    asked = {
        "8.8.8.8": True,
        "8.8.4.4": False,
        "127.0.0.1": True,
        "::1": True,
        "2001:4860::1": True,
        "2001:4860::2": False,
        "::ffff:8.8.8.8": True,
    }
    said = subprocess.run(
        ["ip", "netns", "exec", namespace, sys.executable, "-c", ASK, *asked],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.split() == [str(own) for own in asked.values()]
