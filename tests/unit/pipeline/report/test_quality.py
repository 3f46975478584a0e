import json

import pytest

from pipeline.errors import CorruptPartError
from pipeline.report.figures import QualityCheck, SnapshotShare
from pipeline.report.quality import read_quality, read_validation

DRIFT = QualityCheck("drift", "0.01235", "0.02", False)


@pytest.mark.parametrize(
    "content",
    [
        '[{"name": "drift", "value": 0.0123456, "budget": 0.02, "ok": false}]',
        '{"run_id": "x", "checks": [{"name": "drift", "value": 0.0123456, "budget": 0.02, "ok": false}]}',
        '{"drift": {"value": 0.0123456, "budget": 0.02, "ok": false, "more": 1}}',
    ],
)
def test_shapes_of_quality_files(tmp_path, content):
    path = tmp_path / "quality.json"
    path.write_text(content)
    assert read_quality(path) == [DRIFT]


def test_plain_values_have_no_budget(tmp_path):
    path = tmp_path / "quality.json"
    path.write_text('{"rows": 12, "note": "fine"}')
    assert read_quality(path) == [
        QualityCheck("rows", "12", "-", None),
        QualityCheck("note", "fine", "-", None),
    ]


def test_no_file_and_no_json(tmp_path):
    path = tmp_path / "quality.json"
    assert read_quality(path) == []
    path.write_text("{")
    with pytest.raises(CorruptPartError, match=r"quality\.json: unreadable"):
        read_quality(path)


def test_what_validation_counted(tmp_path):
    path = tmp_path / "validation.json"
    assert read_validation(path) == []
    shares = {"num_rows": 200, "num_empty": 1, "num_looping": 7}
    path.write_text(json.dumps({"counts": {}, "snapshot": shares, "new_texts": shares | {"num_rows": 20}}))
    assert read_validation(path) == [
        SnapshotShare("snapshot", 200, 1, 7),
        SnapshotShare("texts of this run", 20, 1, 7),
    ]
    path.write_text('{"snapshot": 3}')
    assert read_validation(path) == []
