import pyarrow as pa
import pytest

from jobs.config import load_settings
from pipeline.outline import outline_plan
from pipeline.scale.memory import Memory, measure_memory, measure_raw_memory, peak_bytes
from pipeline.scale.synthetic import prompt_batches

SIZES = (20_000, 120_000)  # far apart: what the process takes for itself varies by tens of megabytes
PROMPT_BYTES = 2_400  # text and token ids of one made-up prompt


def hold_all_prompts(num_rows: int) -> None:
    outline_plan(pa.concat_tables(prompt_batches(num_rows)), 512)


def test_the_driver_holds_no_prompts(tmp_path):
    """As many more rows as would be seen at once if their prompts, or copies of them, were held."""
    assert measure_memory(tmp_path, list(SIZES), 512).per_unit_bytes < PROMPT_BYTES / 3
    assert (tmp_path / f"memory-{SIZES[1]}" / "plan.parquet").exists()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["plan.parquet"] * 2


def test_a_driver_that_holds_them_is_told():
    held = Memory(SIZES, tuple(peak_bytes(hold_all_prompts, size) for size in SIZES))
    assert held.per_unit_bytes > 0.8 * PROMPT_BYTES


def test_a_process_that_fails_gives_no_figure():
    with pytest.raises(RuntimeError, match="outline_plan ended with exit code 1"):
        peak_bytes(outline_plan, None, 0)


def test_the_raw_data_of_each_user_is_counted(tmp_path):
    """At least the ids, ratings and times of a user's 20 ratings; far more than these would be waste."""
    settings = load_settings("generate", ["model.path=unused"])
    found = measure_raw_memory(tmp_path, [2_000, 40_000], settings)
    least = 20 * (4 + 8 + 2 * 4)  # a rating, a time, and two offsets of strings
    assert least < found.per_unit_bytes < 30 * least
