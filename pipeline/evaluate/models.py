"""CTR models of torch-rechub over one set of fields, with knowledge as additional fields.

Knowledge vectors are a frozen table behind a trained linear map to the width of all other fields, so
that every model takes them as it takes an id. Row 0 of a table stands for an entity without knowledge:
all zeros, and the map has no offset, so it adds nothing. The last column is 1 for entities with knowledge.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch_rechub.basic.features import SequenceFeature, SparseFeature
from torch_rechub.basic.initializers import RandomNormal
from torch_rechub.models.ranking import DIN, AutoInt, DCNv2, DeepFM

from pipeline.evaluate.features import HISTORY, KNOWLEDGE_HISTORY, Field
from pipeline.evaluation_settings import CtrModel, CtrTrainingSettings

INITIAL_STD = 0.01


@dataclass(frozen=True)
class KnowledgeTable:
    """Makes the embedding of a knowledge field; called by torch-rechub."""

    vectors: np.ndarray  # float32 [entities + 1, dimension + 1]

    def __call__(self, vocab_size: int, embed_dim: int, padding_idx: int | None = None) -> nn.Module:
        """A module from ids to vectors of `embed_dim`."""
        table = nn.Embedding.from_pretrained(torch.from_numpy(self.vectors), freeze=True)
        return nn.Sequential(table, nn.Linear(self.vectors.shape[1], embed_dim, bias=False))


def build_model(
    name: CtrModel, fields: list[Field], knowledge: dict[str, np.ndarray], training: CtrTrainingSettings
) -> nn.Module:
    """The model `name` over `fields`; `knowledge`: field -> its frozen table."""
    mlp: dict[str, Any] = {"dims": training.hidden, "dropout": training.dropout}
    features = {field.name: _feature(field, knowledge, training, name == "din") for field in fields}
    plain = [feature for name_, feature in features.items() if name_ != KNOWLEDGE_HISTORY]
    if name == "din":
        return _din(features, mlp)
    if name == "dcnv2":
        return DCNv2(plain, n_cross_layers=2, mlp_params=mlp, use_low_rank_mixture=False)
    if name == "deepfm":
        return DeepFM(plain, plain, mlp)
    return AutoInt(plain, None, num_layers=2, num_heads=2, dropout=0.0, mlp_params=mlp)


def _din(features: dict[str, Any], mlp: dict[str, Any]) -> nn.Module:
    """DIN attends to the liked items by id and, where there is knowledge, by what it says of them."""
    pairs = {HISTORY: "item", KNOWLEDGE_HISTORY: "item_knowledge"}
    pairs = {history: target for history, target in pairs.items() if history in features}
    special = {*pairs, *pairs.values()}
    return DIN(
        features=[feature for name, feature in features.items() if name not in special],
        history_features=[features[name] for name in pairs],
        target_features=[features[name] for name in pairs.values()],
        mlp_params=mlp,
        attention_mlp_params={"dims": [16], "activation": "dice"},
    )


def _feature(
    field: Field, knowledge: dict[str, np.ndarray], training: CtrTrainingSettings, keeps_history: bool
) -> Any:
    table = knowledge.get(field.name)
    initializer = RandomNormal(0, INITIAL_STD) if table is None else KnowledgeTable(table)
    common = {
        "embed_dim": training.embedding_dim,
        "shared_with": field.shares,
        "padding_idx": 0,
        "initializer": initializer,
    }
    if not field.is_list:
        return SparseFeature(field.name, field.size, **common)
    pooling = "concat" if keeps_history and field.name in (HISTORY, KNOWLEDGE_HISTORY) else "mean"
    return SequenceFeature(field.name, field.size, pooling=pooling, **common)
