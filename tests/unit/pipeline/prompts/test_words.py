import pytest

from pipeline.prompts.words import plural


@pytest.mark.parametrize(
    ("word", "many"),
    [
        ("movie", "movies"), ("news", "news"), ("News", "News"), ("series", "series"), ("story", "stories"),
        ("toy", "toys"), ("dish", "dishes"), ("box", "boxes"), ("washing machine", "washing machines"),
        ("garment", "garments"), ("dress", "dresses"), ("wine glass", "wine glasses"), ("jeans", "jeans"),
        ("clothing", "clothing"), ("Footwear", "Footwear"), ("sports equipment", "sports equipment"),
        ("watch", "watches"), ("accessory", "accessories"), ("course", "courses"), ("hotel", "hotels"),
    ],
)  # fmt: skip
def test_a_word_for_several(word, many):
    assert plural(word) == many
