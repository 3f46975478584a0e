import pytest

from pipeline.domains.movielens.titles import parse_title


@pytest.mark.parametrize(
    ("raw", "title", "year"),
    [
        ("Lighthouse (1995)", "Lighthouse", "1995"),
        ("Lighthouse, The (1995)", "The Lighthouse", "1995"),
        ("Long Night, A (1957)", "A Long Night", "1957"),
        ("Owl in Oslo, An", "An Owl in Oslo", None),
        ("Nuage, Le (2001)", "Le Nuage", "2001"),
        ("Orage, L' (1994)", "L'Orage", "1994"),
        ("Schiff, Das (1981)", "Das Schiff", "1981"),
        ("Cloud, The (Nuage, Le) (2001)", "The Cloud (Le Nuage)", "2001"),
        ("Owl, The (a.k.a. Night Bird, A) (1999)", "The Owl (a.k.a. A Night Bird)", "1999"),
        ("Owl, the Cat and the Fox, The (1980)", "The Owl, the Cat and the Fox", "1980"),
        ("Me and Me, I (1990)", "Me and Me, I", "1990"),
        ("Quiet, Please (1990)", "Quiet, Please", "1990"),
        ("Lanterns III (1995) (V)", "Lanterns III", "1995"),
        ("Serial (1994-1998)", "Serial", "1994"),
        ("Serial (2007- )", "Serial", "2007"),
        ("Serial (2007\u2013)", "Serial", "2007"),
        ("(90) Steps (1970) ", "(90) Steps", "1970"),
        ("1999 (1975)", "1999", "1975"),
        ("Lighthouse", "Lighthouse", None),
        ("Lighthouse (7)", "Lighthouse (7)", None),
        (" (1995)", "", "1995"),
        ("", "", None),
    ],
)
def test_titles(raw, title, year):
    assert parse_title(raw) == (title, year)
