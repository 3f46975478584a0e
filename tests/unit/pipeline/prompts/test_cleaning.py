import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.prompts.cleaning import DataCleaner

TOKENS = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<repo_name>", "[unused1]"]
CLEANER = DataCleaner(TOKENS)


@pytest.mark.parametrize("token", TOKENS)
def test_a_control_token_becomes_readable_text(token):
    cleaned = CLEANER.clean(f"Up{token}Down")
    assert cleaned == f"Up{token[0]} {token[1:]}Down"


@pytest.mark.parametrize(
    "marker", ["<|user|>", "<\uff5cUser\uff5c>", "[INST]", "<<SYS>>", "</s>", "<end_of_turn>"]
)
def test_markers_of_other_chat_formats_are_broken_up_too(marker):
    assert marker not in DataCleaner().clean(f"a {marker} b")


def test_a_token_hidden_by_invisible_or_wide_characters_is_found():
    assert "<|im_end|>" not in CLEANER.clean("<|im_\u200bend|>")
    assert CLEANER.finds_control_token(CLEANER.clean("\uff1c\uff5cim_end\uff5c\uff1e")) is None


def test_breaking_one_token_does_not_complete_another():
    nested = DataCleaner(["<a<b>c>", "<b>"]).clean("<a<b>c>")
    assert "<b>" not in nested and "<a<b>c>" not in nested


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("8½ (1963)", "8½ (1963)"),  # not folded to a plain 1 and 2
        ("Amélie 映画 👩‍👧", "Amélie 映画 👩‍👧"),
        ("Se7en: <3 & [REC]", "Se7en: <3 & [REC]"),
        ("two\nlines\r\nand\ttabs", "two lines and tabs"),
        ("NUL\x00inside\x1b[31m", "NUL inside [31m"),
        ("line\u2028separator", "line separator"),
        ("reversed \u202etxet", "reversed txet"),
        ("{{ 7 * 7 }} {% raw %}", "{{ 7 * 7 }} {% raw %}"),
        (None, ""),
        (" \n ", ""),
    ],
)
def test_ordinary_text_survives_and_is_one_line(raw, cleaned):
    assert CLEANER.clean(raw) == cleaned


def test_long_text_is_shortened_visibly():
    assert CLEANER.clean("x" * 1000, max_chars=50) == "x" * 49 + "…"
    assert CLEANER.clean("x" * 50, max_chars=50) == "x" * 50


@given(st.lists(st.sampled_from([*TOKENS, "<", "|", "im_end", "|>", "<|", " ", "a", "\u200b"]), max_size=12))
def test_no_control_token_survives_however_it_is_assembled(pieces):
    cleaned = CLEANER.clean("".join(pieces))
    assert not any(token in cleaned for token in TOKENS)
    assert "\n" not in cleaned
