"""The short way for repetition penalties gives what vLLM's own function gives, bit for bit."""

import pytest
import torch

from drafters.penalties import sparse_penalties

VOCAB = 50


@pytest.fixture(scope="module")
def apply_all():
    from vllm.model_executor.layers.utils import apply_penalties

    return apply_penalties


def rows(seed, num_rows, length, padded):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, VOCAB, (num_rows, length), generator=generator)
    for row in range(padded):
        tokens[row % num_rows, length // (row + 2) :] = VOCAB
    return tokens


def both(apply_all, logits, prompt, output, repetition, presence=0.0, frequency=0.0):
    columns = [torch.full((len(logits),), value) for value in (presence, frequency)]
    repetition = torch.tensor(repetition)
    expected = apply_all(logits.clone(), prompt, output, *columns, repetition)
    found = sparse_penalties(apply_all)(logits.clone(), prompt, output, *columns, repetition)
    return expected, found


@pytest.mark.parametrize("seed", range(8))
def test_equal_on_random_rows(apply_all, seed):
    logits = torch.randn(4, VOCAB, generator=torch.Generator().manual_seed(seed))
    expected, found = both(
        apply_all, logits, rows(seed, 4, 9, 2), rows(seed + 99, 4, 17, 3), [1.1, 1.0, 0.8, 2.0]
    )
    assert torch.equal(expected, found)
    assert not torch.equal(found, logits)


def test_padding_does_not_penalize_the_first_token(apply_all):
    logits = torch.ones(2, VOCAB)
    prompt = torch.tensor([[3, VOCAB], [0, VOCAB]])
    expected, found = both(apply_all, logits, prompt, torch.full((2, 3), VOCAB), [2.0, 2.0])
    assert torch.equal(expected, found)
    assert found[:, 0].tolist() == [1.0, 0.5]


def test_placeholders_penalize_no_token():
    columns = [torch.zeros(1), torch.zeros(1), torch.tensor([2.0])]
    tokens = torch.tensor([[3, -1]]), torch.tensor([[-1, 5]])
    found = sparse_penalties(lambda *_: None)(torch.ones(1, VOCAB), *tokens, *columns)
    assert (found != 1.0).nonzero()[:, 1].tolist() == [3, 5]


def test_nothing_written_yet(apply_all):
    empty = torch.zeros((2, 0), dtype=torch.int64)
    expected, found = both(apply_all, torch.randn(2, VOCAB), empty, empty, [1.5, 1.5])
    assert torch.equal(expected, found)


def test_penalties_that_count_take_vllms_way(apply_all):
    logits = torch.randn(2, VOCAB)
    expected, found = both(apply_all, logits, rows(1, 2, 5, 0), rows(2, 2, 5, 0), [1.1, 1.0], frequency=0.5)
    assert torch.equal(expected, found)


def test_on_another_device_no_value_is_asked_for():
    """Tensors of the meta device have none: to ask is an error, as it is a pause on a GPU."""
    logits, tokens, column = (torch.empty(shape, device="meta") for shape in ((2, VOCAB), (2, 5), (2,)))
    assert sparse_penalties(lambda *_: "vLLM's way")(logits, tokens, tokens, *[column] * 3) == "vLLM's way"
