"""`model.path` becomes a local folder of safetensors, with the identity that rows record."""

import logging
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pipeline.environment import forbid_hub_access
from pipeline.errors import ModelError
from pipeline.models.embedded import prepare_embedded_model
from pipeline.models.folder import (
    check_context,
    check_model_folder,
    folder_revision,
    refuse_file,
    tokenizer_hash,
)
from pipeline.models.hub import download_snapshot, listed_files
from pipeline.models.tokenizer import unnamed_turn_end
from pipeline.settings import ModelSettings

logger = logging.getLogger(__name__)
PACKAGE_PREFIX = "package:"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class ModelSource:
    """A model that is ready to be served.

    `path`: the local folder that vLLM loads. `revision`: changes whenever the model does: the commit for
    a hub id, otherwise a hash of the folder; behind it `+end<id>` if texts end at a token that the model's
    files do not name as an end (`turn_end`). `is_local`: no hub was involved. `tokenizer_hash`: sha256 of
    what turns text into token ids; pools of another tokenizer must be refused.
    """

    path: str
    revision: str
    is_local: bool
    tokenizer_hash: str


def resolve_model(settings: ModelSettings, models_folder: Path, with_weights: bool = True) -> ModelSource:
    """Make the model available locally; `ModelError` if it cannot be found, read or fetched, `ConfigError` if
    its context is shorter than `settings.max_model_len`.

    An embedded model is prepared below `models_folder` on first use; a hub model is fetched into the
    hub's own cache. From then on this process and its children are kept off the hub. Without `with_weights`
    those of a hub model are not fetched: it is only checked that there are some.
    """
    path = settings.path
    if path.startswith(PACKAGE_PREFIX):
        return _source(prepare_embedded_model(path.removeprefix(PACKAGE_PREFIX), models_folder), settings)
    folder = Path(path).expanduser()
    refuse_file(folder, f"model.path={path}")
    if path and folder.is_dir():
        return _source(folder.resolve(), settings)
    if folder.is_absolute() or path.startswith((".", "~")) or not HUB_ID.fullmatch(path):
        raise ModelError(f"model.path={path}: no such folder, and not a hub id (org/name)")
    snapshot = download_snapshot(path, settings.revision, settings.trust_remote_code, with_weights)
    listed = None if with_weights else listed_files(snapshot, path)
    return _source(snapshot.folder, settings, snapshot.commit, listed)


def _source(
    folder: Path, settings: ModelSettings, commit: str | None = None, listed: Collection[str] | None = None
) -> ModelSource:
    """The model in `folder`, which stands at `commit` of a hub; see `check_model_folder` for `listed`."""
    what = f"model.path={settings.path if commit else folder}"
    check_model_folder(folder, what, listed)
    check_context(folder, settings.max_model_len)
    forbid_hub_access()
    closing = unnamed_turn_end(str(folder), settings)
    if closing is not None:
        logger.warning(
            "%s: its chat template closes a turn with %s, which neither generation_config.json nor the "
            "tokenizer names as an end; texts end there too",
            what,
            closing[0],
        )
    revision = commit or folder_revision(folder)
    return ModelSource(
        path=str(folder),
        revision=revision if closing is None else f"{revision}+end{closing[1]}",
        is_local=commit is None,
        tokenizer_hash=tokenizer_hash(folder),
    )
