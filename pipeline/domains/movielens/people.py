"""Attributes of MovieLens users in words.

The codes of ml-1m are those that its README publishes. Zip codes are left out: they say where a
person lives, not what they like.
"""

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.domains.raw.failures import FailureLog, reject
from pipeline.domains.tables import with_column

AGES = {
    "1": "under 18",
    "18": "18-24",
    "25": "25-34",
    "35": "35-44",
    "45": "45-49",
    "50": "50-55",
    "56": "56 or older",
}
OCCUPATIONS = {
    "0": "other",
    "1": "academic or educator",
    "2": "artist",
    "3": "clerical or administrative worker",
    "4": "college or graduate student",
    "5": "customer service worker",
    "6": "doctor or health care worker",
    "7": "executive or manager",
    "8": "farmer",
    "9": "homemaker",
    "10": "K-12 student",
    "11": "lawyer",
    "12": "programmer",
    "13": "retired",
    "14": "sales or marketing worker",
    "15": "scientist",
    "16": "self-employed",
    "17": "technician or engineer",
    "18": "tradesman or craftsman",
    "19": "unemployed",
    "20": "writer",
}
GENDERS = {"F": "female", "M": "male"}
SAYS_NOTHING = ("", "none", "other")


def with_words(rows: pa.Table, log: FailureLog) -> pa.Table:
    """`rows` with the columns age, gender and occupation in words; null where nothing is known.

    Ages and occupations are codes if all occupations are numbers, as in ml-1m. A code that its README
    does not list makes a bad row.
    """
    if pc.all(pc.match_substring_regex(rows["occupation"], "^[0-9]+$")).as_py():
        rows = _decoded(rows, "age", AGES, log)
        rows = _decoded(rows, "occupation", OCCUPATIONS, log)
    rows = _decoded(rows, "gender", GENDERS, log)
    for column in ("age", "gender", "occupation"):
        nothing = pc.is_in(rows[column], value_set=pa.array(SAYS_NOTHING))
        rows = with_column(rows, column, pc.if_else(nothing, None, rows[column]))
    return rows


def _decoded(rows: pa.Table, column: str, words: dict[str, str], log: FailureLog) -> pa.Table:
    unknown = pc.invert(pc.is_in(rows[column], value_set=pa.array(["", *words])))
    rows = reject(rows, unknown, f"{column} '{{{column}}}' is not one of {', '.join(words)}", log)
    position = pc.index_in(rows[column], value_set=pa.array(list(words)))
    return with_column(rows, column, pa.array(list(words.values())).take(position.combine_chunks()))
