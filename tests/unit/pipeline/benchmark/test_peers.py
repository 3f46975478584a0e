"""What the suffix tree of vLLM's own drafter is given as a pool, and what it must not keep."""

from types import SimpleNamespace

import pytest

from pipeline.benchmark.peers import PeerExtension

POOL = [[5, 6, 7], [8, 9]]


class FakeCache:
    """As strict as Arctic's `SuffixDecodingCache`: what is not active or not cached is refused."""

    def __init__(self):
        self.prompts, self.responses = {}, {}

    @property
    def active_requests(self):
        return self.prompts.keys()

    @property
    def cached_requests(self):
        return self.responses.keys()

    def start_request(self, req_id, prompt_token_ids):
        assert req_id not in self.prompts
        self.prompts[req_id] = list(prompt_token_ids)
        self.responses[req_id] = []

    def add_active_response(self, req_id, token_ids):
        assert req_id in self.prompts
        self.responses[req_id] += token_ids

    def stop_request(self, req_id):
        del self.prompts[req_id]

    def evict_cached_response(self, req_id):
        del self.responses[req_id]


def extension_of(drafter):
    extension = PeerExtension()
    extension.model_runner = SimpleNamespace(drafter=drafter)
    return extension


def write(cache, request_id, token_ids, ends=True):
    """As vLLM does while the engine writes a text."""
    cache.start_request(request_id, [1, 2])
    cache.add_active_response(request_id, token_ids)
    if ends:
        cache.stop_request(request_id)


@pytest.fixture
def cache():
    return FakeCache()


@pytest.fixture
def extension(cache):
    return extension_of(SimpleNamespace(suffix_cache=cache))


def test_the_pool_is_known_as_texts_that_are_finished(extension, cache):
    extension.bench_warm(POOL)
    assert list(cache.responses.values()) == POOL
    assert not cache.active_requests


def test_what_was_measured_is_forgotten_and_the_pool_is_kept(extension, cache):
    extension.bench_warm(POOL)
    write(cache, "1-user-7", [5, 6, 11])
    write(cache, "1-user-8", [12, 13], ends=False)  # a filler that was aborted
    extension.bench_forget()
    assert list(cache.responses.values()) == POOL
    assert not cache.active_requests
    extension.bench_forget()
    assert list(cache.responses.values()) == POOL


def test_arctics_own_tree_drafts_from_the_pool_and_from_no_measured_text():
    module = pytest.importorskip("arctic_inference.suffix_decoding", reason="make bench-tools")
    tree = module.SuffixDecodingCache(64, -1)
    extension = extension_of(SimpleNamespace(suffix_cache=tree))
    extension.bench_warm([[20, 21, 22, 23]])
    write(tree, "1-user-7", [30, 31, 32, 33])

    def draft(*context):
        tree.start_request("asking", [1])
        tokens = tree.speculate("asking", list(context), max_spec_tokens=4, min_token_prob=0.1).token_ids
        tree.stop_request("asking")
        return tokens

    assert draft(30, 31)[:1] == [32], "a text of this window drafts, as vLLM has it"
    extension.bench_forget()
    assert draft(30, 31) == []
    assert draft(20, 21)[:1] == [22]


@pytest.mark.parametrize("drafter", [None, SimpleNamespace(propose=None)])
def test_engines_without_a_suffix_tree_have_nothing_to_warm_or_forget(drafter):
    extension = extension_of(drafter)
    extension.bench_warm(POOL)
    extension.bench_forget()


def test_the_time_in_propose_is_counted_even_when_it_fails():
    def propose(is_broken):
        if is_broken:
            raise RuntimeError
        return "drafts"

    extension = extension_of(SimpleNamespace(propose=propose))
    extension.bench_install()
    assert extension.bench_propose_totals() == (0.0, 0)
    assert extension.model_runner.drafter.propose(False) == "drafts"
    with pytest.raises(RuntimeError):
        extension.model_runner.drafter.propose(True)
    seconds, calls = extension.bench_propose_totals()
    assert seconds > 0 and calls == 2
