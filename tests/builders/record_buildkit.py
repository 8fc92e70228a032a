"""Record what a newer BuildKit makes of cases that Debian's docker does not know.

    python -m tests.builders.record_buildkit BUILDCTL ADDRESS [CASE ...]

Without names all whose ``oracle`` is "buildkit". The daemon's front end must know the
labs' flags: build it with ``-tags dfparents,dfexcludepatterns``. The base is the tests' own
busybox, as an OCI layout.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from builders.images.reference import Reference
from builders.images.store import Image, Store
from builders.layouts import export_layout
from tests.builders.cases import Case, all_cases, write_expected
from tests.builders.conftest import make_busybox
from tests.builders.flatten import image_of_archive


def record(buildctl: list[str], case: Case, base: Image, layout: Path) -> None:
    options = case.options
    digest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        context = case.lay_out(work / "context")
        command = [
            *buildctl, "build", "--frontend", "dockerfile.v0", "--progress=plain", "--no-cache",
            f"--local=context={context}", f"--local=dockerfile={context}",
            f"--output=type=docker,dest={work}/out.tar,name=case",
            f"--oci-layout=base={layout}", f"--opt=context:busybox=oci-layout://base@{digest}",
            f"--opt=filename={options.get('dockerfile', 'Dockerfile')}",
        ]  # fmt: skip
        if "target" in options:
            command.append(f"--opt=target={options['target']}")
        for key, value in options.get("build_args", {}).items():
            command.append(f"--opt=build-arg:{key}={value}")
        for name, text in options.get("secrets", {}).items():
            (work / name).write_text(text)
            command.append(f"--secret=id={name},src={work / name}")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{case.name}: BuildKit refuses: {done.stderr.strip()[-400:]}")
            return
        with (work / "out.tar").open("rb") as archive:
            write_expected(case, image_of_archive(archive, base.config.diff_ids))


def main() -> None:
    program, address, *names = sys.argv[1:]
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        store = Store(Path(folder) / "store")
        base = make_busybox(store, Path(folder) / "busybox")
        layout = Path(folder) / "layout"
        export_layout(base, layout, [Reference.parse("busybox")])
        for case in all_cases():
            oracle = case.options.get("oracle")
            if case.error is None and (case.name in names or (not names and oracle == "buildkit")):
                record([program, f"--addr={address}"], case, base, layout)


if __name__ == "__main__":
    main()
