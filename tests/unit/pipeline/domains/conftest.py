"""Small datasets of invented films in every published form of MovieLens."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.settings import DatasetSettings, ItemGroupSettings, UserGroupSettings

ITEM_GENRES_100K = {"Comedy": 5, "Drama": 8, "unknown": 0}


def _flags(*genres: str) -> str:
    on = {ITEM_GENRES_100K[genre] for genre in genres}
    return "|".join("1" if position in on else "0" for position in range(19))


def write_100k(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "u.data").write_text("1\t10\t5\t880000001\n1\t11\t3\t880000002\n2\t10\t4\t880000003\n")
    items = [
        f"10|Lighthouse, The (1995)|01-Jan-1995||http://x|{_flags('Comedy', 'Drama')}",
        f"11|Caf\u00e9 bleu, Le|02-Feb-1990||http://x|{_flags('unknown')}",
    ]
    (folder / "u.item").write_bytes(("\n".join(items) + "\n").encode("latin-1"))
    (folder / "u.user").write_text("1|24|F|writer|85711\n2|53|M|other|94043\n3|19|M|none|T8H1N\n")


def write_1m(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ratings.dat").write_text("1::10::5::978300760\n1::11::3::978302109\n2::10::4::978301968\n")
    items = "10::Lighthouse, The (1995)::Comedy|Drama\n11::Caf\u00e9 bleu, Le (1990)::Drama\n"
    (folder / "movies.dat").write_bytes(items.encode("latin-1"))
    (folder / "users.dat").write_text("1::F::1::10::48067\n2::M::56::16::70072\n3::M::25::0::55117\n")


def write_10m(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ratings.dat").write_text("1::10::4.5::838985046\n1::11::3::838983525\n2::10::0.5::838983392\n")
    items = "10::Lighthouse, The (1995)::Comedy|Drama\n11::Caf\u00e9 bleu, Le (1990)::(no genres listed)\n"
    (folder / "movies.dat").write_text(items, encoding="utf-8")


def write_csv(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    ratings = (
        "userId,movieId,rating,timestamp\n1,10,4.5,1225734739\n1,11,3.0,1225865086\n2,10,0.5,1225733503\n"
    )
    (folder / "ratings.csv").write_text(ratings)
    items = (
        'movieId,title,genres\n10,"Lighthouse, The (1995)",Comedy|Drama\n'
        '11,"Caf\u00e9 ""bleu"", Le (1990) ",(no genres listed)\n'
    )
    (folder / "movies.csv").write_text(items, encoding="utf-8")


def write_atomic(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "x.inter").write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        "1\t10\t5\t880000001\n1\t11\t3\t880000002.0\n2\t10\t4\t880000003\n"
    )
    items = (
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "10\tLighthouse, The\t1995\tComedy Drama\n11\tCaf\u00e9 bleu, Le\tV\tunknown\n"
    )
    (folder / "x.item").write_text(items, encoding="utf-8")
    users = "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
    (folder / "x.user").write_text(users + "1\t24\tF\twriter\t85711\n2\t53\tM\tother\t94043\n")


WRITERS = {"100k": write_100k, "1m": write_1m, "10m": write_10m, "csv": write_csv, "atomic": write_atomic}


@pytest.fixture
def raw_folder(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a form of `WRITERS` and returns its folder."""

    def write(form: str) -> Path:
        WRITERS[form](tmp_path / form)
        return tmp_path / form

    return write


@pytest.fixture
def dataset() -> Callable[..., DatasetSettings]:
    """Builds settings of a dataset that lies in a folder."""

    def build(raw: Path | None, **changes: object) -> DatasetSettings:
        values: dict[str, object] = {
            "name": "films",
            "reader": "movielens",
            "raw": None if raw is None else str(raw),
            "max_bad_fraction": 0.5,
            "min_rating": 0.5,
            "max_rating": 5,
            "item_word": "movie",
            "item_groups": ItemGroupSettings(groups={}),
            "user_groups": UserGroupSettings(num_groups=2, num_factors=2),
        }
        return DatasetSettings.model_validate(values | changes)

    return build
