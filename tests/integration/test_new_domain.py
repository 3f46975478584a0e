"""docs/new-domain.md, followed literally: its YAML is saved where it says, its commands are run in order."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.dataset as ds
import pytest

pytestmark = pytest.mark.slow  # a run with the real engine, on a machine that has nothing prepared

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = (CHECKOUT / "docs" / "new-domain.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def run(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    script = script.replace(".venv/bin/python", sys.executable)
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    return subprocess.run(
        ["sh", "-ec", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


@pytest.fixture(scope="module")
def followed(tmp_path_factory) -> Path:
    """A folder after steps 1 and 2 of the page."""
    folder = tmp_path_factory.mktemp("newcomer")
    place = re.search(r"Save this as `([^`]+)`", PAGE)[1]
    downloaded = run(folder, blocks("sh")[0])
    if downloaded.returncode:
        pytest.skip(f"no package index: {downloaded.stderr[-200:]}")
    own_prompts = re.search(r"`(my/configs/knowledge/[^`]+)`", PAGE)[1]
    for path, content in zip((place, own_prompts), blocks("yaml"), strict=True):
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_text(content, encoding="utf-8")
    return folder


def test_the_dry_run_shows_what_was_understood(followed):
    shown = run(followed, blocks("sh")[1])
    assert shown.returncode == 0, shown.stderr
    assert "15,223 users, 36,041 items, 564,730 interactions" in shown.stdout
    for expected in (
        "BX-Book-Ratings.csv",
        "Bad rows: 118,605",
        "harlequin 1,560",
        "prompt of one user",
        "tokens/s",
    ):
        assert expected in shown.stdout
    assert shown.stdout.count("prompt of one") == 6
    assert not (followed / "data").exists()


def test_prompts_of_ones_own(followed):
    shown = run(followed, blocks("sh")[1].strip() + " knowledge=blurb")
    assert shown.returncode == 0, shown.stderr
    assert "in at most 30 words." in shown.stdout
    assert (
        'answer with one JSON object, {"likes": "…", "dislikes": "…"}, at most 30 words each.' in shown.stdout
    )


def test_knowledge_is_generated_from_yaml_alone(followed):
    shown = run(followed, blocks("sh")[2])
    assert shown.returncode == 0, shown.stderr
    [parts] = (followed / "data" / "bookcrossing" / "runs").glob("*/parts")
    rows = ds.dataset(sorted(parts.glob("*.parquet"))).to_table(["kind", "text"])
    assert sorted(rows["kind"].to_pylist()) == ["item"] * 4 + ["user"] * 4
    assert all(rows["text"].to_pylist())
