"""Token datastore: immutable, memory-mapped pools of earlier knowledge, one for each (kind, group)."""

from drafters.datastore.builder import DatastoreBuilder
from drafters.datastore.format import DatastoreError, Document, StoreHeader
from drafters.datastore.head import PoolHead
from drafters.datastore.segment import Segment
from drafters.datastore.store import DOMAIN_GROUP, Datastore

__all__ = [
    "DOMAIN_GROUP",
    "Datastore",
    "DatastoreBuilder",
    "DatastoreError",
    "Document",
    "PoolHead",
    "Segment",
    "StoreHeader",
]
