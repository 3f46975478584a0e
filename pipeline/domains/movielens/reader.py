"""MovieLens in all its published forms as domain tables."""

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.domains.interactions import InteractionRules, read_interactions
from pipeline.domains.movielens.forms import AddCategories
from pipeline.domains.movielens.locate import locate_files
from pipeline.domains.movielens.people import with_words
from pipeline.domains.movielens.titles import parse_title
from pipeline.domains.raw.failures import FailureLog, reject
from pipeline.domains.raw.files import RawFile, read_all_rows
from pipeline.domains.tables import DomainTables, attribute_maps, users_of, with_column
from pipeline.domains.validation import with_unique, with_values
from pipeline.errors import ConfigError
from pipeline.schemas import ITEMS, USERS, conform
from pipeline.settings import DatasetSettings
from pipeline.storage.unreachable import naming_unreachable_store


def read_movielens(settings: DatasetSettings) -> DomainTables:
    """Read the folder or URI `settings.raw`, or the embedded MovieLens-100K if it is null."""
    with naming_unreachable_store(settings.raw or ""):
        return _read(settings)


def _read(settings: DatasetSettings) -> DomainTables:
    files = locate_files(settings.raw)
    items, bad_items = _read_items(files.items, files.add_categories, settings)
    users, bad_users = _read_users(files.users, settings) if files.users else (None, None)
    if settings.rating_range is None:
        raise ConfigError("dataset.min_rating: missing; the ratings need a range")
    low, high = settings.rating_range
    rules = InteractionRules(
        items=items["item_id"].combine_chunks(),
        users=None if users is None else users["user_id"].combine_chunks(),
        min_rating=low,
        max_rating=high,
    )
    log = FailureLog(files.interactions.path)
    interactions = read_interactions(files.interactions, rules, log)
    log.check(settings.max_bad_fraction)
    if users is None:
        users = users_of(interactions)
    failed = [table for table in (bad_items, bad_users, log.table()) if table is not None]
    return DomainTables(users, items, interactions, pa.concat_tables(failed))


def _read_items(
    raw: RawFile, add_categories: AddCategories, settings: DatasetSettings
) -> tuple[pa.Table, pa.Table]:
    """ITEMS, and the FAILED rows of the file."""
    log = FailureLog(raw.path)
    rows = with_values(read_all_rows(raw, log), "item_id", "item id", log)
    rows = _with_titles(rows, log)
    rows = with_unique(add_categories(rows, log), "item_id", "item", log)
    log.check(settings.max_bad_fraction)
    attributes = attribute_maps({"year": rows["release"].combine_chunks()}, rows.num_rows)
    table = rows.select(["item_id", "title", "categories"]).append_column("attributes", attributes)
    return conform(table, ITEMS, str(raw.path), unique=("item_id",)), log.table()


def _with_titles(rows: pa.Table, log: FailureLog) -> pa.Table:
    """`rows` with a clean `title`, and `release`, the year that the title or another column names."""
    parsed = [parse_title(title) for title in rows["title"].to_pylist()]
    titles = pa.array([title for title, _ in parsed], pa.string())
    years = pc.coalesce(pa.array([year for _, year in parsed], pa.string()), _year_column(rows))
    rows = with_column(rows, "title", titles)
    return reject(rows.append_column("release", years), pc.equal(titles, ""), "missing title", log)


def _year_column(rows: pa.Table) -> pa.Array:
    """The year of `year` (1995) or `release_date` (01-Jan-1995), whichever column is there; else null."""
    for column in ("year", "release_date"):
        if column in rows.column_names:
            found = pc.extract_regex(
                rows[column].combine_chunks(), r"^(?:[0-9]+-[A-Za-z]+-)?(?P<year>[12][0-9]{3})$"
            )
            return pc.struct_field(found, "year")
    return pa.nulls(rows.num_rows, pa.string())


def _read_users(raw: RawFile, settings: DatasetSettings) -> tuple[pa.Table, pa.Table]:
    """USERS, and the FAILED rows of the file."""
    log = FailureLog(raw.path)
    rows = with_values(read_all_rows(raw, log), "user_id", "user id", log)
    rows = with_unique(with_words(rows, log), "user_id", "user", log)
    log.check(settings.max_bad_fraction)
    words = {name: rows[name].combine_chunks() for name in ("age", "gender", "occupation")}
    table = rows.select(["user_id"]).append_column("attributes", attribute_maps(words, rows.num_rows))
    return conform(table, USERS, str(raw.path), unique=("user_id",)), log.table()
