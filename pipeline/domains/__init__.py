"""Raw datasets as domain tables: users, items, interactions, and the rows that could not be used.

`raw/` reads separated text files, `validation` holds the rules every domain shares, and each reader
(`movielens/`) knows the files of its domain. A new reader is a package beside it and a line in `registry`.
"""

from pipeline.domains.registry import raw_data_of, read_domain
from pipeline.domains.tables import DomainTables, write_domain

__all__ = ["DomainTables", "raw_data_of", "read_domain", "write_domain"]
