"""The readers by the name that `dataset.reader` gives them."""

from collections.abc import Callable
from itertools import chain

from pipeline.domains.amazon.reader import read_amazon
from pipeline.domains.movielens.reader import read_movielens
from pipeline.domains.raw.watch import end_reading
from pipeline.domains.tables import DomainTables
from pipeline.domains.tabular.reader import read_tabular
from pipeline.errors import ConfigError
from pipeline.settings import DatasetSettings

MAX_SHOWN_FILES = 5
READERS: dict[str, Callable[[DatasetSettings], DomainTables]] = {
    "movielens": read_movielens,
    "tabular": read_tabular,
    "amazon": read_amazon,
}


def read_domain(settings: DatasetSettings) -> DomainTables:
    """Read the raw files of a dataset into domain tables; bad rows are in `failed`.

    Raises `DataError` if files are missing, empty, or have more bad rows than
    `settings.max_bad_fraction` allows.
    """
    if settings.reader not in READERS:
        raise ConfigError(f"dataset.reader={settings.reader} is unknown; there are {', '.join(READERS)}")
    try:
        return READERS[settings.reader](settings)
    finally:
        end_reading()


def raw_data_of(settings: DatasetSettings) -> str:
    """Where the raw files of a dataset are, for a message: a folder, a package, or the files by name."""
    if settings.raw is not None:
        return settings.raw
    if settings.tabular is not None:
        tables = (settings.tabular.users, settings.tabular.items, settings.tabular.interactions)
        files = [table.files for table in tables if table is not None]
    elif settings.amazon is not None:
        files = [settings.amazon.metadata, settings.amazon.reviews]
    else:
        return "MovieLens-100K, which an installed package carries"
    locations = [[several] if isinstance(several, str) else several for several in files]
    different = list(dict.fromkeys(chain.from_iterable(locations)))
    rest = len(different) - MAX_SHOWN_FILES
    return ", ".join(different[:MAX_SHOWN_FILES]) + (f" and {rest} more" if rest > 0 else "")
