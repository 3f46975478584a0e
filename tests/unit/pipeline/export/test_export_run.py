import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.encode.versions import complete_versions, embeddings_in_force
from pipeline.errors import DataError
from pipeline.export.run import ExportReport, export_embeddings
from pipeline.export.view import as_texts
from pipeline.storage.files import write_parquet
from tests.embeddings import HashEncoder, encode, publish_texts, settings_of, vector_of

TEXTS = {"user": {"u1": "likes drama", "u2": "likes war"}, "item": {f"i{n}": f"item {n}" for n in range(5)}}
INTERACTIONS = [("u1", "i0"), ("u1", "i1"), ("u2", "i9"), ("u3", "i0"), ("u4", "i9")]


@pytest.fixture
def layout(tmp_path):
    layout = publish_texts(tmp_path, "night1", TEXTS)
    encode(tmp_path, HashEncoder(), rows_per_part=2)
    write_interactions(layout)
    return layout


def write_interactions(layout) -> None:
    users, items = zip(*INTERACTIONS, strict=True)
    table = pa.table({"user_id": list(users), "item_id": list(items)})
    write_parquet(table, layout.tables / "interactions.parquet")


def export(tmp_path, **values) -> ExportReport:
    return export_embeddings(settings_of(tmp_path, values))


def test_coverage_counts_ids_and_interactions(layout, tmp_path):
    report = export(tmp_path, formats=["torch"])
    content = json.loads((report.folder / "coverage.json").read_text())
    assert content == report.coverage.as_dict()
    assert (content["num_interactions"], content["num_interactions_covered"]) == (5, 2)
    assert content["user"] == {
        "num_ids": 4, "num_ids_covered": 2, "share_of_ids": 0.5,
        "num_interactions_covered": 3, "share_of_interactions": 0.6,
    }  # fmt: skip
    assert content["item"]["num_ids"] == 3 and content["item"]["num_ids_covered"] == 2


def test_fuxictr_keys_and_values_stay_together(layout, tmp_path):
    report = export(tmp_path, formats=["fuxictr"], user_field="uid")
    arrays = np.load(report.folder / "fuxictr" / "uid.npz", allow_pickle=False)
    assert arrays["key"].tolist() == ["u1", "u2"] and arrays["value"].dtype == np.float32
    assert (arrays["value"] == np.stack([vector_of(text) for text in TEXTS["user"].values()])).all()
    assert report.files["fuxictr"] == ["item_id.npz", "uid.npz", "feature_cols.yaml"]


def test_kar_has_a_vector_for_every_id_of_the_interactions(layout, tmp_path):
    folder = export(tmp_path, formats=["kar"]).folder / "kar"
    users = json.loads((folder / "knowledge_augment.hist").read_text())
    assert set(users) == {"u1", "u2", "u3", "u4"}
    assert (np.float32(users["u1"]) == vector_of("likes drama")).all()
    mean = np.mean([vector_of(text) for text in TEXTS["user"].values()], axis=0)
    assert users["u3"] == users["u4"] and np.allclose(users["u3"], mean)
    assert set(json.loads((folder / "knowledge_augment.item").read_text())) == {*TEXTS["item"], "i9"}
    assert json.loads((folder / "stat.json").read_text()) == {"dense_dim": 6}


def test_torch_rows_mask_and_default(layout, tmp_path):
    folder = export(tmp_path, formats=["torch"]).folder / "torch"
    weight, mask = np.load(folder / "user_weight.npy"), np.load(folder / "user_mask.npy")
    rows = dict(zip(*pq.read_table(folder / "user_ids.parquet").to_pydict().values(), strict=True))
    assert rows == {"u1": 1, "u2": 2, "u3": 3, "u4": 4} and weight.shape == (5, 6)
    assert mask.tolist() == [False, True, True, False, False]
    assert (weight[rows["u2"]] == vector_of("likes war")).all()
    assert (weight[0] == weight[3]).all() and np.allclose(weight[0], weight[1:3].mean(axis=0))


def test_a_kind_without_texts_is_exported_as_nothing_but_the_default(tmp_path):
    layout = publish_texts(tmp_path, "night1", {"item": TEXTS["item"]})
    encode(tmp_path, HashEncoder())
    write_interactions(layout)
    report = export(tmp_path)
    assert json.loads((report.folder / "kar" / "knowledge_augment.hist").read_text())["u1"] == [0.0] * 6
    assert np.load(report.folder / "torch" / "user_mask.npy").sum() == 0
    assert len(np.load(report.folder / "fuxictr" / "user_id.npz")["key"]) == 0
    assert report.coverage.num_both_covered == 0


@pytest.mark.parametrize("entity_id", ["a b", "NA"])
def test_ids_that_recbole_cannot_read_are_named(tmp_path, entity_id):
    layout = publish_texts(tmp_path, "night1", {"item": {entity_id: "text"}})
    encode(tmp_path, HashEncoder())
    write_interactions(layout)
    with pytest.raises(DataError, match=f"recbole cannot read item id '{entity_id}'"):
        export(tmp_path, formats=["recbole"])
    assert not list(layout.embeddings.rglob("recbole/export.json"))
    export(tmp_path, formats=["kar", "torch", "fuxictr"])


def test_the_marker_names_the_version(layout, tmp_path):
    report = export(tmp_path)
    for name, files in report.files.items():
        content = json.loads((report.folder / name / "export.json").read_text())
        assert content["version"] == embeddings_in_force(layout).version and content["files"] == files
        assert all((report.folder / name / file).exists() for file in files)


def test_nothing_to_export_is_named(tmp_path):
    with pytest.raises(DataError, match="no embeddings are in force; `make encode` makes them"):
        export(tmp_path)
    with pytest.raises(DataError, match="version=x: no complete embeddings"):
        export(tmp_path, version="x")


def test_numbers_as_text_are_the_same_numbers():
    vectors = np.random.default_rng(0).standard_normal((100, 7)).astype(np.float32)
    vectors[0] = [0, 1, -1e-30, 3.4e38, 1e-45, 123456.79, -0.0]
    parsed = np.array([list(map(float, text.split(" "))) for text in as_texts(vectors, " ")])
    assert (parsed.astype(np.float32) == vectors).all()
    assert json.loads(f"[{as_texts(vectors, ', ')[0]}]") == parsed[0].tolist()


def test_all_of_it_in_an_object_store():
    data = "memory://exports"
    layout = publish_texts(data, "night1", TEXTS)
    encode(data, HashEncoder(), rows_per_part=2, reduced_dim=2)
    publish_texts(data, "night2", {"item": TEXTS["item"] | {"i0": "new"}, "user": TEXTS["user"]})
    encoder = HashEncoder()
    second = encode(data, encoder, reduced_dim=2, keep_versions=1)
    assert encoder.texts == ["new"] and second.embeddings.counts["item"] == {"encoded": 1, "kept": 4}
    assert [item.version for item in complete_versions(layout)] == [second.embeddings.version]
    write_interactions(layout)
    report = export(data)
    assert json.loads((report.folder / "coverage.json").read_text())["num_interactions_covered"] == 2
    assert all((report.folder / name / file).exists() for name in report.files for file in report.files[name])
