import io
import json
import random
from dataclasses import replace

import pandas
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest
from rich.console import Console

from pipeline.generate.contract import SourceCounts, WorkerProgress
from pipeline.generate.dispatch import GenerationOutcome
from pipeline.generate.progress import NO_PROGRESS
from pipeline.generate.summary import (
    ExampleText,
    count_repeated_ngrams,
    example_texts,
    render,
    render_examples,
    repeated_shares,
    summarize,
)
from pipeline.output_bounds import OutputCounts
from pipeline.schemas import DECODING_COUNTS, FAILED, ITEMS, KNOWLEDGE, TEXT
from pipeline.storage.files import write_parquet
from pipeline.storage.layout import RunLayout
from pipeline.storage.parts import commit_part
from tests.generation import FINGERPRINT, make_plan, make_result

PROGRESS = WorkerProgress(
    6, 48, 24, 36, 24, 12, {"pool": SourceCounts(30, 21), "context": SourceCounts(0, 0)}
)
OUTCOME = GenerationOutcome(
    num_rows_planned=8,
    num_rows=6,
    num_failed=2,
    num_shards_run=1,
    unfinished={},
    progress=PROGRESS,
    decode_sec=12.0,
)


@pytest.fixture
def layout(tmp_path):
    return RunLayout(tmp_path / "run")


@pytest.fixture
def knowledge():
    """Six items, the first two cut at the length limit; then three users that took one step for a token."""
    items = make_result("item-00000", make_plan(1, 6)).knowledge.to_pylist()
    items = [item | {"finish_reason": "length" if n < 2 else "stop"} for n, item in enumerate(items)]
    users = [item | {"kind": "user", "num_decode_steps": 8, "num_relaxed_tokens": 0} for item in items[3:]]
    return pa.Table.from_pylist(items + users, schema=KNOWLEDGE)


@pytest.fixture
def failed():
    rows = [{"stage": stage, "reason": "x"} for stage in ("read", "generate", "generate")]
    return pa.Table.from_pylist(rows, schema=FAILED)


def test_rows_tokens_and_steps_are_counted_by_kind(knowledge, failed, layout):
    summary = summarize(knowledge, failed, OUTCOME, layout, elapsed_sec=30.0)
    item, user = summary.kinds
    assert (item.kind, item.num_rows, item.finish_reasons) == ("item", 6, {"length": 2, "stop": 4})
    assert (item.num_output_tokens, item.num_decode_steps) == (48, 24)
    assert (item.tokens_per_step, item.relaxed_share) == (2.0, 0.25)
    assert (user.num_rows, user.finish_reasons) == (3, {"stop": 3})
    assert (user.tokens_per_step, user.relaxed_share) == (1.0, 0.0)
    assert summary.tokens_per_sec == 4.0  # of the session: 48 tokens in 12 seconds
    assert summary.num_failed == {"read": 1, "generate": 2}
    assert summary.looping_share == 0.0


def test_answers_that_are_not_the_json_asked_for_are_counted(knowledge, failed, layout):
    parsed = ["{}", None, "{}", None, None, "{}", None, None, None]
    position = KNOWLEDGE.get_field_index("parsed")
    knowledge = knowledge.set_column(position, KNOWLEDGE.field("parsed"), pa.array(parsed, TEXT))
    summary = summarize(knowledge, failed, OUTCOME, layout, 30.0, structured={"item"})
    assert [kind.num_malformed for kind in summary.kinds] == [3, None]
    assert summary.as_dict()["kinds"]["item"]["num_malformed"] == 3
    assert "malformed" in rendered(summary)
    assert "malformed" not in rendered(summarize(knowledge, failed, OUTCOME, layout, 30.0))


def test_faulty_texts_are_counted_and_shown_where_there_are_some(knowledge, failed, layout):
    faults = [{"text": " \n"}, {"num_control_tokens": 1}, {"num_reasoning_tokens": 7}, *[{}] * 6]
    rows = [row | fault for row, fault in zip(knowledge.to_pylist(), faults, strict=True)]
    faulty = pa.Table.from_pylist(rows, schema=KNOWLEDGE)
    summary = summarize(faulty, failed, OUTCOME, layout, 30.0)
    assert summary.kinds[0].outputs == OutputCounts(6, 1, 0, 2, 1, 1)
    assert summary.kinds[1].outputs == OutputCounts(3, 0, 0, 0, 0, 0)
    assert summary.as_dict()["kinds"]["item"]["outputs"]["num_empty"] == 1
    for title in ("empty", "control tokens", "after reasoning"):
        assert title in rendered(summary)
        assert title not in rendered(summarize(knowledge, failed, OUTCOME, layout, 30.0))


def test_that_max_tokens_cut_every_text_of_a_kind_is_said(knowledge, failed, layout):
    assert summarize(knowledge, failed, OUTCOME, layout, 30.0).remarks == []
    rows = [
        row | ({"finish_reason": "length"} if row["kind"] == "user" else {}) for row in knowledge.to_pylist()
    ]
    summary = summarize(pa.Table.from_pylist(rows, schema=KNOWLEDGE), failed, OUTCOME, layout, 30.0)
    assert summary.as_dict()["remarks"][0].startswith("all 3 texts of users were cut off by max_tokens")
    assert "all 3 texts of users were cut off" in rendered(summary)


def test_rows_that_share_a_text_are_counted_and_cost_nothing(knowledge, failed, layout):
    """Four of the six items have the text of the first: tokens and steps are those of two texts."""
    nothing = dict.fromkeys(DECODING_COUNTS, 0)
    rows = [
        row | ({"shared_from": "0"} | nothing if 0 < number < 5 else {})
        for number, row in enumerate(knowledge.to_pylist())
    ]
    summary = summarize(pa.Table.from_pylist(rows, KNOWLEDGE), failed, OUTCOME, layout, 30.0)
    item, user = summary.kinds
    assert (item.num_rows, item.num_shared, item.num_output_tokens, item.num_decode_steps) == (6, 4, 16, 8)
    assert (item.tokens_per_step, user.num_shared) == (2.0, 0)
    assert summary.as_dict()["kinds"]["item"]["num_shared"] == 4
    assert "shared" in rendered(summary)
    assert "shared" not in rendered(summarize(knowledge, failed, OUTCOME, layout, 30.0))


def test_a_dataset_read_in_small_batches_gives_the_same_summary(knowledge, failed, layout):
    batches = pa.Table.from_batches(knowledge.to_batches(max_chunksize=2))
    whole = summarize(knowledge, failed, OUTCOME, layout, 30.0)
    assert summarize(ds.dataset(batches), failed, OUTCOME, layout, 30.0) == whole


def test_the_summary_is_json(knowledge, failed, layout):
    content = json.loads(json.dumps(summarize(knowledge, failed, OUTCOME, layout, 30.0).as_dict()))
    assert content["kinds"]["item"]["tokens_per_step"] == 2.0
    assert content["sources"]["pool"] == {"num_draft_tokens": 30, "num_accepted_tokens": 21}
    assert (content["num_rows"], content["num_output_tokens"], content["elapsed_sec"]) == (9, 72, 30.0)


def rendered(summary):
    screen = io.StringIO()
    render(summary, Console(file=screen, width=100))
    return screen.getvalue()


def test_the_table_shows_what_matters(knowledge, failed, layout):
    text = rendered(summarize(knowledge, failed, OUTCOME, layout, 75.0))
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert rows["kind"] == ["rows", "length", "stop", "tokens", "tokens/step", "relaxed"]
    assert rows["item"] == ["6", "2", "4", "48", "2.00", "25.0%"]
    assert rows["user"] == ["3", "0", "3", "24", "1.00", "0.0%"]
    assert "4 tokens/s over 0:12" in text and "1:15" in text
    assert "context 0/0 accepted (-), pool 21/30 accepted (70%)" in text
    assert "2 in stage generate, 1 in stage read" in text and str(layout.failed) in text


def test_a_run_with_nothing_left_to_do_has_no_speed(knowledge, layout):
    idle = replace(OUTCOME, progress=NO_PROGRESS, decode_sec=0.0)
    text = rendered(summarize(knowledge, FAILED.empty_table(), idle, layout, 1.0))
    assert "nothing was left to generate" in text and "failures     none" in text


def test_an_empty_run_can_be_summarized(layout):
    summary = summarize(KNOWLEDGE.empty_table(), FAILED.empty_table(), OUTCOME, layout, 1.0)
    assert summary.kinds == [] and summary.looping_share is None and summary.num_rows == 0


def test_the_line_that_reads_the_rows_works(layout):
    commit_part(layout, make_result("item-00000", make_plan(1, 6)), FINGERPRINT)
    summary = summarize(KNOWLEDGE.empty_table(), FAILED.empty_table(), OUTCOME, layout, 1.0)
    frame = eval(summary.how_to_read, {"pandas": pandas, "glob": __import__("glob")})
    assert list(frame["entity_id"]) == list("012345")


def naive_repeats(texts, size):
    repeated = total = 0
    for tokens in texts:
        grams = [tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)]
        total += len(grams)
        repeated += len(grams) - len(set(grams))
    return repeated, total


def test_repeated_ngrams_equal_the_plain_definition():
    dice = random.Random(0)
    texts = [[dice.randrange(2) for _ in range(dice.randrange(40))] for _ in range(200)]
    array = pa.array(texts, pa.list_(pa.int32()))
    assert count_repeated_ngrams(array, 8) == naive_repeats(texts, 8)
    assert count_repeated_ngrams(array.slice(50, 20), 8) == naive_repeats(texts[50:70], 8)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], (0, 0)),
        ([[1, 2, 3]], (0, 0)),
        ([list(range(8)), list(range(8))], (0, 2)),  # the same in two texts is no loop
        ([[1] * 20], (12, 13)),
        ([[], [5] * 9, []], (1, 2)),
    ],
)
def test_repeats_are_those_within_a_text(texts, expected):
    assert count_repeated_ngrams(pa.array(texts, pa.list_(pa.int32()))) == expected


def test_the_share_of_repeats_is_told_for_each_text():
    loop, plain = [1, 2, 3, 4] * 5, list(range(20))
    texts = pa.array([plain, loop, [], [7, 8], plain + plain], pa.list_(pa.int32()))
    assert repeated_shares(texts).tolist() == pytest.approx([0.0, 9 / 13, 0.0, 0.0, 13 / 33])
    num_repeated, num_ngrams = count_repeated_ngrams(texts)
    assert (num_repeated, num_ngrams) == (9 + 13, 13 + 13 + 33)
    assert repeated_shares(pa.array([], pa.list_(pa.int32()))).tolist() == []


def test_reasons_of_shards_that_were_given_up_are_kept(knowledge, failed, layout):
    unfinished = {"item-00001": "lost", "item-00002": "lost", "item-00003": "other"}
    summary = summarize(knowledge, failed, replace(OUTCOME, unfinished=unfinished), layout, 30.0)
    assert summary.as_dict()["unfinished"] == {"lost": 2, "other": 1}


def test_a_text_of_each_kind_is_shown_one_that_the_model_ended_if_there_is_one(knowledge, tmp_path):
    titles = {"item_id": ["2"], "title": ["Toy Story (1995)"], "categories": [[]], "attributes": [[]]}
    write_parquet(pa.table(titles, schema=ITEMS), tmp_path / "items.parquet")
    examples = example_texts(ds.dataset(knowledge), tmp_path)
    assert examples == [
        ExampleText("item 2, Toy Story (1995)", knowledge["text"][2].as_py()),
        ExampleText("user 3", knowledge["text"][6].as_py()),
    ]
    cut = knowledge.filter(pc.equal(knowledge["finish_reason"], "length"))
    assert [example.entity for example in example_texts(ds.dataset(cut), tmp_path / "none")] == ["item 0"]
    assert example_texts(ds.dataset(knowledge.slice(0, 0)), tmp_path) == []


def test_examples_are_shown_as_text_indented_and_cut():
    shown = io.StringIO()
    text = "[bold]A :smile:\n\x1b[31m" + "word " * 200
    examples = [ExampleText("item 1, \x1b[2J", text), ExampleText("user 2", "")]
    render_examples(examples, Console(file=shown, width=60))
    assert "\x1b" not in shown.getvalue()
    lines = shown.getvalue().split("\n")
    assert lines[:2] == ["", "item 1, \\x1b[2J"]
    assert lines[2].startswith("  [bold]A :smile: \\x1b[31mword word word") and len(lines[2]) <= 60
    assert lines[-5:] == [lines[-5], "", "user 2", "  (empty)", ""]
    assert lines[-5].endswith(" …") and len(shown.getvalue()) < 520
    assert all(line.startswith("  word") and len(line) <= 60 for line in lines[3:-4])
