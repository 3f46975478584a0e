"""The whole step: a version of embeddings to `exports/<format>/…`, and how much of the data it covers."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.encode.versions import Embeddings, embeddings_in_force, read_embeddings, version_folder
from pipeline.encoder_settings import ExportFormat, ExportSettings
from pipeline.errors import DataError
from pipeline.export.coverage import Coverage, measure_coverage
from pipeline.export.fuxictr import write_fuxictr
from pipeline.export.kar import write_kar
from pipeline.export.recbole import write_recbole
from pipeline.export.torch_matrix import write_torch
from pipeline.export.view import VectorsView
from pipeline.settings import RunSettings
from pipeline.stages import stage
from pipeline.storage.files import write_json
from pipeline.storage.layout import DatasetLayout

MARKER = "export.json"  # written last: the format's files are complete, and of this version
Write = Callable[[VectorsView, Path, ExportSettings], list[str]]
FORMATS: dict[ExportFormat, Write] = {
    "fuxictr": write_fuxictr,
    "recbole": write_recbole,
    "kar": write_kar,
    "torch": write_torch,
}


@dataclass(frozen=True)
class ExportReport:
    """What was written, and below which folder."""

    embeddings: Embeddings
    coverage: Coverage
    folder: Path
    files: dict[ExportFormat, list[str]]


def export_embeddings(settings: RunSettings) -> ExportReport:
    """Write the chosen formats of the embeddings in force, or of `export.version`. Raises `PipelineError`."""
    layout = DatasetLayout.of(settings.paths.data, settings.dataset.name)
    embeddings = _embeddings(layout, settings.export.version)
    with stage("measuring what the vectors cover", is_short=True):
        coverage, missing = measure_coverage(layout, embeddings)
    folder = version_folder(layout, embeddings.version) / "exports"
    write_json(coverage.as_dict(), folder / "coverage.json")
    view = VectorsView(layout, embeddings, missing)
    files = {
        name: _write_format(name, view, folder / name, settings.export)
        for name in dict.fromkeys(settings.export.formats)
    }
    return ExportReport(embeddings, coverage, folder, files)


def _embeddings(layout: DatasetLayout, version: str | None) -> Embeddings:
    if version is not None:
        return read_embeddings(layout, version)
    embeddings = embeddings_in_force(layout)
    if embeddings is None:
        raise DataError(f"{layout.embeddings}: no embeddings are in force; `make encode` makes them")
    return embeddings


def _write_format(name: ExportFormat, view: VectorsView, folder: Path, settings: ExportSettings) -> list[str]:
    (folder / MARKER).unlink(missing_ok=True)
    with stage(f"writing the files of {name}", is_short=True):
        files = FORMATS[name](view, folder, settings)
    content = {
        "format": name,
        "version": view.embeddings.version,
        "encoder": view.embeddings.encoder,
        "dim": view.dim,
        "files": files,
    }
    write_json(content, folder / MARKER)
    return files
