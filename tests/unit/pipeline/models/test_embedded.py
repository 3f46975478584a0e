"""The conversion itself runs once, in the session fixture; here a quick one stands in its place."""

import json
import threading
import time

import pytest

from pipeline.errors import ModelError
from pipeline.models import embedded
from pipeline.models.embedded import PROVENANCE, prepare_embedded_model


@pytest.fixture
def conversions(monkeypatch):
    """Replace the half-minute conversion; the list counts its calls."""
    calls = []

    def convert(source, target):
        calls.append(source)
        time.sleep(0.2)
        (target / "config.json").write_text("{}")

    monkeypatch.setattr(embedded, "_convert", convert)
    return calls


def test_the_prepared_model_is_unquantized_bfloat16_safetensors(smollm2):
    config = json.loads((smollm2 / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    assert "quantization_config" not in config
    assert {"model.safetensors", "tokenizer.json", "chat_template.jinja"} <= {
        f.name for f in smollm2.iterdir()
    }


def test_prepares_once(tmp_path, conversions):
    first = prepare_embedded_model("smollm2-135m", tmp_path)
    assert prepare_embedded_model("smollm2-135m", tmp_path) == first == tmp_path / "smollm2-135m"
    assert len(conversions) == 1


def test_several_at_once_convert_once(tmp_path, conversions):
    threads = [
        threading.Thread(target=prepare_embedded_model, args=("smollm2-135m", tmp_path)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(conversions) == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == [".smollm2-135m.lock", "smollm2-135m"]


def test_another_package_version_is_converted_anew(tmp_path, conversions):
    folder = prepare_embedded_model("smollm2-135m", tmp_path)
    (folder / PROVENANCE).write_text('{"version": "0.0.1"}')
    (folder / "stale.txt").write_text("")
    assert prepare_embedded_model("smollm2-135m", tmp_path) == folder
    assert len(conversions) == 2
    assert not (folder / "stale.txt").exists()


def test_a_killed_conversion_is_not_taken_for_a_model(tmp_path, conversions):
    leftover = tmp_path / ".tmp-abc-smollm2-135m"
    leftover.mkdir()
    (leftover / "model.safetensors").write_text("half")
    assert (prepare_embedded_model("smollm2-135m", tmp_path) / "config.json").exists()
    assert not leftover.exists()


def test_a_failing_conversion_names_its_cause_and_leaves_nothing(tmp_path, monkeypatch):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"no gguf")
    monkeypatch.setattr(embedded, "_model_file", lambda model: broken)
    with pytest.raises(ModelError, match=r"^broken\.gguf cannot be converted: .") as caught:
        prepare_embedded_model("smollm2-135m", tmp_path / "models")
    assert "\n" not in str(caught.value)
    assert [file.name for file in (tmp_path / "models").iterdir()] == [".smollm2-135m.lock"]


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(
        ModelError, match=r"model\.path=package:gpt9: no such embedded model; available: smollm2"
    ):
        prepare_embedded_model("gpt9", tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot be written"):
        prepare_embedded_model("smollm2-135m", tmp_path / "file")
