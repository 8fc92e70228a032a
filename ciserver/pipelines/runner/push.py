"""The push job: layers travel while the tests run, the manifest only when they are green."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType

from builders.build import StepInfo, StepResult
from builders.errors import BuildError
from builders.images.reference import Reference
from builders.images.store import Image, Layer
from builders.registry import Sent
from builders.shared import SharedCache
from builders.waiting import unless_cancelled
from ciserver.lib.registry_lock import still_uploading, uploading
from ciserver.lib.words import size
from ciserver.pipelines.logs import LogWriter
from ciserver.pipelines.models import Pipeline, State
from ciserver.pipelines.runner.jobs import JobFailed
from ciserver.pipelines.runner.plan import Plan
from ciserver.pipelines.runner.workshop import Workshop

log = logging.getLogger(__name__)
ABANDON_SECONDS = 0.5
CANCEL_SECONDS = 0.2  # between looks at whether somebody cancels


@dataclass(frozen=True, slots=True)
class Pushed:
    """Where the image is now; the fields are the pipeline row's."""

    repository: str
    digest: str
    bytes_sent: int
    bytes_existing: int
    images: dict[str, dict[str, str]] = field(default_factory=dict)  # of several, by name


class Upload:
    """Sends an image's blobs from a thread, layer by layer as the build makes them.

    After ``complete`` it sends the rest, then ``shared``'s steps. ``finish`` adds the manifest,
    last of all: a tag therefore never names an image whose tests failed, nor one that is not there
    whole.
    """

    def __init__(
        self,
        workshop: Workshop,
        pipeline: Pipeline,
        target: str | None,
        shared: SharedCache | None,
        name: str = "",
    ) -> None:
        """``name`` is that of an image beside the deployed one: it has a repository of its own."""
        self._workshop = workshop
        self._target = target
        self._shared = shared
        path = "/".join(filter(None, (workshop.config.registry, pipeline.project.slug, name)))
        self._reference = Reference.parse(f"{path}:{pipeline.commit}")
        self._work: queue.SimpleQueue[Layer | Image | None] = queue.SimpleQueue()
        self._image: Image | None = None
        self._early = 0  # bytes that travelled before the image was whole
        self._sent = Sent()
        self._error: Exception | None = None
        self._stop = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upload", daemon=True)

    def __enter__(self) -> Upload:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # After a failure nobody waits for blobs that no manifest will name; nor, after the
        # manifest, for the steps that other workers may have. Those go on alone.
        if error is not None and not (self._image and self._shared and _by_the_author(error)):
            self._stop.set()
        self._work.put(None)
        self._over.wait(None if error is None else ABANDON_SECONDS)

    def step_finished(self, step: StepInfo, result: StepResult) -> None:
        """Send what a step adds to the image, while later steps still run."""
        if result.layer is not None and self._target in step.targets:
            self._work.put(result.layer)

    def complete(self, image: Image) -> None:
        """The image is whole: send what is missing of it."""
        self._image = image
        self._work.put(image)

    def _run(self) -> None:
        try:
            # It may outlive the pipeline, and what that holds.
            with self._workshop.store.in_use(), still_uploading(self._workshop.config.run):
                self._send_all()
        except Exception as error:
            if self._over.is_set():
                log.exception("what an upload had left to send was not sent")
            self._error = error  # raised again in finish(), where the job can show it
        finally:
            self._over.set()

    def _send_all(self) -> None:
        while (item := self._work.get()) is not None and not self._stop.is_set():
            if isinstance(item, Image):
                self._send(item)
                return
            if self._image is None:  # else the layer is sent with the others, side by side
                self._send_early(item)

    def _send_early(self, layer: Layer) -> None:
        workshop = self._workshop
        try:
            sent = workshop.registry.push_blob(
                layer, self._reference, workshop.store, cancel=self._stop
            )
        except BuildError as error:
            log.info("a layer was not sent early: %s", error)  # it is tried again with the image
        else:
            self._early += sent.bytes_sent

    def _send(self, image: Image) -> None:
        try:
            self._sent = self._workshop.registry.push_blobs(
                image, self._reference, self._workshop.store, cancel=self._stop
            )
        except Exception as error:
            self._error = error
        self._over.set()
        if self._shared is not None and self._error is None:
            self._shared.save(cancel=self._stop)

    def finish(
        self, writer: LogWriter, cancel: threading.Event, may_push: Callable[[], None]
    ) -> Pushed:
        """Wait for the blobs and push the manifest. Raises builders' RegistryError.

        Raises JobFailed or BuildCancelled when ``cancel`` is set meanwhile: then there is no
        manifest yet. ``may_push`` is called last before that, and raises if it must not be: whoever
        was stopped for a while, and goes on, is there before its heartbeat.
        """
        while not self._over.wait(CANCEL_SECONDS):
            if cancel.is_set():
                raise JobFailed("Cancelled.", state=State.CANCELLED)
        if self._error or self._image is None:
            raise self._error or RuntimeError("the upload was never given an image")
        image = self._image

        def push() -> str:
            workshop = self._workshop
            return workshop.registry.push_manifest(image, self._reference, workshop.store)

        may_push()
        # What a thread that is left alone may still do names a tested image.
        digest = unless_cancelled(push, cancel, name="manifest")
        early = self._early
        pushed = Pushed(
            repository=f"{self._reference.registry}/{self._reference.repository}",
            digest=digest,
            bytes_sent=self._sent.bytes_sent + early,
            bytes_existing=max(0, self._sent.bytes_existing - early),
        )
        writer.say(f"Pushed {pushed.repository}@{digest}")
        writer.say(
            f"{size(pushed.bytes_sent)} travelled, {size(pushed.bytes_existing)} were there."
        )
        return pushed


def _by_the_author(error: BaseException) -> bool:
    """Whether a pipeline ended because the commit is wrong, and not because somebody ended it."""
    return isinstance(error, JobFailed) and error.state == State.FAILED


class Uploads:
    """The uploads of a pipeline's released images. ``start`` may be called by several threads."""

    def __init__(self, workshop: Workshop, pipeline: Pipeline, shared: SharedCache | None) -> None:
        self._workshop = workshop
        self._pipeline = pipeline
        self._shared = shared
        self._stack = ExitStack()
        self._lock = threading.Lock()
        self._started: dict[str, Upload] = {}

    def __enter__(self) -> Uploads:
        self._stack.__enter__()
        self._stack.enter_context(uploading(self._workshop.config.run))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def start(self, name: str, plan: Plan) -> Upload | None:
        """For the image that is about to be built; None if it is not to be released at all."""
        if name not in plan.released or self._pipeline.from_fork:
            return None
        first = name == plan.deployed
        upload = Upload(
            self._workshop,
            self._pipeline,
            plan.builds[name].target,
            self._shared if first else None,
            "" if first else name,
        )
        with self._lock:
            self._started[name] = self._stack.enter_context(upload)
        return upload

    def finish(
        self, writer: LogWriter, plan: Plan, cancel: threading.Event, may_push: Callable[[], None]
    ) -> Pushed:
        """Wait for all blobs, then push the manifests, the deployed image's last of all."""
        done = {
            name: self._started[name].finish(writer, cancel, may_push)
            for name in reversed(plan.released)
        }
        main = done[plan.deployed]
        several = {
            name: {"repository": done[name].repository, "digest": done[name].digest}
            for name in plan.released
        }
        return Pushed(
            repository=main.repository,
            digest=main.digest,
            bytes_sent=sum(one.bytes_sent for one in done.values()),
            bytes_existing=sum(one.bytes_existing for one in done.values()),
            images=several if len(several) > 1 else {},
        )
