"""Whole nights in processes of their own, without an engine: killed, ended by SIGTERM, two at once."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from drafters.datastore import Datastore, StoreHeader
from pipeline.publish.snapshot import snapshot_in_force, snapshot_rows, verify_files
from pipeline.storage.layout import DatasetLayout
from tests.toy_night import WAITS

CHECKOUT = Path(__file__).resolve().parents[4]
LIMIT = 6
PATIENCE_SEC = 240
# What a night leaves behind, in this order.
MILESTONES = (
    "night.lock.owner",
    "tables/items.parquet",
    "runs/*/plan.parquet",
    "runs/*/parts/*.json",
    "runs/*/failed.parquet",
    "knowledge/*/kind=*/*.parquet",
    "runs/*/validation.json",
    "datastore/*/header.json",
    "knowledge/*/_SUCCESS",
    "knowledge/CURRENT",
    "runs/*/report.md",
)


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

    def run(self, *words: str) -> tuple[int, str]:
        """(exit code, standard error)"""
        process = self.start(*words)
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


@pytest.fixture
def nights(cluster, node, smollm2, tmp_path) -> Nights:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / smollm2.name).symlink_to(smollm2)
    return Nights(tmp_path, cluster.address)


@pytest.mark.slow  # twenty starts and more
def test_nights_killed_at_twenty_random_moments_end_complete(nights):
    """One that ends before it is killed is followed by one with other prompts."""
    dice = random.Random(4)
    num_killed = number = 0
    while num_killed < 20:
        words = (f"knowledge.max_history={10 + number}",)
        if nights.kill(words, dice.choice(MILESTONES), dice.uniform(0, 0.3)):
            num_killed += 1
        else:
            number += 1
            nights.check_complete()
    code, errors = nights.run(*words)
    assert code == 0, errors
    nights.check_complete()


def test_of_two_nights_at_once_one_goes_on_and_the_other_is_told(nights):
    both = [nights.start(**{WAITS: "1"}) for _ in range(2)]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    errors = {}
    for process in both:
        _, text = process.communicate(timeout=PATIENCE_SEC)
        errors[process.returncode] = text
    assert sorted(errors) == [0, 2], errors
    assert "another process works on this dataset" in errors[2]
    nights.check_complete()


@pytest.mark.slow  # four nights
def test_sigterm_ends_a_night_in_order_and_the_advice_on_failed_rows_is_accepted(nights):
    nights.layout.root.mkdir()
    entity = "\n".join(str(number) for number in range(1, 2000, 2))
    (nights.layout.root / "failing").write_text(entity)
    process = nights.start()
    while not list(nights.layout.runs.glob("*/parts/*.json")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE_SEC)
    assert process.returncode == 143 and "error: ended by SIGTERM" in errors, errors
    (record,) = nights.records()
    run = nights.layout.run(record["run_id"])
    assert (record["status"], record["error"]) == ("failed", "generate: ended by SIGTERM")
    assert "ended by SIGTERM" in run.report("md").read_text()

    code, errors = nights.run()
    assert code == 1 and "planned texts failed" in errors, errors
    report = run.report("md").read_text()
    assert "the same command with retry\\_failed=true" in report or "retry_failed=true" in report
    assert "python -m jobs.nightly ..." in report.replace("\\", "")
    (nights.layout.root / "failing").unlink()
    code, errors = nights.run("retry_failed=true")
    assert code == 0, errors
    assert [record["run_id"] for record in nights.records()] == [run.root.name]
    nights.check_complete()
