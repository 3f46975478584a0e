"""Whatever stands on the command line or in a YAML file: settings, or one line and nothing written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.config import load_settings
from jobs.schema_paths import known_paths
from pipeline.errors import ConfigError
from pipeline.settings import RunSettings
from tests.fuzzing import FUZZED

KEYS = st.one_of(st.sampled_from(known_paths(RunSettings)), st.text(max_size=12))
VALUES = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            "null",
            "true",
            "-1",
            "1e999",
            "[1,2]",
            "{a: 1}",
            "${x}",
            "${oc.env:HOME}",
            "???",
            "'",
            '"',
            "[",
            "a,b",
            "../..",
            "\x00",
            "\n",
            "9" * 5000,
            "range(1,3)",
            "choice(1,2)",
            "{",
            "\\",
        ]
    ),
    st.integers().map(str),
    st.floats().map(str),
)


def compose(folder, *overrides, config_dir=None):
    try:
        load_settings("generate", list(overrides), config_dir)
    except ConfigError as error:
        assert str(error) and "\n" not in str(error)
    assert [path.name for path in folder.iterdir()] in ([], ["dataset"])


@FUZZED
@given(KEYS, VALUES, st.sampled_from(["", "+", "++", "~"]))
def test_overrides(tmp_path, monkeypatch, key, value, sign):
    monkeypatch.chdir(tmp_path)
    compose(tmp_path, f"{sign}{key}={value}")


TREES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
SECTIONS = st.dictionaries(
    st.sampled_from(["name", "reader", "raw", "tabular", "amazon", "item_groups", "user_groups", "min_rating",
                     "item_word", "defaults", "max_bad_fraction"]),
    TREES | st.sampled_from(["tabular", "amazon", "movielens", ["movielens"]]),
)  # fmt: skip


@FUZZED
@given(SECTIONS)
def test_files(tmp_path, monkeypatch, tree):
    import yaml

    monkeypatch.chdir(tmp_path)
    (tmp_path / "dataset").mkdir(exist_ok=True)
    (tmp_path / "dataset" / "mine.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    compose(tmp_path, "dataset=mine", config_dir=str(tmp_path))


@pytest.mark.parametrize(
    "content", [b"\x00", b"\xff\xfe", b"a: [", b"- 1", b"5", b"", b"a: &x [*x]", b"!!python/name:os.x"]
)
def test_files_of_anything(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "mine.yaml").write_bytes(content)
    with pytest.raises(ConfigError):
        load_settings("generate", ["dataset=mine"], str(tmp_path))
