import json
from dataclasses import replace

import pytest

from drafters.datastore import Datastore, DatastoreError
from drafters.datastore.format import SUFFIXES, entity_key
from tests.unit.drafters.builders import NO_DOMAIN, TOKENIZER, VOCAB, build, document

POOL = ("item", "drama")


@pytest.fixture
def store(tmp_path):
    return build(tmp_path, "v1", {POOL: [document("a", 1, 2, 3), document("b", 4)]}, limits=NO_DOMAIN)


def reopen(store, tokenizer=TOKENIZER, vocab_size=VOCAB):
    return Datastore.open(store.folder, tokenizer, vocab_size)


def file_of(store, suffix):
    return store.header.segments[0].path(store.folder, suffix)


def test_a_foreign_tokenizer_is_refused(store):
    with pytest.raises(DatastoreError, match=r"tokenizer tokenizer-a, the model's is tokenizer-b") as caught:
        reopen(store, tokenizer="tokenizer-b")
    assert str(store.folder) in str(caught.value)


def test_a_wrong_vocabulary_is_refused(store):
    with pytest.raises(DatastoreError, match="vocabulary size 1000, the model's is 1001") as caught:
        reopen(store, vocab_size=1001)
    assert str(store.folder) in str(caught.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_truncated_file_is_refused_on_opening(store, suffix):
    path = file_of(store, suffix)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DatastoreError, match=r"the header says \d+ \(truncated or altered\)") as caught:
        reopen(store)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_missing_file_is_refused_on_opening(store, suffix):
    file_of(store, suffix).unlink()
    with pytest.raises(DatastoreError, match="missing, though the header names it") as caught:
        reopen(store)
    assert str(file_of(store, suffix)) in str(caught.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_altered_file_is_found_by_verify(store, suffix):
    store.verify()
    path = file_of(store, suffix)
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DatastoreError, match="does not match the checksum") as caught:
        reopen(store).verify()
    assert str(path) in str(caught.value)


def test_a_folder_without_header_is_no_datastore(tmp_path):
    with pytest.raises(DatastoreError, match=r"header\.json: unreadable header"):
        Datastore.open(tmp_path, TOKENIZER, VOCAB)


def test_previous_is_the_youngest_text_over_all_segments(tmp_path):
    others = [document(str(n), n) for n in range(20)]
    first = build(tmp_path, "v1", {POOL: [document("a", 1), *others]}, limits=NO_DOMAIN)
    second = build(tmp_path, "v2", {POOL: [document("a", 5, 6)]}, first, NO_DOMAIN)
    assert len(second.pool(*POOL)) == 2
    assert second.previous(POOL[0], entity_key("a")).tolist() == [5, 6]
    assert second.previous(POOL[0], entity_key("7")).tolist() == [7]
    assert second.previous(POOL[0], entity_key("absent")) is None
    assert second.previous("item", entity_key("a")).tolist() == [5, 6]  # it changed its group
    assert second.previous("user", entity_key("a")) is None


@pytest.mark.parametrize(
    "also_new", [{}, {("item", "zombies"): [document("y", 4)]}], ids=["carried", "extended"]
)
def test_previous_is_the_youngest_text_of_one_that_changed_its_group(tmp_path, also_new):
    old = ("item", "zombies")  # behind the new group, whichever way pools are ordered
    first = build(
        tmp_path, "v1", {old: [document("a", 1), *(document(str(n), n) for n in range(9))]}, limits=NO_DOMAIN
    )
    second = build(tmp_path, "v2", {POOL: [document("a", 2)], **also_new}, first, NO_DOMAIN)
    assert second.previous("item", entity_key("a")).tolist() == [2]


def test_a_version_of_an_earlier_release_has_no_directory_and_finds_texts_too(tmp_path):
    store = build(tmp_path, "v1", {POOL: [document("a", 1), document("b", 2)]}, limits=NO_DOMAIN)
    header = replace(store.header, directories={})
    assert Datastore(store.folder, header).previous(POOL[0], entity_key("b")).tolist() == [2]


def test_a_directory_that_is_truncated_or_altered_is_refused_by_name(tmp_path):
    store = build(tmp_path, "v1", {POOL: [document("a", 1), document("b", 2)]}, limits=NO_DOMAIN)
    path = store.folder / f"{POOL[0]}.directory"
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])
    with pytest.raises(DatastoreError, match=rf"{path}: 28 bytes, the header says 32"):
        reopen(store)
    path.write_bytes(bytes(len(whole)))
    with pytest.raises(DatastoreError, match=rf"{path}: its content does not match"):
        reopen(store).verify()


def test_the_calibration_travels_with_the_version(tmp_path):
    assert build(tmp_path, "v1", {}).calibration() is None
    store = build(tmp_path, "v2", {}, calibration={"weights": [1.0]})
    store.verify()
    assert store.calibration() == {"weights": [1.0]}


@pytest.mark.parametrize("content", ['{"weights": [1', '{"weights": [2.0]}', "", None])
def test_a_broken_calibration_is_refused_by_name(tmp_path, content):
    store = build(tmp_path, "v1", {}, calibration={"weights": [1.0]})
    path = store.folder / "calibration.json"
    path.unlink() if content is None else path.write_text(content)
    for read in (store.verify, store.calibration):
        with pytest.raises(DatastoreError, match=r"calibration\.json: (unreadable|its content)"):
            read()


def test_a_calibration_of_before_it_had_a_checksum_is_read(tmp_path):
    store = build(tmp_path, "v1", {}, calibration={"weights": [1.0]})
    header = json.loads((store.folder / "header.json").read_text())
    del header["calibration_checksum"]
    (store.folder / "header.json").write_text(json.dumps(header))
    assert reopen(store).calibration() == {"weights": [1.0]}
