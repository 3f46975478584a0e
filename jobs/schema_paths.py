"""Dotted paths through the settings classes: which exist, and what their values may be, in words."""

import types
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge
from pydantic import BaseModel, TypeAdapter, ValidationError

Path = tuple[str | int, ...]
NAMES_OF_TYPES = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "text",
    type(None): "null",
    dict: "a mapping",
    list: "a list",
}


def annotation_at(schema: type[BaseModel], path: Path) -> Any:
    """The annotation of the value at `path`; None if the settings have no such value."""
    annotation: Any = schema
    for step in path:
        annotation = _step_into(annotation, step)
        if annotation is None:
            return None
    return annotation


def known_paths(schema: type[BaseModel], prefix: str = "") -> list[str]:
    """Every dotted path of the settings, groups included."""
    paths = []
    for name, annotation in _fields(schema).items():
        paths.append(prefix + name)
        for member in _members(annotation):
            if _is_settings(member):
                paths.extend(known_paths(member, f"{prefix}{name}."))
    return paths


def dotted(path: Path) -> str:
    """`('a', 'b', 0)` as `a.b[0]`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def in_words(annotation: Any) -> str:
    """What `annotation` allows: `a positive integer or 'all'`."""
    members = _members(annotation)
    if all(get_origin(member) is Literal for member in members):
        return f"one of {', '.join(literal_values(annotation))}"
    return " or ".join(_member_in_words(member) for member in members)


def literal_values(annotation: Any) -> list[str]:
    """The values that `annotation` lists, as they are written."""
    literals = [get_args(member) for member in _members(annotation) if get_origin(member) is Literal]
    return [str(value) for values in literals for value in values]


def holds_text_only(annotation: Any) -> bool:
    """True if every value other than null is written as a text: no number, list or mapping is allowed."""
    members = [member for member in _members(annotation) if member is not type(None)]
    others = (bool, int, float, dict, list)
    return not any(
        _is_settings(_plain(member)) or _plain(member) in others or _lists_numbers(member)
        for member in members
    )


def holds_plain_text(annotation: Any) -> bool:
    """True if every value other than null and groups of keys is a text of any spelling, and no number."""
    plain = [_plain(member) for member in _members(annotation)]
    others = [member for member in plain if member not in (str, type(None), list)]
    return str in plain and all(map(_is_settings, others)) and not _takes_numbers(annotation)


def _takes_numbers(annotation: Any) -> bool:
    """Whether a number is good too, as its text."""
    try:
        TypeAdapter(annotation).validate_python(0)
    except ValidationError:
        return False
    return True


def allows_bool(annotation: Any) -> bool:
    """True if true and false are values of their own, not numbers in disguise."""
    return any(member in (bool, Any) for member in _members(annotation))


def nearest_key(wrong: str, known: list[str]) -> str | None:
    """The known dotted path nearest to `wrong`: as a whole, else beside it, else by its last step."""
    whole = get_close_matches(wrong, known, n=1, cutoff=0.85)
    if whole:
        return whole[0]
    parent, _, last_step = wrong.rpartition(".")
    siblings = [path for path in known if path.rpartition(".")[0] == parent]
    for candidates, cutoff in ((siblings, 0.6), (known, 0.75)):
        by_last_step = {path.rpartition(".")[2]: path for path in reversed(candidates)}
        nearest = get_close_matches(last_step, list(by_last_step), n=1, cutoff=cutoff)
        if nearest:
            return by_last_step[nearest[0]]
    return None


def nearest_name(wrong: str, names: list[str]) -> str | None:
    """The name nearest to `wrong`, if one is near at all."""
    nearest = get_close_matches(wrong, names, n=1, cutoff=0.5)
    return nearest[0] if nearest else None


def _step_into(annotation: Any, step: str | int) -> Any:
    for member in map(_without_bounds, _members(annotation)):
        if _is_settings(member) and step in member.model_fields:
            return _fields(member)[str(step)]
        if get_origin(member) is dict and isinstance(step, str):
            return get_args(member)[1]
        if get_origin(member) is list and isinstance(step, int):
            return get_args(member)[0]
    return None


def _fields(schema: type[BaseModel]) -> dict[str, Any]:
    """Field name -> annotation, with the bounds that pydantic keeps beside it put back."""
    return {
        name: Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        for name, field in schema.model_fields.items()
    }


def _members(annotation: Any) -> list[Any]:
    """The alternatives of a union, or the annotation alone."""
    union = annotation
    if get_origin(union) is Annotated and get_origin(get_args(union)[0]) in (Union, types.UnionType):
        union = get_args(union)[0]
    return list(get_args(union)) if get_origin(union) in (Union, types.UnionType) else [annotation]


def _member_in_words(member: Any) -> str:
    if get_origin(member) is Annotated and Ge(1) in _bounds(member):
        return "a positive integer" if _plain(member) is int else "a positive number"
    if get_origin(member) is Literal:
        return " or ".join(repr(value) for value in get_args(member))
    if _plain(member) is list and literal_values(element := get_args(_without_bounds(member))[0]):
        return f"a list of {', '.join(literal_values(element))}"
    return NAMES_OF_TYPES.get(_plain(member), "a group of keys" if _is_settings(_plain(member)) else "text")


def _lists_numbers(member: Any) -> bool:
    return get_origin(member) is Literal and not all(isinstance(value, str) for value in get_args(member))


def _bounds(member: Any) -> list[Any]:
    """Constraints in an annotation: those of a pydantic `Field` and those that stand alone."""
    return [
        bound
        for entry in get_args(member)[1:]
        for bound in (entry, *(getattr(entry, "metadata", None) or ()))
    ]


def _without_bounds(member: Any) -> Any:
    return get_args(member)[0] if get_origin(member) is Annotated else member


def _plain(member: Any) -> Any:
    """The type without its bounds and parameters."""
    member = _without_bounds(member)
    return get_origin(member) or member


def _is_settings(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
