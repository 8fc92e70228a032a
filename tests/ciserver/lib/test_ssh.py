"""Every ssh that is started here is closed to the machine's own configuration, keys and agents."""

from __future__ import annotations

import subprocess

from builders.remote import git
from ciserver.lib import ssh

SERVICE_ALONE = {"GlobalKnownHostsFile", "IdentitiesOnly", "IdentityAgent"}


def test_builds_and_the_service_harden_ssh_alike() -> None:
    common = {name: value for name, value in ssh.OPTIONS.items() if name not in SERVICE_ALONE}
    assert {name: git.SSH_OPTIONS[name] for name in common} == common


def test_ssh_knows_each_option_and_takes_it_as_it_is_meant() -> None:
    words = ssh.command({"HostKeyAlias": "gantry", "ServerAliveInterval": 5})
    told = subprocess.run([*words, "-G", "host"], capture_output=True, text=True, check=True)
    lines = set(told.stdout.lower().splitlines())
    assert {
        "canonicalizehostname false",
        "hostkeyalias gantry",
        "identityagent none",
        "permitlocalcommand no",
        "serveralivecountmax 3",
        "serveraliveinterval 5",
    } <= lines
