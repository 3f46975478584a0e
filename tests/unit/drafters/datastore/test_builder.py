import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from drafters.datastore import DOMAIN_GROUP, Datastore, DatastoreBuilder, DatastoreError
from drafters.datastore.builder import DocumentSample, PoolLimits
from drafters.datastore.format import entity_key, separator, token_dtype
from drafters.datastore.segment import Segment
from tests.unit.drafters.builders import (
    NO_DOMAIN,
    TOKENIZER,
    VOCAB,
    build,
    document,
    expected,
    header,
    texts_of,
)

DRAMA = ("item", "drama")
COMEDY = ("item", "comedy")
CHECKOUT = Path(__file__).resolve().parents[4]


def inodes(store, kind, group):
    folder = store.folder / kind / group
    return {path.name: path.stat().st_ino for path in folder.iterdir()}


def test_pools_are_apart_and_the_domain_pool_holds_all_of_a_kind(tmp_path):
    a, b, c = document("a", 1, 2), document("b", 3), document("c", 4)
    store = build(tmp_path, "v1", {DRAMA: [a, b], COMEDY: [c], ("user", "u0"): [document("u", 9)]})
    assert texts_of(store, *DRAMA) == expected(a, b)
    assert texts_of(store, *COMEDY) == expected(c)
    assert sorted(texts_of(store, "item", DOMAIN_GROUP)) == sorted(expected(a, b, c))
    assert texts_of(store, "user", DOMAIN_GROUP) == expected(document("u", 9))
    assert store.pool("item", "absent") == []
    assert store.num_tokens == 3 + 2 + 2 + 2


def test_empty_documents_are_left_out_and_an_empty_store_is_a_store(tmp_path):
    store = build(tmp_path, "v1", {DRAMA: [document("a"), document("b", 1), document("c")]})
    assert texts_of(store, *DRAMA) == expected(document("b", 1))
    assert build(tmp_path, "v2", {DRAMA: [document("a")]}).num_tokens == 0
    assert build(tmp_path, "v3", {}).num_tokens == 0


def test_a_text_of_several_entities_is_searched_once_and_kept_for_each(tmp_path):
    shared = [document(name, 1, 2, 3) for name in "abcd"]
    own = document("e", 1, 2)
    store = build(tmp_path, "v1", {DRAMA: [shared[0], own, *shared[1:]]})
    assert texts_of(store, *DRAMA) == expected(shared[0], own)
    assert texts_of(store, "item", DOMAIN_GROUP) == expected(shared[0], own)
    for name in "abcd":
        assert store.previous("item", entity_key(name)).tolist() == [1, 2, 3]


def test_compaction_searches_a_text_of_several_entities_once(tmp_path):
    limits = PoolLimits(max_domain_tokens=0, max_segments=1)
    first = build(tmp_path, "v1", {DRAMA: [document("a", 1, 2, 3), document("b", 1, 2, 3)]}, limits=limits)
    second = build(tmp_path, "v2", {DRAMA: [document("c", 1, 2, 3), document("d", 4)]}, first, limits)
    (part,) = second.pool(*DRAMA)
    assert sorted(doc.token_ids.tolist() for doc in part.documents()) == [[1, 2, 3], [4]]
    found = [second.previous("item", entity_key(name)).tolist() for name in "abcd"]
    assert found == [[1, 2, 3], [1, 2, 3], [1, 2, 3], [4]]


def test_repeated_texts_take_no_place_in_the_sample_of_the_domain(tmp_path):
    """The domain pool takes 16 tokens of this pool: its four texts, however often one stands there."""
    distinct = [document(f"d{n}", n, n, n) for n in range(4)]
    repeats = [document(f"r{n}", 0, 0, 0) for n in range(100)]
    store = build(tmp_path, "v1", {DRAMA: [*distinct, *repeats]}, limits=PoolLimits(max_domain_tokens=64))
    assert sorted(texts_of(store, "item", DOMAIN_GROUP)) == sorted(expected(*distinct))


def test_a_big_vocabulary_is_stored_in_four_bytes(tmp_path):
    text = document("a", 152063, 65535, 70000)
    store = build(tmp_path, "v1", {DRAMA: [text]}, vocab_size=152064)
    (part,) = store.pool(*DRAMA)
    assert part.tokens.dtype.itemsize == 4
    assert part.tokens.tolist() == [152063, 65535, 70000, separator(token_dtype(152064))]


def test_a_new_night_adds_a_segment_and_links_the_old_ones(tmp_path):
    a, b = document("a", 1, 2), document("b", 3)
    first = build(tmp_path, "v1", {DRAMA: [a], COMEDY: [document("c", 5)]}, limits=NO_DOMAIN)
    second = build(tmp_path, "v2", {DRAMA: [b]}, first, NO_DOMAIN)
    assert texts_of(second, *DRAMA) == expected(a, b)
    assert len(second.pool(*DRAMA)) == 2
    old, new = inodes(first, *DRAMA), inodes(second, *DRAMA)
    assert {name: new[name] for name in old} == old and len(new) == 2 * len(old)
    assert inodes(second, *COMEDY) == inodes(first, *COMEDY)
    second.verify()


def test_where_links_are_not_possible_files_are_copied(tmp_path, monkeypatch):
    first = build(tmp_path, "v1", {DRAMA: [document("a", 1, 2)]})

    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    second = build(tmp_path, "v2", {}, first)
    second.verify()
    assert texts_of(second, *DRAMA) == texts_of(first, *DRAMA)
    assert inodes(second, *DRAMA) != inodes(first, *DRAMA)


def test_compaction_drops_superseded_texts(tmp_path):
    first = build(tmp_path, "v1", {DRAMA: [document("a", 1), document("b", 2)]}, limits=NO_DOMAIN)
    second = build(tmp_path, "v2", {DRAMA: [document("a", 7)]}, first, NO_DOMAIN)
    assert texts_of(second, *DRAMA) == expected(document("b", 2), document("a", 7))
    assert len(second.pool(*DRAMA)) == 1
    assert texts_of(first, *DRAMA) == expected(document("a", 1), document("b", 2)), (
        "the old version is untouched"
    )
    first.verify()
    second.verify()


def test_a_few_superseded_texts_are_kept(tmp_path):
    many = [document(str(n), n) for n in range(10)]
    first = build(tmp_path, "v1", {DRAMA: many}, limits=NO_DOMAIN)
    second = build(tmp_path, "v2", {DRAMA: [document("0", 77)]}, first, NO_DOMAIN)
    assert len(second.pool(*DRAMA)) == 2


def test_beyond_its_budget_a_pool_drops_the_oldest_texts(tmp_path):
    limits = PoolLimits(max_pool_tokens=8, max_domain_tokens=0)
    first = build(tmp_path, "v1", {DRAMA: [document("a", 1, 1), document("b", 2, 2)]}, limits=limits)
    second = build(tmp_path, "v2", {DRAMA: [document("c", 3, 3)]}, first, limits)
    assert texts_of(second, *DRAMA) == expected(document("b", 2, 2), document("c", 3, 3))
    assert sum(part.num_tokens for part in second.pool(*DRAMA)) <= 8


def test_what_a_pool_cannot_search_still_drafts_for_its_own_entity(tmp_path):
    limits = PoolLimits(max_pool_tokens=8, max_domain_tokens=0)
    texts = [document(str(n), n, n) for n in range(6)]
    store = build(tmp_path, "v1", {DRAMA: texts[:4]}, limits=limits)
    for night in (2, 3):
        store.verify()
        assert 0 < sum(part.num_tokens for part in store.pool(*DRAMA)) <= 8 < store.num_tokens
        for text in texts[: night + 2]:
            assert store.previous(DRAMA[0], text.entity).tolist() == text.token_ids.tolist()
        if night < 3:
            store = build(tmp_path, f"v{night}", {DRAMA: texts[4:5]}, store, limits)
    assert texts_of(store, *DRAMA)[-1] == expected(texts[4])[0], "the youngest are searched"


def test_an_oversized_new_pool_is_indexed_once(tmp_path, monkeypatch):
    indexed = []
    build_segment = Segment.build

    def counted(documents, dtype, is_indexed=True):
        indexed.append(is_indexed)
        return build_segment(documents, dtype, is_indexed)

    monkeypatch.setattr("drafters.datastore.builder.Segment.build", counted)
    limits = PoolLimits(max_pool_tokens=8, max_domain_tokens=0)
    build(tmp_path, "v1", {DRAMA: [document(str(n), n, n) for n in range(6)]}, limits=limits)
    assert indexed == [True, False, False]


def test_many_small_segments_become_one(tmp_path):
    limits = PoolLimits(max_segments=2, max_domain_tokens=0)
    store = None
    for night in range(3):
        store = build(tmp_path, f"v{night}", {DRAMA: [document(str(night), night)]}, store, limits)
    assert len(store.pool(*DRAMA)) == 1
    assert [ids for _, ids in texts_of(store, *DRAMA)] == [[0], [1], [2]]


def test_no_segment_is_larger_than_its_bound(tmp_path):
    limits = PoolLimits(max_segment_tokens=10, max_domain_tokens=0)
    documents = [document(str(n), n, n, n) for n in range(10)]
    store = build(tmp_path, "v1", {DRAMA: iter(documents)}, limits=limits)
    assert [part.num_tokens for part in store.pool(*DRAMA)] == [8] * 5
    assert texts_of(store, *DRAMA) == expected(*documents)


def test_every_pool_gives_its_share_to_a_domain_pool_that_is_too_small_for_all(tmp_path):
    limits = PoolLimits(max_domain_tokens=4 * 600)
    pools = {
        ("item", f"g{group}"): [document(f"{group}-{n}", group, n) for n in range(200)] for group in range(5)
    }
    store = build(tmp_path, "v1", pools, limits=limits)
    groups = [ids[0] for _, ids in texts_of(store, "item", DOMAIN_GROUP)]
    assert 300 <= 3 * len(groups) <= 600
    assert min(groups.count(group) for group in range(5)) >= len(groups) / 10


def test_the_sample_is_the_same_whatever_the_order():
    documents = [document(str(n), n, n) for n in range(300)]
    one, other = DocumentSample(300), DocumentSample(300)
    for forward, backward in zip(documents, reversed(documents), strict=True):
        one.add(forward)
        other.add(backward)
    assert {doc.entity for doc in one.documents} == {doc.entity for doc in other.documents}
    assert sum(len(doc.token_ids) + 1 for doc in one.documents) <= 300


def test_a_version_is_immutable(tmp_path):
    build(tmp_path, "v1", {DRAMA: [document("a", 1)]})
    with pytest.raises(DatastoreError, match="this version exists"):
        DatastoreBuilder(tmp_path, header("v1"))


def test_a_pool_is_added_once_and_under_a_plain_name(tmp_path):
    builder = DatastoreBuilder(tmp_path, header("v1"))
    builder.add(*DRAMA, [document("a", 1)])
    with pytest.raises(DatastoreError, match="was added before"):
        builder.add(*DRAMA, [])
    with pytest.raises(DatastoreError, match="reserved"):
        builder.add("item", DOMAIN_GROUP, [])
    for name in ("", "..", "a/b", "../../elsewhere"):
        with pytest.raises(DatastoreError, match="plain folder names"):
            builder.add("item", name, [])


def test_another_tokenizer_or_vocabulary_cannot_extend_a_version(tmp_path):
    first = build(tmp_path, "v1", {DRAMA: [document("a", 1)]})
    with pytest.raises(DatastoreError, match="another tokenizer"):
        DatastoreBuilder(tmp_path, header("v2", tokenizer="tokenizer-b"), first)
    with pytest.raises(DatastoreError, match="vocabulary size 1000, cannot be extended to 70000"):
        DatastoreBuilder(tmp_path, header("v2", vocab_size=70000), first)


CRASHING_BUILD = """
import sys, time
from pathlib import Path
from drafters.datastore import Datastore
from tests.unit.drafters.builders import TOKENIZER, VOCAB, DatastoreBuilder, document, header

root = Path(sys.argv[1])
builder = DatastoreBuilder(root, header("v2"), Datastore.open(root / "v1", TOKENIZER, VOCAB))
builder.add("item", "drama", [document("b", 3, 4)])
print("written", flush=True)
time.sleep(60)
"""


def test_a_killed_build_leaves_the_old_version_and_can_be_repeated(tmp_path):
    first = build(tmp_path, "v1", {DRAMA: [document("a", 1, 2)]})
    killed = subprocess.Popen(
        [sys.executable, "-c", CRASHING_BUILD, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
    )
    assert killed.stdout.readline() == "written\n"
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".tmp-v2", "v1"]
    assert any((tmp_path / ".tmp-v2").rglob("*.tokens")), "it was killed after it had written"
    again = Datastore.open(tmp_path / "v1", TOKENIZER, VOCAB)
    again.verify()
    assert texts_of(again, *DRAMA) == expected(document("a", 1, 2))
    second = build(tmp_path, "v2", {DRAMA: [document("b", 3)]}, first)
    assert texts_of(second, *DRAMA) == expected(document("a", 1, 2), document("b", 3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v1", "v2"]


READER = """
import sys
from tests.unit.drafters.builders import TOKENIZER, VOCAB, Datastore
store = Datastore.open(sys.argv[1], TOKENIZER, VOCAB)
print(sum(int(part.tokens.sum()) for part in store.pool("item", "drama")), flush=True)
sys.stdin.readline()
print(sum(int(part.index.sum()) for part in store.pool("item", "drama")), flush=True)
"""


def test_readers_of_other_processes_keep_their_version_while_a_new_one_is_built(tmp_path):
    first = build(tmp_path, "v1", {DRAMA: [document(str(n), n, n + 1) for n in range(100)]})
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READER, str(first.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
        )
        for _ in range(2)
    ]
    (part,) = first.pool(*DRAMA)
    sums = [int(reader.stdout.readline()) for reader in readers]
    started = time.monotonic()
    build(tmp_path, "v2", {DRAMA: [document(str(n), n) for n in range(100)]}, first)
    assert time.monotonic() - started < 30
    assert sums == [int(part.tokens.sum())] * 2
    for reader in readers:
        output, _ = reader.communicate("go\n", timeout=30)
        assert int(output) == int(part.index.sum())


def test_folders_are_flushed_before_the_version_appears_and_its_name_after(tmp_path, monkeypatch):
    flushed = []

    def fsync(descriptor):
        is_visible = (tmp_path / "v1").exists()
        flushed.append((Path(f"/proc/self/fd/{descriptor}").readlink().relative_to(tmp_path), is_visible))

    monkeypatch.setattr("os.fsync", fsync)
    build(tmp_path, "v1", {DRAMA: [document("a", 1, 2)]}, calibration={})
    folder = Path(".tmp-v1")
    for path in (folder / "header.json", folder / "calibration.json", folder / "item" / "drama", folder):
        assert (path, False) in flushed
    assert flushed[-1] == (Path(), True)


def test_a_long_build_says_how_far_it_is(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("drafters.datastore.builder._Progress.EVERY_SEC", 0.0)
    with caplog.at_level("INFO", logger="drafters.datastore.builder"):
        build(tmp_path, "v1", {DRAMA: [document("a", 1, 2)]})
    first, second = [record.getMessage() for record in caplog.records]
    assert first.startswith("pools: 0 built, 3 tokens indexed, ")  # a text and its separator
    assert second.startswith("pools: 1 built, 6 tokens indexed, ")  # the domain's
