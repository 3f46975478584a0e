import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from jobs import config
from jobs.config import CONFIGS, as_yaml, load_settings
from pipeline.errors import ConfigError
from pipeline.settings import (
    DatasetSettings,
    InteractionsTableSettings,
    ItemGroupSettings,
    ItemsTableSettings,
    RawTableSettings,
    RunSettings,
    TabularSettings,
    UserGroupSettings,
    UsersTableSettings,
)

GROUPS = sorted(folder.name for folder in CONFIGS.iterdir() if folder.is_dir())
JOBS = sorted(file.stem for file in CONFIGS.glob("*.yaml"))
OPTIONS = [f"{file.parent.name}={file.stem}" for file in sorted(CONFIGS.glob("*/*.yaml"))]


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """Defaults as on a machine without a GPU, wherever the tests run."""
    monkeypatch.setattr(config, "machine_backend", lambda: "cpu")
    monkeypatch.delenv(config.CONFIG_DIR_VARIABLE, raising=False)


def load(*overrides: str, config_dir: Path | None = None) -> RunSettings:
    return load_settings("generate", list(overrides), str(config_dir) if config_dir else None)


def error_of(*overrides: str, config_dir: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(*overrides, config_dir=config_dir)
    assert "\n" not in str(caught.value)
    return str(caught.value)


WITHOUT_DATA = [f"dataset={name}" for name in ("amazon_books", "movielens-1m", "movielens-10m")]


@pytest.mark.parametrize("option", OPTIONS)
def test_every_config_composes(option):
    load(option, *(["dataset.raw=/raw"] if option in WITHOUT_DATA else []))


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_the_configuration_of_every_job_composes_on_every_machine(monkeypatch, job, backend):
    monkeypatch.setattr(config, "machine_backend", lambda: backend)
    settings = load_settings(job, [])
    assert settings.engine.enforce_eager == (backend == "cpu")


@pytest.mark.parametrize("option", WITHOUT_DATA)
def test_a_dataset_that_nobody_may_distribute_is_asked_for(option):
    assert error_of(option) == (
        "dataset.raw: missing; give it the folder with the raw files, as in dataset.raw=/path/to/files"
    )


def test_every_group_of_the_tree_is_a_setting_or_an_experiment():
    assert set(GROUPS) <= set(RunSettings.model_fields) | {"experiment"}


def test_defaults_without_a_gpu():
    settings = load()
    assert (settings.model.path, settings.limit) == ("package:smollm2-135m", 200)
    assert (settings.engine.max_num_seqs, settings.engine.enforce_eager) == (32, True)
    assert settings.acceptance.label == "relaxed(k=2,p=0.1)"
    assert (settings.drafter.name, settings.drafter.max_draft_tokens) == ("laser", 16)


def test_defaults_with_a_gpu(monkeypatch):
    monkeypatch.setattr(config, "machine_backend", lambda: "gpu")
    settings = load()
    assert (settings.model.path, settings.limit) == ("Qwen/Qwen2.5-7B-Instruct", "all")
    assert (settings.engine.max_num_seqs, settings.engine.enforce_eager) == (256, False)


MODELS = sorted(file.stem for file in (CONFIGS / "model").glob("*.yaml"))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_preset_says_what_it_needs(name):
    settings = load(f"model={name}", "engine=gpu")
    model = settings.model
    assert model.name == name
    assert model.max_model_len >= 2048 and model.sampling.temperature == 0
    assert settings.engine.tensor_parallel_size == model.tensor_parallel_size
    assert (model.tensor_parallel_size > 1) == any(size in name for size in ("70b", "72b"))
    usual = "auto" if "fp8" in name else "bfloat16"
    assert model.dtype == ("float16" if "awq" in name or "gptq" in name else usual)
    assert model.chat_template_args.get("enable_thinking", True) == ("qwen3" not in name)
    assert ("date_string" in model.chat_template_args) == name.startswith("llama-3")


def test_the_user_decides_on_tensor_parallelism():
    assert load("model=qwen2.5-72b-instruct", "engine=gpu", "engine.tensor_parallel_size=2").engine == (
        load("engine=gpu", "engine.tensor_parallel_size=2").engine
    )
    assert load("model=qwen2.5-72b-instruct", "engine=cpu").engine.tensor_parallel_size == 1


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["model.path=Qwen/Qwen3-8B"], "Qwen3-8B"),
        (["model.path=/models/My model (1)/"], "My-model-1"),
        (["++model.path=/models/mine", "model=qwen3-8b"], "mine"),
        (["model.path=/models/mine", "model.name=ours"], "ours"),
        (["model.path=package:smollm2-135m"], "smollm2-135m"),
        (["model.path=/"], "smollm2-135m"),
        (["model.dtype=float32"], "smollm2-135m"),
    ],
)
def test_a_model_that_only_its_path_gives_is_named_after_it(overrides, name):
    assert load(*overrides).model.name == name


def test_what_the_user_chooses_wins_over_the_machine(monkeypatch):
    monkeypatch.setattr(config, "machine_backend", lambda: "gpu")
    settings = load("model=smollm2-135m", "engine=cpu", "limit=5")
    assert (settings.model.name, settings.engine.max_num_seqs, settings.limit) == ("smollm2-135m", 32, 5)


def test_an_experiment_wins_over_the_defaults_and_an_override_over_both():
    assert load("experiment=smoke").limit == 8
    assert load("experiment=smoke", "limit=3").limit == 3


@pytest.mark.parametrize(
    ("override", "path", "expected"),
    [
        ("limit=all", "limit", "all"),
        ("acceptance.min_prob=0", "acceptance.min_prob", 0.0),
        ("dataset.min_rating=1", "dataset.min_rating", 1.0),
        ("acceptance.top_k=3.0", "acceptance.top_k", 3),
        ("run_id=2026_07", "run_id", "2026_07"),
        ("run_id=1e5", "run_id", "1e5"),
        ("run_id='7'", "run_id", "7"),
        ("run_id=null", "run_id", None),
        ("model.revision=007", "model.revision", "007"),
        ("model.path=/a b/c=d,e(f)/it's", "model.path", "/a b/c=d,e(f)/it's"),
        ("model.path=C:\\x\\", "model.path", "C:\\x\\"),
        ("dataset.raw=/raw,1", "dataset.raw", "/raw,1"),
        ("++engine.max_num_seqs=7", "engine.max_num_seqs", 7),
        ("~engine.enable_prefix_caching", "engine.enable_prefix_caching", True),
        ("cluster.num_workers=2", "cluster.num_workers", 2),
        ("engine.max_num_batched_tokens=512", "engine.max_num_batched_tokens", 512),
        ("model.chat_template_args.enable_thinking=false", "model.chat_template_args.enable_thinking", False),
        ("+model.chat_template_args={level: 2}", "model.chat_template_args.level", 2),
        ("model.sampling.repetition_detection=null", "model.sampling.repetition_detection", None),
        ("history_cutoff=1998-03-01", "history_cutoff", datetime(1998, 3, 1, tzinfo=UTC)),
        ("history_cutoff=1998-03-01T02:00:00+02:00", "history_cutoff", datetime(1998, 3, 1, tzinfo=UTC)),
        ("engine.gpu_memory_utilization=0.5", "engine.gpu_memory_utilization", 0.5),
    ],
)
def test_overrides_do_what_they_say(override, path, expected):
    value = load(override).model_dump()
    for step in path.split("."):
        value = value[step]
    assert value == expected
    assert type(value) is type(expected)


ERRORS = [
    # group options
    (
        "dataset=movieles",
        "dataset=movieles: no such dataset; available: amazon_books, movielens, movielens-10m, movielens-1m. "
        "Did you mean 'movielens'?",
    ),
    (
        "drafter=lazer",
        "drafter=lazer: no such drafter; available: laser, ngram, none, suffix. Did you mean 'laser'?",
    ),
    ("acceptance=", "acceptance=: no such acceptance; available: relaxed, strict"),
    (
        "dataset=null",
        "dataset=null: takes one name; available: amazon_books, movielens, movielens-10m, movielens-1m",
    ),
    ("drafter=laser,none", "drafter=laser,none: takes one name; available: laser, ngram, none, suffix"),
    ("acceptance={top_k: 3}", "acceptance={top_k: 3}: takes one name; available: relaxed, strict"),
    ("~drafter", "drafter: missing; must be a group of keys"),
    # keys
    ("acceptance.topk=1", "acceptance.topk: unknown key; did you mean 'acceptance.top_k'?"),
    ("top_k=3", "top_k: unknown key; did you mean 'acceptance.top_k'?"),
    ("datasets=movielens", "datasets: unknown key; did you mean 'dataset'?"),
    ("+acceptance.foo=1", "acceptance.foo: unknown key"),
    ("~nothing", "nothing: unknown key"),
    (
        "model.sampling.repetition_detection.min_cont=5",
        "did you mean 'model.sampling.repetition_detection.min_count'?",
    ),
    ("hydra.run.dir=x", "hydra.run.dir: Hydra's own settings have no effect here"),
    # values
    ("acceptance.top_k=0", "acceptance.top_k=0: must be greater than or equal to 1"),
    ("acceptance.top_k=true", "acceptance.top_k=true: must be a positive integer"),
    ("acceptance.top_k=2.5", "acceptance.top_k=2.5: must be a positive integer"),
    ("acceptance.top_k=null", "acceptance.top_k=null: must be a positive integer"),
    ("acceptance.min_prob=nan", "acceptance.min_prob=nan: must be a finite number"),
    ("acceptance.min_prob=2", "acceptance.min_prob=2: must be less than or equal to 1"),
    ("limit=abc", "limit=abc: must be a positive integer or 'all'"),
    ("limit=0", "limit=0: must be a positive integer or 'all'"),
    ("limit=", "limit=: must be a positive integer or 'all'"),
    ("limit=1,2", "limit=1,2: takes one value, not several"),
    ("cluster.num_workers=0", "cluster.num_workers must be 'auto' or at least 1"),
    ("cluster.num_workers=x", "cluster.num_workers=x: must be an integer or 'auto'"),
    ("history_cutoff=1998", "history_cutoff=1998: must be an ISO date, for example 1998-03-01"),
    ("history_cutoff=1998-13-01", "history_cutoff=1998-13-01: must be an ISO date"),
    (
        "model.dtype=bf16",
        "model.dtype=bf16: must be one of auto, bfloat16, float16, float32; did you mean 'bfloat16'?",
    ),
    ("run_id=a b", "run_id=a b: must match"),
    ("run_id=../x", "run_id=../x: must match"),
    ("model.name=null", "model.name=null: must be text"),
    ("engine.enforce_eager=maybe", "engine.enforce_eager=maybe: must be true or false"),
    ("dataset.item_groups=5", "dataset.item_groups=5: must be a group of keys"),
    ("dataset.item_groups.groups.western=5", "dataset.item_groups.groups.western=5: must be a list"),
    (
        "evaluation.models=[din,dcnv3]",
        "evaluation.models[1]=dcnv3: must be one of din, dcnv2, deepfm, autoint; did you mean 'dcnv2'?",
    ),
    ("evaluation.models=foo", "evaluation.models=foo: must be a list of din, dcnv2, deepfm, autoint"),
    ("evaluation.models=[]", "evaluation.models=[]: must have at least 1 item"),
    ("evaluation.models=[din,din]", "evaluation.models=['din', 'din']: must be different from each other"),
    ("export.formats=[foo]", "export.formats[0]=foo: must be one of fuxictr, recbole, kar, torch"),
    ("bench.concurrencies=[1,x]", "bench.concurrencies[1]=x: must be a positive integer"),
    ("bench.concurrencies=[0]", "bench.concurrencies[0]=0: must be greater than or equal to 1"),
    ("evaluation.training.hidden=[true]", "evaluation.training.hidden[0]=true: must be a positive integer"),
    ("dataset.item_word=''", "dataset.item_word=: must have at least 1 character"),
    ("knowledge.item.template=' '", "knowledge.item.template=: must not be blank"),
    (
        "model.sampling.repetition_detection.min_pattern_size=99",
        "model.sampling.repetition_detection.min_pattern_size must be at most max_pattern_size=32",
    ),
    ("dataset.item_groups.groups.western=[[1]]", "dataset.item_groups.groups.western[0]=[1]: must be text"),
    ("drafter.max_draft_tokens=0", "drafter.max_draft_tokens must be at least 1 unless drafter=none"),
    ("drafter.max_draft_tokens=100", "drafter.max_draft_tokens=100: must be less than or equal to 64"),
    ("paths.data=s3://", "paths.data=s3://: names no bucket or folder"),
    ("paths.data=nosuch://x/y", "paths.data=nosuch://x/y: Protocol not known: nosuch"),
    ("dataset.raw=nosuch://x/y", "dataset.raw=nosuch://x/y: Protocol not known: nosuch"),
    ("paths.data=???", "paths.data: missing; give it a value"),
    ("~acceptance.top_k", "acceptance.top_k: missing; must be a positive integer"),
    ("engine.max_num_seqs=${nope}", "engine.max_num_seqs: Interpolation key 'nope' not found"),
    # the override itself
    ("limit", "limit: not an override; write key=value"),
    ("=3", "=3: not a valid override (no key)"),
    ("engine.max_num_seqs=[1", "engine.max_num_seqs=[1: not a valid override ("),
    ("+dataset=movielens", "+dataset=movielens: there is a dataset already; write dataset=movielens"),
    ("++model=qwen3-8b", "++model=qwen3-8b: there is a model already; write model=qwen3-8b"),
    # combinations
    ("model.sampling.temperature=0.7", "acceptance=relaxed: has an effect on greedy decoding only"),
    (
        "knowledge.user.max_tokens=5000",
        "knowledge.user.max_tokens=5000: must be less than model.max_model_len=2048",
    ),
    ("dataset.min_rating=7", "dataset.min_rating=7: must be below 5"),
    (
        "nightly.stop_after=quality",
        "nightly.stop_after=quality: there is no such step unless quality.enabled=true",
    ),
]


@pytest.mark.parametrize(("override", "expected"), ERRORS, ids=[override for override, _ in ERRORS])
def test_what_is_wrong_is_one_line_that_names_it(override, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert expected in error_of(override)
    assert not list(tmp_path.iterdir())


def test_several_wrong_values_are_counted():
    assert error_of("acceptance.top_k=0", "engine.max_num_seqs=0").endswith("(and 1 more)")


def test_strict_takes_no_ranks():
    assert "acceptance.top_k must be 1" in error_of("acceptance=strict", "acceptance.top_k=2")


def test_sampling_goes_with_strict_or_without_drafter():
    load("model.sampling.temperature=0.7", "acceptance=strict")
    load("model.sampling.temperature=0.7", "drafter=none")
    load("drafter=none", "acceptance=relaxed")


def test_a_night_with_the_gate_may_stop_after_it():
    load("nightly.stop_after=quality", "quality.enabled=true")


def test_relative_paths_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = load("dataset.raw=ml-1m", "paths.data=out")
    assert (settings.dataset.raw, settings.paths.data) == (str(tmp_path / "ml-1m"), str(tmp_path / "out"))


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def test_a_team_adds_its_own_configs(tmp_path, monkeypatch):
    write(tmp_path, "dataset/films.yaml", "defaults: [movielens]\nname: films\nraw: /films\n")
    assert load("dataset=films", config_dir=tmp_path).dataset.name == "films"
    assert "films, movielens" in error_of("dataset=flims", config_dir=tmp_path)
    monkeypatch.setenv(config.CONFIG_DIR_VARIABLE, str(tmp_path))
    assert load("dataset=films").dataset.raw == "/films"


def test_a_name_of_the_projects_own_is_refused(tmp_path):
    shipped = (CONFIGS / "knowledge" / "kar.yaml").read_text(encoding="utf-8")
    write(tmp_path, "knowledge/kar.yaml", shipped)
    load(config_dir=tmp_path)
    write(tmp_path, "knowledge/kar.yaml", shipped.replace("max_history: 15", "max_history: 3"))
    for overrides in ([], ["knowledge=once"]):
        assert error_of(*overrides, config_dir=tmp_path) == (
            f"{tmp_path}/knowledge/kar.yaml: configs/knowledge/kar.yaml has the same name; give yours another"
            " one"
        )


OWN = """
defaults: [movielens]
reader: tabular
tabular:
  items: {{files: i.csv, id: i, title: t, attributes: {{{attribute}: t}}}}
  interactions: {{files: e.csv, user: u, item: i, rating: {{column: r, implicit_values: [{implicit}]}}}}
item_groups: {{groups: {{{group}: [x]}}}}
"""
QUOTED = {"attribute": '"1"', "implicit": '"0"', "group": '"1990"'}


@pytest.mark.parametrize(
    ("unquoted", "expected"),
    [
        ({"group": 1990}, "dataset.item_groups.groups: key 1990: must be text; put it in quotes"),
        ({"attribute": 1}, "dataset.tabular.items.attributes: key 1: must be text; put it in quotes"),
        (
            {"implicit": 0},
            "dataset.tabular.interactions.rating.implicit_values[0]=0: must be text; put it in quotes",
        ),
    ],
)
def test_a_number_in_place_of_a_text_is_named(tmp_path, unquoted, expected):
    write(tmp_path, "dataset/films.yaml", OWN.format(**QUOTED))
    assert load("dataset=films", config_dir=tmp_path).dataset.item_groups.groups["1990"] == ["x"]
    write(tmp_path, "dataset/films.yaml", OWN.format(**QUOTED | unquoted))
    assert error_of("dataset=films", config_dir=tmp_path) == expected


def test_a_layout_may_be_a_year():
    settings = load("dataset=amazon_books", "dataset.raw=/raw", "dataset.amazon.layout=2018")
    assert settings.dataset.amazon.layout == 2018
    wrong = error_of("dataset=amazon_books", "dataset.raw=/raw", "dataset.amazon.layout=2019")
    assert wrong == "dataset.amazon.layout=2019: must be one of auto, 2014, 2018, 2023; did you mean '2018'?"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: films\n", "dataset.reader: missing"),
        ("defaults: [movielens]\nnaem: films\n", "dataset.naem: unknown key; did you mean 'dataset.name'?"),
        ("defaults: [movielens]\nname: 7\n", "dataset.name=7: must be text"),
        ("name: [films\n", "films.yaml"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_too(tmp_path, text, expected):
    write(tmp_path, "dataset/films.yaml", text)
    assert expected in error_of("dataset=films", config_dir=tmp_path)


def test_a_missing_config_folder_is_named(tmp_path):
    assert error_of(config_dir=tmp_path / "no").endswith("/no: no such folder")


def test_the_resolved_configuration_reads_back():
    settings = load("history_cutoff=1998-03-01", "run_id=2026")
    assert RunSettings.model_validate(yaml.safe_load(as_yaml(settings))) == settings


@pytest.mark.parametrize(("word", "days"), [("today", 0), ("yesterday", 1)])
def test_a_cutoff_may_be_a_word(word, days):
    before = datetime.now(UTC)
    settings = load_settings("generate", [f"history_cutoff={word}"])
    moments = (before, datetime.now(UTC))
    midnights = [datetime(t.year, t.month, t.day, tzinfo=UTC) - timedelta(days=days) for t in moments]
    assert settings.history_cutoff in midnights and settings.cutoff_word == word
    assert load_settings("generate", ["cutoff_word=today"]).cutoff_word is None


def documented_keys() -> dict[str, str]:
    """Keys of a dataset to their defaults, from the tables of docs/new-domain.md."""
    page = (CONFIGS.parent / "docs" / "new-domain.md").read_text(encoding="utf-8")
    keys = {}
    for table in re.findall(r"\| Key \| Default \| Meaning \|\n\|---\|---\|---\|\n((?:\|.*\n)+)", page):
        for row in table.splitlines():
            names, defaults = (re.findall(r"`([^`]+)`|(required)", cell) for cell in row.split(" | ")[:2])
            values = [code or word for code, word in defaults]
            of_each = values * len(names) if len(values) == 1 else values
            keys |= {code: value for (code, _), value in zip(names, of_each, strict=True)}
    return keys


def test_the_page_on_new_domains_names_every_key_and_its_default():
    documented = documented_keys()
    tables = {"tabular.items": ItemsTableSettings, "tabular.interactions": InteractionsTableSettings}
    groups = {"item_groups": ItemGroupSettings, "user_groups": UserGroupSettings}
    rooms = {"": DatasetSettings, "tabular": TabularSettings, **tables, **groups}
    of_files = set(RawTableSettings.model_fields) - {"files"}
    expected = {name: RawTableSettings.model_fields[name] for name in of_files}
    for prefix, room in rooms.items():
        for name, field in room.model_fields.items():
            is_room = f"{prefix}.{name}".lstrip(".") in rooms or (prefix, name) == ("", "amazon")
            if not is_room and not (prefix in tables and name in of_files):
                expected[f"{prefix}.{name}".lstrip(".")] = field
    assert set(documented) == set(expected)
    for key, field in expected.items():
        if field.is_required():
            assert documented[key] == "required", key
        else:
            assert yaml.safe_load(documented[key]) == field.default, key
    required = {"files", "id"}
    assert {
        name for name, field in UsersTableSettings.model_fields.items() if field.is_required()
    } == required


def test_the_model_chooses_the_form_of_the_prompts(tmp_path):
    write(
        tmp_path,
        "knowledge/two.yaml",
        "name: two\nmax_history: {large: 9, small: 3}\nfactors: {large: a, small: b}\n"
        "item: {template: T, max_tokens: 4}\n"
        "user: {template: {large: LONG, small: SHORT}, max_tokens: {large: 8, small: 5}}\n",
    )
    small = load("knowledge=two", config_dir=tmp_path).knowledge  # that of the embedded model
    assert (small.user.template, small.user.max_tokens, small.max_history) == ("SHORT", 5, 3)
    large = load("knowledge=two", "model=qwen2.5-7b-instruct", config_dir=tmp_path).knowledge
    assert (large.user.template, large.user.max_tokens, large.max_history) == ("LONG", 8, 9)
    assert large.factors == {"large": "a", "small": "b"}  # words of a domain, not forms
    assert (
        load("knowledge=two", "knowledge.user.max_tokens=7", config_dir=tmp_path).knowledge.user.max_tokens
        == 7
    )


def test_a_form_that_is_missing_is_named(tmp_path):
    write(
        tmp_path,
        "knowledge/one.yaml",
        "name: one\nmax_history: 9\nitem: {template: T, max_tokens: 4}\n"
        "user: {template: {large: LONG}, max_tokens: 5}\n",
    )
    assert error_of("knowledge=one", config_dir=tmp_path) == (
        "knowledge.user.template.small: missing; model.prompt_form is small"
    )
    assert "model.prompt_form" in error_of("knowledge=one", "model.prompt_form=tiny", config_dir=tmp_path)


@pytest.mark.parametrize("form", ["large", "small"])
def test_the_prompt_set_of_the_page_on_prompts_has_both_forms(tmp_path, form):
    page = (CONFIGS.parent / "docs" / "prompts.md").read_text(encoding="utf-8")
    write(tmp_path, "knowledge/blurb.yaml", re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[0])
    knowledge = load("knowledge=blurb", f"model.prompt_form={form}", config_dir=tmp_path).knowledge
    assert knowledge.user.max_tokens == {"large": 256, "small": 128}[form]
    assert ("history" in knowledge.user.template, "liked" in knowledge.user.template) == (
        form == "large",
        form == "small",
    )


FORMS = CONFIGS.parent / "docs" / "prompt-forms"


@pytest.mark.parametrize("name", sorted(file.stem for file in (FORMS / "knowledge").glob("*.yaml")))
def test_every_form_that_was_tried_composes(name):
    assert load(f"knowledge={name}", config_dir=FORMS).knowledge.name == name
