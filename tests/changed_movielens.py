"""MovieLens-100K as it would be a night later: a copy in which some users have rated once more.

    python -m tests.changed_movielens FOLDER [--share 0.05] [--of 40]

`--of n`: the share of the first n users of a sample (`limit=n`), rather than of all.
"""

import argparse
import math
import shutil
from pathlib import Path

import pyarrow as pa

from pipeline.domains.movielens.locate import embedded_folder
from pipeline.plan import select_entities
from pipeline.schemas import GROUPS


def changed_copy(folder: Path, users: list[str]) -> None:
    """Write the raw files to `folder`; each of `users` has rated one more film, a day after all others."""
    source = embedded_folder()
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("ml-100k.item", "ml-100k.user"):
        shutil.copyfile(source / name, folder / name)
    header, *lines = (source / "ml-100k.inter").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    day_after = max(float(row[3]) for row in rows) + 86_400
    seen = {(row[0], row[1]) for row in rows}
    films = sorted({row[1] for row in rows}, key=int)
    more = []
    for number, user in enumerate(users):
        film = next(film for film in films if (user, film) not in seen)
        more.append(f"{user}\t{film}\t5\t{day_after + number:.0f}")
    (folder / "ml-100k.inter").write_text("\n".join([header, *lines, *more]) + "\n", encoding="utf-8")


def some_users(share: float, of: int | None) -> list[str]:
    """The first `share` of the users that `limit=of` chooses, or of all."""
    lines = (embedded_folder() / "ml-100k.user").read_text(encoding="utf-8").splitlines()[1:]
    ids = [line.split("\t")[0] for line in lines]
    groups = pa.table([ids, ["user"] * len(ids), ["g"] * len(ids)], schema=GROUPS)
    chosen = select_entities(groups, of or "all")["entity_id"].to_pylist()
    return chosen[: math.ceil(share * len(chosen))]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--of", type=int)
    arguments = parser.parse_args()
    changed_copy(arguments.folder, some_users(arguments.share, arguments.of))
