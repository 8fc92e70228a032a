"""SandboxSpec -> config.json. A new case is a new golden file: delete one to have it written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import bundle, security
from runtime.bundle import Surroundings
from runtime.errors import SpecError
from runtime.host import CgroupVersion
from runtime.spec import (
    MIB,
    BindMount,
    IdRange,
    Limits,
    Network,
    SandboxSpec,
    TmpfsMount,
    User,
)

GOLDEN = Path(__file__).parent / "golden"
AROUND = Surroundings(
    cgroup_path="/gantry/p1/box-1",
    cgroup_version=CgroupVersion.V2,
    machine="x86_64",
    thermal_cpus=2,
    hosts=Path("/state/hosts"),
    hostname=Path("/state/hostname"),
    resolv_conf=Path("/state/resolv.conf"),
)
PLAIN = SandboxSpec(id="plain", rootfs=Path("/root-fs"), args=("/bin/true",), ids=IdRange(200_000))
FULL = replace(
    PLAIN,
    id="full",
    args=("/bin/sh", "-c", "make test"),
    env={"PATH": "/bin", "LANG": "C.UTF-8"},
    cwd="/src",
    user=User(uid=1000, gid=100, groups=(4, 20)),
    hostname="forge",
    limits=Limits(memory=256 * MIB, cpus=1.5, pids=100, timeout=60, output=MIB, shm=MIB),
    mounts=(
        BindMount(source=Path("/secrets/token"), target="/run/secrets/token"),
        BindMount(source=Path("/cache/pip"), target="/root/.cache/pip", read_only=False),
        TmpfsMount(target="/tmp", size=16 * MIB),
    ),
    read_only=True,
    no_new_privileges=False,
)
CASES = {
    "plain": (PLAIN, AROUND),
    "full": (FULL, AROUND),
    "full-v1": (FULL, replace(AROUND, cgroup_version=CgroupVersion.V1)),
    "egress": (
        replace(PLAIN, network=Network.EGRESS),
        replace(
            AROUND, netns=Path("/state/networks/0/netns"), sysfs=Path("/state/networks/0/sysfs")
        ),
    ),
    "host": (replace(PLAIN, network=Network.HOST), replace(AROUND, sysfs=Path("/state/sysfs"))),
}


@pytest.mark.parametrize("name", CASES)
def test_it_builds_the_golden_bundle(name: str) -> None:
    config = bundle.build(*CASES[name])
    config["linux"]["seccomp"] = "see runtime/seccomp/table.txt"
    file = GOLDEN / f"{name}.json"
    text = json.dumps(config, indent=1) + "\n"
    if not file.exists():
        file.write_text(text)
    assert text == file.read_text()


text = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20)
names = st.from_regex(r"[a-z]{1,8}", fullmatch=True)
paths = st.lists(names, min_size=1, max_size=3).map(lambda parts: "/srv/" + "/".join(parts))
mounts = st.one_of(
    st.builds(BindMount, source=paths.map(Path), target=paths, read_only=st.booleans()),
    st.builds(TmpfsMount, target=paths, size=st.integers(1, 2**40)),
)
specs = st.builds(
    SandboxSpec,
    id=names,
    rootfs=paths.map(Path),
    args=st.builds(lambda name, rest: (name, *rest), names, st.lists(text, max_size=3)),
    ids=st.integers(65536, 2**32 - 65538).map(IdRange),
    env=st.dictionaries(names, text, max_size=4),
    cwd=paths,
    user=st.builds(User, uid=st.integers(0, 65535), gid=st.integers(0, 65535)),
    limits=st.builds(
        Limits,
        memory=st.none() | st.integers(8 * MIB, 2**40),
        cpus=st.none() | st.floats(0.01, 64),
        pids=st.none() | st.integers(1, 10**6),
        io_weight=st.none() | st.integers(1, 1000),
        io_read=st.none() | st.integers(1, 2**40),
        io_write=st.none() | st.integers(1, 2**40),
        timeout=st.none() | st.floats(0.1, 1e6),
        silence=st.none() | st.floats(0.1, 1e6),
        output=st.none() | st.integers(0, 2**40),
        disk=st.none() | st.integers(1, 2**50),
        inodes=st.none() | st.integers(1, 2**40),
        shm=st.integers(1, 2**40),
    ),
    upper=st.just(Path("/srv/upper")),
    secrets=st.lists(names, max_size=2).map(tuple),
    mounts=st.lists(mounts, max_size=3).map(tuple),
    network=st.sampled_from([kind for kind in Network if kind is not Network.PRIVATE]),
    read_only=st.booleans(),
    no_new_privileges=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(specs)
def test_no_spec_weakens_the_sandbox(spec: SandboxSpec) -> None:
    config = bundle.build(spec, AROUND)
    linux, process = config["linux"], config["process"]
    kinds = {entry["type"] for entry in linux["namespaces"]}
    assert {"pid", "ipc", "uts", "mount", "user", "cgroup"} <= kinds
    assert ("network" in kinds) == (spec.network is not Network.HOST)
    for mapping in (*linux["uidMappings"], *linux["gidMappings"]):
        assert mapping["hostID"] >= 65536
    for held in process["capabilities"].values():
        assert set(held) <= set(security.CAPABILITIES)
    assert linux["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    assert set(security.MASKED_PATHS) <= set(linux["maskedPaths"])
    assert set(security.READ_ONLY_PATHS) == set(linux["readonlyPaths"])
    assert linux["resources"]["devices"] == [{"allow": False, "access": "rwm"}]
    assert "devices" not in linux and "hooks" not in config
    assert process["noNewPrivileges"] == spec.no_new_privileges
    assert process["terminal"] is False
    for mount in config["mounts"]:
        options = set(mount["options"])
        assert "nosuid" in options
        assert not options & {"shared", "rshared", "slave", "rslave", "dev", "suid"}
    assert json.loads(json.dumps(config)) == config


@settings(max_examples=40, deadline=None)
@given(specs)
def test_every_program_and_variable_arrives_unchanged(spec: SandboxSpec) -> None:
    process = bundle.build(spec, AROUND)["process"]
    assert tuple(process["args"]) == spec.args
    found = dict(entry.split("=", 1) for entry in process["env"])
    assert found == {"PATH": bundle.DEFAULT_PATH} | dict(spec.env)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"id": "../up"}, "no sandbox id"),
        ({"id": ""}, "no sandbox id"),
        ({"hostname": ""}, "no host name"),
        ({"hostname": "x\n1.2.3.4 evil"}, "no host name"),
        ({"hostname": "a" * 64}, "no host name"),
        ({"args": ("",)}, "no command"),
        ({"args": ("a", "\udcff")}, "not UTF-8"),
        ({"env": {"A": "\udcff"}}, "not UTF-8"),
        ({"env": {"": "x"}}, "no name of an environment variable"),
        ({"cwd": "//proc/self/fd/7"}, "no normal absolute path"),
        ({"cwd": "/\udcff"}, "not UTF-8"),
        ({"limits": Limits(cpus=float("nan"))}, "cpus is no number"),
        ({"limits": Limits(cpus=float("inf"))}, "more than the kernel can count"),
        ({"limits": Limits(timeout=float("nan"))}, "timeout is no number"),
        ({"limits": Limits(timeout=float("inf"))}, "more than the kernel can count"),
        ({"limits": Limits(silence=float("nan"))}, "silence is no number"),
        ({"limits": Limits(memory=2**63)}, "more than the kernel can count"),
        ({"limits": Limits(pids=2**23)}, "more than the kernel can count"),
        ({"limits": Limits(output=-1)}, "at least 0 bytes"),
        ({"limits": Limits(shm=0)}, "at least 1 byte"),
        ({"limits": Limits(io_weight=0)}, "from 1 to 1000"),
        ({"limits": Limits(io_weight=1001)}, "more than the kernel"),
        ({"mounts": (TmpfsMount(target="/t", size=0),)}, "is given 0 bytes"),
        ({"mounts": (TmpfsMount(target="/t", size=1, mode=0o10000),)}, "has the mode"),
        ({"mounts": (TmpfsMount(target="/t", size=1, uid=-1),)}, "outside the sandbox's"),
        ({"mounts": (TmpfsMount(target="//proc/sys", size=1),)}, "no normal absolute path"),
        ({"args": ()}, "no command"),
        ({"args": ("a\0b",)}, "NUL"),
        ({"env": {"A": "x\0"}}, "NUL"),
        ({"env": {"A=B": "x"}}, "no name of an environment variable"),
        ({"cwd": "relative"}, "no normal absolute path"),
        ({"cwd": "/a/../b"}, "no normal absolute path"),
        ({"cwd": "/proc/self/fd/7"}, "belongs to the kernel"),
        ({"user": User(uid=65536)}, "outside the sandbox's 65536 ids"),
        ({"user": User(uid=-1)}, "outside the sandbox's"),
        ({"limits": Limits(memory=4096)}, "too small"),
        ({"limits": Limits(cpus=0)}, "too small"),
        ({"limits": Limits(pids=0)}, "at least 1"),
        ({"limits": Limits(timeout=0)}, "more than 0"),
        ({"mounts": (TmpfsMount(target="/", size=1),)}, "Nothing can be mounted at /"),
        ({"mounts": (TmpfsMount(target="/proc/sys", size=1),)}, "Nothing can be mounted"),
        ({"mounts": (TmpfsMount(target="x", size=1),)}, "no normal absolute path"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words) as refused:
        bundle.build(replace(PLAIN, **fields), AROUND)
    assert refused.value.hint.endswith(".")


def test_an_id_range_ends_where_the_kernels_ids_do() -> None:
    assert IdRange(2**32 - 1 - 65537).size == 65536
    for base in (2**32 - 65536, 2**40):
        with pytest.raises(ValueError, match="ends below"):
            IdRange(base)


@pytest.mark.parametrize("base", [0, 1, 1000, 65535])
def test_an_id_range_never_holds_the_hosts_own_users(base: int) -> None:
    with pytest.raises(ValueError, match="65536 or above"):
        IdRange(base)
