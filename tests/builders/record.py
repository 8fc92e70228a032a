"""Record what docker's BuildKit makes of each golden case: run it beside a dockerd.

    DOCKER_HOST=unix:///... python -m tests.builders.record DOCKER [CASE ...]

DOCKER is a docker client with BuildKit. ``busybox:latest`` becomes the tests' own base
(conftest.make_busybox).
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from builders.images.reference import Reference
from builders.images.store import Store
from builders.layouts import export_archive
from builders.steps.agents import Agents
from tests.builders.cases import Case, all_cases, write_expected
from tests.builders.conftest import make_busybox
from tests.builders.flatten import image_of_archive


def record(docker: str, case: Case, below: Sequence[str]) -> None:
    with (
        tempfile.TemporaryDirectory() as work,
        case.web() as place,
        case.keys() as keys,
        Agents(keys) as agents,
    ):
        context = case.lay_out(Path(work) / "context")
        options = case.options
        command = [docker, "build", "--quiet", "--network=none", "--tag=case", str(context)]
        if "target" in options:
            command += ["--target", options["target"]]
        for key, value in case.build_args.items():
            command += ["--build-arg", f"{key}={value}"]
        for key, value in options.get("labels", {}).items():
            command += ["--label", f"{key}={value}"]
        if place:
            command += ["--build-arg", f"WEB=http://{place}"]
        for name in keys:
            command += ["--ssh", f"{name}={agents.socket(name)}"]
        env = {**os.environ, "DOCKER_BUILDKIT": "1"}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{case.name}: docker refuses: {done.stderr.strip()[-300:]}")
            return
        saved = subprocess.run([docker, "save", "case"], capture_output=True, check=True).stdout
    write_expected(case, image_of_archive(io.BytesIO(saved), below))


def load_base(docker: str) -> Sequence[str]:
    """Make the tests' busybox the daemon's; the diff ids of its layers."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        base = make_busybox(Store(Path(folder) / "store"), Path(folder) / "busybox")
        archive = Path(folder) / "busybox.tar"
        export_archive(base, archive, [Reference.parse("busybox:latest")])
        subprocess.run([docker, "load", "--input", archive], capture_output=True, check=True)
        return base.config.diff_ids


def main() -> None:
    docker, *names = sys.argv[1:]
    below = load_base(docker)
    for case in all_cases():
        wanted = not names or case.name in names
        if wanted and case.error is None and "oracle" not in case.options:
            record(docker, case, below)


if __name__ == "__main__":
    main()
