"""Small stores and texts for the tests of the drafters."""

import numpy as np

from drafters.datastore import Datastore, DatastoreBuilder, Document, Segment, StoreHeader
from drafters.datastore.builder import PoolLimits
from drafters.datastore.format import token_dtype

VOCAB = 1000
TOKENIZER = "tokenizer-a"
SMALL = token_dtype(VOCAB)


def document(entity, *ids):
    return Document.of(entity, np.array(ids, np.int64))


def segment(*texts, dtype=SMALL):
    return Segment.build([document(str(n), *ids) for n, ids in enumerate(texts)], dtype)


def header(version, vocab_size=VOCAB, tokenizer=TOKENIZER):
    return StoreHeader(version, vocab_size, tokenizer, source="run")


def build(root, version, pools, previous=None, limits=None, calibration=None, vocab_size=VOCAB):
    """`pools`: {(kind, group): [documents]}."""
    builder = DatastoreBuilder(root, header(version, vocab_size), previous, limits)
    for (kind, group), documents in pools.items():
        builder.add(kind, group, documents)
    return Datastore.open(builder.finish(calibration), TOKENIZER, vocab_size)


def texts_of(store, kind, group):
    """(entity key, ids) of a pool, oldest first."""
    return [
        (doc.entity, doc.token_ids.tolist()) for part in store.pool(kind, group) for doc in part.documents()
    ]


def expected(*documents):
    return [(doc.entity, list(doc.token_ids)) for doc in documents]


NO_DOMAIN = PoolLimits(max_domain_tokens=0)
