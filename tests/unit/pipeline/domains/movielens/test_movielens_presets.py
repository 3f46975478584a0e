"""The presets of the sizes that nobody may distribute read a folder in the published form."""

import pyarrow.compute as pc
import pytest

from jobs.config import load_settings
from pipeline.domains import read_domain
from pipeline.groups import group_entities

FILMS = {
    "Toys (1995)::Animation|Children's|Comedy": "family",
    "Harbor (1990)::Drama": "drama",
    "Lanterns (1971)::Drama|Romance|War": "war",
    "Copper Sky (1968)::Action|Western": "western",
    "Paper Wolves (1982)::Sci-Fi|Thriller": "science-fiction-fantasy",
    "Short (2000)::(no genres listed)": "other",
}


@pytest.mark.parametrize("preset", ["movielens-1m", "movielens-10m"])
def test_a_preset_reads_a_folder_and_groups_it(tmp_path, preset):
    films = list(FILMS)
    (tmp_path / "movies.dat").write_text("".join(f"{n}::{film}\n" for n, film in enumerate(films, 1)))
    ratings = [f"{user}::{item}::{1 + (user + item) % 5}::{978300760 + item}\n"
               for user in range(1, 4) for item in range(1, len(films) + 1)]  # fmt: skip
    (tmp_path / "ratings.dat").write_text("".join(ratings))
    if preset == "movielens-1m":
        (tmp_path / "users.dat").write_text("1::F::1::10::48067\n2::M::56::16::70072\n3::M::25::0::55117\n")
    dataset = load_settings("generate", [f"dataset={preset}", f"dataset.raw={tmp_path}"]).dataset
    tables = read_domain(dataset)
    assert (tables.users.num_rows, tables.interactions.num_rows, tables.failed.num_rows) == (3, 18, 0)
    groups = group_entities(tables, dataset)
    items = groups.filter(pc.equal(groups["kind"], "item"))
    found = dict(zip(items["entity_id"].to_pylist(), items["group"].to_pylist(), strict=True))
    assert found == {str(number): group for number, group in enumerate(FILMS.values(), 1)}
    named = {name.replace("_", "-") for name in dataset.item_groups.groups}
    assert set(found.values()) <= {*named, dataset.item_groups.default_group}
