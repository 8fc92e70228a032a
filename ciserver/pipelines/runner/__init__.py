"""Running one pipeline: the only part of this app that uses builders and runtime.

``run`` is the story; the modules beside it are its chapters.
"""

from ciserver.pipelines.runner.inspecting import inspect
from ciserver.pipelines.runner.machine import announce
from ciserver.pipelines.runner.story import run, run_next
from ciserver.pipelines.runner.workshop import complete, prune, tidy

__all__ = ["announce", "complete", "inspect", "prune", "run", "run_next", "tidy"]
