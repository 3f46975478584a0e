import pytest

from pipeline.generate.aboutness import AboutText, measure_aboutness, names_any, title_forms, words_of


@pytest.mark.parametrize(
    ("title", "text", "is_named"),
    [
        ("The Fifth Element (1997)", "They enjoyed Fifth Element most.", True),
        ("The Fifth Element", 'They liked "the fifth   element", too', True),
        ("The Fifth Element", "the fifth elements of style", False),
        ("Speed", "A film at high speed.", False),
        ("Speed", "They liked Speed.", True),
        ("Schindler\u2019s List", "such as Schindler's List", True),
        ("Babe: Pig in the City", "Babe is sweet", True),
        ("It: Chapter Two", "It is sweet", False),
        ("Logitech MK270 Wireless Keyboard And Mouse", "Logitech MK270 wireless keyboard and", True),
        ("Logitech MK270 Wireless Keyboard, 2.4 GHz, Compact", "a Logitech MK270 wireless keyboard", True),
        ("千と千尋", "彼は千と千尋が好き", True),
        ("Война и мир", "война и мир!", True),
        ("A", "A", True),
        ("???", "anything ???", False),
        ("(500) Days of Summer", "Days of Summer is", True),
    ],
)  # fmt: skip
def test_finds_titles_as_texts_write_them(title, text, is_named):
    assert names_any(words_of(text), title_forms(title)) is is_named


def test_essays_that_fit_anybody_are_told_from_texts_about_their_users():
    titles = [[f"Film {number} one", f"Film {number} two"] for number in range(100)]
    about = measure_aboutness([AboutText(f"{one} is what they like.", (one, two)) for one, two in titles])
    assert (about.named, about.named_other, about.shared_openings, about.distinct) == (1.0, 0.0, 0.0, 1.0)
    essay = "When analyzing a user's preferences, consider genre."
    essays = measure_aboutness([AboutText(essay, shown) for shown in titles])
    assert (essays.named, essays.shared_openings, essays.distinct) == (0.0, 1.0, 0.01)


def test_a_title_that_every_text_names_counts_for_another_entity_as_much():
    rows = [AboutText("They like Star Wars, as most people do.", ("Star Wars", str(n))) for n in range(9)]
    assert measure_aboutness(rows).named_other == 1.0


def test_two_of_a_thousand_texts_share_an_opening_by_chance():
    texts = [f"Text number {number} of a user" for number in range(998)] + ["The same five first words"] * 2
    rows = [AboutText(text, ()) for text in texts]
    assert measure_aboutness(rows).num_shared_openings == 0
    assert measure_aboutness(rows[-20:]).num_shared_openings == 2
    assert measure_aboutness(rows + rows[-2:-1] * 20).num_same_opening == 22


def test_a_single_text_has_no_other_to_be_compared_with():
    about = measure_aboutness([AboutText("They like Alien.", ("Alien",))])
    assert (about.named, about.named_other, about.shared_openings) == (1.0, 0.0, 0.0)
    assert measure_aboutness([]).named == 0.0
