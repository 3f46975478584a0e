"""Files of which no row, or no row that is new, can be used."""

from pathlib import PurePath

import pytest

from pipeline.domains import read_domain
from pipeline.errors import DataError

LATER_BOOKS = "isbn,name,genres,writer,year\n"


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("1,Low Tide,Crime,Ann Lee,1999\n", "item '1' stands already in an earlier file"),
        ("3,,Crime,Ann Lee,1999\n", "no title"),
        (",Name,Crime,Ann Lee,1999\n", "no item id"),
    ],
)
def test_a_later_file_of_items_adds_nothing(shop, bookshop, rows, reason):
    (shop / "more.csv").write_text(LATER_BOOKS + rows)
    items = {"files": ["books.csv", "more.csv"], "duplicates": "error"}
    tables = read_domain(bookshop(shop, items=items))
    assert tables.items["item_id"].to_pylist() == ["1", "2"]
    assert [(PurePath(row["file"]).name, row["reason"]) for row in tables.failed.to_pylist()] == [
        ("more.csv", reason)
    ]


@pytest.mark.parametrize("attributes", [{}, {"home": "town"}])
def test_a_later_file_of_users_adds_nothing(shop, bookshop, attributes):
    (shop / "a.csv").write_text("who,town\na,Ghent\nb,Lyon\n")
    (shop / "b.csv").write_text("who,town\na,Ghent\n")
    users = {"files": "[ab].csv", "id": "who", "attributes": attributes, "duplicates": "error"}
    tables = read_domain(bookshop(shop, users=users))
    assert tables.users["user_id"].to_pylist() == ["a", "b"]
    assert tables.failed["reason"].to_pylist() == ["user 'a' stands already in an earlier file"]


@pytest.mark.parametrize("limit", [0.5, 1.0])
@pytest.mark.parametrize("k_core", [1, 2])
def test_a_table_without_a_good_row_is_one_true_line(shop, bookshop, limit, k_core):
    def fails(**parts) -> str:
        with pytest.raises(DataError) as caught:
            read_domain(bookshop(shop, max_bad_fraction=limit, k_core=k_core, **parts))
        return str(caught.value)

    (shop / "who.csv").write_text("who,town\n,Ghent\n ,Lyon\n")
    assert fails(users={"files": "who.csv", "id": "who"}) == (
        f"dataset.tabular.users: none of 2 rows is good; first, line 2 of {shop / 'who.csv'}: no user id"
    )
    (shop / "loans.csv").write_text("reader,isbn,stars,at\na,9,5,1\n")
    assert "interactions: its only row is not good; first, line 2" in fails()
    (shop / "books.csv").write_text(LATER_BOOKS + "1,,Crime,Ann Lee,1999\n")
    assert "items: its only row is not good; first, line 2" in fails()


def test_bad_items_outside_the_core_stop_nothing(shop, bookshop):
    (shop / "books.csv").write_text(
        LATER_BOOKS + "1,One,x,y,1\n2,Two,x,y,1\n" + "".join(f"{n},,x,y,1\n" for n in range(3, 9))
    )
    (shop / "loans.csv").write_text("reader,isbn,stars,at\na,1,5,1\na,2,4,2\nb,1,3,3\nb,2,3,4\n")
    tables = read_domain(bookshop(shop, k_core=2, max_bad_fraction=0.05))
    assert (tables.items.num_rows, tables.failed["reason"].to_pylist()) == (2, ["no title"] * 6)
    with pytest.raises(DataError, match="6 of 8 rows are bad, more than"):
        read_domain(bookshop(shop, max_bad_fraction=0.05))
    (shop / "loans.csv").write_text((shop / "loans.csv").read_text() + "a,3,5,9\n")
    with pytest.raises(DataError, match=r"1 of 5 rows is bad.*unknown item '3'"):
        read_domain(bookshop(shop, k_core=2, max_bad_fraction=0.05))
