import pytest

from jobs.schema_paths import annotation_at, dotted, in_words, known_paths, nearest_key, nearest_name
from pipeline.settings import RunSettings

PATHS = known_paths(RunSettings)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("limit", "a positive integer or 'all'"),
        ("run_id", "text or null"),
        ("max_failed_fraction", "a number"),
        ("engine.enforce_eager", "true or false"),
        ("acceptance.name", "one of relaxed, strict"),
        ("model.sampling", "a group of keys"),
        ("dataset.item_groups.groups", "a mapping"),
        ("dataset.item_groups.groups.anything", "a list"),
    ],
)
def test_what_is_allowed_in_words(path, words):
    assert in_words(annotation_at(RunSettings, tuple(path.split(".")))) == words


def test_every_known_path_has_an_annotation():
    assert "model.sampling.repetition_detection.min_count" in PATHS
    assert all(annotation_at(RunSettings, tuple(path.split("."))) is not None for path in PATHS)


@pytest.mark.parametrize("path", ["nope", "acceptance.nope", "limit.nope", "dataset.item_groups.groups.a.b"])
def test_an_unknown_path_has_none(path):
    assert annotation_at(RunSettings, tuple(path.split("."))) is None


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("engine.max_seqs", "engine.max_num_seqs"),
        ("accceptance.top_k", "acceptance.top_k"),
        ("num_worker", "cluster.num_workers"),
        ("acceptance.foo", None),
        ("xyz", None),
    ],
)
def test_the_nearest_key(wrong, nearest):
    assert nearest_key(wrong, PATHS) == nearest


def test_the_nearest_name():
    assert nearest_name("qwen2.5", ["smollm2-135m", "qwen2.5-7b-instruct"]) == "qwen2.5-7b-instruct"
    assert nearest_name("zzz", ["laser", "none"]) is None


def test_list_positions_stand_in_brackets():
    assert dotted(("groups", "western", 0)) == "groups.western[0]"
