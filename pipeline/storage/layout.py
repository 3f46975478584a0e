"""The data directory: one place that knows where every file lies (see docs/architecture.md)."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.storage.location import cache_folder, data_path, is_remote


@dataclass(frozen=True)
class RunLayout:
    """Files of one run."""

    root: Path

    @property
    def plan(self) -> Path:
        """Every row to generate, with its shard."""
        return self.root / "plan.parquet"

    @property
    def parts(self) -> Path:
        """Finished shards."""
        return self.root / "parts"

    def part(self, shard: str) -> Path:
        """Knowledge rows of `shard`."""
        return self.parts / f"{shard}.parquet"

    def part_manifest(self, shard: str) -> Path:
        """Written last: `shard` is done when this file is there and matches."""
        return self.parts / f"{shard}.json"

    @property
    def failed(self) -> Path:
        """Raw rows and entities that could not be used, with the reason."""
        return self.root / "failed.parquet"

    @property
    def manifest(self) -> Path:
        """Settings, fingerprint and counts of the run."""
        return self.root / "manifest.json"

    @property
    def calibration(self) -> Path:
        """What a worker's drafter learned in this run."""
        return self.root / "calibration.json"

    @property
    def log(self) -> Path:
        """What vLLM and Ray had to say."""
        return self.root / "run.log"

    @property
    def progress(self) -> Path:
        """How far the generation was, every few seconds (`pipeline/generate/time_series.py`)."""
        return self.root / "progress.jsonl"

    @property
    def night(self) -> Path:
        """What the night did, step by step; not there for a plain run."""
        return self.root / "night.json"

    @property
    def quality(self) -> Path:
        """What the quality gate measured; not there if it did not run."""
        return self.root / "quality.json"

    def report(self, suffix: str) -> Path:
        """The morning report: `md` and `html` for people, `json` for the next nights' comparison."""
        return self.root / f"report.{suffix}"

    @property
    def metrics(self) -> Path:
        """The run's figures in Prometheus text format."""
        return self.root / "metrics.prom"

    @property
    def changes(self) -> Path:
        """Every entity of the night and what became of it since the snapshot in force."""
        return self.root / "changes.parquet"

    @property
    def validation(self) -> Path:
        """What validation found in the snapshot that was made of this run."""
        return self.root / "validation.json"


@dataclass(frozen=True)
class DatasetLayout:
    """Files of one dataset below `paths.data`."""

    root: Path

    @classmethod
    def of(cls, data: str | Path, dataset: str) -> "DatasetLayout":
        """The layout of `dataset` below the data directory."""
        return cls(data_path(data) / dataset)

    @property
    def tables(self) -> Path:
        """Folder of users.parquet, items.parquet, interactions.parquet."""
        return self.root / "tables"

    def run(self, run_id: str) -> RunLayout:
        """The files of run `run_id`."""
        return RunLayout(self.root / "runs" / run_id)

    @property
    def runs(self) -> Path:
        """Folder of runs."""
        return self.root / "runs"

    @property
    def knowledge(self) -> Path:
        """Folder of published snapshots."""
        return self.root / "knowledge"

    def snapshot(self, version: str) -> Path:
        """Folder of snapshot `version`: `kind=<kind>/*.parquet`, and `_SUCCESS` once it is complete."""
        return self.knowledge / version

    @property
    def current_snapshot(self) -> Path:
        """File that names the snapshot in force, and thereby its datastore."""
        return self.knowledge / "CURRENT"

    @property
    def embeddings(self) -> Path:
        """Folder of embeddings versions (`pipeline/encode/versions.py`)."""
        return self.root / "embeddings"

    @property
    def current_embeddings(self) -> Path:
        """File that names the embeddings in force."""
        return self.embeddings / "CURRENT"

    @property
    def lock(self) -> Path:
        """Who works on the dataset: a night, a publication, a rollback."""
        return self.root / "night.lock"

    @property
    def reserve(self) -> Path:
        """What a night gives up to tell that the disk is full."""
        return self.root / "night.reserve"

    @property
    def metrics(self) -> Path:
        """The latest run's figures in Prometheus text format, always at this place."""
        return self.root / "metrics.prom"

    @property
    def datastore(self) -> Path:
        """Folder of datastore versions."""
        return self.root / "datastore"

    @property
    def current_datastore(self) -> Path:
        """File that names the datastore version in force."""
        return self.datastore / "CURRENT"


def models_folder(data: str | Path) -> Path:
    """Folder of prepared model directories: always a local one, since engines map the files."""
    return local_folder(data) / "models"


def local_folder(data: str | Path) -> Path:
    """A folder of the file system: the data directory, or this machine's cache if that is an object store."""
    folder = data_path(data)
    return cache_folder() if is_remote(folder) else folder
