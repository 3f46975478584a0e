import numpy as np
import pytest

from pipeline.encode import load_encoder
from pipeline.encoder_settings import EncoderSettings

TEXTS = [
    "A comedy about two friends who drive through the desert.",
    "Two friends travel by car through the desert; a funny film.",
    "A horror film about a haunted castle in the mountains.",
    "",
    "A very long story. " * 400,
]


@pytest.fixture(scope="module")
def encoder():
    return load_encoder(EncoderSettings(batch_size=2))


def test_vectors_have_length_one_and_similar_texts_are_near(encoder):
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (5, 384) and vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > 0.7 > 0.5 > vectors[0] @ vectors[2]


def test_loading_prints_nothing(encoder, capfd):
    load_encoder(EncoderSettings())
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_the_order_of_texts_is_kept_whatever_the_batches_are(encoder):
    vectors = encoder.encode(TEXTS)
    backwards = encoder.encode(TEXTS[::-1])[::-1]
    assert np.allclose(vectors, backwards, atol=1e-5)
    assert encoder.encode([]).shape == (0, 384)


def test_max_tokens_cuts_and_a_prefix_counts(encoder):
    short = load_encoder(EncoderSettings(max_tokens=16)).encode([TEXTS[4], TEXTS[4] + " End."])
    assert np.allclose(short[0], short[1], atol=1e-6)
    prefixed = load_encoder(EncoderSettings(prefix="query: ")).encode(["a film"])
    assert np.allclose(prefixed, encoder.encode(["query: a film"]), atol=1e-5)


@pytest.mark.slow
def test_vllm_gives_the_same_vectors(encoder):
    served = load_encoder(EncoderSettings(backend="vllm", batch_size=4)).encode(TEXTS)
    expected = encoder.encode(TEXTS)
    assert served.shape == expected.shape and served.dtype == np.float32
    assert ((served * expected).sum(axis=1) > 0.999).all()
