from pipeline.generate.engine import _engine_arguments
from pipeline.storage.layout import RunLayout
from tests.generation import make_spec


def test_of_a_multimodal_model_only_the_language_model_is_loaded(tmp_path):
    assert _engine_arguments(make_spec(RunLayout(tmp_path)))["language_model_only"] is True
