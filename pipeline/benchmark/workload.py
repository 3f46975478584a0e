"""What is generated: disjoint sets of entities of each kind, and the warm pool's texts."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from drafters.datastore import DatastoreBuilder, Document, StoreHeader
from pipeline.bench_settings import BenchSettings
from pipeline.errors import ConfigError, DataError
from pipeline.generate.engine import TextRequest, WrittenText
from pipeline.models import ModelSource
from pipeline.plan import select_entities
from pipeline.publish.snapshot import read_columns, snapshot_in_force
from pipeline.road import group_tables, read_tables, render_chosen
from pipeline.settings import KINDS, Kind, RunSettings
from pipeline.sharing import origins
from pipeline.storage.files import sha256_of_rows, write_parquet
from pipeline.storage.layout import DatasetLayout

logger = logging.getLogger(__name__)

FILLER_BATCHES = 3
MAX_FILLERS = 96  # with 64 measured texts, prompts of 300 tokens fit the 2 GiB of the embedded model

TEXTS = pa.schema([
    pa.field("kind", pa.string(), nullable=False),
    pa.field("group", pa.string(), nullable=False),
    pa.field("entity_id", pa.string(), nullable=False),
    pa.field("token_ids", pa.list_(pa.int32()), nullable=False),
])  # fmt: skip


@dataclass(frozen=True)
class Workload:
    """Requests of one kind. No entity is in two of the sets."""

    rounds: list[list[TextRequest]]  # measured; each round has texts of its own
    fillers: list[TextRequest]  # keep the batch full until the last measured text ends; see `num_fillers`
    warmup: list[TextRequest]  # generated once before anything is measured; calibrates drafters
    pool: list[TextRequest]  # their texts are the warm pool

    @property
    def outsiders(self) -> set[str]:
        """Ids of the entities whose texts must not be in the pool."""
        measured = [request for requests in self.rounds for request in requests]
        return {request.entity_id for request in [*measured, *self.fillers, *self.warmup]}


def num_texts(concurrency: int) -> int:
    """Texts that are measured in one round: at least a full batch, and not too few of small ones."""
    return max(concurrency, int(6 * concurrency**0.5))


def num_fillers(concurrency: int) -> int:
    """Texts behind the measured ones of a round: three batches, so that short texts do not empty it.

    A round of a large batch needs fewer, for its measured texts all begin together; and all prompts of a
    round have to stay in the prefix cache.
    """
    return max(concurrency, min(FILLER_BATCHES * concurrency, MAX_FILLERS))


def make_workloads(settings: RunSettings, source: ModelSource) -> dict[Kind, Workload]:
    """Split the entities: chosen by the hash ranking of `select_entities`, then in a seeded random order.

    Of entities with the same prompt the first stands for all: a run generates their text once, and another
    one of them would be drafted from it.
    """
    bench = settings.bench
    num_outside = _num_measured(bench) + _num_fillers(bench) + bench.num_warmup
    num_pool = 0 if bench.use_published else bench.num_pool
    tables = read_tables(settings)
    chosen = select_entities(group_tables(settings, tables), num_outside + num_pool)
    rendered = render_chosen(settings, tables, chosen, source)
    is_first = origins(rendered.prompts, lambda kind, group: "kind") == np.arange(rendered.prompts.num_rows)
    prompts = rendered.prompts.filter(pa.array(is_first))
    workloads = {}
    for kind in KINDS:
        rows = prompts.filter(pc.equal(prompts["kind"], kind)).to_pylist()
        order = np.random.default_rng(0).permutation(len(rows))
        requests = [_request(rows[i]) for i in order]
        if len(requests) < num_outside + min(num_pool, 1):
            raise DataError(
                f"{kind}: {len(requests)} different prompts are too few, {num_outside} are measured or warm "
                "up; lower bench.concurrencies or bench.num_repeats"
            )
        workloads[kind] = _split(requests, bench)
    return workloads


def _split(requests: list[TextRequest], bench: BenchSettings) -> Workload:
    size = num_texts(max(bench.concurrencies))
    rounds = [requests[first : first + size] for first in range(0, _num_measured(bench), size)]
    rest = requests[_num_measured(bench) :]
    num_behind, num_warm = _num_fillers(bench), _num_fillers(bench) + bench.num_warmup
    return Workload(rounds, rest[:num_behind], rest[num_behind:num_warm], rest[num_warm:])


def _num_measured(bench: BenchSettings) -> int:
    return bench.num_repeats * num_texts(max(bench.concurrencies))


def _num_fillers(bench: BenchSettings) -> int:
    return num_fillers(max(bench.concurrencies))


def _request(row: dict[str, object]) -> TextRequest:
    names = ("kind", "group", "entity_id", "prompt_token_ids", "max_tokens")
    return TextRequest(f"{row['kind']}-{row['entity_id']}", *(row[name] for name in names))  # type: ignore[arg-type]


def published_texts(settings: RunSettings, source: ModelSource, workloads: dict[Kind, Workload]) -> pa.Table:
    """The texts in force of all entities that are not measured, as the pool. Schema TEXTS.

    Raises `ConfigError` if nothing is published, or texts of another model or prompt set are.
    """
    layout = DatasetLayout.of(settings.paths.data, settings.dataset.name)
    snapshot = snapshot_in_force(layout)
    if snapshot is None:
        raise ConfigError("bench.use_published=true: nothing is published yet; make nightly publishes texts")
    rows = read_columns(layout, snapshot, [*TEXTS.names, "model_revision", "knowledge"])
    prompt_set = settings.knowledge.name
    for column, wanted, of in (
        ("model_revision", source.revision, f"model than {settings.model.name}, {source.revision}"),
        ("knowledge", prompt_set, f"prompt set than {prompt_set}"),
    ):
        if pc.any(pc.not_equal(rows[column], wanted), min_count=0).as_py():
            raise ConfigError(
                f"bench.use_published=true: version {snapshot.version} holds texts of another {of}"
            )
    parts = []
    for kind, workload in workloads.items():
        of_kind = rows.filter(pc.equal(rows["kind"], kind))
        outside = pc.is_in(of_kind["entity_id"], value_set=pa.array(sorted(workload.outsiders), pa.string()))
        parts.append(of_kind.filter(pc.invert(outside)))
    pool = pa.concat_tables(parts).select(TEXTS.names).cast(TEXTS)
    logger.info("pool: %d texts of version %s", pool.num_rows, snapshot.version)
    return pool


def read_texts(path: Path) -> pa.Table:
    """Texts that an earlier bench wrote."""
    return pq.read_table(path, schema=TEXTS)


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


def pool_version(texts: pa.Table) -> str:
    """A name for exactly these `texts` (schema TEXTS)."""
    return f"pools-{sha256_of_rows(texts)[:12]}"


def build_pools(texts: pa.Table, root: Path, vocab_size: int, tokenizer_hash: str) -> Path:
    """The folder of a datastore version with one pool for each (kind, group) of `texts`."""
    version = pool_version(texts)
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
