"""RecBole: atomic files `<dataset>.useremb` and `<dataset>.itememb`, and the lines for its configuration.

`preload_weight` makes `dataset.get_preload_weight("uid")` a matrix whose rows are RecBole's own ids; an id
without a vector, and row 0 (padding), are zero.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from pipeline.encoder_settings import ExportSettings
from pipeline.errors import DataError
from pipeline.export.view import VectorsView, as_texts
from pipeline.printable import plural
from pipeline.settings import KINDS, Kind
from pipeline.storage.files import replaced_atomically, write_text

ID_FIELDS: dict[Kind, str] = {"user": "uid", "item": "iid"}
CONFIG = "recbole.yaml"
UNWRITABLE = '[\t\r\n" ]'  # RecBole's files have no quotes or escapes, and its lists are split at spaces
# What pandas, which RecBole reads its files with, takes for a missing value.
MISSING = [
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A",
    "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
]  # fmt: skip


def write_recbole(view: VectorsView, folder: Path, settings: ExportSettings) -> list[str]:
    """Write the format's files below `folder`; their names. `DataError` for ids that RecBole cannot read."""
    dataset = view.layout.root.name
    names = []
    for kind in KINDS:
        _reject_unwritable(view.ids(kind), kind)
        name = f"{dataset}.{kind}emb"
        with replaced_atomically(folder / name) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.write(f"{ID_FIELDS[kind]}:token\t{kind}_emb:float_seq\n")
            for ids, vectors in view.batches(kind):
                lines = zip(ids.to_pylist(), as_texts(vectors, " "), strict=True)
                file.writelines(f"{entity_id}\t{numbers}\n" for entity_id, numbers in lines)
        names.append(name)
    text = (
        "# Put the .useremb and .itememb files beside your .inter file, named as your dataset is, and these\n"
        "# lines into your configuration. Of several files the last one's load_col is the only one: your\n"
        "# own entries of load_col belong here. inter: '*' loads all columns of the .inter file.\n"
    )
    write_text(text + yaml.safe_dump(_config(settings), sort_keys=False), folder / CONFIG)
    return [*names, CONFIG]


def _config(settings: ExportSettings) -> dict[str, object]:
    return {
        "USER_ID_FIELD": settings.user_field,
        "ITEM_ID_FIELD": settings.item_field,
        "additional_feat_suffix": [f"{kind}emb" for kind in KINDS],
        "load_col": {"inter": "*", **{f"{kind}emb": [ID_FIELDS[kind], f"{kind}_emb"] for kind in KINDS}},
        "alias_of_user_id": [ID_FIELDS["user"]],
        "alias_of_item_id": [ID_FIELDS["item"]],
        "preload_weight": {ID_FIELDS[kind]: f"{kind}_emb" for kind in KINDS},
    }


def _reject_unwritable(ids: pa.Array, kind: Kind) -> None:
    is_missing = pc.is_in(ids, value_set=pa.array(MISSING))
    bad = ids.filter(pc.or_(pc.match_substring_regex(ids, UNWRITABLE), is_missing))
    if len(bad):
        raise DataError(
            f"export.formats: recbole cannot read {kind} id {bad[0].as_py()!r} "
            f"({plural(len(bad), 'id')} with a space, tab, quote or line break, or that mean a missing "
            "value, as NA); leave recbole out"
        )
