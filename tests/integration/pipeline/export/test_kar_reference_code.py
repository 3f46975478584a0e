"""The KAR export, loaded by KAR's reference code.

That code has no licence, so nothing of it is kept here: the test runs where $KAR_REPO names a checkout of
github.com/YunjiaXi/Open-World-Knowledge-Augmented-Recommendation.
"""

import importlib
import json
import os
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.export.run import export_embeddings
from tests.embeddings import HashEncoder, encode, publish_texts, settings_of, vector_of

CHECKOUT = os.environ.get("KAR_REPO")
pytestmark = pytest.mark.skipif(not CHECKOUT, reason="KAR_REPO names no checkout of KAR's reference code")
TEXTS = {"user": {"1": "likes drama", "2": "likes war"}, "item": {"50": "a film", "51": "another film"}}
INTERACTIONS = [("1", "50"), ("2", "51"), ("9", "77")]  # 9 and 77 have no text
MAX_HISTORY = 5


@pytest.fixture
def export(tmp_path) -> Path:
    layout = publish_texts(tmp_path, "night1", TEXTS)
    encode(tmp_path, HashEncoder())
    layout.tables.mkdir()
    users, items = zip(*INTERACTIONS, strict=True)
    rows = pa.table({"user_id": list(users), "item_id": list(items)})
    pq.write_table(rows, layout.tables / "interactions.parquet")
    return export_embeddings(settings_of(tmp_path)).folder / "kar"


@pytest.fixture
def prepared(export, tmp_path) -> Path:
    """`proc_data/` as KAR's preparation leaves it, and the export put there as docs/features.md says.

    Its own numbers of users and items begin at 1, in the order of INTERACTIONS; a sample is (user, place in
    the user's sequence, label).
    """
    folder = tmp_path / "proc_data"
    folder.mkdir()
    for name in ("knowledge_augment.hist", "knowledge_augment.item"):
        shutil.copy(export / name, folder)
    own = {"attribute_ft_num": 1, "item_num": 3, "attribute_num": 1, "rating_num": 5, "dense_dim": 0}
    contents = {
        "stat.json": own | json.loads((export / "stat.json").read_text()),
        "sequential_data.json": {"1": [[1, 2], [5, 1]], "2": [[2, 1], [4, 2]], "3": [[3, 1], [1, 5]]},
        "item2attributes.json": {"1": [1], "2": [1], "3": [1]},
        "datamaps.json": {
            "id2user": {str(number): user for number, (user, _) in enumerate(INTERACTIONS, 1)},
            "id2item": {str(number): item for number, (_, item) in enumerate(INTERACTIONS, 1)},
        },
    }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "ctr.train").write_bytes(pickle.dumps([[1, 1, 0], [2, 0, 1], [3, 0, 0]]))
    return folder


@pytest.fixture
def reference(monkeypatch):
    """The module `dataset` of the checkout; it and `utils` are gone afterwards, whose names are common."""
    names = ("dataset", "utils")
    before = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    monkeypatch.syspath_prepend(str(Path(CHECKOUT) / "RS"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield importlib.import_module("dataset")
    for name in names:
        sys.modules.pop(name, None)
    sys.modules.update(before)


def test_the_reference_code_reads_the_vector_of_each_user_and_item(prepared, reference):
    samples = reference.AmzDataset(str(prepared), "train", "ctr", MAX_HISTORY, True, "knowledge")
    assert samples.dense_dim == len(vector_of("any text")) and len(samples) == 3
    expected = [("likes drama", "another film"), ("likes war", "another film")]
    for sample, (user, item) in zip(samples, expected, strict=False):
        assert np.array_equal(sample["hist_aug_vec"].numpy(), vector_of(user))
        assert np.array_equal(sample["item_aug_vec"].numpy(), vector_of(item))


def test_who_has_no_text_has_the_mean_vector_of_the_kind(prepared, reference):
    sample = reference.AmzDataset(str(prepared), "train", "ctr", MAX_HISTORY, True, "knowledge")[2]
    for name, kind in (("hist_aug_vec", "user"), ("item_aug_vec", "item")):
        mean = np.mean([vector_of(text) for text in TEXTS[kind].values()], axis=0)
        assert np.allclose(sample[name].numpy(), mean, atol=1e-6)
