import pytest

from pipeline.domains import read_domain
from pipeline.errors import DataError
from pipeline.settings import DatasetSettings


def shop(folder, **changes):
    return DatasetSettings.model_validate({
        "name": "shop", "reader": "tabular", "raw": str(folder), "item_word": "thing",
        "max_bad_fraction": 0.9,
        "tabular": {
            "items": {"files": "items.csv", "id": "item", "title": "title"},
            "interactions": {"files": "*/part-0.csv", "user": "user", "item": "item"},
        },
        "item_groups": {}, "user_groups": {"num_groups": 2, "num_factors": 2}, **changes,
    })  # fmt: skip


def test_files_of_one_name_are_told_apart(tmp_path):
    (tmp_path / "items.csv").write_text("item,title\n1,One\n")
    for part in ("a", "b"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "part-0.csv").write_text(f"user,item\n{part},9\n{part},1\n")
    failed = read_domain(shop(tmp_path)).failed.to_pylist()
    assert [row["file"] for row in failed] == [str(tmp_path / part / "part-0.csv") for part in ("a", "b")]
    with pytest.raises(DataError, match=rf"line 2 of {tmp_path}/a/part-0\.csv: unknown item"):
        read_domain(shop(tmp_path, max_bad_fraction=0.1))
