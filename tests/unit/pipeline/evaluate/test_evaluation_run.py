"""An evaluation from data to its files: knowledge sets are made by hand, everything after them is real."""

import json
from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch

pytest.importorskip("torch_rechub", reason="make evaluate installs the CTR library")

from jobs import evaluate as job
from jobs.config import load_settings
from pipeline.evaluate import run, train
from pipeline.evaluate.results import KNOWLEDGE
from pipeline.schemas import KNOWLEDGE as KNOWLEDGE_ROWS
from tests.embeddings import HashEncoder
from tests.evaluation import START, interactions, tables_of
from tests.publishing import knowledge_row

NUM_USERS, NUM_ITEMS, NUM_EVENTS, FIRST_TEST = 12, 45, 800, 600
MODELS = ("dcnv2", "deepfm")
SMALL = [
    "limit=all",
    f"history_cutoff={(START + timedelta(days=FIRST_TEST)).date()}",
    f"evaluation.models=[{','.join(MODELS)}]",
    "evaluation.num_seeds=2",
    "evaluation.training.embedding_dim=4",
    "evaluation.training.hidden=[8]",
    "evaluation.training.learning_rate=0.02",
    "evaluation.training.batch_size=128",
    "evaluation.training.max_epochs=4",
]


def is_good(item: int) -> bool:
    return item % 2 == 0


def domain(seed: int = 0):
    """Good items are liked, with some noise. A third of them each is for training, validation and test, so
    that ids cannot tell what texts do."""
    rng = np.random.default_rng(seed)
    rows = []
    for day in range(NUM_EVENTS):
        part = (day >= 0.9 * FIRST_TEST) + (day >= FIRST_TEST)
        item = int(rng.integers(NUM_ITEMS // 3)) + part * NUM_ITEMS // 3
        likes = is_good(item) == (rng.random() < 0.85)
        rows.append((f"u{rng.integers(NUM_USERS)}", f"i{item}", 5 if likes else 1, day))
    return tables_of(interactions(rows))


def texts(settings, entities: pa.Table, *_) -> dict[str, pa.Table]:
    """What `generate_sets` would write: an item's text says whether it is good."""
    rows = []
    for one in entities.to_pylist():
        kind, name = one["kind"], one["entity_id"]
        text = "good" if kind == "item" and is_good(int(name[1:])) else f"a common {kind}"
        planned = {"entity_id": name, "kind": kind, "group": "g", "prompt_hash": name, "history_cutoff": None}
        rows.append(knowledge_row(planned, "r", 3, text=text))
    greedy = pa.Table.from_pylist(rows, KNOWLEDGE_ROWS)
    drifted = [row | ({"text": "a common item"} if row["entity_id"] == "i44" else {}) for row in rows]
    return {
        "greedy": greedy,
        "strict": greedy,
        "relaxed": pa.Table.from_pylist(drifted, KNOWLEDGE_ROWS),
    }


def in_this_process(bench, trials, num_processes, on_result):
    """`run_trials` without processes of its own, which cost more than these trainings."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a process of its own
    results = [train.run_trial(bench, trial, train.vectors_of(bench.knowledge, trial)) for trial in trials]
    torch.set_num_threads(num_threads)
    for result in results:
        on_result(result)
    return results


@pytest.fixture
def made_by_hand(monkeypatch):
    """The data, and everything that needs a language model."""
    replaced = {
        "resolve_model": lambda *_: SimpleNamespace(path="/models/toy", revision="1"),
        "read_tables": lambda _: domain(),
        "generate_sets": texts,
    }
    for name, function in replaced.items():
        monkeypatch.setattr(run, name, function)
    monkeypatch.setattr(train, "run_trials", in_this_process)
    monkeypatch.setattr("pipeline.encode.load_encoder", lambda _: HashEncoder())


def test_a_signal_that_knowledge_carries_is_found_and_written_down(made_by_hand, tmp_path, capsys):
    assert job.main([*SMALL, f"paths.data={tmp_path}"]) == 0, capsys.readouterr().err
    folder = tmp_path / "movielens" / "evaluation"
    own, latest = sorted(folder.glob("*.json"), key=lambda path: -len(path.name))
    assert json.loads(own.read_text()) == json.loads(latest.read_text())
    assert own.name.startswith(latest.stem + "-")

    found = json.loads(latest.read_text())
    scores = {(row["model"], row["knowledge"], row["seed"]): row for row in found["rows"]}
    assert set(scores) == {(m, k, s) for m in MODELS for k in KNOWLEDGE for s in (0, 1)}
    assert len(found["rows"]) == len(scores)
    assert all(0 < row["auc"] < 1 and 0 < row["logloss"] < 5 for row in found["rows"])
    for model in MODELS:
        for seed in (0, 1):
            auc = {name: scores[model, name, seed]["auc"] for name in KNOWLEDGE}
            assert auc["greedy"] > max(auc["none"], auc["shuffled"]) + 0.05
            assert auc["strict"] == auc["greedy"], "the same texts, seed by seed"
    assert found["meta"]["num_evaluated"]["test"] == NUM_EVENTS - FIRST_TEST
    for path in (own, latest):
        assert "| dcnv2 |" in path.with_suffix(".md").read_text()
        assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


class AskedError(Exception):
    """Carries the folder that knowledge sets would be written to."""


@pytest.fixture
def version(made_by_hand, monkeypatch, tmp_path):
    """The name of the knowledge sets that an evaluation with these overrides asks for."""

    def generate_sets(settings, only, folder, *_):
        raise AskedError(folder.name)

    monkeypatch.setattr(run, "generate_sets", generate_sets)

    def version(*overrides: str) -> str:
        settings = load_settings("evaluate", [*SMALL, f"paths.data={tmp_path}", *overrides])
        with pytest.raises(AskedError) as caught:
            run.evaluate(settings, lambda texts: None, lambda: None)
        return str(caught.value)

    return version


@pytest.mark.parametrize(
    "override",
    [
        "knowledge.user.max_words=61",
        "knowledge.item.max_words=61",
        "knowledge.item.max_tokens=97",
        "knowledge.max_history=7",
        "knowledge.factors.movie=plot",
        "dataset.item_word=film",
        "plan.shard_size=3",
        "acceptance.top_k=3",
    ],
)
def test_whatever_shapes_a_prompt_or_a_plan_names_sets_of_its_own(version, override):
    assert version(override) != version()


def test_other_data_name_sets_of_their_own(version, monkeypatch):
    before = version()
    changed = domain()
    titles = [f"{title} II" for title in changed.items["title"].to_pylist()]
    place = changed.items.schema.get_field_index("title")
    field = changed.items.schema.field(place)
    items = changed.items.set_column(place, field, pa.array(titles, field.type))
    monkeypatch.setattr(
        run,
        "read_tables",
        lambda _: type(changed)(changed.users, items, changed.interactions, changed.failed),
    )
    assert version() != before
    monkeypatch.setattr(run, "read_tables", lambda _: domain(seed=1))
    assert version() != before


@pytest.mark.parametrize("override", ["evaluation.num_seeds=3", "encoder.batch_size=7", "limit=1000"])
def test_the_same_texts_evaluated_otherwise_are_not_written_again(version, override):
    assert version(override) == version()


def test_another_encoder_has_results_of_its_own_over_the_same_sets(version):
    encoder = "encoder=bge-base-en-v1.5"
    assert version(encoder) == version()
    settings = [load_settings("evaluate", words) for words in ([], [encoder], ["evaluation.num_seeds=3"])]
    assert len({run._digest(one) for one in settings}) == 3
