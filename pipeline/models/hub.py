"""Models of the Hugging Face hub, fetched once into its cache so that all workers read one folder."""

import logging
import os
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from pipeline.errors import ModelError
from pipeline.stages import stage

LOGGER = logging.getLogger(__name__)
# Safetensors only: other weight formats can carry code.
WEIGHTS = "*.safetensors"
FETCHED = [WEIGHTS, "*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken"]
LEFT_OUT = ["*/*", "consolidated*"]  # other frameworks' exports; the same weights a second time


@dataclass(frozen=True)
class Snapshot:
    """A fetched model: its folder, and the commit that it stands at."""

    folder: Path
    commit: str


def download_snapshot(
    hub_id: str,
    revision: str | None,
    with_code: bool = False,
    with_weights: bool = True,
    left_out: list[str] = LEFT_OUT,
    section: str = "model",
) -> Snapshot:
    """Fetch `hub_id` at `revision` (default: its main branch) unless cached; `ModelError` if impossible.

    `left_out`: patterns of files not to fetch. `section` of the settings is what errors name.
    """
    has_own_bars = sys.stderr.isatty()
    if not has_own_bars:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # Imported late: it reads its environment, which the lines above and callers set, at import.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    what = f"looking for {hub_id} in the hub's cache, else fetching it"
    if has_own_bars:
        LOGGER.info("%s", what)
    fetched = FETCHED if with_weights else [pattern for pattern in FETCHED if pattern != WEIGHTS]
    patterns = [*fetched, "*.py"] if with_code else fetched
    try:
        with nullcontext() if has_own_bars else stage(what):
            fetched_to = snapshot_download(
                hub_id, revision=revision, allow_patterns=patterns, ignore_patterns=left_out
            )
    except (OSError, HFValidationError) as error:  # HfHubHTTPError is an OSError
        raise ModelError(f"{section}.path={hub_id}: {_reason(error, section, revision)}") from error
    folder = Path(fetched_to)
    return Snapshot(folder=folder, commit=folder.name)


def listed_files(snapshot: Snapshot, hub_id: str) -> list[str] | None:
    """Names of the files that the hub has beside those that were fetched; None if the hub cannot be asked."""
    from huggingface_hub import HfApi

    try:
        files = HfApi().list_repo_files(hub_id, revision=snapshot.commit)
    except OSError:  # offline too
        return None
    return [name for name in files if not any(fnmatch(name, pattern) for pattern in LEFT_OUT)]


def _reason(error: Exception, section: str, revision: str | None) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return "the hub gives it only to accounts that have accepted its terms; set HF_TOKEN"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{section}.revision={revision}: no such revision on the hub"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "no such folder, and no such model on the hub"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return (
            "no such folder, not in the hub's cache, and the hub cannot be reached (or HF_HUB_OFFLINE is set)"
        )
    return " ".join(str(error).split()) or type(error).__name__
