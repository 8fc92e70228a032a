"""No project can ask for the host: there is no such word in gantry.yml."""

from __future__ import annotations

import json

import pytest

from ciserver.pipelines.definition import DefinitionError, parse, schema

WISHES = {
    "privileged": "true",
    "volumes": "['/var/run/docker.sock:/var/run/docker.sock']",
    "devices": "[/dev/kmsg]",
    "cap_add": "[SYS_ADMIN]",
    "security_opt": "['seccomp:unconfined']",
    "network_mode": "host",
    "pid": "host",
    "ipc": "host",
    "userns_mode": "host",
    "cgroup_parent": "/",
    "sysctls": "{kernel.core_pattern: '|/evil'}",
    "runtime": "runc",
}


@pytest.mark.parametrize("place", ["tests: {{unit: {}}}", "services: {{db: {}}}", "build: {}"])
@pytest.mark.parametrize("wish", WISHES)
def test_it_is_an_unknown_key(wish: str, place: str) -> None:
    text = place.format(f"{{{wish}: {WISHES[wish]}}}")
    with pytest.raises(DefinitionError, match=wish):
        parse(text)


def test_the_schema_has_no_such_key() -> None:
    words = json.dumps(schema())
    assert not [wish for wish in WISHES if f'"{wish}":' in words]
