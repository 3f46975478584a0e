import pytest

from pipeline.generate.engine import _engine_arguments, _seed
from pipeline.settings import SamplingSettings
from pipeline.storage.layout import RunLayout
from tests.generation import make_spec


def test_of_a_multimodal_model_only_the_language_model_is_loaded(tmp_path):
    assert _engine_arguments(make_spec(RunLayout(tmp_path)))["language_model_only"] is True


@pytest.mark.parametrize(
    ("is_cpu", "temperature", "seed"),
    [(True, 0.7, None), (False, 0.7, 3), (True, 0.0, None), (False, 0.0, None)],
)
def test_a_sampled_request_has_a_seed_of_its_own_where_vllm_can_keep_it(
    monkeypatch, is_cpu, temperature, seed
):
    """On a CPU a seeded prompt that is read in parts ends the engine's step with an error."""
    monkeypatch.setattr("vllm.platforms.current_platform.is_cpu", lambda: is_cpu)
    assert _seed(SamplingSettings(temperature=temperature, seed=3)) == seed
