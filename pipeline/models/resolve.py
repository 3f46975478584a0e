"""`model.path` becomes a local folder of safetensors, with the identity that rows record."""

import re
from dataclasses import dataclass
from pathlib import Path

from pipeline.environment import forbid_hub_access
from pipeline.errors import ModelError
from pipeline.models.embedded import prepare_embedded_model
from pipeline.models.folder import check_context, check_model_folder, folder_revision, tokenizer_hash
from pipeline.models.hub import download_snapshot
from pipeline.settings import ModelSettings

PACKAGE_PREFIX = "package:"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class ModelSource:
    """A model that is ready to be served.

    `path`: the local folder that vLLM loads. `revision`: changes whenever the model does: the commit for
    a hub id, otherwise a hash of the folder. `is_local`: no hub was involved. `tokenizer_hash`: sha256 of
    what turns text into token ids; pools of another tokenizer must be refused.
    """

    path: str
    revision: str
    is_local: bool
    tokenizer_hash: str


def resolve_model(settings: ModelSettings, models_folder: Path) -> ModelSource:
    """Make the model available locally; `ModelError` if it cannot be found, read or fetched, `ConfigError` if
    its context is shorter than `settings.max_model_len`.

    An embedded model is prepared below `models_folder` on first use; a hub model is fetched into the
    hub's own cache. From then on this process and its children are kept off the hub.
    """
    path = settings.path
    if path.startswith(PACKAGE_PREFIX):
        return _local(prepare_embedded_model(path.removeprefix(PACKAGE_PREFIX), models_folder), settings)
    folder = Path(path).expanduser()
    if path and folder.is_dir():
        return _local(folder.resolve(), settings)
    if folder.is_absolute() or path.startswith((".", "~")) or not HUB_ID.fullmatch(path):
        raise ModelError(f"model.path={path}: no such folder, and not a hub id (org/name)")
    snapshot = download_snapshot(path, settings.revision, with_code=settings.trust_remote_code)
    check_model_folder(snapshot.folder, f"model.path={path}")
    check_context(snapshot.folder, settings.max_model_len)
    forbid_hub_access()
    return ModelSource(
        path=str(snapshot.folder),
        revision=snapshot.commit,
        is_local=False,
        tokenizer_hash=tokenizer_hash(snapshot.folder),
    )


def _local(folder: Path, settings: ModelSettings) -> ModelSource:
    check_model_folder(folder, f"model.path={folder}")
    check_context(folder, settings.max_model_len)
    forbid_hub_access()
    return ModelSource(
        path=str(folder),
        revision=folder_revision(folder),
        is_local=True,
        tokenizer_hash=tokenizer_hash(folder),
    )
