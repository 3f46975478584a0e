from pipeline.domains import read_domain


def test_quoted_values_between_tabs_are_csv_with_another_separator(shop, bookshop):
    books = (
        'isbn\tname\tgenres\twriter\tyear\n1\t"The ""Owl"""\tCrime\tAnn\t1999\n2\tMoth\tPoetry\tLee\t2001\n'
    )
    (shop / "books.tsv").write_text(books)
    titles = {}
    for settings in ({"format": "csv", "separator": "\t"}, {"format": "tsv"}):
        tables = read_domain(bookshop(shop, items={"files": "books.tsv", **settings}))
        titles[settings["format"]] = tables.items["title"].to_pylist()[0]
    assert titles == {"csv": 'The "Owl"', "tsv": '"The ""Owl"""'}
