"""Hydra at the edge: composes configs/, checks every override, and hands out typed settings.

Whatever is wrong ends as a `ConfigError` of one line that names the key, what is allowed and the nearest
match; nothing is written before that.
"""

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from jobs.config_errors import first_error, reject_unquoted, unknown_key
from jobs.schema_paths import allows_bool, annotation_at, dotted, holds_text_only, in_words, nearest_name
from pipeline.environment import CONFIG_DIR_VARIABLE, machine_backend
from pipeline.errors import ConfigError
from pipeline.models.resolve import PACKAGE_PREFIX
from pipeline.settings import DEFAULT_PROMPT_FORM, KINDS, PROMPT_FORMS, RunSettings
from pipeline.storage.location import missing_store

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
TEXT_OVERRIDE = re.compile(
    r"(?P<sign>\+{0,2})(?P<key>[A-Za-z_][\w.\-]*)\s*=\s*(?P<value>[^'\"\s].*)", re.DOTALL
)


# What Hydra raises for files that are no configuration: a list, a number, other bytes, a loop of aliases.
_MALFORMED = (ValueError, TypeError, AttributeError, LookupError, OSError, RecursionError, AssertionError)
MAX_MESSAGE_CHARACTERS = 400
DAYS_AGO: dict[Any, int] = {"today": 0, "yesterday": 1}
TO_GIVE = {"dataset.raw": "the folder with the raw files, as in dataset.raw=/path/to/files"}


def load_settings(config_name: str, overrides: list[str], config_dir: str | None = None) -> RunSettings:
    """Compose `configs/<config_name>.yaml` with Hydra `overrides` into settings; `ConfigError` if wrong.

    `config_dir` (default: $LASER_CONFIG_DIR) is a folder of the same shape as configs/ whose files are
    offered beside those; a name that both have is refused. Relative `paths.data` and `dataset.raw` become
    absolute.
    """
    try:
        return _load_settings(config_name, overrides, config_dir)
    except ConfigError as error:  # it may quote what was given, line breaks included
        raise ConfigError(" ".join(str(error).split())) from error


def _load_settings(config_name: str, overrides: list[str], config_dir: str | None) -> RunSettings:
    folders = [CONFIGS, *_additional_folder(config_dir)]
    checked = [_checked(override, RunSettings, folders) for override in overrides]
    values = _compose(config_name, checked, folders)
    _choose_prompt_form(values)
    reject_unquoted(values, RunSettings)
    _reject_booleans(values, RunSettings)
    _make_paths_absolute(values)
    _resolve_cutoff(values)
    _name_model(values, checked)
    try:
        settings = RunSettings.model_validate(values)
    except ValidationError as error:
        raise ConfigError(first_error(error, RunSettings, values)) from error
    _check_combinations(settings)
    return settings


def as_yaml(settings: BaseModel) -> str:
    """The settings as YAML, every default included."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _additional_folder(config_dir: str | None) -> list[Path]:
    given = config_dir or os.environ.get(CONFIG_DIR_VARIABLE)
    if not given:
        return []
    folder = Path(given).expanduser().resolve()
    if not folder.is_dir():
        name = "--config-dir" if config_dir else CONFIG_DIR_VARIABLE
        raise ConfigError(f"{name}={given}: no such folder")
    _reject_namesakes(folder)
    return [folder]


def _reject_namesakes(folder: Path) -> None:
    """Hydra would take the file of configs/ and ignore the other in silence; the same text is no harm."""
    for file in sorted(folder.rglob("*.yaml")):
        name = file.relative_to(folder)
        shipped = CONFIGS / name
        if shipped.is_file() and shipped.read_bytes() != file.read_bytes():
            raise ConfigError(f"{file}: configs/{name} has the same name; give yours another one")


def _compose(config_name: str, overrides: list[str], folders: list[Path]) -> dict[str, Any]:
    OmegaConf.register_new_resolver("by_machine", _by_machine, replace=True)
    if folders[1:]:
        searchpath = ",".join(_quoted(f"file://{folder}") for folder in folders[1:])
        overrides = [*overrides, f"hydra.searchpath=[{searchpath}]"]
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            config = compose(config_name, overrides)
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        what = TO_GIVE.get(str(error.full_key), "a value")
        raise ConfigError(f"{error.full_key}: missing; give it {what}") from error
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, *_MALFORMED) as error:
        raise ConfigError(_one_line(error)) from error
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _by_machine(without_gpu: Any, with_gpu: Any) -> Any:
    return with_gpu if machine_backend() == "gpu" else without_gpu


def _one_line(error: BaseException) -> str:
    """The error's text without line breaks; OmegaConf's key, which it writes last, first."""
    text = re.sub(r"\s+", " ", str(error)).strip()[:MAX_MESSAGE_CHARACTERS] or type(error).__name__
    key = getattr(error, "full_key", None)
    return f"{key}: {text.split(' full_key: ')[0]}" if key else text


def _checked(text: str, schema: type[BaseModel], folders: list[Path]) -> str:
    """`text` as Hydra shall see it; `ConfigError` if its key or its group option does not exist."""
    override = _parsed(_with_text_quoted(text, schema))
    key = override.key_or_group
    if (CONFIGS / key).is_dir() or any((folder / key).is_dir() for folder in folders):
        _check_option(override, text, folders, is_required=key in schema.model_fields)
        return str(override.input_line)
    if key.split(".")[0].split("/")[0] == "hydra":
        raise ConfigError(f"{key}: Hydra's own settings have no effect here; --config-dir adds a folder")
    if annotation_at(schema, tuple(key.split("."))) is None:
        raise ConfigError(unknown_key(key, schema))
    if override.is_sweep_override():
        raise ConfigError(f"{text}: takes one value, not several")
    # A known key may be set although no YAML file lists it, as optional ones are.
    is_plain = not (override.is_add() or override.is_force_add() or override.is_delete())
    return f"++{override.input_line}" if is_plain else str(override.input_line)


def _parsed(text: str) -> Override:
    try:
        override = OverridesParser.create().parse_override(text)
        if not override.key_or_group:
            raise HydraException("no key")
        return override
    except (HydraException, ValueError) as error:  # ValueError: a number of thousands of digits
        if "=" not in text:
            raise ConfigError(f"{text}: not an override; write key=value") from error
        raise ConfigError(
            f"{text}: not a valid override ({_one_line(error).split(' See ')[0]}); "
            "write key=value, and quotes around a value with special characters"
        ) from error


def _with_text_quoted(text: str, schema: type[BaseModel]) -> str:
    """Quote the value of a key that holds text: `run_id=2026_07` is no number, `/a=b,c` a path."""
    match = TEXT_OVERRIDE.fullmatch(text)
    if match is None or match["value"].lower() == "null" or "${" in match["value"]:
        return text
    annotation = annotation_at(schema, tuple(match["key"].split(".")))
    if annotation is None or not holds_text_only(annotation):
        return text
    return f"{match['sign']}{match['key']}={_quoted(match['value'])}"


def _quoted(value: str) -> str:
    """`value` as a single-quoted string of Hydra's grammar: backslashes count only before a quote."""
    escaped = re.sub(r"(\\*)'", lambda match: match[1] * 2 + r"\'", value)
    trailing = re.search(r"\\*$", escaped)
    return f"'{escaped}{trailing[0] if trailing else ''}'"


def _check_option(override: Override, text: str, folders: list[Path], is_required: bool) -> None:
    group = override.key_or_group
    options = sorted({file.stem for folder in folders for file in (folder / group).glob("*.yaml")})
    is_sweep = override.is_sweep_override()
    value = None if is_sweep else override.value()
    if override.is_delete() or (value is None and not is_sweep and not is_required):
        return
    if not isinstance(value, str):
        raise ConfigError(f"{text}: takes one name; available: {', '.join(options)}")
    is_second = is_required and (override.is_add() or override.is_force_add())
    if is_second and value in options:
        raise ConfigError(f"{text}: there is a {group} already; write {group}={value}")
    if value in options:
        return
    nearest = nearest_name(value, options)
    hint = f". Did you mean '{nearest}'?" if nearest else ""
    raise ConfigError(f"{group}={value}: no such {group}; available: {', '.join(options)}{hint}")


def _choose_prompt_form(values: dict[str, Any]) -> None:
    """Where a prompt set gives a value as {large: ..., small: ...}, take that of `model.prompt_form`.

    `max_history` and every setting of `user` and `item` can be given so. An override replaces both forms.
    """
    knowledge, model = values.get("knowledge"), values.get("model")
    if not isinstance(knowledge, dict) or not isinstance(model, dict):
        return
    form = model.get("prompt_form", DEFAULT_PROMPT_FORM)
    sections = [(kind, knowledge[kind]) for kind in KINDS if isinstance(knowledge.get(kind), dict)]
    for name, section in [("", knowledge), *sections]:
        for key, value in section.items():
            if isinstance(value, dict) and value and value.keys() <= set(PROMPT_FORMS) and key != "factors":
                if form not in value:
                    path = dotted(("knowledge", name, key) if name else ("knowledge", key))
                    raise ConfigError(f"{path}.{form}: missing; model.prompt_form is {form}")
                section[key] = value[form]


def _leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every value that is no mapping and no list, with its path."""
    if isinstance(value, dict | list):
        for key, member in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(member, (*path, key))
    else:
        yield path, value


def _reject_booleans(values: dict[str, Any], schema: type[BaseModel]) -> None:
    """Refuse true and false where a number is meant: pydantic would read them as 1 and 0."""
    for path, value in _leaves(values):
        annotation = annotation_at(schema, path)
        if isinstance(value, bool) and annotation is not None and not allows_bool(annotation):
            raise ConfigError(f"{dotted(path)}={str(value).lower()}: must be {in_words(annotation)}")


def _make_paths_absolute(values: dict[str, Any]) -> None:
    """Workers have other working folders than the job."""
    for group, key in (("paths", "data"), ("dataset", "raw")):
        section = values.get(group)
        value = section.get(key) if isinstance(section, dict) else None
        if not isinstance(value, str):
            continue
        if "://" in value and not value.startswith("file://"):
            if reason := missing_store(value):
                raise ConfigError(f"{group}.{key}={value}: {reason}")
            continue
        location = value.removeprefix("file://")
        if not location or "://" in location:
            raise ConfigError(f"{group}.{key}={value}: must be a folder of a local or mounted file system")
        values[group][key] = str(Path(location).expanduser().absolute())


def _resolve_cutoff(values: dict[str, Any]) -> None:
    """Make `history_cutoff=today` a moment, once: everything below sees the same one. The word is kept."""
    word = values.get("history_cutoff")
    is_word = word in DAYS_AGO if isinstance(word, str) else False
    values["cutoff_word"] = word if is_word else None
    if is_word:
        day = datetime.now(UTC).date() - timedelta(days=DAYS_AGO[word])
        values["history_cutoff"] = day.isoformat()


def _name_model(values: dict[str, Any], overrides: list[str]) -> None:
    """Name a model after its path if only that was overridden: rows, run and report say what ran."""
    keys = {override.lstrip("+").partition("=")[0] for override in overrides}
    model = values.get("model")
    if "model.path" not in keys or "model.name" in keys or not isinstance(model, dict):
        return
    path = model.get("path")
    if isinstance(path, str) and not path.startswith(PACKAGE_PREFIX):
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(path).name).strip(".-_")
        model["name"] = name or model.get("name")


def _check_combinations(settings: RunSettings) -> None:
    dataset, model, acceptance = settings.dataset, settings.model, settings.acceptance
    if dataset.rating_range is not None and dataset.rating_range[0] >= dataset.rating_range[1]:
        low, high = dataset.rating_range
        raise ConfigError(f"dataset.min_rating={low:g}: must be below {high:g}")
    has_no_times = dataset.tabular is not None and dataset.tabular.interactions.timestamp is None
    if has_no_times and settings.history_cutoff is not None:
        raise ConfigError("history_cutoff: dataset.tabular.interactions.timestamp is null: no times")
    for kind in ("user", "item"):
        tokens = settings.knowledge.prompt(kind).max_tokens
        if tokens >= model.max_model_len:
            raise ConfigError(
                f"knowledge.{kind}.max_tokens={tokens}: must be less than "
                f"model.max_model_len={model.max_model_len}"
            )
    is_relaxed = acceptance.is_relaxed and settings.drafter.name != "none"
    if is_relaxed and model.sampling.temperature > 0:
        raise ConfigError(
            f"acceptance=relaxed: has an effect on greedy decoding only, but model.sampling.temperature="
            f"{model.sampling.temperature:g}; set that to 0 or choose acceptance=strict"
        )
