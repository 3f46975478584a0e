import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.groups.names import group_name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Children's", "children-s"),
        ("Sci-Fi", "sci-fi"),
        ("sci-fi", "sci-fi"),
        ("Action & Adventure", "action-adventure"),
        ("Comédie", "comedie"),
        ("../../etc", "etc"),
    ],
)
def test_names(text, name):
    assert group_name(text) == name


def test_other_scripts_and_long_texts_stay_apart():
    assert group_name("動作") != group_name("恐怖")
    assert group_name("x" * 100) != group_name("x" * 101)
    assert len(group_name("x" * 100)) <= 64


@settings(deadline=None)
@given(st.text(max_size=200))
def test_every_text_gives_a_safe_folder_name_that_is_its_own(text):
    name = group_name(text)
    assert 1 <= len(name) <= 64
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert not name.startswith("-")
    assert group_name(name) == name
