"""Nights of one dataset in processes of their own, without an engine."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from drafters.datastore import Datastore, StoreHeader
from pipeline.publish.snapshot import snapshot_in_force, snapshot_rows, verify_files
from pipeline.storage.layout import DatasetLayout

CHECKOUT = Path(__file__).resolve().parents[4]
LIMIT = 6
PATIENCE_SEC = 240


class Nights:
    """The nights of one dataset on a Ray cluster."""

    def __init__(self, data: Path, address: str) -> None:
        self.layout = DatasetLayout.of(data, "movielens")
        self.command = [
            sys.executable, "-m", "tests.toy_night", "dataset=movielens", "model=smollm2-135m",
            f"limit={LIMIT}", "plan.shard_size=3", f"paths.data={data}", f"cluster.address={address}",
            "cluster.num_workers=1", "cluster.cpus_per_worker=1",
        ]  # fmt: skip

    def start(self, *words: str, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            [*self.command, *words],
            cwd=CHECKOUT,
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, **environment: str) -> tuple[int, str]:
        """(exit code, standard error)"""
        process = self.start(*words, **environment)
        _, errors = process.communicate(timeout=PATIENCE_SEC)
        return process.returncode, errors

    def kill(self, words: tuple[str, ...], milestone: str, delay_sec: float) -> bool:
        """Kill a night so long after it has reached `milestone`; False if it ended before, well."""
        began = time.time()
        process = self.start(*words)
        while process.poll() is None and not self.has_reached(milestone, began):
            time.sleep(0.005)
        time.sleep(delay_sec)
        was_running = process.poll() is None
        process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
        assert was_running or process.returncode == 0, errors
        return was_running

    def has_reached(self, milestone: str, since: float) -> bool:
        for path in self.layout.root.glob(milestone):
            try:
                if path.stat().st_mtime >= since:
                    return True
            except FileNotFoundError:
                continue
        return False

    def check_complete(self) -> None:
        """Files and pools of the version in force are whole; it holds each entity of the sample once."""
        snapshot = snapshot_in_force(self.layout)
        verify_files(self.layout, snapshot.version, snapshot.files)
        header = StoreHeader.read(self.layout.datastore / snapshot.datastore_version)
        folder = self.layout.datastore / snapshot.datastore_version
        Datastore.open(folder, header.tokenizer_hash, header.vocab_size).verify()
        rows = snapshot_rows(self.layout, snapshot).to_table(columns=["kind", "entity_id"]).to_pylist()
        kinds = [kind for kind, _ in {(row["kind"], row["entity_id"]) for row in rows}]
        assert len(rows) == len(kinds) == 2 * LIMIT and kinds.count("user") == LIMIT
        assert {record["status"] for record in self.records()} == {"done"}

    def records(self) -> list[dict]:
        return [json.loads(path.read_text()) for path in self.layout.runs.glob("*/night.json")]
