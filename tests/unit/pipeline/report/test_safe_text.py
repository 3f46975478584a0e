import pytest
from markdown_it import MarkdownIt

from pipeline.report.safe_text import fenced, markdown, one_line, visible

NASTY = [
    "a | b",
    "`code` and ``more``",
    "*bold* _under_ __both__ ~~gone~~",
    "[link](http://x) ![image](y)",
    "<b>html</b> &amp; &lt;",
    "back\\slash \\| pipe",
    "run_id and a_b_c",
]


@pytest.mark.parametrize("text", NASTY)
def test_markdown_shows_the_text_and_means_nothing_else(text):
    html = (
        MarkdownIt("commonmark")
        .enable(["table", "strikethrough"])
        .render(f"| x |\n|---|\n| {markdown(text)} |\n")
    )
    cell = html.split("<td>")[1].split("</td>")[0]
    shown = cell.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"').replace("&amp;", "&")
    assert shown == text


def test_a_text_cannot_end_its_code_block():
    text = "before\n```\n# no heading\n`````"
    html = MarkdownIt().render(fenced(text))
    assert html.count("<pre>") == 1 and "<h1>" not in html


def test_controls_are_seen_and_lines_are_kept():
    assert visible("a\x00b\tc\r\nd\u202e") == "a\ufffdb\tc\nd\ufffd"
    assert one_line(" a\n b\tc ") == "a b c"
