import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline.encode import versions
from pipeline.errors import ConfigError, CorruptPartError, DataError
from pipeline.storage.layout import DatasetLayout
from pipeline.storage.parts import commit_part
from tests.embeddings import DIM, HashEncoder, encode, publish_texts, vector_of, vectors_by_id
from tests.generation import FINGERPRINT, make_plan, make_result

TEXTS = {
    "item": {f"i{n}": f"item text {n}" for n in range(5)},
    "user": {"u1": "likes drama", "u2": "", "u3": "likes Amélie 😀"},
}


@pytest.fixture
def layout(tmp_path) -> DatasetLayout:
    return publish_texts(tmp_path, "night1", TEXTS)


def changed(**items: str | None) -> dict:
    items = {**TEXTS["item"], **items}
    return {"item": {k: v for k, v in items.items() if v is not None}, "user": TEXTS["user"]}


def test_every_text_gets_its_own_vector_in_the_declared_schema(layout, tmp_path):
    report = encode(tmp_path, HashEncoder(), rows_per_part=2)
    for kind, texts in TEXTS.items():
        vectors = vectors_by_id(layout, report, kind)
        assert set(vectors) == set(texts)
        assert all((vectors[name] == vector_of(text)).all() for name, text in texts.items())
    path = versions.file_paths(layout, report.embeddings, "item")[0]
    schema = pq.read_schema(path)
    assert schema.field("embedding").type == pa.list_(pa.float32(), DIM)
    assert schema.metadata[b"encoder_name"] == b"all-minilm-l6-v2"
    assert schema.metadata[b"encoder_revision"].startswith(b"sha256-")
    assert report.embeddings.counts == {"item": {"encoded": 5, "kept": 0}, "user": {"encoded": 3, "kept": 0}}
    assert versions.embeddings_in_force(layout) == report.embeddings


def test_unchanged_texts_keep_their_vectors_to_the_bit_and_are_not_encoded(layout, tmp_path):
    first = encode(tmp_path, HashEncoder(), rows_per_part=2)
    before = vectors_by_id(layout, first, "item")
    publish_texts(tmp_path, "night2", changed(i1="another text", i2=None, new="a new item"))
    encoder = HashEncoder()
    second = encode(tmp_path, encoder, rows_per_part=2)
    assert sorted(encoder.texts) == ["a new item", "another text"]
    after = vectors_by_id(layout, second, "item")
    assert set(after) == {"i0", "i1", "i3", "i4", "new"}
    assert all(after[name].tobytes() == before[name].tobytes() for name in ("i0", "i3", "i4"))
    assert (after["i1"] == vector_of("another text")).all()
    assert second.embeddings.counts == {"item": {"encoded": 2, "kept": 3}, "user": {"encoded": 0, "kept": 3}}


def test_a_text_that_several_entities_share_is_encoded_once(tmp_path):
    shared = {"item": {f"i{n}": "a drama" for n in range(7)} | {"i8": "a comedy"}}
    layout = publish_texts(tmp_path, "night1", shared)
    encoder = HashEncoder()
    report = encode(tmp_path, encoder)
    assert encoder.texts == ["a drama", "a comedy"]
    vectors = vectors_by_id(layout, report, "item")
    assert len(vectors) == 8
    assert all((vectors[name] == vector_of(text)).all() for name, text in shared["item"].items())


def test_vectors_of_other_texts_than_those_in_force_are_pointed_out(layout, tmp_path):
    assert versions.encoded_other_texts(layout) is None  # no embeddings yet
    encode(tmp_path, HashEncoder())
    assert versions.encoded_other_texts(layout) is None
    publish_texts(tmp_path, "night2", changed(i1="another text"))
    note = versions.encoded_other_texts(layout)
    assert note.startswith("the embeddings in force are of the texts of night1; those in force are of night2")
    encode(tmp_path, HashEncoder())
    assert versions.encoded_other_texts(layout) is None


def test_a_night_without_changes_needs_no_encoder(layout, tmp_path):
    encode(tmp_path, HashEncoder())
    publish_texts(tmp_path, "night2", TEXTS)
    encoder = HashEncoder()
    report = encode(tmp_path, encoder)
    again = encode(tmp_path, encoder)
    assert encoder.calls == [] and report.embeddings.version.startswith("night2-")
    assert again.was_complete and again.embeddings == report.embeddings


def test_another_encoder_keeps_nothing(layout, tmp_path):
    encode(tmp_path, HashEncoder())
    encoder = HashEncoder()
    report = encode(tmp_path, encoder, prefix="passage: ")
    assert len(encoder.texts) == 8 and report.embeddings.counts["user"]["kept"] == 0


def test_a_killed_step_goes_on_with_the_next_part(layout, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        encode(tmp_path, HashEncoder(fail_after=2), rows_per_part=2)
    assert versions.embeddings_in_force(layout) is None
    encoder = HashEncoder()
    report = encode(tmp_path, encoder, rows_per_part=2)
    assert report.num_resumed == 4
    assert encoder.texts == ["item text 4", *TEXTS["user"].values()]
    assert set(vectors_by_id(layout, report, "item")) == set(TEXTS["item"])


@pytest.mark.parametrize("damage", ["truncated", "other_rows"])
def test_a_damaged_part_of_a_stopped_attempt_is_made_again(layout, tmp_path, damage):
    with pytest.raises(KeyboardInterrupt):
        encode(tmp_path, HashEncoder(fail_after=2), rows_per_part=2)
    (part,) = layout.embeddings.glob("*/kind=item/part-00001.parquet")
    if damage == "truncated":
        part.write_bytes(part.read_bytes()[:-10])
    else:  # a copy of the other part: its entities would stand twice
        part.write_bytes(part.with_name("part-00000.parquet").read_bytes())
    report = encode(tmp_path, HashEncoder(), rows_per_part=2)
    assert report.num_resumed == 2
    vectors = vectors_by_id(layout, report, "item")
    assert all((vectors[name] == vector_of(text)).all() for name, text in TEXTS["item"].items())
    assert report.embeddings.num_rows("item") == 5


def test_a_reduction_is_fitted_once_and_reused_until_a_refit(layout, tmp_path):
    encoder = HashEncoder()
    first = encode(tmp_path, encoder, reduced_dim=2)
    assert first.embeddings.dim == 2 and len(encoder.texts) == 8  # texts of the fit are not encoded twice
    publish_texts(tmp_path, "night2", changed(new="a new item"))
    encoder = HashEncoder()
    second = encode(tmp_path, encoder, reduced_dim=2)
    assert encoder.texts == ["a new item"]
    assert second.embeddings.pca_sha256 == first.embeddings.pca_sha256
    expected = vectors_by_id(layout, first, "item")["i0"]
    assert (vectors_by_id(layout, second, "item")["i0"] == expected).all()
    third = encode(tmp_path, HashEncoder(), reduced_dim=2, refit=True)
    assert third.embeddings.pca_sha256 != first.embeddings.pca_sha256
    assert third.embeddings.counts["item"] == {"encoded": 6, "kept": 0}
    assert versions.is_complete(layout, second.embeddings.version)


def test_a_reduction_keeps_what_a_plane_holds(tmp_path):
    from pipeline.encode.reduction import Reduction

    points = np.random.default_rng(0).standard_normal((50, 2)).astype(np.float32)
    vectors = points @ np.random.default_rng(1).standard_normal((2, 8)).astype(np.float32) + 3
    reduction = Reduction.fit(vectors, 2)
    reduced = reduction.apply(vectors)
    assert np.allclose(reduced @ reduction.components + reduction.mean, vectors, atol=1e-4)
    reduction.save(tmp_path / "pca.npz")
    assert Reduction.load(tmp_path / "pca.npz").sha256 == reduction.sha256
    (tmp_path / "pca.npz").write_bytes(b"no archive")
    with pytest.raises(CorruptPartError, match=r"pca\.npz: unreadable"):
        Reduction.load(tmp_path / "pca.npz")


@pytest.mark.parametrize(
    ("changes", "error", "reason"),
    [
        ({"reduced_dim": 7}, ConfigError, r"encoder\.reduced_dim=7: must be at most 6"),
        ({"path": "package:none"}, Exception, "no such embedded encoder; available: all-minilm-l6-v2"),
        ({"path": "/nowhere/encoder"}, Exception, "encoder.path=/nowhere/encoder: no such folder"),
    ],
)
def test_wrong_settings_are_named(layout, tmp_path, changes, error, reason):
    with pytest.raises(error, match=reason):
        encode(tmp_path, HashEncoder(), **changes)


def test_without_a_snapshot_the_way_to_one_is_named(tmp_path):
    with pytest.raises(DataError, match="nothing is published; `make nightly` does it"):
        encode(tmp_path, HashEncoder())
    with pytest.raises(DataError, match="run_id=x: no finished shards"):
        encode(tmp_path, HashEncoder(), run_id="x")


def test_a_run_is_encoded_again_when_it_has_more_parts(layout, tmp_path):
    plan = make_plan(num_shards=2, rows_per_shard=4)
    run = layout.run("run1")
    encoder = HashEncoder()
    counts = []
    for shard in ("item-00000", "item-00001"):
        rows = plan.filter(pc.equal(plan["shard"], shard))
        commit_part(run, make_result(shard, rows), FINGERPRINT)
        counts.append(encode(tmp_path, encoder, run_id="run1").embeddings.num_rows("item"))
    assert counts == [4, 8]
    assert encode(tmp_path, encoder, run_id="run1").was_complete
    published = encode(tmp_path, encoder).embeddings
    assert versions.embeddings_in_force(layout) == published and published.source == "night1"


def test_old_versions_go_but_not_the_one_in_force(layout, tmp_path):
    names = []
    for number in range(4):
        publish_texts(tmp_path, f"night{number}", changed(new=f"text {number}"))
        names.append(encode(tmp_path, HashEncoder(), keep_versions=2).embeddings.version)
    assert [item.version for item in versions.complete_versions(layout)] == names[2:]
    assert not versions.version_folder(layout, names[0]).exists()
