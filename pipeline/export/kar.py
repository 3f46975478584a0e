"""KAR and LASER reference code: JSON of raw id to vector, and the `dense_dim` of its `stat.json`.

That code has no vector for an unknown id (`KeyError`), so ids of the interactions that have no vector are
written too, with the default vector: the mean of all vectors of their kind.
"""

from collections.abc import Iterator
from pathlib import Path

from pipeline.encoder_settings import ExportSettings
from pipeline.export.view import VectorsView, as_json, as_texts
from pipeline.settings import KINDS, Kind
from pipeline.storage.files import replaced_atomically, write_json

PREFIX = "knowledge"  # its option --aug_prefix
SUFFIXES: dict[Kind, str] = {"user": "hist", "item": "item"}
STAT = "stat.json"


def write_kar(view: VectorsView, folder: Path, settings: ExportSettings) -> list[str]:
    """Write the format's files below `folder`; their names. `stat.json` is to be merged with its own."""
    names = []
    for kind in KINDS:
        name = f"{PREFIX}_augment.{SUFFIXES[kind]}"
        with replaced_atomically(folder / name) as temporary, temporary.open("w", encoding="utf-8") as file:
            separator = "{\n"
            for line in _lines(view, kind):
                file.write(separator + line)
                separator = ",\n"
            file.write("\n}\n" if separator.startswith(",") else "{}\n")
        names.append(name)
    write_json({"dense_dim": view.dim}, folder / STAT)
    return [*names, STAT]


def _lines(view: VectorsView, kind: Kind) -> Iterator[str]:
    for ids, vectors in view.batches(kind):
        for entity_id, numbers in zip(ids.to_pylist(), as_texts(vectors, ", "), strict=True):
            yield f"{as_json(entity_id)}: [{numbers}]"
    missing = view.missing[kind].to_pylist()
    if missing:
        default = as_texts(view.default_vector(kind)[None], ", ")[0]
        yield from (f"{as_json(entity_id)}: [{default}]" for entity_id in missing)
