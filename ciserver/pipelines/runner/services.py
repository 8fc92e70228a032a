"""Services beside a test: started in order, waited for until ready, ended after it.

Each has a thread that runs its container and one, while it gets ready, that asks it. Threads
write to the log and hand rows to the recorder; none uses the database.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

from builders.build import StepInfo
from builders.containers import Container, open_container
from builders.images.store import Image
from ciserver.lib.crypto import Secret
from ciserver.pipelines.logs import SERVICE_CAP
from ciserver.pipelines.models import State
from ciserver.pipelines.runner.command import command_of
from ciserver.pipelines.runner.jobs import JobFailed, JobRun
from ciserver.pipelines.runner.outcomes import ended
from ciserver.pipelines.runner.probes import Probe, Readiness, Tail, pauses, probe_for, readiness
from ciserver.pipelines.runner.recorder import StepRecorder, receipt_json
from ciserver.pipelines.runner.secrets import as_files
from ciserver.pipelines.runner.workshop import MAX_OUTPUT
from ciserver.pipelines.service_definition import COMPLETED, STARTED, Service
from runtime.network import PrivateNetwork
from runtime.sandbox import Stream
from runtime.spec import Limits, Outcome, Receipt

LOG_LINES = 15
ABOVE = "Above are the last lines of its log."
SILENT = (
    "It logged nothing: let it log to its standard output, or run its command in its image by hand."
)
STOPPED = "stopped"  # the outcome of a service that ran until its test had ended


@dataclass(frozen=True, slots=True)
class PreparedService:
    """One service of a test, with all that it needs. ``place`` is where ``gantry.yml`` has it."""

    name: str
    service: Service
    image: Image
    secrets: Mapping[str, Secret]
    place: str
    step: StepInfo
    wanted: str  # the condition that it must reach before the test begins

    def at(self, position: int) -> PreparedService:
        """The same as the step of that number."""
        what = self.service.image or self.service.stage or "the image"
        return replace(self, step=StepInfo(position, 0, self.name, f"{self.name}: {what}", ""))


def service_limits(service: Service, most: Limits) -> Limits:
    """What ``gantry.yml`` allows it: of disk, if it does not say, the ``most`` it may ask."""
    return Limits(
        memory=service.memory,
        cpus=service.cpus,
        pids=service.pids,
        disk=service.disk or most.disk,
        inodes=service.inodes or most.inodes,
        output=MAX_OUTPUT,
    )


@contextmanager
def running_services(
    run: JobRun,
    prepared: Sequence[PreparedService],
    network: PrivateNetwork,
    recorder: StepRecorder,
) -> Iterator[Services]:
    """The ``prepared`` for the block, all ready when it begins. Raises JobFailed."""
    services = Services(run, network, recorder)
    services.running.update({one.name: _RunningService(one, services) for one in prepared})
    for service in prepared:  # all before any: whoever completes the log must know them
        run.log.set_apart(service.step.index, SERVICE_CAP)
    try:
        services.bring_up()
        yield services
    finally:
        services.stop.set()
        for one in services.running.values():
            one.end()


@dataclass(slots=True)
class Services:
    """All services of one try of a test."""

    run: JobRun
    network: PrivateNetwork
    recorder: StepRecorder
    running: dict[str, _RunningService] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)

    def bring_up(self) -> None:
        """Start each once what it depends on has come so far, and wait for all."""
        if not self.running:
            return
        with ThreadPoolExecutor(len(self.running), thread_name_prefix="service") as pool:
            waits = [pool.submit(one.bring_up) for one in self.running.values()]
            try:
                for wait in waits:
                    wait.result()
            except BaseException:
                self.stop.set()
                raise
        failed = [one.failure for one in self.running.values() if one.failure]
        if failed:
            raise min(failed, key=lambda pair: pair[0])[1]

    def over(self) -> bool:
        """Whether nobody needs to wait any longer."""
        return self.stop.is_set() or self.run.cancel.is_set()

    def lost(self) -> list[str]:
        """Sentences about services that ended while the test ran."""
        found = (one.lost() for one in self.running.values())
        return [sentence for sentence in found if sentence]


class _Stop(threading.Event):
    """Set when the services are to end, or the job is cancelled, which is not ours to set."""

    def __init__(self, services: Services) -> None:
        super().__init__()
        self._services = services

    def is_set(self) -> bool:
        return self._services.over()


class _RunningService:
    """One service from its start to its end."""

    def __init__(self, one: PreparedService, services: Services) -> None:
        self.one = one
        self.failure: tuple[float, JobFailed] | None = None
        self._services = services
        self._run = services.run
        asked = readiness(one.service.healthcheck, one.image.config)
        if one.wanted == STARTED:
            asked = replace(asked, kind="up")
        most = services.run.workshop.config.build_timeout
        times = replace(asked.times, longest=min(asked.times.longest, most))
        self._asked: Readiness = replace(asked, times=times)
        self._log = Tail(self._run.log.masker, asked.words)
        self._thread = threading.Thread(target=self._live, name=f"service-{one.name}", daemon=True)
        self._probe: Probe | None = None
        self._container: Container | None = None
        self._ended = threading.Event()
        self._settled = threading.Event()  # it came as far as anybody waits for, or failed
        self._up = threading.Event()
        self._receipt: Receipt | None = None
        self._error: Exception | None = None
        self._ready = False

    def bring_up(self) -> None:
        """Blocks until the service has come as far as ``wanted``, or has failed, or never will."""
        try:
            if self._may_start():
                self._thread.start()
                self._await()
        finally:
            self._up.set()
            self._settled.set()

    def _may_start(self) -> bool:
        for name, dependency in self.one.service.depends_on.items():
            other = self._services.running[name]
            reached = other._up if dependency.condition == STARTED else other._settled
            while not reached.wait(0.1):
                if self._services.over():
                    return False
            if other.failure:
                return False
        return not self._services.over()

    def _await(self) -> None:
        began = time.monotonic()
        pause, wrong = pauses(self._asked.times.interval), "it was never tried"
        while not self._services.over():
            if self._ended.is_set():
                self._judge_end()
                return
            self._note_that_it_runs()
            probe = self._probe
            if self.one.wanted == COMPLETED:
                wrong = "it still runs"
            elif probe is not None:
                wrong = probe()
                if not wrong:
                    self._is_ready(time.monotonic() - began)
                    return
            if time.monotonic() - began > self._asked.times.longest:
                self._fail(f"was not ready within {self._asked.times.longest:g} s: {wrong}.")
                return
            self._ended.wait(next(pause))

    def _note_that_it_runs(self) -> None:
        if not self._up.is_set() and self._container and self._container.is_running():
            self._up.set()

    def _is_ready(self, seconds: float) -> None:
        self._ready = True
        words = f"Ready after {seconds:.1f} s: {self._asked.describe()}."
        if self._asked.kind == "up":
            words += " Give it a healthcheck if that is too early."
        self._run.log.say(words, self.one.step.index)

    def _judge_end(self) -> None:
        """It ended while it was waited for."""
        receipt = self._receipt
        done = receipt is not None and receipt.ok
        if done and (self.one.wanted == COMPLETED or self._asked.kind == "up"):
            self._ready = True
            self._run.log.say("Done.", self.one.step.index)
        else:
            self._fail(f"{self._how()} before it was ready.")

    def _fail(self, words: str) -> None:
        said = self._log.lines(LOG_LINES)
        failure = JobFailed(
            f"The service {self.one.name} {words}",
            place=self.one.place,
            hint=getattr(self._error, "hint", "") or (ABOVE if said else SILENT),
            excerpt=said,
        )
        self.failure = (time.monotonic(), failure)
        self._services.stop.set()

    def _how(self) -> str:
        if self._error is not None:
            message = getattr(self._error, "message", str(self._error))
            return f"could not be run ({message.rstrip('.')})"
        return ended(self._receipt) if self._receipt else "ended"

    def lost(self) -> str:
        """What to say of one that ended by itself after it was ready, unless that was wanted."""
        if not self._ready or not self._ended.is_set() or self.one.wanted == COMPLETED:
            return ""
        return f"The service {self.one.name} {self._how()} while the test ran."

    def end(self) -> None:
        """After ``services.stop`` is set: nothing of it is left."""
        if self._thread.ident is not None:
            self._thread.join()

    def _live(self) -> None:
        try:
            self._receipt = self._live_in_container()
        except Exception as error:  # told by whoever waits for it
            self._error = error
        finally:
            self._ended.set()
            self._record_end()

    def _live_in_container(self) -> Receipt:
        one, run = self.one, self._run
        service = one.service
        self._services.recorder.step_started(one.step)
        with ExitStack() as stack:
            member = stack.enter_context(self._services.network.member(one.name))
            mounts = stack.enter_context(as_files(one.secrets, run.ids))
            container = stack.enter_context(
                open_container(
                    one.image,
                    store=run.workshop.store,
                    state=run.workshop.state,
                    ids=run.ids,
                    network=member,
                )
            )
            self._container = container
            self._probe = probe_for(self._asked, container, member, self._log)
            return container.run(
                command_of(one.image, service.entrypoint, service.command, follow=True),
                env=service.environment,
                secret_env={name: it.reveal() for name, it in one.secrets.items()},
                secret_mounts=mounts,
                workdir=service.working_dir,
                user=service.user,
                hostname=one.name,
                limits=service_limits(service, run.workshop.limits()),
                on_output=self._take,
                on_end=lambda: run.log.flush(one.step.index),
                cancel=_Stop(self._services),
                parent=run.cgroup,
                note=self._services.recorder.note(one.step),
            )

    def _take(self, stream: Stream, data: bytes) -> None:
        self._log.add(data)
        self._services.recorder.step_output(self.one.step, stream, data)

    def _record_end(self) -> None:
        """One that was ended with its test has done its work."""
        receipt = self._receipt
        told = receipt_json(receipt)
        stopped = receipt is not None and receipt.outcome is Outcome.CANCELLED and self._ready
        if told is not None and stopped:
            told |= {"outcome": STOPPED, "exit_code": 0, "detail": ""}
        good = stopped or (receipt is not None and receipt.ok and not self.failure)
        if self._error is not None:
            self._run.log.say(f"It {self._how()}.", self.one.step.index)
        self._services.recorder.end(
            self.one.step,
            State.PASSED if good else State.FAILED,
            seconds=receipt.wall if receipt else None,
            receipt=told,
        )
