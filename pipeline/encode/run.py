"""The whole step: texts of a snapshot or a run to a complete version of embeddings.

Memory: ids and hashes of all entities of a kind, and one part of texts and vectors.
"""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from pipeline.encode import versions
from pipeline.encode.encoder import Encoder, EncoderIdentity, Vectors, load_encoder
from pipeline.encode.locate import locate_encoder
from pipeline.encode.parts import PartsOfKind, Rows
from pipeline.encode.reduction import Reduction
from pipeline.encode.source import KEYS, Source, find_source
from pipeline.encode.vectors import VectorMaker, sampled_texts
from pipeline.encode.versions import Embeddings, as_matrix
from pipeline.encoder_settings import EncoderSettings
from pipeline.errors import CorruptPartError, DataError
from pipeline.publish.snapshot import snapshot_in_force
from pipeline.settings import KINDS, Kind, RunSettings
from pipeline.stages import stage
from pipeline.storage.files import sha256_of_json
from pipeline.storage.layout import DatasetLayout
from pipeline.storage.location import open_parquet
from pipeline.storage.lock import exclusive

logger = logging.getLogger(__name__)
VERSION_CHARS = 8


@dataclass(frozen=True)
class EncodeReport:
    """What was done. Of the vectors, `num_resumed` were there from an earlier attempt that was stopped."""

    embeddings: Embeddings
    was_complete: bool
    num_resumed: int
    elapsed_sec: float


@dataclass(frozen=True)
class _Step:
    """What encoding one version needs to know."""

    layout: DatasetLayout
    settings: EncoderSettings
    source: Source
    identity: EncoderIdentity
    previous: Embeddings | None
    version: str
    maker: VectorMaker


def encode_knowledge(
    settings: RunSettings, load: Callable[[EncoderSettings], Encoder] = load_encoder
) -> EncodeReport:
    """Encode what has no vector yet, keep the vectors of unchanged texts, and put the version in force.

    `load` gives the encoder; it is not called if every vector is there. A step that was stopped goes on
    with the next part. An unpublished run's embeddings are put in force only while nothing is published.
    Raises `PipelineError`.
    """
    started = time.monotonic()
    layout = DatasetLayout.of(settings.paths.data, settings.dataset.name)
    source = find_source(layout, settings.run_id)
    identity = EncoderIdentity.of(settings.encoder, locate_encoder(settings.encoder))
    previous = versions.embeddings_in_force(layout)
    version = _version_name(layout, source, identity, settings.encoder)
    if versions.is_complete(layout, version):
        embeddings = versions.read_embeddings(layout, version)
        _put_in_force(layout, source, embeddings)
        return EncodeReport(embeddings, True, 0, time.monotonic() - started)
    maker = VectorMaker(lambda: load(settings.encoder))
    step = _Step(layout, settings.encoder, source, identity, previous, version, maker)
    with exclusive(versions.version_folder(layout, version)):
        embeddings, num_resumed = _make_version(step)
    _put_in_force(layout, source, embeddings)
    for removed in versions.prune(layout, settings.encoder.keep_versions):
        logger.info("removed %s", removed)
    return EncodeReport(embeddings, False, num_resumed, time.monotonic() - started)


def _version_name(
    layout: DatasetLayout, source: Source, identity: EncoderIdentity, settings: EncoderSettings
) -> str:
    """Named by texts and encoder, so that the same command resumes. A refit never replaces a complete one."""
    content = {
        "encoder": identity.fingerprint,
        "reduced_dim": settings.reduced_dim,
        "texts": source.digest,
    }
    name = f"{source.name}-{sha256_of_json(content)[:VERSION_CHARS]}"
    if not settings.refit:
        return name
    number = 1
    while versions.is_complete(layout, f"{name}-refit{number}"):
        number += 1
    return f"{name}-refit{number}"


def _put_in_force(layout: DatasetLayout, source: Source, embeddings: Embeddings) -> None:
    if source.is_published or snapshot_in_force(layout) is None:
        versions.put_in_force(layout, embeddings.version)


def _make_version(step: _Step) -> tuple[Embeddings, int]:
    """(the complete version, how many vectors an earlier attempt had left)."""
    step.maker.reduction = _reduction(step)
    fingerprint = _vector_fingerprint(step)
    metadata = _metadata(step, fingerprint)
    counts: dict[str, dict[str, int]] = {}
    parts: list[PartsOfKind] = []
    num_resumed = 0
    for kind in KINDS:
        found = PartsOfKind(
            versions.version_folder(step.layout, step.version), kind, step.source.keys(kind), metadata
        )
        num_resumed += found.num_rows
        num_kept = _keep_previous(step, fingerprint, found, kind)
        _encode_rest(step, found, kind)
        counts[kind] = {"encoded": found.num_rows - num_kept, "kept": num_kept}
        parts.append(found)
    return _finished(step, fingerprint, counts, parts), num_resumed


def _reduction(step: _Step) -> Reduction | None:
    """The PCA: of this version if it was begun before, else of the version in force, else fitted now."""
    if step.settings.reduced_dim is None:
        return None
    path = versions.version_folder(step.layout, step.version) / versions.PCA_FILE
    if path.exists():
        return Reduction.load(path)
    reduction = _previous_reduction(step)
    if reduction is None:
        texts = sampled_texts(step.source, step.settings.num_fit_rows)
        with stage(f"fitting the PCA on {len(texts):,} texts"):
            reduction = Reduction.fit(step.maker.encode_and_remember(texts), step.settings.reduced_dim)
        logger.info(
            "PCA to %d dimensions, fitted on %d texts, keeps %.1f %% of the variance",
            step.settings.reduced_dim,
            len(texts),
            100 * reduction.explained_variance,
        )
    reduction.save(path)
    return reduction


def _previous_reduction(step: _Step) -> Reduction | None:
    previous = step.previous
    if previous is None or step.settings.refit or previous.pca_sha256 is None:
        return None
    if previous.encoder != asdict(step.identity) or previous.dim != step.settings.reduced_dim:
        return None
    path = versions.version_folder(step.layout, previous.version) / versions.PCA_FILE
    try:
        reduction = Reduction.load(path)
    except FileNotFoundError as error:
        raise CorruptPartError(f"{path}: missing; encoder.refit=true fits it anew") from error
    if reduction.sha256 != previous.pca_sha256:
        raise CorruptPartError(f"{path}: is not the PCA of {previous.version}; encoder.refit=true fits anew")
    return reduction


def _vector_fingerprint(step: _Step) -> str:
    reduction = step.maker.reduction
    content = {"encoder": step.identity.fingerprint, "pca": reduction.sha256 if reduction else None}
    return sha256_of_json(content)[:16]


def _metadata(step: _Step, fingerprint: str) -> dict[str, str]:
    """Of the Parquet schema: all texts, as Arrow has it; what is null is left out."""
    reduction = step.maker.reduction
    values = {f"encoder_{name}": value for name, value in asdict(step.identity).items()}
    values |= {
        "vector_fingerprint": fingerprint,
        "source": step.source.name,
        "pca_sha256": reduction.sha256 if reduction else None,
    }
    return {name: str(value) for name, value in values.items() if value is not None}


def _keep_previous(step: _Step, fingerprint: str, parts: PartsOfKind, kind: Kind) -> int:
    """Copy the vectors of unchanged texts from the version in force; how many rows are such."""
    previous = step.previous
    if previous is None or previous.vector_fingerprint != fingerprint:
        return 0
    if not previous.num_rows(kind) or not parts.keys.num_rows:
        return 0
    keys = versions.vectors_dataset(step.layout, previous, kind).to_table(columns=KEYS.names)
    rows = parts.positions(keys)
    num_kept = int((rows >= 0).sum())
    rows[(rows >= 0) & parts.done[rows]] = -1
    for kept, vectors in _filled(_previous_vectors(step, previous, kind), rows, step.settings.rows_per_part):
        parts.write(kept, vectors)
    return num_kept


def _filled(batches: Iterator[Vectors], rows: Rows, num_rows: int) -> Iterator[tuple[Rows, Vectors]]:
    """(entries of `rows` that are not negative, their vectors), `num_rows` or more at a time."""
    kept: list[Rows] = []
    vectors: list[Vectors] = []
    start = 0
    for batch in batches:
        of_batch = rows[start : start + len(batch)]
        start += len(batch)
        kept.append(of_batch[of_batch >= 0])
        vectors.append(batch[of_batch >= 0])
        if sum(map(len, kept)) >= num_rows:
            yield np.concatenate(kept), np.concatenate(vectors)
            kept, vectors = [], []
    if sum(map(len, kept)):
        yield np.concatenate(kept), np.concatenate(vectors)


def _previous_vectors(step: _Step, previous: Embeddings, kind: Kind) -> Iterator[Vectors]:
    """The version's vectors in its order, float32 [n, dim] each, n up to `rows_per_part`."""
    for path in versions.file_paths(step.layout, previous, kind):
        try:
            with open_parquet(path) as file:
                for batch in file.iter_batches(step.settings.rows_per_part, columns=["embedding"]):
                    yield as_matrix(batch["embedding"])
        except (OSError, pa.ArrowException) as error:
            raise CorruptPartError(f"{path}: {str(error).splitlines()[0]}") from error


def _encode_rest(step: _Step, parts: PartsOfKind, kind: Kind) -> None:
    num_missing = int((~parts.done).sum())
    if not num_missing:
        return
    with stage(f"encoding {num_missing:,} texts of {kind}s") as say:
        for rows, texts in _missing_texts(step, parts, kind):
            parts.write(rows, step.maker.encode(texts))
            say(f"encoding texts of {kind}s: {int(parts.done.sum()):,} of {parts.keys.num_rows:,} done")


def _missing_texts(step: _Step, parts: PartsOfKind, kind: Kind) -> Iterator[tuple[Rows, list[str]]]:
    """(rows of `parts.keys`, their texts) of what is not done, a part at a time."""
    todo = ~parts.done
    rows: list[int] = []
    texts: list[str] = []
    start = 0
    for batch in step.source.texts(kind):
        chosen = np.flatnonzero(todo[start : start + batch.num_rows])
        rows.extend((chosen + start).tolist())
        texts.extend(batch["text"].take(pa.array(chosen)).to_pylist())
        start += batch.num_rows
        while len(rows) >= step.settings.rows_per_part:
            end = step.settings.rows_per_part
            yield np.array(rows[:end], np.int64), texts[:end]
            rows, texts = rows[end:], texts[end:]
    if rows:
        yield np.array(rows, np.int64), texts


def _finished(
    step: _Step, fingerprint: str, counts: dict[str, dict[str, int]], parts: list[PartsOfKind]
) -> Embeddings:
    dims = {part.dim for part in parts if part.dim is not None}
    if len(dims) != 1:
        raise DataError(f"{step.source.name}: holds no texts")
    reduction = step.maker.reduction
    embeddings = Embeddings(
        version=step.version,
        source=step.source.name,
        encoder=asdict(step.identity),
        vector_fingerprint=fingerprint,
        dim=dims.pop(),
        pca_sha256=reduction.sha256 if reduction else None,
        created_at=datetime.now(UTC),
        counts=counts,
        files=[file for part in parts for file in part.files],
    )
    versions.finish(step.layout, embeddings)
    return embeddings
