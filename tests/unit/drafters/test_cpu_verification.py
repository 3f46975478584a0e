"""Verification on a CPU gives what vLLM's rejection sampler gives with the acceptance rule."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from vllm.v1.sample.logits_processor.builtin import LogitBiasLogitsProcessor, MinTokensLogitsProcessor

from drafters import vllm_sampling
from drafters.acceptance import AcceptanceRule
from drafters.bench_verification.steps import random_step, register_kernels
from drafters.cpu_logits import exp, greedy_tokens, num_above, total
from drafters.cpu_verification import VERIFIED_DTYPES, CpuVerifier, StepDrafts

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


def padded(step, num_placeholders):
    """`step` with so many drafts of -1, and rows of logits for them, at the end of each request's draft."""
    random = np.random.default_rng(0)
    drafts, rows, first = [], [], 0
    for row, (count, num_pads) in enumerate(zip(step.num_drafts, num_placeholders, strict=True)):
        drafts += [*step.drafts[first : first + count], *[-1] * num_pads]
        logits = torch.tensor(random.normal(size=(num_pads, VOCAB)) * 4).to(step.logits.dtype)
        rows += [step.logits[first + row : first + row + count + 1], logits]
        first += count
    return replace(
        step,
        logits=torch.cat(rows),
        num_drafts=np.add(step.num_drafts, num_placeholders).tolist(),
        drafts=np.array(drafts, np.int32),
    )


SEVERAL = [0, 5, 0, 2, 5, 1]


@pytest.mark.parametrize("on_cpu", [True, False], ids=["native", "torch"])
@pytest.mark.parametrize("num_placeholders", [SEVERAL, [5] * 6, [0, 0, 0, 0, 0, 5]])
def test_placeholders_of_the_scheduler_are_as_if_nothing_was_drafted(on_cpu, num_placeholders):
    for seed in range(20):
        step = random_step(seed, 6, [AcceptanceRule(4, 0.0), AcceptanceRule()], VOCAB)
        found = verified(padded(step, num_placeholders), on_cpu)
        assert found == verified(step, on_cpu), seed


@pytest.mark.parametrize("on_cpu", [True, False], ids=["native", "torch"])
def test_placeholders_are_not_counted_as_drafted(on_cpu):
    step = step_of(3)
    sampler, pads = step.sampler(), padded(step, SEVERAL)
    sampler.laser_verifier = sampler.laser_verifier if on_cpu else None
    output = sampler.forward(pads.metadata(), None, pads.logits, pads.sampling())
    drafts = sampler.laser_rules.take_step([(row >= 0).sum() for row in output.sampled_token_ids])
    assert [draft.num_draft_tokens for draft in drafts] == step.num_drafts


def test_a_step_with_nothing_but_placeholders_decodes_one_token_each():
    rules = [AcceptanceRule(2, 0.1)]
    for repetition in (1.0, 1.3):
        step = random_step(7, 3, rules, VOCAB, repetition=repetition)
        bonus = step.metadata().bonus_logits_indices
        empty = replace(step, logits=step.logits[bonus], num_drafts=[0] * 3, drafts=np.zeros(0, np.int32))
        pads = padded(empty, [4, 4, 4])
        for on_cpu in (True, False):
            tokens, relaxed = verified(pads, on_cpu)
            assert (tokens, relaxed) == (verified(empty, True)[0], [[]] * 3)


def test_the_native_rule_looks_up_no_placeholder():
    """The last token of the vocabulary, which index -1 would name, is acceptable and was not written."""
    logits = torch.full((3, VOCAB), -20.0)
    logits[:, 4], logits[:, -1] = 1.0, 0.9
    drafts = StepDrafts(
        tokens=np.full(2, -1, np.int32),
        num_tokens=[2],
        context=np.array([[1, 2, 3]], np.int32),
        context_lengths=np.array([3]),
        penalties=np.full(1, 3.0, np.float32),
        rules=[AcceptanceRule(3, 0.1, stop_token_ids=(5,))],
    )
    tokens, relaxed = CpuVerifier().verify(logits, drafts)
    assert tokens.tolist() == [[4, -1, -1]]
    assert relaxed.tolist() == [False, False]


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
