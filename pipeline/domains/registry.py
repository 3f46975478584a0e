"""The readers by the name that `dataset.reader` gives them."""

from collections.abc import Callable

from pipeline.domains.amazon.reader import read_amazon
from pipeline.domains.movielens.reader import read_movielens
from pipeline.domains.raw.watch import end_reading
from pipeline.domains.tables import DomainTables
from pipeline.domains.tabular.reader import read_tabular
from pipeline.errors import ConfigError
from pipeline.settings import DatasetSettings

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
