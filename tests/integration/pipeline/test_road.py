"""The whole road with real processes: `jobs.generate` on Ray and vLLM, killed and resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pyarrow.parquet as pq
import pytest

from pipeline.schemas import KNOWLEDGE

CHECKOUT = Path(__file__).resolve().parents[3]
LIMIT = 6
PATIENCE_SEC = 240


class Job:
    """`python -m jobs.generate` in a process of its own."""

    def __init__(self, data: Path, *overrides: str) -> None:
        command = [sys.executable, "-m", "jobs.generate", "dataset=movielens", f"limit={LIMIT}"]
        small = ["plan.shard_size=3", "knowledge.user.max_tokens=48", "knowledge.item.max_tokens=48"]
        self.output = data / f"output-{time.monotonic_ns()}.txt"
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [*command, f"paths.data={data}", "engine.cpu_kv_cache_gib=1", *small, *overrides],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=CHECKOUT,
            )

    def wait(self) -> str:
        """Its output, once it has ended well."""
        code = self.process.wait(timeout=PATIENCE_SEC)
        text = self.output.read_text()
        assert code == 0, text
        return text

    def workers(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if is_worker(child)]


def is_worker(process: psutil.Process) -> bool:
    try:
        return "ShardServer" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # it ended in the meantime, and may wait as a zombie for its parent
        return False


def wait_for(condition, what: str) -> None:
    end = time.monotonic() + PATIENCE_SEC
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.2)


def parts(data: Path) -> list[Path]:
    return list((data / "movielens" / "runs").glob("*/parts/*.json"))


@pytest.fixture
def data(tmp_path, smollm2) -> Path:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / smollm2.name).symlink_to(smollm2)
    return tmp_path


def test_killed_at_driver_and_worker_the_run_ends_complete_and_each_entity_stands_once(data):
    first = Job(data)
    wait_for(lambda: parts(data), "a first part")
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    done_before = {path: path.read_text() for path in parts(data)}
    assert 1 <= len(done_before) < 4

    second = Job(data, "cluster.num_workers=2")  # the number of workers is no part of a run's identity
    wait_for(lambda: len(second.workers()) == 2 or second.process.poll() is not None, "two workers")
    wait_for(lambda: len(parts(data)) > len(done_before) or second.process.poll() is not None, "a part")
    for worker in second.workers()[:1]:
        os.kill(worker.pid, signal.SIGKILL)
    text = second.wait()

    assert {path: path.read_text() for path in done_before} == done_before, "finished parts were redone"
    check_knowledge(data)
    check_pools(data)
    assert "This was a sample of 12 entities. LIMIT=all generates all 943 users and 1,682 items" in text

    third = Job(data).wait()
    assert "nothing was left to generate" in third


def check_knowledge(data: Path) -> None:
    (run,) = (data / "movielens" / "runs").iterdir()
    files = list(run.glob("parts/*.parquet"))
    plan = pq.read_table(run / "plan.parquet")
    planned = sorted(zip(plan["kind"].to_pylist(), plan["entity_id"].to_pylist(), strict=True))
    rows = pd.concat([pd.read_parquet(file) for file in files])
    assert sorted(zip(rows["kind"], rows["entity_id"], strict=True)) == planned
    assert len(planned) == 2 * LIMIT
    for file in files:
        assert pq.read_schema(file).equals(KNOWLEDGE)
        assert pq.ParquetFile(file).metadata.row_group(0).column(0).compression == "ZSTD"
    assert set(rows["finish_reason"]) <= {"stop", "length", "repetition"}
    assert (rows["num_output_tokens"] == rows["token_ids"].map(len)).all()
    assert (rows["num_output_tokens"] <= 48).all() and rows["text"].map(len).gt(0).all()
    assert (rows["acceptance"] == "relaxed(k=2,p=0.1)").all()
    assert rows["fingerprint"].nunique() == 1
    assert rows[rows["kind"] == "item"]["history_cutoff"].isna().all()
    assert rows[rows["kind"] == "user"]["history_cutoff"].notna().all()
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["summary"]["num_rows"] == 2 * LIMIT
    assert pq.read_table(run / "failed.parquet").num_rows == 0


def check_pools(data: Path) -> None:
    """The run's texts are in the datastore that the next run drafts from."""
    from drafters.datastore import Datastore
    from drafters.datastore.format import StoreHeader, entity_key

    folder = data / "movielens/datastore"
    version = folder / (folder / "CURRENT").read_text().strip()
    header = StoreHeader.read(version)
    store = Datastore.open(version, header.tokenizer_hash, header.vocab_size)
    store.verify()
    for file in (data / "movielens" / "runs").glob("*/parts/*.parquet"):
        for row in pq.read_table(file).to_pylist():
            pooled = store.previous(row["kind"], entity_key(row["entity_id"]))
            assert pooled is not None and pooled.tolist() == row["token_ids"]


@pytest.mark.timeout(1200)
@pytest.mark.slow  # three engine starts; token by token, tests/integration/drafters shows the same
def test_other_drafters_write_what_greedy_decoding_writes(data):
    """`drafter=none` and `ngram`, strict LASER with float32: the same texts."""
    long = ["knowledge.user.max_tokens=160", "knowledge.item.max_tokens=160"]  # ngram repeats five tokens
    texts = {}
    for drafter in ("none", "ngram", "laser"):
        names = [f"drafter={drafter}", f"run_id={drafter}"]
        Job(data, "acceptance=strict", "model.dtype=float32", *long, *names).wait()
        files = (data / "movielens" / "runs" / drafter).glob("parts/*.parquet")
        rows = pd.concat([pd.read_parquet(file) for file in files])
        assert (rows["acceptance"] == "strict").all()
        if drafter == "none":
            assert (rows["num_draft_tokens"] == 0).all()
            assert (rows["num_decode_steps"] == rows["num_output_tokens"]).all()
        else:
            assert rows["num_accepted_tokens"].sum() > 0
        texts[drafter] = rows.set_index(["kind", "entity_id"])["text"].to_dict()
    assert texts["laser"] == texts["none"] == texts["ngram"]
