"""The three layouts of Amazon reviews; lines as they were published."""

import gzip
import json

import pytest

from pipeline.domains import read_domain
from pipeline.domains.tabular.core import core_mask
from pipeline.errors import DataError
from pipeline.settings import DatasetSettings


def write_gz(path, lines):
    path.write_bytes(gzip.compress("".join(line + "\n" for line in lines).encode()))


def write_2014(folder):
    reviews = [
        {"reviewerID": user, "asin": item, "reviewerName": "N", "helpful": [2, 3], "reviewText": "Long text.",
         "overall": 5.0, "summary": "s", "unixReviewTime": 1252800000, "reviewTime": "09 13, 2009"}
        for user, item in (("A1", "B1"), ("A1", "B2"), ("A2", "B1"), ("A2", "B2"), ("A3", "B1"))
    ]  # fmt: skip
    write_gz(folder / "reviews.json.gz", map(json.dumps, reviews))
    # Python literals, as the metadata of 2014 are
    meta = [
        "{'asin': 'B1', 'title': \"It's a Mill\", 'price': 3.17, 'brand': 'Acme', "
        "'categories': [['Home', 'Kitchen'], ['Home']]}",
        "{'asin': 'B2', 'title': 'Caf\\xe9 set', 'salesRank': {'Toys': 211836}, 'categories': [['Toys']]}",
        "{'asin': 'B3', 'title': __import__('os').system('false')}",
    ]
    write_gz(folder / "meta.json.gz", meta)


def write_2018(folder):
    reviews = [
        {"overall": 5.0, "verified": True, "reviewerID": user, "asin": item, "style": {"Size:": "M"},
         "reviewText": "x", "unixReviewTime": 1252800000}
        for user, item in (("A1", "B1"), ("A1", "B2"), ("A2", "B1"), ("A2", "B2"), ("A3", "B1"))
    ]  # fmt: skip
    write_gz(folder / "reviews.json.gz", map(json.dumps, reviews))
    meta = [
        {
            "category": ["Home", "Kitchen"],
            "title": "It&#39;s a Mill",
            "brand": "Acme",
            "price": "$3.17",
            "asin": "B1",
        },
        {
            "category": ["Toys"],
            "title": "Caf\u00e9 set",
            "brand": "",
            "feature": ["red", "round"],
            "asin": "B2",
        },
        {"category": [], "title": "", "asin": "B3"},
    ]
    write_gz(folder / "meta.json.gz", map(json.dumps, meta))


def write_2023(folder):
    reviews = [
        {"rating": 5.0, "title": "t", "text": "x", "images": [], "asin": "Z", "parent_asin": item,
         "user_id": user, "timestamp": 1252800000000, "helpful_vote": 0, "verified_purchase": True}
        for user, item in (("A1", "B1"), ("A1", "B2"), ("A2", "B1"), ("A2", "B2"), ("A3", "B1"))
    ]  # fmt: skip
    write_gz(folder / "reviews.json.gz", map(json.dumps, reviews))
    meta = [
        {"main_category": "Home", "title": "It's a Mill", "store": "Acme", "categories": ["Home", "Kitchen"],
         "price": 3.17, "parent_asin": "B1", "details": {"a": 1}},
        {"title": "Caf\u00e9 set", "store": None, "categories": ["Toys"], "parent_asin": "B2"},
        {"title": None, "categories": [], "parent_asin": "B3"},
    ]  # fmt: skip
    write_gz(folder / "meta.json.gz", map(json.dumps, meta))


def settings(folder, **amazon) -> DatasetSettings:
    return DatasetSettings.model_validate({
        "name": "shop", "reader": "amazon", "raw": str(folder), "max_bad_fraction": 0.5, "min_rating": 1,
        "max_rating": 5, "item_word": "product",
        "amazon": {"reviews": "reviews.json.gz", "metadata": "meta.json.gz", "k_core": 1, **amazon},
        "item_groups": {"groups": {}}, "user_groups": {"num_groups": 2, "num_factors": 2},
    })  # fmt: skip


@pytest.mark.parametrize("write", [write_2014, write_2018, write_2023])
def test_every_layout_is_recognized(tmp_path, write):
    write(tmp_path)
    tables = read_domain(settings(tmp_path))
    assert tables.items["title"].to_pylist() == ["It's a Mill", "Caf\u00e9 set"]
    assert tables.items["categories"].to_pylist() == [["Home", "Kitchen"], ["Toys"]]
    assert "Acme" in dict(tables.items["attributes"][0].as_py()).values()
    assert tables.interactions.num_rows == 5
    assert {time.year for time in tables.interactions["timestamp"].to_pylist()} == {2009}
    [bad] = tables.failed.to_pylist()
    assert (bad["file"], bad["line"]) == (str(tmp_path / "meta.json.gz"), 3)


def test_the_k_core_drops_who_has_too_little(tmp_path):
    write_2018(tmp_path)
    tables = read_domain(settings(tmp_path, k_core=2))
    assert (tables.users["user_id"].to_pylist(), tables.interactions.num_rows) == (["A1", "A2"], 4)


def test_of_items_outside_the_core_nothing_is_kept_and_their_bad_rows_are_listed_once(tmp_path):
    write_2018(tmp_path)
    whole = read_domain(settings(tmp_path))
    meta = gzip.decompress((tmp_path / "meta.json.gz").read_bytes()).decode().splitlines()
    lonely = json.dumps({"asin": "B9", "title": "Alone", "category": ["Attic"], "brand": "Nobody"})
    write_gz(tmp_path / "meta.json.gz", [*meta, lonely, "{", meta[0]])
    core = read_domain(settings(tmp_path, k_core=2))
    assert core.items.equals(whole.items)
    assert [(row["line"], row["reason"]) for row in core.failed.to_pylist()] == [
        (3, "no title"),
        (5, "not a JSON object: expecting property name enclosed in double quotes at character 2"),
        (6, "item 'B1' stands already on line 1"),
    ]
    assert '"asin": "B3"' in core.failed["content"][0].as_py()


def test_long_features_are_cut(tmp_path):
    write_2018(tmp_path)
    rows = [
        {"asin": item, "title": item, "category": ["Home"], "feature": ["many words " * 500] * 3}
        for item in ("B1", "B2")
    ]
    write_gz(tmp_path / "meta.json.gz", map(json.dumps, rows))
    attributes = read_domain(settings(tmp_path)).items["attributes"].to_pylist()
    assert [len(dict(pairs)["features"]) for pairs in attributes] == [1000, 1000]


def test_the_preset_reads_the_files_as_they_are_published(tmp_path):
    from jobs.config import load_settings

    write_2018(tmp_path)
    for ours, published in (("reviews", "Books"), ("meta", "meta_Books")):
        (tmp_path / f"{ours}.json.gz").rename(tmp_path / f"{published}.json.gz")
    loaded = load_settings(
        "generate",
        [
            "dataset=amazon_books",
            f"dataset.raw={tmp_path}",
            "dataset.amazon.k_core=2",
            "dataset.max_bad_fraction=0.5",
        ],
    )
    tables = read_domain(loaded.dataset)
    assert tables.items["title"].to_pylist() == ["It's a Mill", "Caf\u00e9 set"]


def test_an_unknown_layout_and_a_cut_archive_are_named(tmp_path):
    write_2018(tmp_path)
    whole = (tmp_path / "reviews.json.gz").read_bytes()
    (tmp_path / "reviews.json.gz").write_bytes(whole[:-12])
    with pytest.raises(DataError, match=r"reviews\.json\.gz: cannot be read"):
        read_domain(settings(tmp_path, layout=2018))
    write_gz(tmp_path / "reviews.json.gz", ['{"stars": 5}'])
    with pytest.raises(DataError, match=r"set dataset\.amazon\.layout"):
        read_domain(settings(tmp_path))


def test_the_core_shrinks_until_it_holds():
    import numpy as np

    users, items = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 0, 1, 1, 2])
    assert core_mask(users, items, 2).tolist() == [True, True, True, True, False, False]
    assert core_mask(users[:0], items[:0], 2).tolist() == []
