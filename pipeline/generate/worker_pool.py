"""The pool of Ray actors that works a shard queue off, and replaces the workers it loses."""

import contextlib
import itertools
import logging
import time
from dataclasses import dataclass, field
from typing import Any, Literal

import ray
from ray.exceptions import OutOfMemoryError, RayError

from pipeline.errors import GenerationError, MachineError, PipelineError
from pipeline.generate.contract import Worker, WorkerSpec
from pipeline.generate.progress import OnProgress, ProgressTracker
from pipeline.generate.ray_cluster import (
    PROCESS_DIED,
    PoolSize,
    cause_of_death,
    is_node_alive,
    nodes,
    nodes_of_this_machine,
)
from pipeline.generate.row_by_row import row_under_way
from pipeline.generate.shard_queue import ShardQueue
from pipeline.generate.shard_server import ShardReceipt, ShardServer, StartReceipt
from pipeline.generate.watchdog import Watchdog
from pipeline.printable import plural
from pipeline.stages import stage
from pipeline.storage.layout import RunLayout
from pipeline.termination import wait_for_end

logger = logging.getLogger(__name__)
ray_logger = logging.getLogger("ray")  # during a run its lines go to the run log

# The engine batches continuously: the next shard's rows fill the batch while the last rows of the one
# before finish.
SHARDS_PER_WORKER = 2
ACTOR_THREADS = SHARDS_PER_WORKER + 2  # progress() and close() are answered while shards run
POLL_SEC = 1.0
CLOSE_SEC = 30.0
KILL_SEC = 5.0
# Of a thousand workers each is asked every five seconds; a question costs the driver a part of a millisecond.
QUESTIONS_PER_SEC = 200
MAX_TAUGHT_PARTS = 256  # a new worker's drafter learns from so many finished parts at most
MACHINES_SEC = 5.0  # how often a pool that may grow looks for machines that joined or left
# So many failures without one success between them, for each worker, mean that no shard can succeed.
MAX_FAILURES_IN_A_ROW = 10
# After a start that failed because of its machine (no memory, a process that died), the place waits so long;
# after the second one twice that, and so on. What fills a machine may be gone by then.
RESTART_SEC = 20.0
MACHINE_LOST = "the worker's machine was lost"


@dataclass(eq=False)
class _Slot:
    """The place of one worker. `actor` is None before the first start and while a new one is due."""

    actor: Any = None
    worker: int = -1  # number of the process in this place, for the tracker
    node_id: str = ""
    pid: int = -1
    is_ready: bool = False
    is_retiring: bool = False  # a shard failed in it: no more shards, replaced when the others ended
    shards: set[str] = field(default_factory=set)
    is_asked: bool = False  # a progress() is on its way
    ask_at: float = 0.0  # not before
    num_start_failures: int = 0
    start_at: float = 0.0  # not before
    is_given_up: bool = False


@dataclass(frozen=True)
class _Call:
    """A remote call that has not returned."""

    what: Literal["start", "shard", "progress"]
    slot: _Slot
    worker: int
    shard: str = ""


class WorkerPool:
    """Runs every shard of `queue` on actors of `worker_class`.

    Up to `SHARDS_PER_WORKER` shards run at once in a worker. A worker whose process dies gives its
    shards back to the queue; one in which a shard raised is replaced too, since its engine may be
    broken; and so is one that hangs (see `Watchdog`). Workers are started while shards wait, up to
    `size.num_workers`, or to what the cluster's machines hold at the time if the pool may grow.
    """

    def __init__(
        self,
        worker_class: type[Worker],
        spec: WorkerSpec,
        layout: RunLayout,
        size: PoolSize,
        queue: ShardQueue,
        tracker: ProgressTracker,
        finished: set[str],
    ) -> None:
        self._worker_class = worker_class
        self._spec = spec
        self._layout = layout
        self._queue = queue
        self._tracker = tracker
        self._finished = set(finished)
        self._slots = [_Slot() for _ in range(size.num_workers)]
        self._actor_class = ray.remote(ShardServer).options(
            max_concurrency=ACTOR_THREADS, **size.actor_options()
        )
        self._calls: dict[Any, _Call] = {}
        self._worker_numbers = itertools.count()
        self._any_started = False
        cluster = spec.settings.cluster
        self._max_start_failures = cluster.max_shard_attempts
        self._watchdog = Watchdog(cluster.stall_timeout_sec, cluster.start_timeout_sec)
        self._no_worker_timeout_sec = cluster.no_worker_timeout_sec
        self._size = size
        self._num_wanted = size.num_workers
        self._looked_at = self._room_at = time.monotonic()  # when there was last a machine for a worker

    def run(self, on_progress: OnProgress) -> None:
        """Return when every shard is done or given up (`queue.unfinished`).

        If no worker could be started at all, raises the `PipelineError` that the worker's constructor raised
        (`ModelError` for what is none), or `MachineError` where a machine is the cause; `StorageError` if
        the run's own disk is full; `GenerationError` if Ray itself is lost.
        """
        try:
            while not self._queue.is_finished:
                self._look_for_machines()
                self._assign()
                on_progress(self._tracker.snapshot())
                for call, answer in self._answers():
                    self._settle(call, answer)
                self._watch()
            on_progress(self._tracker.snapshot())
            self._close()
        except RayError as error:
            raise GenerationError(f"Ray was lost: {' '.join(str(error).split())}") from error
        finally:
            self._kill_workers()

    # Giving work ----------------------------------------------------------------------------------

    def _assign(self) -> None:
        limit = MAX_FAILURES_IN_A_ROW * len(self._slots)
        if self._queue.num_failures_in_a_row >= limit:
            self._queue.give_up(f"not tried again after {limit} failures in a row")
        for slot in self._slots:
            if slot.actor is None and self._may_start(slot):
                self._start(slot)
            if slot.is_ready:
                self._fill(slot)
                self._ask(slot)

    def _may_start(self, slot: _Slot) -> bool:
        num_workers = sum(other.actor is not None for other in self._slots)
        num_useful = min(self._num_wanted, self._queue.num_open)
        is_open = not slot.is_given_up and time.monotonic() >= slot.start_at
        return num_workers < num_useful and is_open and self._queue.has_waiting

    def _start(self, slot: _Slot) -> None:
        taught = sorted(itertools.islice(self._finished, MAX_TAUGHT_PARTS))
        parts = [str(self._layout.part(shard)) for shard in taught]
        slot.worker = next(self._worker_numbers)
        self._watchdog.starting(slot.worker)
        slot.actor = self._actor_class.remote(self._worker_class, self._spec, self._layout, parts)
        self._call("start", slot, slot.actor.started.remote())

    def _fill(self, slot: _Slot) -> None:
        while not slot.is_retiring and len(slot.shards) < SHARDS_PER_WORKER:
            if any(self._queue.runs_alone(shard) for shard in slot.shards):
                return
            shard = self._queue.take(worker_is_idle=not slot.shards)
            if shard is None:
                return
            if not slot.shards:
                self._watchdog.alive(slot.worker)
            slot.shards.add(shard)
            how = self._queue.bad_rows(shard), self._queue.runs_row_by_row(shard)
            self._call("shard", slot, slot.actor.run_shard.remote(shard, *how), shard)

    def _ask(self, slot: _Slot) -> None:
        now = time.monotonic()
        if not slot.is_asked and now >= slot.ask_at:
            slot.is_asked = True
            slot.ask_at = now + len(self._slots) / QUESTIONS_PER_SEC
            self._call("progress", slot, slot.actor.progress.remote())

    def _call(
        self, what: Literal["start", "shard", "progress"], slot: _Slot, ref: Any, shard: str = ""
    ) -> None:
        self._calls[ref] = _Call(what, slot, slot.worker, shard)

    # Keeping the number of workers ----------------------------------------------------------------

    def _watch(self) -> None:
        """Replace workers that hang."""
        self._watchdog.driver_round()
        for slot in self._slots:
            if slot.actor is None or (slot.is_ready and not slot.shards):
                continue
            complaint = self._watchdog.complaint(slot.worker)
            if complaint is None:
                continue
            reason = f"the worker {complaint}"
            if slot.is_ready:
                self._take_back(slot, reason)
            else:
                self._on_start_failed(slot, MachineError(f"{self._spec.model_path}: {reason}"))

    def _look_for_machines(self, at_once: bool = False) -> None:
        """Want as many workers as the machines hold that are there now."""
        now = time.monotonic()
        if not (at_once or now - self._looked_at >= MACHINES_SEC):
            return
        self._looked_at = now
        num_fitting = self._size.num_fitting(nodes())
        if num_fitting:
            self._room_at = now
        else:
            self._wait_for_room(now - self._room_at)
        if self._size.may_grow:
            self._follow(max(1, num_fitting))  # a start that waits tells an autoscaler what is missing

    def _wait_for_room(self, waited_sec: float) -> None:
        """No machine holds a worker now: a start cannot end in time, and for too long there may be none."""
        self._watchdog.begin_anew()
        if waited_sec > self._no_worker_timeout_sec and not any(slot.is_ready for slot in self._slots):
            reason = f"no machine could hold a worker for {waited_sec:.0f} s (cluster.no_worker_timeout_sec)"
            self._queue.give_up(reason)

    def _follow(self, num_wanted: int) -> None:
        """Have places for `num_wanted` workers; what starts beyond them is given back."""
        if num_wanted != self._num_wanted:
            logger.info("the cluster holds %s now, %d before", plural(num_wanted, "worker"), self._num_wanted)
        self._num_wanted = num_wanted
        num_places = sum(not slot.is_given_up for slot in self._slots)
        self._slots += [_Slot() for _ in range(num_wanted - num_places)]
        for slot in self._starting_beyond(num_wanted):
            self._vacate(slot)

    def _starting_beyond(self, num_wanted: int) -> list[_Slot]:
        """The workers asked for last that are not up yet, and for which there is no machine any more."""
        occupied = [slot for slot in self._slots if slot.actor is not None]
        starting = sorted((slot for slot in occupied if not slot.is_ready), key=lambda slot: -slot.worker)
        return starting[: max(0, len(occupied) - num_wanted)]

    # Taking answers -------------------------------------------------------------------------------

    def _answers(self) -> list[tuple[_Call, Any]]:
        """Calls that ended within `POLL_SEC`, with what they returned or the `RayError` they raised."""
        urgent = [ref for ref, call in self._calls.items() if call.what != "progress"]
        if urgent:
            ray.wait(urgent, num_returns=1, timeout=POLL_SEC)
        elif not self._queue.is_finished:
            time.sleep(POLL_SEC)
        refs = list(self._calls)
        ready = ray.wait(refs, num_returns=len(refs), timeout=0)[0] if refs else []
        return [(self._calls.pop(ref), _answer(ref)) for ref in ready]

    def _settle(self, call: _Call, answer: Any) -> None:
        if call.worker != call.slot.worker or call.slot.actor is None:
            return  # of a process that was replaced
        if isinstance(answer, RayError):
            ray_logger.error("worker %d: %s", call.worker, answer)
            self._on_died(call.slot, answer)
        elif call.what == "start":
            self._on_started(call.slot, answer)
        elif call.what == "shard":
            self._on_shard(call.slot, call.shard, answer)
        else:
            call.slot.is_asked = False
            if answer is not None:
                self._watchdog.progress(call.worker, answer)
                self._tracker.update(call.worker, answer)

    def _on_started(self, slot: _Slot, receipt: StartReceipt) -> None:
        if receipt.error is not None:
            self._on_start_failed(slot, receipt.error)
            return
        self._any_started = True
        slot.is_ready, slot.node_id, slot.pid = True, receipt.node_id, receipt.pid
        self._watchdog.ready(slot.worker)
        slot.num_start_failures = 0
        self._tracker.worker_ready(slot.worker)

    def _on_start_failed(self, slot: _Slot, error: PipelineError) -> None:
        """Count the failed start; end the run if no worker ever started and another try is in vain.

        After a `MachineError`, whose cause may pass, each place is tried as often as is allowed, and waits
        in between. Any other error may be one machine's alone (a full disk, a model that is missing there):
        the run ends when every place has met one.
        """
        may_recover = isinstance(error, MachineError)
        slot.num_start_failures += 1
        slot.is_given_up = slot.num_start_failures >= self._max_start_failures
        self._vacate(slot)
        wait_sec = RESTART_SEC * slot.num_start_failures if may_recover else 0.0
        slot.start_at = time.monotonic() + wait_sec
        needed = self._max_start_failures if may_recover else 1
        if not self._any_started and all(other.num_start_failures >= needed for other in self._slots):
            raise error
        then = f"; the next try is in {wait_sec:.0f} s" if wait_sec and not slot.is_given_up else ""
        logger.warning("a worker could not start (%d): %s%s", slot.num_start_failures, error, then)
        if all(other.is_given_up for other in self._slots):
            self._queue.give_up(f"no worker could be started any more: {error}")

    def _on_shard(self, slot: _Slot, shard: str, receipt: ShardReceipt) -> None:
        slot.shards.discard(shard)
        self._watchdog.alive(slot.worker)
        if receipt.fatal is not None:
            raise receipt.fatal
        if receipt.error is None:
            self._finished.add(shard)
            self._queue.done(shard)
            self._tracker.shard_done(slot.worker, receipt.num_rows, receipt.num_failed, receipt.num_shared)
            if receipt.progress is not None:
                self._tracker.update(slot.worker, receipt.progress)
        else:
            logger.warning("shard %s failed: %s", shard, receipt.error)
            row = row_under_way(self._layout, shard)  # asked for in any case: it is told once
            is_innocent = receipt.rows_are_innocent
            self._queue.failed(shard, receipt.error, None if is_innocent else row, is_innocent)
            slot.is_retiring = True
        if slot.is_retiring and not slot.shards:
            self._vacate(slot)

    def _on_died(self, slot: _Slot, error: RayError) -> None:
        if not slot.is_ready:
            cause = f"{cause_of_death(error)} while it started; see {self._spec.run_log}"
            self._on_start_failed(slot, MachineError(f"{self._spec.model_path}: {cause}"))
            return
        if isinstance(error, OutOfMemoryError):
            self._take_back(slot, cause_of_death(error), is_innocent=True)
            slot.start_at = time.monotonic() + RESTART_SEC
            return
        self._look_for_machines(at_once=True)
        if is_node_alive(slot.node_id):
            self._take_back(slot, PROCESS_DIED)
        else:
            self._take_back(slot, MACHINE_LOST, is_innocent=True)

    def _take_back(self, slot: _Slot, reason: str, is_innocent: bool = False) -> None:
        """Replace the worker; its shards go back to the queue. `is_innocent`: none of them did it."""
        held = sorted(slot.shards)
        logger.warning("%s; its shards are taken back: %s", reason, ", ".join(held) or "none")
        for shard in held:
            row = row_under_way(self._layout, shard)
            if is_innocent:
                self._queue.returned(shard, reason)
            else:
                self._queue.failed(shard, reason, row)
        self._vacate(slot)

    def _vacate(self, slot: _Slot) -> None:
        """End the process of `slot`, if it still runs, and leave the place free for a new one."""
        ray.kill(slot.actor)
        self._tracker.worker_lost(slot.worker)
        self._watchdog.gone(slot.worker)
        slot.actor, slot.worker = None, -1
        slot.is_ready = slot.is_retiring = slot.is_asked = False
        slot.shards.clear()

    def _kill_workers(self) -> None:
        """End what still runs and wait for its end, so that nothing is written afterwards.

        Ray counts an actor as dead before its process has ended. On other machines nothing more is known.
        """
        killed = [slot for slot in self._slots if slot.actor is not None]
        for slot in killed:
            ray.kill(slot.actor)
        running = [ref for ref, call in self._calls.items() if call.what == "shard"]
        if running:
            with contextlib.suppress(RayError):
                ray.wait(running, num_returns=len(running), timeout=KILL_SEC)
            here = nodes_of_this_machine()
            wait_for_end([slot.pid for slot in killed if slot.is_ready and slot.node_id in here], KILL_SEC)

    def _close(self) -> None:
        """Let the engines shut down in order, for at most `CLOSE_SEC`."""
        closing = [slot.actor.close.remote() for slot in self._slots if slot.is_ready]
        if closing:
            with stage("closing the engines", is_short=True):
                ray.wait(closing, num_returns=len(closing), timeout=CLOSE_SEC)


def _answer(ref: Any) -> Any:
    try:
        return ray.get(ref)
    except RayError as error:
        return error
