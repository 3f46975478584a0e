import pytest

from jobs.config import load_settings
from pipeline.errors import ConfigError

AWKWARD = "run_id=night-1", "dataset.raw=/raw data/it's 5%", "~experiment", "history_cutoff=2026-11-22T00:00Z"


def test_the_place_is_left_out_and_everything_else_is_kept(make_job):
    words = make_job(*AWKWARD, "cluster=ray", "cluster.ray_jobs.dashboard=http://h:1", "limit=5").words(
        "auto"
    )
    assert words[:2] == ["-m", "jobs.nightly"]
    assert not any("ray_jobs" in word or word.startswith("cluster=") for word in words)
    assert {"run_id=night-1", "limit=5", "dataset.raw=/raw data/it's 5%"} <= set(words)
    assert words[-1] == "cluster.address=auto"


def test_the_command_names_the_same_run(make_job):
    job = make_job("limit=7", "drafter=none", "acceptance=strict", "cluster=slurm", "cluster.num_workers=3")
    again = load_settings("generate", job.words("auto")[2:])
    changed = {"cluster": again.cluster}
    assert again == job.settings.model_copy(update=changed)
    assert (again.cluster.num_workers, again.cluster.address) == (3, "auto")


def test_relative_paths_are_those_of_the_one_who_submits(make_job, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = make_job("paths.data=here", "dataset.raw=raw").words("auto")
    assert f"paths.data={tmp_path}/here" in words and f"dataset.raw={tmp_path}/raw" in words


def test_names_fit_into_kubernetes(make_job):
    job = make_job("dataset.name=a_very_long_dataset_name_of_a_very_long_company")
    assert len(job.title) <= 40 and "_" not in job.title and not job.title.endswith("-")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("cluster.schedule.cron='1 2 3'", "cluster.schedule.cron=1 2 3: must match"),
        ("cluster.schedule.timezone=Mars/Olympus", "must be a time zone such as UTC"),
        ("cluster.kuberay.namespace=No_Name", "cluster.kuberay.namespace=No_Name: must match"),
        ("cluster.kuberay.node.gpus=-1", "cluster.kuberay.node.gpus=-1: must be greater than or equal to 0"),
        ("cluster.kuberay.imag=x", "did you mean 'cluster.kuberay.image'"),
    ],
)
def test_wrong_settings_are_named(override, message):
    with pytest.raises(ConfigError, match=message.replace("(", r"\(").replace("?", r"\?")):
        load_settings("generate", ["cluster=kuberay", override])
