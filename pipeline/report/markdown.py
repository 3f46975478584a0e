"""The report as Markdown (GitHub's tables)."""

from pipeline.report.blocks import Block, Charts, DataTable, Document, SampleText, Section, Text, Tile
from pipeline.report.formats import count
from pipeline.report.safe_text import fenced, markdown

STATE_WORDS = {"done": "OK", "failed": "FAILED", "stopped": "STOPPED", "running": "RUNNING"}


def to_markdown(document: Document) -> str:
    """The whole report; it ends with a line feed."""
    verdict = document.verdict
    lines = [f"# {markdown(document.title)}", markdown(document.subtitle)]
    lines.append(f"**{STATE_WORDS[verdict.state]}: {markdown(verdict.headline)}**")
    if verdict.reason:
        lines.append(f"**Why:** {markdown(verdict.reason)}")
    if verdict.advice:
        lines.append(f"**What to do:** {markdown(verdict.advice)}")
    lines.append(_tiles(document.tiles))
    for section in document.sections:
        lines += _section(section)
    return "\n\n".join(lines) + "\n"


def _tiles(tiles: list[Tile]) -> str:
    rows = ["| key figure | | |", "|---|---:|---|"]
    rows += [f"| {markdown(t.label)} | {markdown(t.value)} | {markdown(t.note)} |" for t in tiles]
    return "\n".join(rows)


def _section(section: Section) -> list[str]:
    lines = [f"## {markdown(section.title)}"]
    for block in section.blocks:
        lines += _block(block)
    return lines


def _block(block: Block) -> list[str]:
    if isinstance(block, DataTable):
        return _table(block)
    if isinstance(block, Charts):
        return [line for chart in block.charts for line in _table(chart.table)]
    if isinstance(block, Text):
        return [markdown(block.text)]
    if isinstance(block, SampleText):
        return _sample(block)
    return [_tiles([block])]


def _table(table: DataTable) -> list[str]:
    head = "| " + " | ".join(markdown(column.name) for column in table.columns) + " |"
    rule = "|" + "|".join("---:" if column.is_number else "---" for column in table.columns) + "|"
    rows = ["| " + " | ".join(markdown(cell) for cell in row) + " |" for row in table.rows]
    lines = [f"**{markdown(table.caption)}**", "\n".join([head, rule, *rows])]
    return [*lines, markdown(table.note)] if table.note else lines


def _sample(block: SampleText) -> list[str]:
    sample = block.sample
    words = f"{sample.entity}, group {sample.group}: {count(sample.num_output_tokens)} tokens"
    title = (
        f"{sample.what}: {words} in {count(sample.num_decode_steps)} steps, ended by {sample.finish_reason}"
    )
    return [f"**{markdown(title)}**", fenced(sample.text)]
