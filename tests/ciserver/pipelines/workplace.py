"""Real pipelines in tests: a store with busybox, a registry, and commits made from files."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from django.conf import settings

from builders.images.store import Store
from builders.registry import Registry
from builders.resolve import Resolver
from ciserver.pipelines import services
from ciserver.pipelines.models import Job, Pipeline
from ciserver.pipelines.runner import story
from ciserver.pipelines.runner.workshop import Workshop
from ciserver.repositories import git
from runtime.state import StateDirectory
from tests.builders.conftest import make_busybox
from tests.builders.registry.conftest import RegistryProcess


@dataclass
class Workplace:
    """``run`` pushes files as a commit of ``project`` and runs its pipeline to the end."""

    folder: Path
    workshop: Workshop
    project: Any = None
    trees: dict[int, Path] = field(default_factory=dict)

    def run(self, files: Mapping[str, str], **asked: Any) -> Pipeline:
        pipeline = self.queue(files, **asked)
        story.run(pipeline.pk)
        pipeline.refresh_from_db()
        return pipeline

    def queue(self, files: Mapping[str, str], **asked: Any) -> Pipeline:
        tree = self.tree(files)
        return self.queue_tree(tree, **asked)

    def queue_tree(self, tree: Path, **asked: Any) -> Pipeline:
        run_git(tree, "add", "--all")
        run_git(tree, "commit", "--quiet", "--allow-empty", "-m", "Change")
        target = str(git.git_dir(self.project))
        run_git(tree, "push", "--quiet", "--force", target, "HEAD:main")
        commit = run_git(tree, "rev-parse", "HEAD").strip()
        asked.setdefault("ref", "refs/heads/main")
        made = services.queue(project=self.project, commit=commit, **asked)
        return Pipeline.objects.get(pk=made.pk)

    def tree(self, files: Mapping[str, str]) -> Path:
        """The project's working tree, with ``files`` beside those it has."""
        tree = self.trees.get(self.project.pk)
        if tree is None:
            tree = self.trees[self.project.pk] = self.folder / f"tree-{self.project.pk}"
            shutil.rmtree(tree, ignore_errors=True)
            tree.mkdir()
            run_git(tree, "init", "--quiet", "--initial-branch=main")
            git.create_hosted(self.project)
        for name, text in files.items():
            path = tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tree


def log_of(job: Job) -> str:
    """Without times: ``STEP STREAM TEXT``."""
    lines = job.log_path.read_text().splitlines()
    return "\n".join(line.partition(" ")[2] for line in lines)


def run_git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=Alice", "-c", "user.email=alice@example.org"]
    done = subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, check=True)
    return done.stdout.decode()


@contextmanager
def opened() -> Iterator[Workplace]:
    """One for a whole session: the folder is one that a sandbox's users can walk to."""
    folder = Path("/var/tmp") / f"gantry-pipelines-{os.getpid()}"
    folder.mkdir(mode=0o711)
    folder.chmod(0o711)
    registry = RegistryProcess(folder)
    try:
        store = Store(folder / "store")
        make_busybox(store, folder / "busybox")
        client = Registry(registry.host, patience=10)
        workshop = Workshop(
            config=replace(settings.GANTRY, registry=registry.host),
            store=store,
            state=StateDirectory(folder / "sandboxes"),
            registry=client,
            resolver=Resolver(store, registries={registry.host: client}, upstream=False),
        )
        yield Workplace(folder, workshop)
    finally:
        for thread in threading.enumerate():
            if thread.name == "upload":  # of a pipeline that failed: it saves the steps alone
                thread.join(10)
        registry.close()
        shutil.rmtree(folder)
