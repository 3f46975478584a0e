"""The command line that a cluster shall run: the user's own overrides, and what the place adds to them.

The values of the configuration are not written out: the job composes them again from the same overrides,
so that a command on a cluster and one on a desk name the same run.
"""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from jobs.config import CONFIG_DIR_VARIABLE, CONFIGS
from pipeline.errors import ConfigError
from pipeline.settings import ClusterSettings, RunSettings

CHECKOUT = CONFIGS.parent
SECTIONS = {"schedule", "ray_jobs", "kuberay", "slurm", "crontab", "airflow"}
MAX_NAME_CHARACTERS = 40  # KubeRay allows 47 and appends five


@dataclass(frozen=True)
class ClusterJob:
    """A job that shall run elsewhere: `python -m jobs.<name>` with these Hydra overrides."""

    name: str
    overrides: tuple[str, ...]
    settings: RunSettings
    config_dir: str | None = None

    @property
    def cluster(self) -> ClusterSettings:
        """The settings of the place."""
        return self.settings.cluster

    @property
    def title(self) -> str:
        """A name for queues and pods: letters, digits and hyphens."""
        dataset = self.settings.dataset.name.replace("_", "-")
        return f"laser-{self.name}-{dataset}"[:MAX_NAME_CHARACTERS].rstrip("-")

    def words(self, address: str | None, data: str | None = None) -> list[str]:
        """The arguments of Python: `-m jobs.<name> key=value ...`.

        `address` is that of Ray as the job sees it, None to leave the key out. `data` is `paths.data`
        there, by default that of here.
        """
        words = ["-m", f"jobs.{self.name}", *self._config_dir()]
        words += [word for word in self.overrides if not _is_of_place(word)]
        words.append(f"paths.data={data or self.settings.paths.data}")
        if any(_key(word) == "dataset.raw" for word in self.overrides) and self.settings.dataset.raw:
            words.append(f"dataset.raw={self.settings.dataset.raw}")
        return words + self._cluster_words(address)

    def gives(self, key: str) -> bool:
        """Whether the user set `key` on the command line."""
        return any(_key(word) == key for word in self.overrides)

    def _config_dir(self) -> list[str]:
        folder = self.config_dir or os.environ.get(CONFIG_DIR_VARIABLE)
        return [f"--config-dir={Path(folder).expanduser().absolute()}"] if folder else []

    def _cluster_words(self, address: str | None) -> list[str]:
        values = self.cluster.model_dump(mode="json", exclude=SECTIONS | {"address"})
        words = [f"cluster.{name}={value}" for name, value in values.items() if _is_plain(value)]
        return words if address is None else [*words, f"cluster.address={address}"]


def checkout_of(folder: str | None) -> str:
    """The folder of this project on the machine that runs the job."""
    return folder or str(CHECKOUT)


def joined(words: list[str]) -> str:
    """`words` as one line of shell."""
    return shlex.join(words)


def needed(value: str | None, key: str, why: str) -> str:
    """`value`, or a `ConfigError` that names `key`."""
    if value is None:
        raise ConfigError(f"{key}: missing; {why}")
    return value


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0].strip()


def _is_of_place(override: str) -> bool:
    key = _key(override)
    return key in ("cluster", "paths.data", "dataset.raw") or key.startswith("cluster.")


def _is_plain(value: object) -> bool:
    return value is not None and not isinstance(value, dict | list)
