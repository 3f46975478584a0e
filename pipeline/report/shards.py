"""The finished shards: how long each took, where, and which parts are broken."""

import statistics
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import CorruptPartError
from pipeline.report.figures import NodeTime, ShardFigures, ShardTime
from pipeline.storage.layout import RunLayout
from pipeline.storage.location import open_parquet
from pipeline.storage.parts import PartManifest, committed_shards, read_manifest

NUM_THREADS = 8
NUM_SLOWEST = 10
MAX_NODES = 20


def read_manifests(layout: RunLayout) -> tuple[list[PartManifest], list[str]]:
    """(manifests of the finished shards, in order; a line for each that is unreadable)."""
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        answers = list(threads.map(lambda shard: _manifest(layout, shard), committed_shards(layout)))
    good = [answer for answer in answers if isinstance(answer, PartManifest)]
    return good, [answer for answer in answers if isinstance(answer, str)]


def shard_figures(
    layout: RunLayout, manifests: list[PartManifest], num_planned: int | None, broken: list[str]
) -> ShardFigures:
    """Times of the shards; the slowest are named with their tokens."""
    times = [_shard_time(manifest) for manifest in manifests]
    timed = [time for time in times if time.seconds is not None]
    slowest = sorted(timed, key=_seconds, reverse=True)[:NUM_SLOWEST]
    return ShardFigures(
        num_planned=num_planned,
        num_finished=len(manifests),
        median_sec=_median(timed),
        slowest=[replace(time, num_output_tokens=_num_tokens(layout, time.shard)) for time in slowest],
        nodes=_nodes(timed),
        broken=broken,
    )


def _manifest(layout: RunLayout, shard: str) -> PartManifest | str:
    try:
        return read_manifest(layout, shard)
    except CorruptPartError as error:
        return str(error)


def _shard_time(manifest: PartManifest) -> ShardTime:
    begin, end = manifest.started_at, manifest.finished_at
    seconds = (end - begin).total_seconds() if begin and end else None
    return ShardTime(manifest.shard, manifest.num_rows, len(manifest.failed), seconds, manifest.node)


def _seconds(time: ShardTime) -> float:
    return time.seconds or 0.0


def _median(times: Iterable[ShardTime]) -> float | None:
    seconds = [_seconds(time) for time in times]
    return statistics.median(seconds) if seconds else None


def _nodes(times: list[ShardTime]) -> list[NodeTime]:
    """The machines, the slowest first."""
    by_node: dict[str, list[ShardTime]] = defaultdict(list)
    for time in times:
        by_node[time.node or "unknown"].append(time)
    nodes = [
        NodeTime(node, len(members), sum(time.num_rows for time in members), _median(members) or 0.0)
        for node, members in by_node.items()
    ]
    return sorted(nodes, key=lambda node: -node.median_sec)[:MAX_NODES]


def _num_tokens(layout: RunLayout, shard: str) -> int | None:
    try:
        with open_parquet(layout.part(shard)) as file:
            tokens = file.read(columns=["num_output_tokens"])["num_output_tokens"]
    except (OSError, pa.ArrowException):
        return None
    return int(pc.sum(tokens).as_py() or 0)
