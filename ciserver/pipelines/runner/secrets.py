"""Secrets on their way to a job that names them, and to nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from builders.memory import forget_dead, memory_folder
from ciserver.lib.crypto import Secret
from ciserver.lib.masking import Masker
from ciserver.pipelines.faults import key_at
from ciserver.pipelines.runner.jobs import JobFailed, JobRun
from runtime.spec import BindMount, IdRange

FOLDER = "/run/secrets"


def secrets_for(run: JobRun, names: Sequence[str], place: str) -> dict[str, Secret]:
    """The secrets that a job named, and from here on its log masks them. Raises JobFailed."""
    if not names:
        return {}
    project = run.job.pipeline.project
    if run.job.pipeline.from_fork:
        raise JobFailed(
            f"A pull request from a fork sees no secret, and this job names {names[0]!r}.",
            place=place,
            hint="Leave it out of the job, or push the commit to a branch of the project itself.",
        )
    found = {row.name: row.value() for row in project.secrets.filter(name__in=names)}
    missing = [name for name in names if name not in found]
    if missing:
        raise JobFailed(
            f"{project} has no secret {missing[0]!r}.",
            place=place,
            hint=f"Set it on the project's page, or: gantry secrets set {project} {missing[0]}",
        )
    run.log.masker = Masker(found.values())
    return found


def secrets_for_all(run: JobRun, named: Mapping[str, Sequence[str]]) -> dict[str, Secret]:
    """The secrets of several containers of a job, whose names are by their place."""
    every = list(dict.fromkeys(name for names in named.values() for name in names))
    for place, names in named.items():
        secrets_for(run, names, key_at(place, "secrets"))
    return secrets_for(run, every, "")


@contextmanager
def as_files(secrets: Mapping[str, Secret], ids: IdRange) -> Iterator[list[BindMount]]:
    """Each secret as ``/run/secrets/NAME``, in memory for the duration of the block."""
    forget_dead()
    if not secrets:
        yield []
        return
    with memory_folder("secrets") as folder:
        mounts = []
        for name, secret in secrets.items():
            path = folder / name
            path.touch(mode=0o600)
            path.write_bytes(secret.reveal().encode())
            os.chown(path, ids.base, ids.base)
            path.chmod(0o444)  # whichever user of the container the test runs as
            mounts.append(BindMount(source=path, target=f"{FOLDER}/{name}"))
        yield mounts
