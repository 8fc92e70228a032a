"""The table of system calls, and what the kernel makes of it."""

from __future__ import annotations

import pytest

from runtime import seccomp

DANGEROUS = (
    "acct add_key bpf clock_settime delete_module fanotify_init finit_module fsconfig "
    "fsmount fsopen fspick get_mempolicy init_module io_uring_enter io_uring_register "
    "io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie mbind "
    "mount mount_setattr move_mount move_pages nfsservctl open_by_handle_at open_tree "
    "perf_event_open pidfd_getfd pivot_root process_madvise quotactl quotactl_fd reboot "
    "request_key set_mempolicy setdomainname sethostname setns settimeofday swapoff swapon "
    "syslog umount umount2 unshare uselib userfaultfd ustat vhangup vm86 vm86old "
)


def names() -> list[str]:
    return [name for rule in seccomp.profile("x86_64")["syscalls"] for name in rule["names"]]


def test_the_shipped_profile_is_the_tables() -> None:
    assert seccomp.PROFILE.read_text() == seccomp.render(seccomp.TABLE.read_text()), (
        "run: python -m runtime.seccomp"
    )


@pytest.mark.parametrize("name", DANGEROUS.split())
def test_a_dangerous_call_is_not_in_it(name: str) -> None:
    assert name not in names()


def test_what_is_not_named_fails() -> None:
    profile = seccomp.profile("x86_64")
    assert (profile["defaultAction"], profile["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 1)


def test_no_process_can_be_cloned_into_new_namespaces() -> None:
    rules = [rule for rule in seccomp.profile("x86_64")["syscalls"] if "clone" in rule["names"]]
    every_clone_new = 0x7E020000
    assert [rule["args"][0] for rule in rules] == [
        {"index": 0, "value": every_clone_new, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    ]


def test_conditions_become_arguments() -> None:
    rules = seccomp.compile_table("read\nsocket if 0 != 40\nclone3 errno 38\n")
    assert rules == [
        {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
        {
            "names": ["socket"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}],
        },
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
    ]


@pytest.mark.parametrize("line", ["Read", "socket if 0 > 4", "socket if 9 == 1", "read, write"])
def test_a_line_that_cannot_be_read_is_named(line: str) -> None:
    with pytest.raises(ValueError, match=r"table\.txt:2"):
        seccomp.compile_table(f"# a comment\n{line}\n")


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="names read twice"):
        seccomp.compile_table("read write\nread\n")
