"""LASER inside the real vLLM on the CPU: what strict and relaxed verification write, and the contract."""

import os

import pytest

from drafters.acceptance import AcceptanceRule
from drafters.laser import DraftKey

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")

TITLES = [
    "Quiet Harbor", "The Long Orchard", "Seven Lanterns", "Night Ferry", "A Winter Map", "Copper Sky",
    "The Glass Mill", "Paper Wolves", "Salt and Ember", "The Ninth Door", "Low Tide", "Kingfisher",
    "The Borrowed Piano", "Red Meridian", "Snowline", "The Clockmaker", "Halfway North", "Iron Garden",
    "Moth Season", "The Cartographer", "Blue Hour", "Stray Signals",
]  # fmt: skip
MAX_TOKENS = 24
RELAXED = AcceptanceRule(top_k=2, min_prob=0.1)
STRICT = AcceptanceRule()


def introductions(smollm2, titles):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    return [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": f"Introduce the movie {title} and describe its genre and mood."}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
        )
        for title in titles
    ]


@pytest.fixture(scope="module")
def prompts(smollm2):
    return introductions(smollm2, TITLES)


@pytest.fixture(scope="module")
def sequels(smollm2):
    """Prompts whose texts are much like those of `prompts`, and not the same."""
    return introductions(smollm2, [f"{title} II" for title in TITLES[:6]])


def build(smollm2, **arguments):
    from vllm import LLM

    return LLM(
        model=str(smollm2),
        dtype="float32",
        max_model_len=256,
        max_num_seqs=8,
        enforce_eager=True,
        **arguments,
    )


@pytest.fixture(scope="module")
def plain(smollm2):
    return build(smollm2)


@pytest.fixture(scope="module")
def laser(smollm2):
    from drafters import vllm_adapter

    llm = build(smollm2, **vllm_adapter.engine_args(vllm_adapter.LaserConfig(max_draft_tokens=8)))
    vllm_adapter.install(llm)
    return llm


@pytest.fixture(scope="module")
def crowded(smollm2):
    """An engine with too few blocks for its batch, and too few tokens a step for a prompt or all drafts."""
    from drafters import vllm_adapter

    llm = build(
        smollm2,
        **vllm_adapter.engine_args(vllm_adapter.LaserConfig(max_draft_tokens=8)),
        block_size=32,
        num_gpu_blocks_override=16,
        max_num_batched_tokens=40,
        disable_log_stats=False,
    )
    vllm_adapter.install(llm)
    return llm


def decode(llm, prompts, at_once, rule=None, **sampling):
    """Greedy outputs of `prompts`, with `at_once` requests in the batch, and the statistics by prompt."""
    from vllm import SamplingParams

    from drafters import vllm_adapter

    outputs, stats = [], {}
    for first in range(0, len(prompts), at_once):
        numbers = range(first, min(first + at_once, len(prompts)))
        parameters = [
            SamplingParams(
                **{"temperature": 0.0, "max_tokens": MAX_TOKENS, **sampling},
                extra_args=vllm_adapter.request_args(str(n), DraftKey("item", "all", str(n)), rule)
                if rule
                else None,
            )
            for n in numbers
        ]
        batch = [{"prompt_token_ids": prompts[n]} for n in numbers]
        written = llm.generate(batch, parameters, use_tqdm=False)
        outputs += [list(output.outputs[0].token_ids) for output in written]
        if rule:
            finished = [vllm_adapter.FinishedRequest(str(n), "item", str(n), outputs[n]) for n in numbers]
            stats |= vllm_adapter.finish(llm, finished)
    return outputs, stats


@pytest.mark.parametrize(("at_once", "penalty"), [(1, 1.1), (8, 1.0), (8, 1.1)])
def test_strict_output_is_greedy_decoding_token_by_token(plain, laser, prompts, at_once, penalty):
    expected, _ = decode(plain, prompts, at_once, repetition_penalty=penalty)
    found, stats = decode(laser, prompts, at_once, STRICT, repetition_penalty=penalty)
    assert found == expected
    assert sum(s.num_accepted_tokens for s in stats.values()) > 0, (
        "nothing was drafted: the test shows nothing"
    )
    assert all(s.num_relaxed_tokens == 0 for s in stats.values())


def test_counts_add_up(laser, prompts):
    outputs, stats = decode(laser, prompts[:8], 4, STRICT)
    for number, output in enumerate(outputs):
        counts = stats[str(number)]
        assert counts.num_accepted_tokens <= counts.num_draft_tokens
        # A text that ends within a draft lacks the last step's own token; at max_tokens no draft goes so far.
        num_cut = counts.num_decode_steps + counts.num_accepted_tokens - len(output)
        assert num_cut == 0 if len(output) == MAX_TOKENS else 0 <= num_cut <= 1


def test_drafts_go_on_to_the_end_of_the_context(plain, laser, prompts):
    long = [(prompt * 6)[:200] for prompt in prompts[:4]]
    length = {"max_tokens": 56, "ignore_eos": True}
    expected, _ = decode(plain, long, 4, **length)
    found, stats = decode(laser, long, 4, STRICT, **length)
    assert found == expected
    assert all(len(output) == 56 for output in found)
    for number, output in enumerate(found):
        counts = stats[str(number)]
        # Every step came by the drafter.
        assert counts.num_decode_steps + counts.num_accepted_tokens >= len(output)
    assert sum(s.num_accepted_tokens for s in stats.values()) > 0


@pytest.mark.parametrize("sampling", [{}, {"presence_penalty": 0.001}], ids=["native", "torch"])
@pytest.mark.parametrize("rule", [STRICT, AcceptanceRule(top_k=5, min_prob=0.0)], ids=["strict", "relaxed"])
def test_drafts_with_which_the_scheduler_pads_a_cached_prompt(
    plain, laser, prompts, sampling, rule, monkeypatch
):
    """A prompt of whole blocks and one token more: sent again, one token of it is left to compute."""
    block_size = laser.llm_engine.vllm_config.cache_config.block_size
    cached = [(prompt * 6)[: block_size + 1] for prompt in prompts[:3]]
    scheduler = laser.llm_engine.engine_core.engine_core.scheduler
    schedule, drafted = scheduler.schedule, []

    def watched(*args, **kwargs):
        step = schedule(*args, **kwargs)
        drafted.extend(token for draft in step.scheduled_spec_decode_tokens.values() for token in draft)
        return step

    expected, _ = decode(plain, cached, 3, **sampling)
    decode(laser, cached, 3, rule, **sampling)
    monkeypatch.setattr(scheduler, "schedule", watched)
    found, stats = decode(laser, cached, 3, rule, **sampling)
    assert drafted.count(-1) == 3 * 8, "the scheduler padded no request: the test shows nothing"
    assert sum(s.num_draft_tokens for s in stats.values()) == len(drafted) - drafted.count(-1) > 0
    for number, output in enumerate(found):
        assert min(output) >= 0
        counts = stats[str(number)]
        assert 0 <= counts.num_decode_steps + counts.num_accepted_tokens - len(output) <= 1
    assert rule.top_k > 1 or found == expected


def test_chunked_prompts_preempted_requests_and_cut_drafts(plain, crowded, prompts):
    length = {"max_tokens": 48}
    expected, _ = decode(plain, prompts[:12], 12, **length)
    decode(crowded, prompts[:12], 12, STRICT, **length)
    found, stats = decode(crowded, prompts[:12], 12, STRICT, **length)
    assert found == expected
    preemptions = [m.value for m in crowded.get_metrics() if m.name == "vllm:num_preemptions"]
    assert sum(preemptions) > 0
    for number, output in enumerate(found):
        counts = stats[str(number)]
        assert 0 < counts.num_accepted_tokens <= counts.num_draft_tokens
        assert 0 <= counts.num_decode_steps + counts.num_accepted_tokens - len(output) <= 1


def test_relaxed_output_differs_and_says_how_much(plain, laser, prompts):
    wide = AcceptanceRule(top_k=5, min_prob=0.02)
    length = {"max_tokens": 48, "repetition_penalty": 1.1}
    greedy, _ = decode(plain, prompts, 8, **length)
    decode(laser, prompts, 8, STRICT, **length)  # fills the pool
    relaxed, stats = decode(laser, prompts[::-1], 8, wide, **length)
    num_relaxed = sum(s.num_relaxed_tokens for s in stats.values())
    differing = sum(a != b for a, b in zip(greedy, relaxed[::-1], strict=True))
    assert num_relaxed > 0
    assert 0 < differing <= num_relaxed  # a text differs because, and only because, of a relaxed token


def test_a_relaxed_token_is_acceptable_to_the_model(laser, plain, prompts, sequels):
    """Teacher-forced by the plain engine, every token is the argmax or second with probability above p."""
    import math

    from vllm import SamplingParams

    decode(laser, prompts, 8, STRICT)  # fills the pool
    relaxed, stats = decode(laser, sequels, 6, RELAXED, max_tokens=48)
    num_second = 0
    for prompt, output in zip(sequels, relaxed, strict=True):
        scored = plain.generate(
            [{"prompt_token_ids": prompt + output}],
            SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=3),
            use_tqdm=False,
        )[0].prompt_logprobs
        for token, candidates in zip(output, scored[len(prompt) :], strict=True):
            entry = candidates[token]
            assert entry.rank == 1 or (entry.rank == 2 and math.exp(entry.logprob) > 0.099)
            num_second += entry.rank == 2
    assert num_second == sum(s.num_relaxed_tokens for s in stats.values()) > 0


def test_sampled_requests_in_the_batch_are_never_relaxed(laser, prompts, sequels):
    from vllm import SamplingParams

    from drafters import vllm_adapter

    decode(laser, prompts, 8, STRICT)  # fills the pool
    wide = AcceptanceRule(top_k=5, min_prob=0.02)
    # Six greedy requests and two sampled ones among them: one batch.
    batch = [*sequels[:3], sequels[0], *sequels[3:], sequels[1]]
    sampled = {3, 7}
    parameters = [
        SamplingParams(
            temperature=0.7 if n in sampled else 0.0,
            seed=n,
            max_tokens=48,
            extra_args=vllm_adapter.request_args(f"mixed-{n}", DraftKey("item", "all", ""), wide),
        )
        for n in range(len(batch))
    ]
    written = laser.generate([{"prompt_token_ids": p} for p in batch], parameters, use_tqdm=False)
    finished = [
        vllm_adapter.FinishedRequest(f"mixed-{n}", "item", "", output.outputs[0].token_ids)
        for n, output in enumerate(written)
    ]
    by_key = vllm_adapter.finish(laser, finished, learn_texts=False)
    stats = [by_key[f"mixed-{n}"] for n in range(len(batch))]
    assert all(counts.num_decode_steps > 0 for counts in stats)
    greedy = [counts for n, counts in enumerate(stats) if n not in sampled]
    assert sum(counts.num_relaxed_tokens for counts in greedy) > 0, "nothing was relaxed: shows nothing"
    assert sum(stats[n].num_draft_tokens for n in sampled) > 0, "nothing was drafted: shows nothing"
    assert all(stats[n].num_relaxed_tokens == 0 for n in sampled)


def test_a_vllm_that_changed_is_named(laser):
    from drafters.vllm_adapter import VllmContractError, check_contract

    runner = laser.llm_engine.model_executor.driver_worker.worker.model_runner
    check_contract(runner)

    class Changed:
        drafter = runner.drafter
        rejection_sampler = runner.rejection_sampler
        requests = runner.requests
        input_batch = object()

    with pytest.raises(VllmContractError, match=r"vLLM 0\.\d+\.\d+.*input_batch\.req_ids is gone"):
        check_contract(Changed())


def test_the_drafter_reports_price_and_sources(laser, prompts):
    from drafters import vllm_adapter

    decode(laser, prompts[:8], 8, STRICT)
    stats = vllm_adapter.drafter_stats(laser)
    assert 0.0 < stats.price <= 1.0 and stats.base_sec > 0.0 and stats.marginal_sec > 0.0
    assert stats.sources["domain"].num_accepted_tokens > 0
    learned = vllm_adapter.calibration(laser)
    assert len(learned["weights"]) == len(learned["squares"]) > 0
