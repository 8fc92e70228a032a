"""What sandboxes run by on this machine, for the log of the worker that starts here."""

from __future__ import annotations

import logging

from runtime import host
from runtime.errors import HostError

log = logging.getLogger(__name__)


def announce() -> None:
    """The OCI runtime and its version; a warning for each thing that is missing, weak or slow."""
    try:
        log.info("sandboxes run by %s, %s", host.oci_runtime().path, host.runtime_version())
        notes = [*host.check(), *host.notes()]
    except HostError as error:
        notes = [str(error)]
    for sentence in notes:
        log.warning("%s", sentence)
