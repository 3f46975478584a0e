"""Each export is loaded by the very library that it is for; `make ctr-tools` installs them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.export.run import export_embeddings
from tests.embeddings import HashEncoder, allow_recbole, encode, publish_texts, settings_of, vector_of

TEXTS = {
    "user": {"u1": "likes drama", "u2": "likes war", "u3": "likes nothing yet"},
    "item": {f"i{n}": f"item {n}" for n in range(5)},
}
INTERACTIONS = [("u1", "i0", 1), ("u1", "i1", 0), ("u2", "i9", 1), ("u9", "i0", 0)]  # u9, i9: no texts


@pytest.fixture
def exports(tmp_path):
    layout = publish_texts(tmp_path, "night1", TEXTS)
    encode(tmp_path, HashEncoder())
    users, items, _ = zip(*INTERACTIONS, strict=True)
    layout.tables.mkdir()
    pq.write_table(
        pa.table({"user_id": list(users), "item_id": list(items)}), layout.tables / "interactions.parquet"
    )
    return export_embeddings(settings_of(tmp_path)).folder


@pytest.fixture
def processor(exports, tmp_path):
    """FuxiCTR's own, fitted on the interactions with the exported feature entries."""
    pytest.importorskip("fuxictr", reason="make ctr-tools installs it")
    from fuxictr.preprocess import FeatureProcessor

    users, items, labels = zip(*INTERACTIONS, strict=True)
    rows = {"user_id": list(users), "item_id": list(items), "label": np.array(labels, np.float64)}
    pq.write_table(pa.table(rows), tmp_path / "train.parquet")
    ids = {"name": ["user_id", "item_id"], "active": True, "dtype": "str", "type": "categorical"}
    knowledge = yaml.safe_load((exports / "fuxictr" / "feature_cols.yaml").read_text())["feature_cols"]
    processor = FeatureProcessor(
        feature_cols=[ids, *knowledge],
        label_col={"name": "label", "dtype": "float"},
        dataset_id="toy_fuxictr",
        data_root=str(tmp_path),
    )
    data = processor.preprocess(processor.read_data(str(tmp_path / "train.parquet"), "parquet"))
    processor.fit(data, min_categr_count=1)
    return processor


def test_fuxictr_looks_up_the_vector_of_each_id(processor):
    import torch
    from fuxictr.pytorch.layers import FeatureEmbedding

    layer = FeatureEmbedding(processor.feature_map, embedding_dim=6)
    vocabulary = processor.processor_dict["user_knowledge::tokenizer"].vocab
    found = layer.embedding_layer.embedding_layers["user_knowledge"]

    def looked_up(user: str) -> np.ndarray:
        index = vocabulary.get(user, vocabulary["__OOV__"])
        return found(torch.tensor([index])).detach().numpy()[0]

    assert (looked_up("u1") == vector_of("likes drama")).all()
    assert (looked_up("u3") == vector_of("likes nothing yet")).all()  # never seen in training
    assert (looked_up("u9") == 0).all()  # seen in training, without knowledge
    assert (looked_up("nobody") == 0).all()


def test_a_fuxictr_model_trains_on_the_features_and_leaves_the_vectors_alone(processor, tmp_path):
    import torch
    from fuxictr.pytorch.layers import FeatureEmbedding, MLP_Block
    from fuxictr.pytorch.models import BaseModel

    class Perceptron(BaseModel):
        def __init__(self, feature_map):
            super().__init__(feature_map, verbose=0, model_root=str(tmp_path), metrics=["AUC"])
            self.features = FeatureEmbedding(feature_map, embedding_dim=4)
            self.mlp = MLP_Block(16, hidden_units=[8], output_dim=1, output_activation="sigmoid")
            self.compile("adam", "binary_crossentropy", 0.1)

        def forward(self, inputs):
            return {"y_pred": self.mlp(self.features(self.get_inputs(inputs)).flatten(start_dim=1))}

    torch.manual_seed(0)
    users, items = np.array(["u1", "u2", "u9", "u1"]), np.array(["i0", "i1", "new", "i2"])
    labels = np.array([1.0, 0.0, 0.0, 1.0])
    columns = {"user_id": users, "user_knowledge": users, "item_id": items, "item_knowledge": items}
    encoded = processor.transform(columns | {"label": labels})
    batch = {name: torch.tensor(np.asarray(encoded[name]).astype(int)) for name in columns}
    batch["label"] = torch.tensor(labels, dtype=torch.float32)
    model = Perceptron(processor.feature_map)
    model._max_gradient_norm = 10.0
    pretrained = {name: values.clone() for name, values in model.state_dict().items() if "pretrain" in name}
    losses = [model.train_step(batch).item() for _ in range(20)]
    assert losses[-1] < losses[0] / 2
    after = model.state_dict()
    frozen = {name for name, values in pretrained.items() if torch.equal(values, after[name])}
    assert {name for name in pretrained if "pretrain_embedding" in name} == frozen


@pytest.fixture
def recbole(monkeypatch):
    """RecBole, with the names of numpy 1 and the text columns of pandas 2, which it was written for."""
    import pandas as pd

    pytest.importorskip("texttable", reason="make ctr-tools installs what RecBole needs")
    allow_recbole(monkeypatch)
    with pd.option_context("future.infer_string", False):
        yield


def test_recbole_aligns_the_vectors_with_its_own_ids(exports, tmp_path, recbole):
    from recbole.config import Config
    from recbole.data import create_dataset

    folder = tmp_path / "recbole" / "toy"
    folder.mkdir(parents=True)
    for suffix in ("useremb", "itememb"):
        (folder / f"toy.{suffix}").write_bytes((exports / "recbole" / f"toy.{suffix}").read_bytes())
    lines = ["user_id:token\titem_id:token", *(f"{user}\t{item}" for user, item, _ in INTERACTIONS)]
    (folder / "toy.inter").write_text("\n".join(lines) + "\n")
    exported = yaml.safe_load((exports / "recbole" / "recbole.yaml").read_text())
    values = {"data_path": str(folder.parent), "use_gpu": False, **exported}
    dataset = create_dataset(Config(model="BPR", dataset="toy", config_dict=values))
    for kind, field, texts in (("user", "uid", TEXTS["user"]), ("item", "iid", TEXTS["item"])):
        weight = dataset.get_preload_weight(field)
        for name, text in texts.items():
            row = dataset.token2id(f"{kind}_id", name)
            assert (weight[row].astype(np.float32) == vector_of(text)).all()
        unknown = dataset.token2id(f"{kind}_id", f"{kind[0]}9")
        assert (weight[unknown] == 0).all() and (weight[0] == 0).all()


def test_torch_embedding_covers_unknown_ids(exports):
    import torch

    folder = exports / "torch"
    weight = torch.from_numpy(np.load(folder / "item_weight.npy"))
    rows = dict(zip(*pq.read_table(folder / "item_ids.parquet").to_pydict().values(), strict=True))
    mask = torch.from_numpy(np.load(folder / "item_mask.npy"))
    embedding = torch.nn.Embedding.from_pretrained(weight, freeze=True)
    index = torch.tensor([rows.get(item, 0) for item in ("i3", "i9", "never seen")])
    found = embedding(index)
    assert (found[0].numpy() == vector_of("item 3")).all()
    assert (found[1] == found[2]).all() and mask[index].tolist() == [True, False, False]
