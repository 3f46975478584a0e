"""`python -m jobs.record`: recordings of generated texts, for offline work on the drafter."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from jobs.cli import entry_point

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from pipeline.settings import RunSettings
    from pipeline.storage.layout import RunLayout


@entry_point(
    "record",
    "Generate texts without drafts, and write them as recordings for `python -m drafters.replay`.",
    examples=["dataset=movielens limit=all", "dataset=movielens limit=400 knowledge=once"],
)
def main(settings: RunSettings) -> None:
    """Generate token by token, whatever `drafter` says; then write a file of recordings for each kind."""
    from pipeline.stages import messages, stage

    with stage("loading libraries", is_short=True):
        from pipeline.domains.raw.watch import reading_shown_on
        from pipeline.generate.progress import progress_view
        from pipeline.road import generate_knowledge
        from pipeline.settings import DrafterSettings
        from pipeline.storage.layout import DatasetLayout

    plain = settings.model_copy(update={"drafter": DrafterSettings(name="none", max_draft_tokens=0)})
    with reading_shown_on(messages()):
        report = generate_knowledge(plain, lambda: progress_view(messages(), plain.model.name))
    dataset = DatasetLayout.of(settings.paths.data, settings.dataset.name)
    for path in write_recordings(dataset.run(report.run_id), dataset.root / "recordings" / report.run_id):
        print(path)


def write_recordings(run: RunLayout, folder: Path) -> list[Path]:
    """Write the finished texts of `run` to `items.parquet` and `users.parquet` in `folder`; their paths.

    A text that rows share is written once. Recordings hold prompts, and thereby the data of the domain.
    """
    import pyarrow as pa

    from pipeline.plan_file import shard_sizes
    from pipeline.settings import KINDS
    from pipeline.storage.files import write_parquet

    shards = [shard for shard in shard_sizes(run.plan) if run.part_manifest(shard).exists()]
    written = []
    for kind in KINDS:
        tables = [_recordings_of(run, shard) for shard in shards if shard.startswith(f"{kind}-")]
        if tables:
            write_parquet(pa.concat_tables(tables), folder / f"{kind}s.parquet")
            written.append(folder / f"{kind}s.parquet")
    return written


def _recordings_of(run: RunLayout, shard: str) -> pa.Table:
    """The recordings of one shard, with the columns that `drafters.replay.traces` reads, and the text."""
    import pyarrow.compute as pc

    from drafters.replay.traces import COLUMNS
    from pipeline.plan_file import read_rows
    from pipeline.storage.location import read_table

    prompts = read_rows(run.plan, shard).select(["entity_id", "prompt_token_ids"])
    names = ["entity_id", "group", "token_ids", "text", "shared_from"]
    texts = read_table(run.part(shard), columns=names).rename_columns([*names[:2], COLUMNS[3], *names[3:]])
    texts = texts.filter(texts["shared_from"].is_null()).drop_columns("shared_from")
    rows = pc.index_in(texts["entity_id"], value_set=prompts["entity_id"].combine_chunks())
    return texts.append_column("prompt_token_ids", prompts["prompt_token_ids"].take(rows)).select(
        [*COLUMNS, "text"]
    )


if __name__ == "__main__":
    sys.exit(main())
