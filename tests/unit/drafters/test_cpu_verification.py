"""Verification on a CPU gives what vLLM's rejection sampler gives with the acceptance rule."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from vllm.v1.sample.logits_processor import LogitsProcessors
from vllm.v1.sample.logits_processor.builtin import LogitBiasLogitsProcessor, MinTokensLogitsProcessor
from vllm.v1.sample.metadata import SamplingMetadata
from vllm.v1.sample.rejection_sampler import RejectionSampler
from vllm.v1.sample.sampler import Sampler
from vllm.v1.spec_decode.metadata import SpecDecodeMetadata

from drafters import vllm_sampling
from drafters.acceptance import AcceptanceRule
from drafters.batch_rules import BatchRules
from drafters.cpu_logits import exp, greedy_tokens, num_above, total
from drafters.vllm_sampling import install_rejection_sampler

VOCAB = 60
MAX_LEN = 40
RULES = [
    AcceptanceRule(),
    AcceptanceRule(2, 0.1),
    AcceptanceRule(3, 0.05, stop_token_ids=(3, 7)),
    AcceptanceRule(4, 0.0, max_relaxed_run=1),
    AcceptanceRule(4, 0.0, deferred_tokens=1),
    AcceptanceRule(4, 0.01, max_relaxed_run=2, deferred_tokens=2),
]


@pytest.fixture(scope="module", autouse=True)
def kernels_of_a_worker():
    """Where Triton is missing a worker replaces vLLM's kernels by native ones, and so does this file."""
    from vllm.platforms import current_platform

    current_platform.register_triton_kernel_overrides()


class Batch:
    """A step of `num_requests` whose drafts are mostly among the likely tokens, so that many are taken."""

    def __init__(self, seed, num_requests=6, longest=5, dtype=torch.bfloat16, repetition=1.3):
        random = np.random.default_rng(seed)
        self.num_drafts = random.integers(0, longest + 1, num_requests).tolist()
        self.num_drafts[0] = longest
        num_rows = sum(self.num_drafts) + num_requests
        # Halves make many ties; one token in two stands out, so that masks of probability matter.
        logits = (random.normal(size=(num_rows, VOCAB)) * 4).round() / 2
        self.logits = torch.tensor(logits, dtype=torch.float32).to(dtype)
        is_bonus = np.zeros(num_rows, bool)
        is_bonus[np.cumsum(np.add(self.num_drafts, 1)) - 1] = True
        ranked = np.argsort(-self.logits.float().numpy(), axis=1, kind="stable")
        choice = random.choice(4, num_rows, p=[0.55, 0.25, 0.15, 0.05])
        self.drafts = ranked[np.arange(num_rows), choice][~is_bonus].astype(np.int32)
        self.rules = [RULES[n % len(RULES)] for n in range(num_requests)]
        self.context = random.integers(0, VOCAB, (num_requests, MAX_LEN)).astype(np.int32)
        self.num_prompt = random.integers(1, 10, num_requests)
        self.lengths = self.num_prompt + random.integers(0, 20, num_requests)
        penalties = (
            random.choice([1.0, repetition], num_requests) if repetition != 1.0 else np.ones(num_requests)
        )
        self.penalties = torch.tensor(penalties, dtype=torch.float32)

    def metadata(self):
        ends = np.cumsum(self.num_drafts)
        starts = ends - self.num_drafts + np.arange(len(ends))
        targets = np.concatenate([np.arange(s, s + n) for s, n in zip(starts, self.num_drafts, strict=True)])
        bonus = starts + self.num_drafts
        return SpecDecodeMetadata(
            draft_token_ids=torch.from_numpy(self.drafts),
            num_draft_tokens=self.num_drafts,
            cu_num_draft_tokens=torch.tensor(ends, dtype=torch.int32),
            cu_num_sampled_tokens=torch.tensor(np.cumsum(np.add(self.num_drafts, 1)), dtype=torch.int32),
            target_logits_indices=torch.tensor(targets, dtype=torch.int64),
            bonus_logits_indices=torch.tensor(bonus, dtype=torch.int64),
            logits_indices=torch.arange(len(self.logits)),
        )

    def sampling(self, **changes):
        prompts = torch.full((len(self.rules), MAX_LEN), VOCAB, dtype=torch.int64)
        outputs, specs, first = [], [], 0
        for row, (num_prompt, length) in enumerate(zip(self.num_prompt, self.lengths, strict=True)):
            prompts[row, :num_prompt] = torch.from_numpy(self.context[row, :num_prompt])
            outputs.append(self.context[row, num_prompt:length].tolist())
            specs.append(self.drafts[first : first + self.num_drafts[row]].tolist())
            first += self.num_drafts[row]
        zeros = torch.zeros(len(self.rules))
        values = {
            "temperature": None, "all_greedy": True, "all_random": False, "top_p": None, "top_k": None,
            "generators": {}, "max_num_logprobs": None, "no_penalties": bool((self.penalties == 1.0).all()),
            "prompt_token_ids": prompts, "frequency_penalties": zeros, "presence_penalties": zeros,
            "repetition_penalties": self.penalties, "output_token_ids": outputs,
            "allowed_token_ids_mask": None, "bad_words_token_ids": {}, "logitsprocs": LogitsProcessors(),
            "spec_token_ids": specs,
        }  # fmt: skip
        return SamplingMetadata(**values | changes)

    def sampler(self):
        ids = [str(row) for row in range(len(self.rules))]
        batch = SimpleNamespace(
            req_ids=ids, token_ids_cpu=self.context, num_tokens_no_spec=self.lengths.astype(np.int32)
        )
        runner = SimpleNamespace(
            rejection_sampler=RejectionSampler(Sampler()),
            input_batch=batch,
            device=torch.device("cpu"),
            model_config=SimpleNamespace(dtype=self.logits.dtype, get_vocab_size=lambda: VOCAB),
        )
        rules = BatchRules(lambda request_id: self.rules[int(request_id)], lambda: ids)
        install_rejection_sampler(runner, rules)
        return runner.rejection_sampler


def verified(batch, monkeypatch, on_cpu, **changes):
    """(tokens of each request, which of its accepted draft tokens were relaxed)."""
    used = []
    sampler = batch.sampler()
    verify = sampler.laser_verifier.verify
    sampler.laser_verifier.verify = lambda *args: used.append(True) or verify(*args)
    with monkeypatch.context() as patch:
        if not on_cpu:
            patch.setattr(vllm_sampling, "_suits_cpu", lambda *args: False)
        output = sampler.forward(batch.metadata(), None, batch.logits.clone(), batch.sampling(**changes))
    assert bool(used) == on_cpu
    tokens = [[token for token in row if token >= 0] for row in output.sampled_token_ids.tolist()]
    drafts = sampler.laser_rules.take_step([len(row) for row in tokens])
    return tokens, [draft.relaxed.tolist() for draft in drafts]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("repetition", [1.0, 1.3, 0.7])
def test_equal_to_vllms_sampler(monkeypatch, dtype, repetition):
    num_relaxed = num_accepted = 0
    for seed in range(40):
        batch = Batch(seed, dtype=dtype, repetition=repetition)
        found = verified(batch, monkeypatch, on_cpu=True)
        assert found == verified(batch, monkeypatch, on_cpu=False), seed
        num_relaxed += sum(map(sum, found[1]))
        num_accepted += sum(map(len, found[1]))
    assert 30 < num_relaxed < num_accepted


def test_many_requests_are_shared_among_threads(monkeypatch):
    batch = Batch(1, num_requests=70)
    assert verified(batch, monkeypatch, on_cpu=True) == verified(batch, monkeypatch, on_cpu=False)


def test_steps_do_not_see_each_others_tokens(monkeypatch):
    large, small = Batch(1, num_requests=30), Batch(2, num_requests=3)
    sampler = small.sampler()
    for _ in range(3):
        for batch in (large, small):
            fresh = batch.sampler()
            fresh.laser_verifier = sampler.laser_verifier
            tokens = fresh.forward(batch.metadata(), None, batch.logits, batch.sampling()).sampled_token_ids
            expected = verified(batch, monkeypatch, on_cpu=False)[0]
            assert [[token for token in row if token >= 0] for row in tokens.tolist()] == expected


def test_masked_tokens_are_never_taken(monkeypatch):
    batch = Batch(3, num_requests=40)
    batch.logits[:, ::2] = -torch.inf  # what a grammar forbids
    found = verified(batch, monkeypatch, on_cpu=True)
    assert found == verified(batch, monkeypatch, on_cpu=False)
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
def test_what_it_does_not_know_is_left_to_vllm(monkeypatch, changes):
    sampler = Batch(0).sampler()
    sampler.laser_verifier.verify = None
    sampler.forward(Batch(0).metadata(), None, Batch(0).logits, Batch(0).sampling(**changes))


def test_processors_that_change_nothing_do_not_matter():
    minimum = object.__new__(MinTokensLogitsProcessor)
    bias = object.__new__(LogitBiasLogitsProcessor)
    minimum.min_toks, bias.biases = {}, {}
    batch = Batch(0)

    def suits(*processors):
        sampling = batch.sampling(logitsprocs=SimpleNamespace(non_argmax_invariant=list(processors)))
        return vllm_sampling._suits_cpu(batch.logits, sampling)

    assert suits(minimum, bias)
    minimum.min_toks = {0: (5, [], {1}, False)}
    assert not suits(minimum, bias)
    assert not suits(SimpleNamespace())


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
