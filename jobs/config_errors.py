"""Pydantic's findings as one line in the words of the configuration."""

import json
import re
from typing import Any

from pydantic import BaseModel, ValidationError

from jobs.schema_paths import (
    annotation_at,
    dotted,
    holds_plain_text,
    in_words,
    known_paths,
    literal_values,
    nearest_key,
    nearest_name,
)
from pipeline.errors import ConfigError

MAX_SHOWN_CHARACTERS = 80
BOUNDS = ("greater_than", "less_than", "multiple_of", "too_", "string_too_", "finite_number")
SUBJECT = re.compile(r"^\w+ should ")  # Input, List, String


def first_error(error: ValidationError, schema: type[BaseModel], values: dict[str, Any]) -> str:
    """The first thing that is wrong, and how many other fields are."""
    findings = error.errors(include_url=False)
    paths = [_path(schema, finding) for finding in findings]
    others = len(set(paths)) - 1
    line = _line(findings, paths, schema, values)
    return line + (f" (and {others} more)" if others else "")


def unknown_key(name: str, schema: type[BaseModel]) -> str:
    """The line for a key that the settings do not have."""
    nearest = nearest_key(name, known_paths(schema))
    return f"{name}: unknown key" + (f"; did you mean '{nearest}'?" if nearest else "")


def reject_unquoted(values: Any, schema: type[BaseModel], path: tuple[Any, ...] = ()) -> None:
    """Refuse numbers of YAML where a text is meant, as `1990: [x]` or `[0]`: their spelling is lost."""
    if isinstance(values, dict):
        for key in values:
            if not isinstance(key, str):
                raise ConfigError(f"{dotted(path)}: key {_shown(key)}: must be text; put it in quotes")
    if isinstance(values, dict | list):
        for step, member in values.items() if isinstance(values, dict) else enumerate(values):
            reject_unquoted(member, schema, (*path, step))
    elif isinstance(values, int | float) and holds_plain_text(annotation := annotation_at(schema, path)):
        raise ConfigError(
            f"{dotted(path)}={_shown(values)}: must be {in_words(annotation)}; put it in quotes"
        )


def _line(findings: list[Any], paths: list[tuple[Any, ...]], schema: type[BaseModel], values: Any) -> str:
    finding, path = findings[0], paths[0]
    kind, name = finding["type"], dotted(path)
    if kind == "extra_forbidden":
        return unknown_key(name, schema)
    if kind == "missing":
        return f"{name}: missing; must be {in_words(annotation_at(schema, path))}"
    if kind == "value_error" and name in str(finding["ctx"]["error"]):
        return str(finding["ctx"]["error"])
    is_union = paths.count(path) > 1
    value = _value_at(values, path)
    return f"{name}={_shown(value)}: {_complaint(finding, is_union, annotation_at(schema, path), value)}"


def _complaint(finding: Any, is_union: bool, annotation: Any, value: Any) -> str:
    if not is_union and finding["type"] == "value_error":
        return str(finding["ctx"]["error"])
    if not is_union and finding["type"] == "string_pattern_mismatch":
        return f"must match {finding['ctx']['pattern']}"
    if not is_union and finding["type"].startswith(BOUNDS):
        return SUBJECT.sub("must ", finding["msg"]).removesuffix(" after validation, not 0")
    nearest = nearest_name(str(value), literal_values(annotation))
    return f"must be {in_words(annotation)}" + (f"; did you mean '{nearest}'?" if nearest else "")


def _path(schema: type[BaseModel], finding: Any) -> tuple[Any, ...]:
    """The part of pydantic's location that is a path; what follows names alternatives of a union."""
    location = finding["loc"]
    if finding["type"] == "extra_forbidden":
        return location
    while annotation_at(schema, location) is None:
        location = location[:-1]
    return location


def _value_at(values: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        values = values[step]
    return values


def _shown(value: Any) -> str:
    written = json.dumps(value) if value is None or isinstance(value, bool) else str(value)
    text = " ".join(written.split())
    return text if len(text) <= MAX_SHOWN_CHARACTERS else text[: MAX_SHOWN_CHARACTERS - 3] + "..."
