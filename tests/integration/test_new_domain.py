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


def files() -> dict[str, str]:
    """The files that the page has its reader save, by their place: the last one named before each."""
    found = re.finditer(r"```(?:yaml|csv)\n(.*?)```", PAGE, flags=re.DOTALL)
    return {re.findall(r"`(my/[^`]+)`", PAGE[: block.start()])[-1]: block[1] for block in found}


def command(words: str) -> str:
    """The page's only command with these words."""
    [script] = [script for script in blocks("sh") if words in script]
    return script


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


def save_files(folder: Path) -> Path:
    for path, content in files().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def followed(tmp_path_factory) -> Path:
    """A folder after steps 1 and 2 of the page."""
    folder = tmp_path_factory.mktemp("newcomer")
    downloaded = run(folder, command("pip download"))
    if downloaded.returncode:
        pytest.skip(f"no package index: {downloaded.stderr[-200:]}")
    return save_files(folder)


def test_the_smallest_description_is_enough(tmp_path):
    save_files(tmp_path)
    look = command("dataset=shop").strip()
    shown = run(tmp_path, f"{look} knowledge=garments model.prompt_form=large")
    assert shown.returncode == 0, shown.stderr
    assert "2 users, 3 items, 4 interactions" in shown.stdout and "Bad rows: 0;" in shown.stdout
    assert "not limited to fabric, cut, season and care)" in shown.stdout
    assert "reading my/raw/sales.csv" in shown.stderr and "1 of 4 rows repeat" in shown.stderr
    small = "knowledge.user.max_tokens=8 knowledge.item.max_tokens=8"
    written = run(tmp_path, f"{look.replace('dry_run=true', small)} limit=all")
    assert written.returncode == 0, written.stderr
    [parts] = (tmp_path / "data" / "shop" / "runs").glob("*/parts")
    assert ds.dataset(sorted(parts.glob("*.parquet"))).count_rows() == 5


def test_the_dry_run_shows_what_was_understood(followed):
    shown = run(followed, command("dataset=bookcrossing dry_run"))
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
    shown = run(followed, command("dataset=bookcrossing dry_run").strip() + " knowledge=blurb")
    assert shown.returncode == 0, shown.stderr
    assert "in at most 30 words." in shown.stdout
    assert (
        'answer with one JSON object, {"likes": "…", "dislikes": "…"}, at most 30 words each.' in shown.stdout
    )


def test_knowledge_is_generated_from_yaml_alone(followed):
    shown = run(followed, command("max_tokens=32"))
    assert shown.returncode == 0, shown.stderr
    [parts] = (followed / "data" / "bookcrossing" / "runs").glob("*/parts")
    rows = ds.dataset(sorted(parts.glob("*.parquet"))).to_table(["kind", "text"])
    assert sorted(rows["kind"].to_pylist()) == ["item"] * 4 + ["user"] * 4
    assert all(rows["text"].to_pylist())
