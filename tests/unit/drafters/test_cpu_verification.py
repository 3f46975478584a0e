"""Verification on a CPU gives what vLLM's rejection sampler gives with the acceptance rule."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from vllm.v1.sample.logits_processor.builtin import LogitBiasLogitsProcessor, MinTokensLogitsProcessor

from drafters import vllm_sampling
from drafters.acceptance import AcceptanceRule
from drafters.bench_verification.steps import random_step, register_kernels
from drafters.cpu_logits import exp, greedy_tokens, num_above, total
from drafters.cpu_verification import VERIFIED_DTYPES, CpuVerifier

VOCAB = 60
RULES = [
    AcceptanceRule(),
    AcceptanceRule(2, 0.1),
    AcceptanceRule(3, 0.05, stop_token_ids=(3, 7)),
    AcceptanceRule(4, 0.0, max_relaxed_run=1),
    AcceptanceRule(4, 0.0, deferred_tokens=1),
    AcceptanceRule(4, 0.01, max_relaxed_run=2, deferred_tokens=2),
]


@pytest.fixture(scope="module", autouse=True)
def kernels():
    register_kernels()


def step_of(seed, num_requests=6, **options):
    return random_step(seed, num_requests, RULES, VOCAB, **options)


def verified(step, on_cpu, sampler=None, **changes):
    """(tokens of each request, which of its accepted draft tokens were relaxed)."""
    sampler = sampler or step.sampler()
    used = []
    verify = sampler.laser_verifier.verify
    sampler.laser_verifier = SimpleNamespace(verify=lambda *args: used.append(True) or verify(*args))
    if not on_cpu:
        sampler.laser_verifier = None
    output = sampler.forward(step.metadata(), None, step.logits.clone(), step.sampling(**changes))
    assert bool(used) == on_cpu
    tokens = [[token for token in row if token >= 0] for row in output.sampled_token_ids.tolist()]
    drafts = sampler.laser_rules.take_step([len(row) for row in tokens])
    return tokens, [draft.relaxed.tolist() for draft in drafts]


@pytest.mark.parametrize("dtype", VERIFIED_DTYPES)
@pytest.mark.parametrize("repetition", [1.0, 1.3, 0.7])
def test_equal_to_vllms_sampler(dtype, repetition):
    num_relaxed = num_accepted = 0
    for seed in range(40):
        step = step_of(seed, dtype=dtype, repetition=repetition)
        found = verified(step, on_cpu=True)
        assert found == verified(step, on_cpu=False), seed
        num_relaxed += sum(map(sum, found[1]))
        num_accepted += sum(map(len, found[1]))
    assert 30 < num_relaxed < num_accepted


def test_many_requests_are_shared_among_threads():
    step = step_of(1, num_requests=70)
    assert verified(step, on_cpu=True) == verified(step, on_cpu=False)


def test_steps_do_not_see_each_others_tokens():
    steps = [step_of(1, num_requests=30), step_of(2, num_requests=3)]
    verifier = CpuVerifier()
    for step in 3 * steps:
        sampler = step.sampler()
        sampler.laser_verifier = verifier
        assert verified(step, on_cpu=True, sampler=sampler) == verified(step, on_cpu=False)


def test_masked_tokens_are_never_taken():
    step = step_of(3, num_requests=40)
    step.logits[:, ::2] = -torch.inf  # what a grammar forbids
    found = verified(step, on_cpu=True)
    assert found == verified(step, on_cpu=False)
    assert all(token % 2 for row in found[0] for token in row)


@pytest.mark.parametrize(
    "changes",
    [
        {"all_greedy": False, "temperature": torch.zeros(6), "all_random": False},
        {"frequency_penalties": torch.full((6,), 0.5)},
        {"bad_words_token_ids": {0: [[5]]}},
        {"allowed_token_ids_mask": torch.zeros((6, VOCAB), dtype=torch.bool)},
    ],
    ids=["sampled", "frequency", "bad words", "allowed tokens"],
)
def test_what_it_does_not_know_is_left_to_vllm(changes):
    sampler, step = step_of(0).sampler(), step_of(0)
    sampler.laser_verifier = SimpleNamespace(verify=None)
    sampler.forward(step.metadata(), None, step.logits, step.sampling(**changes))


def test_processors_that_change_nothing_do_not_matter():
    minimum = object.__new__(MinTokensLogitsProcessor)
    bias = object.__new__(LogitBiasLogitsProcessor)
    minimum.min_toks, bias.biases = {}, {}
    step = step_of(0)

    def is_plain(*processors):
        processors = SimpleNamespace(non_argmax_invariant=list(processors))
        return vllm_sampling._is_plain_greedy(step.logits, step.sampling(logitsprocs=processors))

    assert is_plain(minimum, bias)
    minimum.min_toks = {0: (5, [], {1}, False)}
    assert not is_plain(minimum, bias)
    assert not is_plain(SimpleNamespace())


@pytest.mark.parametrize("size", [1, 5, 2048, 5000])
def test_passes_over_a_row_are_exact(size):
    row = (np.random.default_rng(size).normal(size=(3, size)) * 8).astype(np.float32)
    row[2] = row[2].round()  # ties
    assert greedy_tokens(torch.from_numpy(row)).tolist() == row.argmax(axis=1).tolist()
    assert num_above(row[0], row[0][0]) == (row[0] > row[0][0]).sum()
    terms = np.empty(size, np.float32)
    exp(row[1], row[1].max(), terms)
    exact = np.exp(row[1].astype(np.float64) - row[1].max())
    assert np.allclose(terms, exact, rtol=1e-5, atol=1e-30)
    assert total(terms) == pytest.approx(exact.sum(), rel=1e-5)


def test_only_negative_logits_and_infinities():
    rows = torch.tensor([[-3.0, -1.5, -2.0], [-torch.inf, -torch.inf, -7.0], [torch.inf, 0.0, 1.0]])
    assert greedy_tokens(rows).tolist() == [1, 2, 0]
