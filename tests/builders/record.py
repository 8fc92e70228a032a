"""Record what docker's BuildKit makes of each golden case: run it beside a dockerd.

    DOCKER_HOST=unix:///... python -m tests.builders.record DOCKER [CASE ...]

DOCKER is a docker client with BuildKit; ``busybox:latest`` must be the tests' own
base (conftest.make_busybox), which this module loads from its tree.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.builders.cases import Case, all_cases
from tests.builders.flatten import config_part, difference, tree_of_archive


def record(docker: str, case: Case) -> None:
    with tempfile.TemporaryDirectory() as work:
        context = case.lay_out(Path(work) / "context")
        options = case.options
        command = [docker, "build", "--quiet", "--network=none", "--tag=case", str(context)]
        if "target" in options:
            command += ["--target", options["target"]]
        for key, value in options.get("build_args", {}).items():
            command += ["--build-arg", f"{key}={value}"]
        env = {**os.environ, "DOCKER_BUILDKIT": "1"}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{case.name}: docker refuses: {done.stderr.strip()[-300:]}")
            return
        saved = subprocess.run([docker, "save", "case"], capture_output=True, check=True).stdout
        shown = subprocess.run([docker, "inspect", "case"], capture_output=True, check=True).stdout
    image = json.loads(shown)[0]
    base = json.loads(
        subprocess.run([docker, "inspect", "busybox"], capture_output=True, check=True).stdout
    )[0]
    layers, below = image["RootFS"].get("Layers") or [], base["RootFS"]["Layers"]
    skip = len(below) if layers[: len(below)] == below else 0
    tree, beneath = tree_of_archive(io.BytesIO(saved), skip)
    expected = {"config": config_part(image["Config"]), "tree": difference(tree, beneath)}
    case.expected.write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")


def main() -> None:
    docker, *names = sys.argv[1:]
    for case in all_cases():
        wanted = not names or case.name in names
        if wanted and case.error is None and "oracle" not in case.options:
            record(docker, case)


if __name__ == "__main__":
    main()
