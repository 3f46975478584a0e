"""Runs an engine in a thread of its own, so that several shards share one continuous batch."""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.generate.engine import TextRequest, WrittenText

Outcome = WrittenText | Exception


class Engine(Protocol):
    """What the thread needs of an engine; `TextEngine` is one."""

    @property
    def is_idle(self) -> bool:
        """Whether no request is unfinished."""
        ...

    def add(self, request: TextRequest) -> None:
        """Queue a request; raise if it is refused."""
        ...

    def step(self) -> list[WrittenText]:
        """Decode once; what finished."""
        ...


@dataclass(frozen=True)
class _Call:
    """A function to run on the engine, between two steps."""

    function: Callable[[Any], Any]
    answer: Future[Any]


@dataclass
class _Batch:
    """Requests handed in together; `answer` is set when the last of them is finished."""

    requests: Sequence[TextRequest]
    answer: Future[dict[str, Outcome]]
    outcomes: dict[str, Outcome]


class EngineThread:
    """An engine and its loop. If a step raises, the engine is broken: all waiting callers get the error."""

    def __init__(self, build: Callable[[], Engine], on_text: Callable[[WrittenText], None]) -> None:
        """Build the engine in the new thread and wait for it; raises what `build` raises.

        `on_text` is called in the engine's thread for every finished text.
        """
        self._build = build
        self._on_text = on_text
        self._inbox: queue.SimpleQueue[_Batch | _Call | None] = queue.SimpleQueue()
        self._batch_of: dict[str, _Batch] = {}
        self._closed = False
        self._error: BaseException | None = None
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="engine", daemon=True)
        self._thread.start()
        ready.result()

    def write(self, requests: Sequence[TextRequest]) -> dict[str, Outcome]:
        """Generate `requests`; for each key the text, or the error with which the engine refused it."""
        batch = _Batch(requests, Future(), {})
        self._send(batch)
        return batch.answer.result()

    def call(self, function: Callable[[Any], Any]) -> Any:
        """Run `function(engine)` between two steps and return its result."""
        call = _Call(function, Future())
        self._send(call)
        return call.answer.result()

    def close(self) -> None:
        """Stop after the current step; callers that still wait get an error."""
        self._inbox.put(None)
        self._thread.join()

    def _send(self, message: _Batch | _Call) -> None:
        if self._error is not None or self._closed:
            raise RuntimeError("the engine is stopped") from self._error
        self._inbox.put(message)
        if not self._thread.is_alive():
            self._fail_all(self._error or RuntimeError("the engine is stopped"))

    def _run(self, ready: Future[None]) -> None:
        try:
            engine = self._build()
        except BaseException as error:  # noqa: BLE001  # handed to the waiting constructor
            ready.set_exception(error)
            return
        ready.set_result(None)
        try:
            while self._take_messages(engine):
                self._step(engine)
        except BaseException as error:  # noqa: BLE001  # handed to every waiting caller
            self._error = error
        self._closed = True
        self._fail_all(self._error or RuntimeError("the engine was closed"))

    def _take_messages(self, engine: Engine) -> bool:
        """Handle what waits in the inbox, blocking while the engine is idle; False to stop."""
        while True:
            try:
                message = self._inbox.get(block=engine.is_idle)
            except queue.Empty:
                return True
            if message is None:
                return False
            if isinstance(message, _Call):
                _answer(message, engine)
            else:
                self._admit(message, engine)

    def _admit(self, batch: _Batch, engine: Engine) -> None:
        for request in batch.requests:
            try:
                engine.add(request)
            except Exception as error:  # noqa: BLE001  # one refused prompt must not fail its shard
                batch.outcomes[request.key] = error
            else:
                self._batch_of[request.key] = batch
        self._settle(batch)

    def _step(self, engine: Engine) -> None:
        for text in engine.step():
            self._on_text(text)
            batch = self._batch_of.pop(text.key)
            batch.outcomes[text.key] = text
            self._settle(batch)

    def _settle(self, batch: _Batch) -> None:
        if len(batch.outcomes) == len(batch.requests):
            batch.answer.set_result(batch.outcomes)

    def _fail_all(self, error: BaseException) -> None:
        waiting = {id(batch): batch for batch in self._batch_of.values()}
        self._batch_of.clear()
        for batch in waiting.values():
            batch.answer.set_exception(error)
        while True:
            try:
                message = self._inbox.get_nowait()
            except queue.Empty:
                return
            if message is not None:
                message.answer.set_exception(error)


def _answer(call: _Call, engine: Engine) -> None:
    try:
        call.answer.set_result(call.function(engine))
    except Exception as error:  # noqa: BLE001  # handed to the caller
        call.answer.set_exception(error)
