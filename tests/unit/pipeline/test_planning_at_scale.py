"""Reading, grouping and planning at the scale of MovieLens-25M, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.scale.raw_movielens import write_movielens

CHECKOUT = Path(__file__).resolve().parents[3]
# Peak memory is that of the whole process: interpreter, libraries and tokenizer included (0.8 GiB).
PLAN = """
import json, sys, time
from jobs.config import load_settings
from pipeline.domains import read_domain
from pipeline.groups import group_entities
from pipeline.models.tokenizer import load_tokenizer
from pipeline.plan import make_plan, select_entities
from pipeline.prompts import render_prompts

raw, model = sys.argv[1:]
settings = load_settings("generate", [f"dataset.raw={raw}", f"model.path={model}", "model=smollm2-135m"])
dataset = settings.dataset
started = time.monotonic()
tables = read_domain(dataset)
chosen = select_entities(group_entities(tables, dataset), "all")
rendered = render_prompts(
    tables, chosen, settings.knowledge, settings.model, dataset.item_word, load_tokenizer(model), None,
    dataset.rating_range,
)
plan = make_plan(rendered.prompts, 512)
# Not getrusage: its peak is inherited through fork and exec, here from a test process that held engines.
status = open("/proc/self/status").read()
peak_kib = int(status.split("VmHWM:")[1].split()[0])
print(json.dumps({
    "interactions": tables.interactions.num_rows,
    "planned": plan.num_rows,
    "failed": tables.failed.num_rows + rendered.failed.num_rows,
    "seconds": time.monotonic() - started,
    "gib": peak_kib / 2**20,
}))
"""


def measured(raw: Path, model: Path) -> dict[str, float]:
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-c", PLAN, str(raw), str(model)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=CHECKOUT, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_million_interactions(tmp_path, smollm2):
    write_movielens(tmp_path, 1_000_000, 3_000, 1_200)
    found = measured(tmp_path, smollm2)
    assert (found["interactions"], found["planned"], found["failed"]) == (1_000_000, 4_200, 0)
    assert found["gib"] < 1.5


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_25_million_interactions_within_3_gib_and_3_minutes(tmp_path, smollm2):
    write_movielens(tmp_path, 25_000_000, 162_000, 62_000)
    found = measured(tmp_path, smollm2)
    assert (found["interactions"], found["planned"], found["failed"]) == (25_000_000, 224_000, 0)
    assert found["gib"] < 3
    assert found["seconds"] < 180
