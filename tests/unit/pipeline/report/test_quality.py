import json

import pytest

from pipeline.errors import CorruptPartError, QualityError
from pipeline.quality.gate import QualityReport
from pipeline.quality.metrics import QualityMetric
from pipeline.report import night_sections
from pipeline.report.figures import QualityCheck, SnapshotShare
from pipeline.report.gather import gather
from pipeline.report.quality import read_quality, read_validation
from pipeline.storage.files import write_json

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


@pytest.mark.parametrize(
    ("sample", "chosen", "is_ok"),
    [(24, 24, True), (12, 24, True), (11, 24, False), (0, 24, False), (0, 0, None)],
)
def test_on_how_many_texts_the_measures_rest(tmp_path, sample, chosen, is_ok):
    metrics = [QualityMetric("drift", 0.0123456, 0.01)]
    path = tmp_path / "quality.json"
    path.write_text(json.dumps(QualityReport(chosen, sample, metrics).as_dict()))
    compared, drift = read_quality(path)
    assert compared == QualityCheck("texts_compared", f"{sample} of {chosen}", "at least half", is_ok)
    assert (drift.name, drift.is_ok) == ("drift", False)


GOOD, BAD = QualityMetric("drift", 0.1, 0.3), QualityMetric("drift", 0.4, 0.3)
WITHIN = "Every measure is within its budget."
OF_24 = "of 24 relaxed texts were compared with strict ones"


@pytest.mark.parametrize(
    ("report", "text"),
    [
        (QualityReport(24, 23, [GOOD]), f"23 {OF_24}. {WITHIN}"),
        (QualityReport(24, 23, [BAD]), f"23 {OF_24}. Outside the budget: drift."),
        (QualityReport(24, 11, [GOOD]), f"11 {OF_24}: too few to judge by, so the gate failed."),
        (
            QualityReport(24, 11, [BAD]),
            f"11 {OF_24}: too few to judge by, so the gate failed. Outside the budget: drift.",
        ),
        (QualityReport(0, 0, []), "0 of 0 relaxed texts were compared with strict ones."),
    ],
)
def test_the_section_says_what_the_gate_decided(builder, dataset, report, text):
    layout = builder.build()
    builder.night()
    write_json(report.as_dict(), layout.quality)
    shown, rows = night_sections.quality(gather(layout, dataset)).blocks
    assert shown.text == text
    assert rows.rows[0][:2] == ["texts_compared", text.split(" relaxed")[0]]
    try:
        report.require_ok("night-1")
    except QualityError:
        assert WITHIN not in text and "NO" in [row[-1] for row in rows.rows]
    else:
        assert "NO" not in [row[-1] for row in rows.rows]


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
