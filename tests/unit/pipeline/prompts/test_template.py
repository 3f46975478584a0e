import re
from functools import partial
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.prompts.histories import HistoryEntry, ItemCard
from pipeline.prompts.template import PromptTemplate


def test_renders_without_escaping_and_without_outer_white_space():
    template = PromptTemplate("item", "\n{{ item_word }}: {{ item['title'] }}\n\n")
    assert (
        template.render({"item_word": "movie", "item": {"title": "<b>Up</b> & co"}})
        == "movie: <b>Up</b> & co"
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ item", "knowledge.item.template: line 1: "),
        ("ok\n{% for %}", "knowledge.item.template: line 2: "),
        ("{{ titel }}", "knowledge.item.template: unknown name 'titel'; there are factors, item, item_word"),
    ],
)
def test_a_faulty_template_is_refused_before_any_rendering(source, message):
    with pytest.raises(ConfigError) as error:
        PromptTemplate("item", source)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_template_that_is_nested_too_deeply_is_refused():
    with pytest.raises(ConfigError, match=r"^knowledge\.item\.template: "):
        PromptTemplate("item", "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ item.nothing }}",
        "{{ item_word.__class__.__mro__ }}",
        "{{ item_word + 1 }}",
        "{{ 1 / 0 }}",
        "{% include 'x' %}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{{ item.update({'title': 'x'}) }}",
    ],
)
def test_what_goes_wrong_while_rendering_names_the_field(source):
    template = PromptTemplate("item", source)
    with pytest.raises(ConfigError, match=r"^knowledge\.item\.template: "):
        template.render({"item_word": "movie", "item": {"title": "Up"}})


def test_the_page_on_new_domains_is_right_about_line_breaks():
    page = (Path(__file__).resolve().parents[4] / "docs" / "new-domain.md").read_text(encoding="utf-8")
    source = re.search(r"```jinja\n(.*?)```", page, flags=re.DOTALL)[1]
    card = partial(ItemCard, title="", year=None, categories=(), attributes={})
    history = [HistoryEntry(card(name="Up"), 3), HistoryEntry(card(name="Jaws"), None)]
    kept = PromptTemplate("user", source).render({"history": history})
    assert kept == "- Up, rated 3\n- Jaws\nWhat does this reader like?"
    lost = PromptTemplate("user", source.replace("+%}", "%}")).render({"history": history})
    assert lost == "- Up, rated 3- JawsWhat does this reader like?"
