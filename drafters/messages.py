"""What passes between a vLLM engine's owner and the drafter inside its workers."""

from collections.abc import Sequence
from dataclasses import dataclass

from drafters.laser import SourceStats


@dataclass(frozen=True)
class LaserConfig:
    """What the proposer needs; travels inside vLLM's `additional_config`."""

    max_draft_tokens: int
    datastore: str | None = None  # folder of a datastore version
    tokenizer_hash: str = ""


@dataclass(frozen=True)
class FinishedRequest:
    """A request whose output is complete; its text teaches the drafts of the others."""

    key: str
    kind: str
    entity_id: str
    token_ids: Sequence[int]


@dataclass
class RequestStats:
    """Decoding of one request."""

    num_decode_steps: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0
    num_relaxed_tokens: int = 0


@dataclass(frozen=True)
class DrafterStats:
    """Running totals of a worker's drafter."""

    sources: dict[str, SourceStats]
    price: float
    base_sec: float
    marginal_sec: float
    propose_sec: float
    num_steps: int
