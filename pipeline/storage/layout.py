"""The data directory: one place that knows where every file lies (see docs/architecture.md)."""

from dataclasses import dataclass
from pathlib import Path


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


@dataclass(frozen=True)
class DatasetLayout:
    """Files of one dataset below `paths.data`."""

    root: Path

    @classmethod
    def of(cls, data: str | Path, dataset: str) -> "DatasetLayout":
        """The layout of `dataset` below the data directory."""
        return cls(Path(data) / dataset)

    @property
    def tables(self) -> Path:
        """Folder of users.parquet, items.parquet, interactions.parquet."""
        return self.root / "tables"

    def run(self, run_id: str) -> RunLayout:
        """The files of run `run_id`."""
        return RunLayout(self.root / "runs" / run_id)

    @property
    def datastore(self) -> Path:
        """Folder of datastore versions."""
        return self.root / "datastore"

    @property
    def current_datastore(self) -> Path:
        """File that names the datastore version in force."""
        return self.datastore / "CURRENT"


def models_folder(data: str | Path) -> Path:
    """Folder of prepared model directories."""
    return Path(data) / "models"
