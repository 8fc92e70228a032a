"""The table of sandboxes' rules: loaded when it is not as we left it, and only then."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path

import pytest

from runtime import syscalls
from runtime.network import directory, rules
from runtime.network.firewall import Allowed

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(rules, "STATE", tmp_path / "rules.json")
    return tmp_path / "rules.json"


def apart(work: Callable[[], None]) -> None:
    """Do ``work`` in a network namespace of its own."""

    def inside() -> None:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        work()

    directory.in_thread(inside)


def allow(address: str) -> list[Allowed]:
    return [Allowed(ip_network(address), 53)]


def nft(text: str) -> str:
    return subprocess.run(
        ["nft", "-f", "-"], input=text, text=True, check=True, capture_output=True
    ).stdout


def test_a_second_network_with_the_same_policy_costs_no_commit() -> None:
    def work() -> None:
        group = rules.admit(allow("10.0.0.1"), [])
        before = rules.kernel_generation()
        assert rules.admit(allow("10.0.0.1"), []) == group
        assert rules.kernel_generation() == before
        assert f"{group} : jump policy-{group}" in nft("list table inet gantry")

    apart(work)


def test_what_others_flushed_is_loaded_again_with_every_policy() -> None:
    def work() -> None:
        one, two = rules.admit(allow("10.0.0.1"), []), rules.admit(allow("10.0.0.2"), [])
        nft("flush ruleset")
        assert rules.admit(allow("10.0.0.2"), []) == two
        table = nft("list table inet gantry")
        assert "ip daddr 10.0.0.1 udp dport 53 accept" in table
        assert f"jump policy-{one}" in table and f"jump policy-{two}" in table
        assert "reject with icmpx admin-prohibited" in table

    apart(work)


def test_another_place_or_neighbourhood_is_not_taken_for_the_one_that_was_loaded() -> None:
    def work() -> None:
        rules.admit(allow("10.0.0.1"), [])
        assert "2a00:46::/64" not in nft("list table inet gantry")

    def with_a_link() -> None:
        work()
        link = ip_network("2a00:46::/64")
        assert link.version == 6
        rules.admit(allow("10.0.0.1"), [link])
        assert "ip6 daddr 2a00:46::/64 reject" in nft("list table inet gantry")

    apart(work)
    apart(with_a_link)


def test_a_half_written_file_means_nothing_is_known(file: Path) -> None:
    def work() -> None:
        rules.admit(allow("10.0.0.1"), [])
        before = rules.kernel_generation()
        file.write_text('{"place": "')
        rules.admit(allow("10.0.0.1"), [])
        assert rules.kernel_generation() == before + 1

    apart(work)


def test_policies_that_no_device_has_are_dropped_when_there_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "KEPT", 2)
    monkeypatch.setattr(rules, "DEVICES", tmp_path)

    def work() -> None:
        groups = []
        for number in range(4):
            groups.append(rules.admit(allow(f"10.0.0.{number}"), []))
            if number == 0:
                device = tmp_path / "gtw0"
                device.mkdir()
                (device / "netdev_group").write_text(f"{groups[0]}\n")
        table = nft("list table inet gantry")
        there = [f"policy-{group} " in table for group in groups]
        assert there == [True, False, False, True]

    apart(work)
