"""How a window is measured, by an engine whose every step writes one token of each request."""

import pytest

from pipeline.benchmark.engine_process import _Server as Server
from pipeline.generate.engine import TextRequest, WrittenText


class FakeEngine:
    """Writes as many tokens of a request as its `max_tokens` says; one step, one token."""

    def __init__(self):
        self.num_output_tokens = 0
        self.left, self.added, self.batches, self.aborted = {}, [], [], []

    @property
    def is_idle(self):
        return not self.left

    def add(self, request):
        self.added.append(request.key)
        self.left[request.key] = request.max_tokens

    def step(self):
        self.batches.append(len(self.left))
        self.num_output_tokens += len(self.left)
        self.left = {key: count - 1 for key, count in self.left.items()}
        done = [key for key, count in self.left.items() if not count]
        self.left = {key: count for key, count in self.left.items() if count}
        return [WrittenText(key, "", [1], "length", 0, 0, 0, 1) for key in done]

    def abort(self):
        self.aborted += self.left
        self.left.clear()

    def reset_prefix_cache(self):
        assert self.is_idle

    def call_workers(self, method, *args):
        return {"propose_sec": 0.0}


def requests(name, *lengths):
    return [
        TextRequest(f"{name}{n}", "user", "g", f"{name}{n}", [1], length) for n, length in enumerate(lengths)
    ]


@pytest.fixture
def server():
    server = Server.__new__(Server)
    server._engine, server._is_peer, server._round = FakeEngine(), False, 0
    return server


def test_the_batch_is_full_while_there_are_fillers(server):
    window = server.measure(requests("m", 2, 8), requests("f", 3, 4, 3), 2)
    assert window.texts.keys() == {"m0", "m1"}
    assert (window.num_steps, window.num_tokens, window.mean_concurrency) == (8, 16, 2.0)
    assert server._engine.aborted == ["1-f1"], "the third filler was not needed, the second not to its end"


def test_a_batch_that_drains_says_so(server):
    window = server.measure(requests("m", 2, 8), requests("f", 3), 2)
    assert (window.num_steps, window.num_tokens) == (8, 13)
    assert window.mean_concurrency == pytest.approx(13 / 8)


def test_prompts_are_read_backwards_so_that_the_first_are_the_freshest(server):
    server.measure(requests("m", 2, 2), requests("f", 3), 2)
    assert server._engine.added[:3] == ["f0", "m1", "m0"]
    assert server._engine.added[3:] == ["1-m0", "1-m1"]
    assert server._engine.batches[0] == 3, "in one batch of prompts, which the window does not count"
