"""What the adapter makes of vLLM's sampling parameters and steps; tests/integration runs it in an engine."""

from types import SimpleNamespace

import numpy as np
import pytest
from vllm import SamplingParams

from drafters import vllm_adapter
from drafters.acceptance import AcceptanceRule
from drafters.datastore import DatastoreError
from drafters.request_decoding import VerifiedDraft
from tests.unit.drafters.builders import NO_DOMAIN, TOKENIZER, VOCAB, build, document

RELAXED = AcceptanceRule(2, 0.1)


def parameters(stop_token_ids=(), **options):
    extra_args = vllm_adapter.request_args("key", rule=RELAXED)
    return SamplingParams(stop_token_ids=list(stop_token_ids), extra_args=extra_args, **options)


def test_a_request_brings_its_rule_and_its_stop_tokens():
    greedy = parameters(stop_token_ids=(9, 4), temperature=0.0)
    greedy.update_from_generation_config({"eos_token_id": [2, 7]}, eos_token_id=2)
    assert vllm_adapter.rule_of(greedy) == AcceptanceRule(2, 0.1, stop_token_ids=(2, 4, 7, 9))
    assert vllm_adapter.rule_of(SamplingParams(temperature=0.0)).is_strict


def test_a_sampled_request_is_strict_whatever_it_asked_for():
    assert vllm_adapter.rule_of(parameters(temperature=0.7)).is_strict


@pytest.fixture
def proposer():
    config = SimpleNamespace(
        additional_config={"laser": {"max_draft_tokens": 4}},
        model_config=SimpleNamespace(get_vocab_size=lambda: 100),
    )
    return vllm_adapter.LaserProposer(config)


def observed_step(proposer, num_tokens_by_row, num_drafts_by_row):
    """What is noted of the step: tokens, seconds, tokens of prompts; rows "old" are in decoding."""
    noted = []
    proposer.drafter.step_time.observe = lambda *step: noted.append(step)
    starts = np.concatenate([[0], np.cumsum(num_tokens_by_row), np.full(3, 999)])
    proposer._model_runner = SimpleNamespace(query_start_loc=SimpleNamespace(np=starts))
    ids = [f"old-{n}" if count is not None else f"new-{n}" for n, count in enumerate(num_drafts_by_row)]
    for request_id in ids:
        if request_id.startswith("old"):
            proposer.drafter.start(request_id, 1)
    drafts = [VerifiedDraft(count or 0, np.zeros(0, np.bool_)) for count in num_drafts_by_row]
    proposer._note_step_time(10.0, ids, drafts)
    assert noted == []  # nothing is known of when the first step began
    proposer._note_step_time(12.5, ids, drafts)
    return noted


@pytest.mark.parametrize(
    ("num_tokens_by_row", "num_drafts_by_row", "noted"),
    [
        ([1, 4], [0, 3], [(5, 2.5, 0)]),
        ([1, 4, 6], [0, 3, None], [(5, 2.5, 6)]),
        ([6], [None], [(0, 2.5, 6)]),
    ],
)
def test_a_step_tells_its_tokens_and_those_of_prompts(proposer, num_tokens_by_row, num_drafts_by_row, noted):
    assert observed_step(proposer, num_tokens_by_row, num_drafts_by_row) == noted


def test_altered_pools_are_refused_before_they_are_searched(tmp_path):
    """Positions outside the tokens would be read as they are."""
    store = build(tmp_path, "v1", {("item", "drama"): [document("a", *range(50))]}, limits=NO_DOMAIN)
    path = store.header.segments[0].path(store.folder, ".index")
    path.write_bytes(np.full(51, 2**31 - 1, np.int32).tobytes())
    config = {"max_draft_tokens": 4, "datastore": str(store.folder), "tokenizer_hash": TOKENIZER}
    with pytest.raises(DatastoreError, match=rf"{path}: its content does not match the checksum"):
        vllm_adapter.LaserProposer(
            SimpleNamespace(
                additional_config={"laser": config},
                model_config=SimpleNamespace(get_vocab_size=lambda: VOCAB),
            )
        )
