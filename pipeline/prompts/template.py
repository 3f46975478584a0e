"""The Jinja templates of a prompt set: sandboxed, and strict about names."""

from collections.abc import Mapping
from typing import Any

import jinja2
from jinja2 import meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipeline.errors import ConfigError
from pipeline.prompts.histories import ItemCard
from pipeline.settings import Kind

# What a template may refer to. `item_word`, `item_words`: what the domain calls an item, and several of
# them. `attributes`: a mapping of strings. Users: `history` is a list of (item, rating) pairs, oldest
# first, where item has `name` (title and year), `title`, `year` (or None), `categories`, `attributes`, and
# rating is a number or None. An entry of it has both by name, `entry.item` and `entry.rating`, and also
# `entry.text`, what the user wrote about the item, or None. `liked` are the entries whose rating is at least
# the mean of those shown, or that have none; `disliked` are the others. `min_rating` and `max_rating` are the
# ends of the rating scale, or None.
# Items: `item`. `max_words`: the length that the prompt set asks for, or None. `factors`: what the prompt set
# says that a text on such an item should go into, or None.
VARIABLES: dict[Kind, frozenset[str]] = {
    "user": frozenset(
        {
            "item_word",
            "item_words",
            "attributes",
            "history",
            "liked",
            "disliked",
            "min_rating",
            "max_rating",
            "max_words",
            "factors",
        }
    ),
    "item": frozenset({"item_word", "item_words", "item", "max_words", "factors"}),
}

_CARD_FIELDS = frozenset(ItemCard.__dataclass_fields__)

# What a faulty expression in a template can raise besides Jinja's own errors.
_EXPRESSION_ERRORS = (
    jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError,
)  # fmt: skip


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, with a short way to the fields of an item, which long histories ask for most."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`obj.attribute`, if the sandbox allows it."""
        if type(obj) is ItemCard and attribute in _CARD_FIELDS:
            return getattr(obj, attribute)
        return super().getattr(obj, attribute)


def _environment() -> ImmutableSandboxedEnvironment:
    return _Environment(
        undefined=jinja2.StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True
    )


class PromptTemplate:
    """One compiled template. Raises `ConfigError` naming the field for syntax errors and unknown names."""

    def __init__(self, kind: Kind, source: str, field: str = "template") -> None:
        self._field = f"knowledge.{kind}.{field}"
        environment = _environment()
        try:
            names = meta.find_undeclared_variables(environment.parse(source))
            self._template = environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise ConfigError(f"{self._field}: line {error.lineno}: {error.message}") from error
        except (RecursionError, SyntaxError, MemoryError) as error:  # Python's own limits on nesting
            raise ConfigError(f"{self._field}: nested too deeply ({error})") from error
        unknown = sorted(names - VARIABLES[kind])
        if unknown:
            known = ", ".join(sorted(VARIABLES[kind]))
            raise ConfigError(f"{self._field}: unknown name {unknown[0]!r}; there are {known}")

    def render(self, variables: Mapping[str, Any]) -> str:
        """The user message, without white space around it."""
        try:
            return self._template.render(variables).strip()
        except _EXPRESSION_ERRORS as error:
            raise ConfigError(f"{self._field}: {error}") from error
