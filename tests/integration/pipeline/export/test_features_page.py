"""The code of docs/features.md runs as it stands there."""

import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.export.run import export_embeddings
from tests.embeddings import DIM, HashEncoder, allow_recbole, encode, publish_texts, settings_of

CHECKOUT = Path(__file__).resolve().parents[4]
TEXTS = {"user": {"1": "likes drama", "2": "likes war"}, "item": {"50": "a film", "51": "another"}}
ROWS = {"user_id": ["1", "2", "3"], "item_id": ["50", "51", "50"], "label": [1.0, 0.0, 1.0]}


def block(title: str) -> str:
    page = (CHECKOUT / "docs" / "features.md").read_text()
    section = page.split(f"\n## {title}\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return code


@pytest.fixture
def names(tmp_path, monkeypatch):
    """The variables after the page's first block, in a folder with the data that the page speaks of."""
    layout = publish_texts(tmp_path, "night1", TEXTS)
    encode(tmp_path, HashEncoder())
    layout.tables.mkdir()
    pq.write_table(pa.table(ROWS).select(["user_id", "item_id"]), layout.tables / "interactions.parquet")
    export_embeddings(settings_of(tmp_path))
    shutil.copytree(layout.root, tmp_path / "data" / "movielens")
    pq.write_table(pa.table(ROWS), tmp_path / "train.parquet")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(block("Straight from Parquet"), names)
    return names


def test_parquet(names):
    assert names["vectors"].shape == (2, DIM) and names["row_of"] == {"50": 0, "51": 1}


def test_fuxictr(names):
    pytest.importorskip("fuxictr", reason="make ctr-tools installs it")
    exec(block("FuxiCTR"), names)
    layers = names["embedding"].embedding_layer.embedding_layers
    assert layers["item_knowledge"].pretrain_embedding.weight.shape[1] == DIM


def test_recbole(names, tmp_path, monkeypatch):
    pytest.importorskip("texttable", reason="make ctr-tools installs what RecBole needs")
    import pandas as pd

    allow_recbole(monkeypatch)
    exports = names["version"] / "exports" / "recbole"
    folder = tmp_path / "dataset" / "movielens"
    folder.mkdir(parents=True)
    for suffix in ("useremb", "itememb"):
        shutil.copy(exports / f"toy.{suffix}", folder / f"movielens.{suffix}")
    lines = zip(ROWS["user_id"], ROWS["item_id"], strict=True)
    (folder / "movielens.inter").write_text(
        "\n".join(["user_id:token\titem_id:token", *map("\t".join, lines)]) + "\n"
    )
    shutil.copy(exports / "recbole.yaml", tmp_path)
    (tmp_path / "mine.yaml").write_text("data_path: dataset\nuse_gpu: false\n")
    with pd.option_context("future.infer_string", False):
        exec(block("RecBole"), names)
    assert names["item_knowledge"].shape == (3, DIM)


def test_torch(names):
    exec(block("torch"), names)
    assert names["vectors"].shape == (2, DIM) and names["mask"].tolist() == [True, False]
