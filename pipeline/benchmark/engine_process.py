"""One engine in a process of its own, so that methods can be measured in turn without being restarted."""

import multiprocessing
import os
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

from pipeline.benchmark.peers import EXTENSION
from pipeline.environment import engine_environment, variables_for_children
from pipeline.errors import GenerationError
from pipeline.generate.contract import WorkerSpec
from pipeline.generate.engine import TextEngine, TextRequest, WrittenText
from pipeline.generate.run_log import redirect_output


@dataclass(frozen=True)
class Window:
    """What was measured from the first step to the end of the last measured text."""

    num_tokens: int  # of all requests, fillers included
    seconds: float  # of decoding: the prompts were in the prefix cache
    num_steps: int  # of the engine
    mean_concurrency: float  # requests in flight, mean of the steps
    drafter_sec: float
    prefill_sec: float  # of one prompt, in a batch of prompts
    texts: dict[str, WrittenText]  # by entity: the measured ones, all of them, to their ends


class EngineProcess:
    """A `TextEngine` that another process owns. Calls block."""

    def __init__(self, spec: WorkerSpec, pool: Sequence[Sequence[int]]) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, spec, pool), daemon=True)
        with variables_for_children(engine_environment()):
            self._process.start()
        theirs.close()
        self._receive()

    def write(self, requests: Sequence[TextRequest]) -> dict[str, WrittenText]:
        """Generate all of `requests`."""
        texts: dict[str, WrittenText] = self._ask("write", requests)
        return texts

    def measure(
        self, requests: Sequence[TextRequest], fillers: Sequence[TextRequest], concurrency: int
    ) -> Window:
        """Write `requests` to their ends, with `concurrency` in flight while the `fillers` behind them last.

        `Window.mean_concurrency` says how full the batch was: it drains where the fillers run out before the
        longest of the requests ends.
        """
        window: Window = self._ask("measure", requests, fillers, concurrency)
        return window

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join(timeout=10)
        self._process.kill()

    def _ask(self, *message: Any) -> Any:
        self._connection.send(message)
        return self._receive()

    def _receive(self) -> Any:
        try:
            answer = self._connection.recv()
        except EOFError as error:
            raise GenerationError("an engine of the bench died; see the log") from error
        if isinstance(answer, Exception):
            raise GenerationError(f"an engine of the bench failed: {answer}") from answer
        return answer


def _serve(connection: Connection, spec: WorkerSpec, pool: Sequence[Sequence[int]]) -> None:
    redirect_output(spec.run_log)
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    try:
        server = _Server(spec, pool)
        connection.send(None)
        while True:
            name, *arguments = connection.recv()
            connection.send(getattr(server, name)(*arguments))
    except EOFError:
        return
    except Exception as error:  # noqa: BLE001  # told to the process that waits
        connection.send(error)


class _Server:
    def __init__(self, spec: WorkerSpec, pool: Sequence[Sequence[int]]) -> None:
        self._is_peer = spec.settings.drafter.name != "laser"
        arguments = {"worker_extension_cls": EXTENSION} if self._is_peer else {}
        self._engine = TextEngine(spec, learn_texts=False, **arguments)
        self._round = 0
        if self._is_peer:
            self._engine.call_workers("bench_install")
            self._engine.call_workers("bench_warm", [list(ids) for ids in pool])

    def write(self, requests: Sequence[TextRequest]) -> dict[str, WrittenText]:
        texts: dict[str, WrittenText] = {}
        for request in requests:
            self._engine.add(request)
        while not self._engine.is_idle:
            texts.update({text.key: text for text in self._engine.step()})
        self._forget()
        return texts

    def measure(
        self, requests: Sequence[TextRequest], fillers: Sequence[TextRequest], concurrency: int
    ) -> Window:
        self._round += 1
        prefill_sec = self._prefill([*requests, *fillers])
        entity_of = {f"{self._round}-{r.key}": r.entity_id for r in requests}
        waiting = deque(replace(r, key=f"{self._round}-{r.key}") for r in [*requests, *fillers])
        texts: dict[str, WrittenText] = {}
        num_tokens, drafter_sec = self._engine.num_output_tokens, self._drafter_sec()
        num_steps = num_in_flight = num_decoded = 0
        started = time.perf_counter()
        while len(texts) < len(requests):
            while waiting and num_in_flight < concurrency:
                self._engine.add(waiting.popleft())
                num_in_flight += 1
            num_decoded += num_in_flight
            finished = self._engine.step()
            texts |= {entity_of[text.key]: text for text in finished if text.key in entity_of}
            num_in_flight -= len(finished)
            num_steps += 1
        window = Window(
            num_tokens=self._engine.num_output_tokens - num_tokens,
            seconds=time.perf_counter() - started,
            num_steps=num_steps,
            mean_concurrency=num_decoded / max(num_steps, 1),
            drafter_sec=self._drafter_sec() - drafter_sec,
            prefill_sec=prefill_sec,
            texts=texts,
        )
        self._engine.abort()
        self._forget()
        return window

    def _prefill(self, requests: Sequence[TextRequest]) -> float:
        """Fill the prefix cache with these prompts alone; seconds for each.

        Backwards: a cache too small for all of them loses the oldest first, which are thus needed last.
        """
        self._engine.reset_prefix_cache()
        started = time.perf_counter()
        self.write([replace(request, max_tokens=1) for request in reversed(requests)])
        return (time.perf_counter() - started) / len(requests)

    def _drafter_sec(self) -> float:
        if self._is_peer:
            return float(self._engine.call_workers("bench_propose_totals")[0])
        return float(self._engine.call_workers("laser_stats")["propose_sec"])

    def _forget(self) -> None:
        if self._is_peer:
            self._engine.call_workers("bench_forget")
