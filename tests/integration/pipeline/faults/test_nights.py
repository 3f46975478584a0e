"""Whole nights in processes of their own, without an engine: killed, ended by SIGTERM, two at once."""

import random
import signal
import time
from pathlib import Path

import pytest

from drafters.datastore import Datastore, StoreHeader
from drafters.datastore.format import entity_key
from pipeline.publish.snapshot import snapshot_in_force, snapshot_rows
from tests.integration.pipeline.faults.toy_nights import PATIENCE_SEC, Nights
from tests.toy_night import WAITS

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


def write_films(raw: Path, genres: str) -> None:
    """Films 1, 2, ... of these genres, one letter each, and six users who rated them all."""
    raw.mkdir(exist_ok=True)
    films = [f"{number},Film {number} (1999),{genre}" for number, genre in enumerate(genres, start=1)]
    ratings = [f"{user},{film},3,{film}" for user in range(1, 7) for film in range(1, len(genres) + 1)]
    (raw / "movies.csv").write_text("\n".join(["movieId,title,genres", *films, ""]))
    (raw / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *ratings, ""]))


def items_in_force(nights: Nights) -> dict[str, dict]:
    snapshot = snapshot_in_force(nights.layout)
    rows = snapshot_rows(nights.layout, snapshot, "item").to_table().to_pylist()
    return {row["entity_id"]: row for row in rows}


def test_films_with_equal_prompts_share_a_text_from_night_to_night(nights, tmp_path):
    """Prompts show the genre alone. Then film 1, whose text the others share, becomes of another genre."""
    raw = tmp_path / "raw"
    template = "'A film of {{ item.categories[0] }}.'"
    words = (f"dataset.raw={raw}", "acceptance=strict", f"knowledge.item.template={template}")
    write_films(raw, "AABABC")
    code, errors = nights.run(*words)
    assert code == 0, errors
    nights.check_complete()
    first = items_in_force(nights)
    origins = {film: row["shared_from"] for film, row in first.items()}
    assert origins == {"1": None, "2": "1", "3": None, "4": "1", "5": "3", "6": None}
    assert {first[film]["text"] for film in "124"} == {first["1"]["text"]}
    assert [first[film]["num_output_tokens"] for film in "124"] == [5, 0, 0]

    write_films(raw, "BABABC")
    code, errors = nights.run(*words)
    assert code == 0, errors
    nights.check_complete()
    second = items_in_force(nights)
    assert {film: second[film] for film in "23456"} == {film: first[film] for film in "23456"}, "carried over"
    assert second["1"]["run_id"] != first["1"]["run_id"] and second["1"]["shared_from"] is None
    latest = max(nights.records(), key=lambda record: record["started_at"])
    assert (latest["counts"]["item"]["changed"], latest["counts"]["item"]["carried"]) == (1, 5)
    assert latest["by_change"]["carried"]["num_output_tokens"] == 5 * 2, "of the texts that were generated"
    pools = nights.layout.datastore / snapshot_in_force(nights.layout).datastore_version
    store = Datastore(pools, StoreHeader.read(pools))
    for film, row in second.items():
        assert store.previous("item", entity_key(film)).tolist() == row["token_ids"]


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
