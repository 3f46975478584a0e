"""The report as one HTML page that needs nothing else: styles and pictures are inside, and no script is.

Jinja escapes whatever a run puts in; the page's content policy forbids it to load or run anything.
"""

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.report.blocks import Charts, DataTable, Document, SampleText, Text
from pipeline.report.figures import RunFigures
from pipeline.report.markdown import STATE_WORDS
from pipeline.report.plots import draw
from pipeline.report.safe_text import visible

FOLDER = Path(__file__).parent
UNITS = re.compile(r"(?<=\d) (?=(%|s|min|h|x)(\W|$))")  # a number is not parted from its unit
BLOCK_TESTS = {"data_table": DataTable, "text": Text, "charts": Charts, "sample": SampleText}


def to_html(document: Document, figures: RunFigures) -> str:
    """The whole page; `figures` are those that `document` was made of."""
    charts = [
        chart
        for section in document.sections
        for block in section.blocks
        if isinstance(block, Charts)
        for chart in block.charts
    ]
    page = _environment().get_template("page.html.j2")
    return page.render(
        document=document,
        state_word=STATE_WORDS[document.verdict.state],
        css=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
        pictures={chart.name: Markup(draw(chart.name, figures)) for chart in charts},
    )


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = visible
    environment.filters["typeset"] = lambda text: UNITS.sub("\u00a0", text)
    for name, kind in BLOCK_TESTS.items():
        environment.tests[name] = lambda block, kind=kind: isinstance(block, kind)
    return environment
