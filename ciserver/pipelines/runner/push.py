"""The push job: layers travel while the tests run, the manifest only when they are green."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from types import TracebackType

from builders.images.reference import Reference
from builders.images.store import Image
from ciserver.pipelines.logs import LogWriter
from ciserver.pipelines.models import Pipeline
from ciserver.pipelines.runner.workshop import Workshop

ABANDON_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Pushed:
    """Where the image is now; the fields are the pipeline row's."""

    repository: str
    digest: str
    bytes_sent: int
    bytes_existing: int


class Upload:
    """Sends an image's blobs from a thread. ``finish`` adds the manifest, last of all.

    A tag therefore never names an image whose tests failed, nor one that is not there whole.
    """

    def __init__(self, workshop: Workshop, pipeline: Pipeline, image: Image) -> None:
        self._workshop = workshop
        self._image = image
        self._reference = Reference.parse(
            f"{workshop.config.registry}/{pipeline.project.slug}:{pipeline.commit}"
        )
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._send, name="upload", daemon=True)

    def __enter__(self) -> Upload:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # After a failure nobody waits for blobs that no manifest will name.
        self._thread.join(None if error is None else ABANDON_SECONDS)

    def _send(self) -> None:
        try:
            self._sent = self._workshop.registry.push_blobs(
                self._image, self._reference, self._workshop.store
            )
        except Exception as error:  # raised again in finish(), where the job can show it
            self._error = error

    def finish(self, writer: LogWriter) -> Pushed:
        """Wait for the blobs and push the manifest. Raises builders' RegistryError."""
        self._thread.join()
        if self._error:
            raise self._error
        digest = self._workshop.registry.push_manifest(
            self._image, self._reference, self._workshop.store
        )
        pushed = Pushed(
            repository=f"{self._reference.registry}/{self._reference.repository}",
            digest=digest,
            bytes_sent=self._sent.bytes_sent,
            bytes_existing=self._sent.bytes_existing,
        )
        writer.say(f"Pushed {pushed.repository}@{digest}")
        writer.say(f"{pushed.bytes_sent} bytes travelled, {pushed.bytes_existing} were there.")
        return pushed
