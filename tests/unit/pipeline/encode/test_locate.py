import json
import shutil

import pytest

from pipeline.encode.encoder import EncoderIdentity
from pipeline.encode.locate import locate_encoder
from pipeline.encoder_settings import EncoderSettings
from pipeline.errors import ModelError


@pytest.fixture(scope="module")
def minilm():
    return locate_encoder(EncoderSettings())


def test_the_embedded_encoder_is_found_and_a_copy_has_the_same_revision(minilm, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(minilm.path, copy, copy_function=lambda a, b: shutil.copy(a, b))
    assert locate_encoder(EncoderSettings(path=str(copy))).revision == minilm.revision


def test_another_pooling_is_another_revision(minilm, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(minilm.path, copy)
    config = copy / "1_Pooling" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"pooling_mode_cls_token": True}))
    assert locate_encoder(EncoderSettings(path=str(copy))).revision != minilm.revision


def test_weights_that_can_carry_code_are_refused(minilm, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(minilm.path, copy)
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no \*\.safetensors weights \(found pytorch_model\.bin"):
        locate_encoder(EncoderSettings(path=str(copy)))


@pytest.mark.parametrize(
    "changes",
    [{"normalize": False}, {"max_tokens": 64}, {"prefix": "passage: "}, {"backend": "vllm"}],
)
def test_whatever_changes_a_vector_changes_the_fingerprint(minilm, changes):
    def fingerprint(**values):
        return EncoderIdentity.of(EncoderSettings(**values), minilm).fingerprint

    assert fingerprint(**changes) != fingerprint()
    assert fingerprint(batch_size=3, rows_per_part=7) == fingerprint()
