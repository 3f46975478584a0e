"""What is generated: three disjoint sets of entities of each kind, and the warm pool's texts."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from drafters.datastore import DatastoreBuilder, Document, StoreHeader
from pipeline.domains import read_domain
from pipeline.errors import DataError
from pipeline.generate.engine import TextRequest, WrittenText
from pipeline.groups import group_entities
from pipeline.models import ModelSource
from pipeline.models.tokenizer import load_tokenizer
from pipeline.plan import select_entities
from pipeline.prompts import render_prompts
from pipeline.settings import KINDS, Kind, RunSettings
from pipeline.storage.files import write_parquet

TEXTS = pa.schema([
    pa.field("kind", pa.string(), nullable=False),
    pa.field("group", pa.string(), nullable=False),
    pa.field("entity_id", pa.string(), nullable=False),
    pa.field("token_ids", pa.list_(pa.int32()), nullable=False),
])  # fmt: skip


@dataclass(frozen=True)
class Workload:
    """Requests of one kind. No entity is in two of the sets."""

    pool: list[TextRequest]  # their texts are the warm pool
    warmup: list[TextRequest]  # generated once before anything is measured; calibrates drafters
    measured: list[TextRequest]


def make_workloads(
    settings: RunSettings, source: ModelSource, num_pool: int, num_warmup: int, num_measured: int
) -> dict[Kind, Workload]:
    """Split the entities by the hash ranking of `select_entities`: measured, warm-up, then pool."""
    tables = read_domain(settings.dataset)
    wanted = num_measured + num_warmup + num_pool
    chosen = select_entities(group_entities(tables, settings.dataset), wanted)
    rendered = render_prompts(
        tables,
        chosen,
        settings.knowledge,
        settings.model,
        settings.dataset.item_word,
        load_tokenizer(source.path, settings.model.trust_remote_code),
        settings.history_cutoff,
        rating_range=settings.dataset.rating_range,
    )
    workloads = {}
    for kind in KINDS:
        rows = rendered.prompts.filter(pc.equal(rendered.prompts["kind"], kind)).to_pylist()
        order = np.random.default_rng(0).permutation(len(rows))
        requests = [_request(rows[i]) for i in order]
        if len(requests) < num_measured + num_warmup + 1:
            raise DataError(f"{kind}: {len(requests)} entities are too few to measure {num_measured}")
        split = num_measured + num_warmup
        workloads[kind] = Workload(
            pool=requests[split:], warmup=requests[num_measured:split], measured=requests[:num_measured]
        )
    return workloads


def _request(row: dict[str, object]) -> TextRequest:
    names = ("kind", "group", "entity_id", "prompt_token_ids", "max_tokens")
    return TextRequest(f"{row['kind']}-{row['entity_id']}", *(row[name] for name in names))  # type: ignore[arg-type]


def read_texts(path: Path, requests: list[TextRequest]) -> pa.Table | None:
    """Texts that an earlier bench wrote for exactly `requests`, or None."""
    if not path.exists():
        return None
    table = pq.read_table(path, schema=TEXTS)
    found = set(zip(table["kind"].to_pylist(), table["entity_id"].to_pylist(), strict=True))
    return table if found == {(request.kind, request.entity_id) for request in requests} else None


def write_texts(path: Path, requests: list[TextRequest], texts: dict[str, WrittenText]) -> pa.Table:
    """Keep the pool's texts for the next bench with the same model and prompts."""
    rows = [
        {
            "kind": request.kind,
            "group": request.group,
            "entity_id": request.entity_id,
            "token_ids": texts[request.key].token_ids,
        }
        for request in requests
    ]
    table = pa.Table.from_pylist(rows, schema=TEXTS)
    write_parquet(table, path)
    return table


def build_pools(texts: pa.Table, root: Path, version: str, vocab_size: int, tokenizer_hash: str) -> Path:
    """The folder of a datastore version with one pool for each (kind, group) of `texts`."""
    if (root / version).exists():
        return root / version
    builder = DatastoreBuilder(root, StoreHeader(version, vocab_size, tokenizer_hash, source="bench"))
    pools: dict[tuple[str, str], list[Document]] = {}
    for row in texts.to_pylist():
        document = Document.of(row["entity_id"], np.array(row["token_ids"], np.int32))
        pools.setdefault((row["kind"], row["group"]), []).append(document)
    for (kind, group), documents in sorted(pools.items()):
        builder.add(kind, group, documents)
    return builder.finish()
