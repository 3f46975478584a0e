"""Renders the prompts of a run: data in, rows of schema PROMPTS and FAILED out."""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ConfigError, DataError
from pipeline.models.tokenizer import control_tokens
from pipeline.printable import plural as counted
from pipeline.prompts.chat import EncodedPrompt, PromptEncoder
from pipeline.prompts.cleaning import DataCleaner
from pipeline.prompts.fitting import Fitted, longest_fitting
from pipeline.prompts.histories import Histories, effective_cutoff
from pipeline.prompts.outputs import opened_reasoning
from pipeline.prompts.subjects import ItemSubjects, Subjects, UserSubjects
from pipeline.prompts.template import PromptTemplate
from pipeline.prompts.words import plural
from pipeline.schemas import FAILED, GROUPS, PROMPTS, TIMESTAMP, TOKEN_IDS, conform
from pipeline.settings import KINDS, Kind, KnowledgeSettings, ModelSettings, PromptSettings
from pipeline.spool import spooled
from pipeline.stages import stage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from pipeline.domains import DomainTables

logger = logging.getLogger(__name__)

# Entities rendered and tokenized together: bounds the Python objects alive at once.
BATCH_SIZE = 1024


@dataclass(frozen=True)
class RenderedPrompts:
    """Every entity that was asked for is in exactly one of the two tables."""

    prompts: pa.Table  # PROMPTS, on disk (`pipeline.spool`)
    failed: pa.Table  # FAILED, stage "prompt"


def render_prompts(
    tables: "DomainTables",
    groups: pa.Table,
    knowledge: KnowledgeSettings,
    model: ModelSettings,
    item_word: str,
    tokenizer: "PreTrainedTokenizerBase",
    history_cutoff: datetime | None,
    rating_range: tuple[float, float] | None = None,
    scratch: Path | None = None,
) -> RenderedPrompts:
    """Render the prompt of every entity in `groups` (schema GROUPS), items first, each group together.

    A user's prompt shows the most recent ratings before `history_cutoff` (None: all of them), at most
    `knowledge.max_history` and as many as leave `max_tokens` of `model.max_model_len` free; where texts came
    with them, these are shortened first. Attributes and categories are shortened if the latest rating, or an
    item's title, would not fit beside them. A user without visible ratings is prompted from the attributes;
    without these either, it fails. The prompts are written to the disk of the folder `scratch`.

    Raises `ConfigError` for a faulty template or a `max_tokens` that leaves no room for any prompt,
    `ModelError` for a chat template that refuses the messages, `DataError` for ids that contradict
    each other. Whatever concerns a single entity is a row of `failed`.
    """
    groups = conform(groups, GROUPS, "groups", unique=("kind", "entity_id"))
    cutoff = effective_cutoff(tables.interactions, history_cutoff)
    cleaner = DataCleaner(control_tokens(tokenizer))
    encoder = PromptEncoder(tokenizer, model)
    for remark in _remarks(encoder, knowledge, model):
        logger.warning("model.path=%s: %s", model.path, remark)
    failed = [FAILED.empty_table()]

    def written() -> Iterator[pa.Table]:
        for kind in KINDS:
            # The plan is sorted by group: it will read what stands together here.
            entities = groups.filter(pc.equal(groups["kind"], kind)).sort_by("group").combine_chunks()
            writer = _Writer.of(kind, knowledge, model, encoder, cleaner)
            if entities.num_rows:
                subjects = _subjects(
                    kind, entities, tables, knowledge, cutoff, item_word, rating_range, cleaner
                )
                for batch in writer.batches(entities, subjects, cutoff if kind == "user" else None):
                    failed.append(batch.failed)
                    done[0] += batch.prompts.num_rows + batch.failed.num_rows
                    say(f"rendering prompts: {done[0]:,} of {groups.num_rows:,}")
                    yield batch.prompts

    done = [0]
    with stage("rendering prompts", is_short=True) as say:
        prompts = spooled(written(), PROMPTS, scratch)
    refused = conform(pa.concat_tables(failed), FAILED, "failed")
    failures = counted(refused.num_rows, "entity", "entities")
    logger.info("%s rendered, %s failed", counted(prompts.num_rows, "prompt"), failures)
    if prompts.num_rows + refused.num_rows != groups.num_rows:
        raise DataError(f"groups: column kind holds values other than {', '.join(KINDS)}")
    return RenderedPrompts(prompts, refused)


def _remarks(encoder: PromptEncoder, knowledge: KnowledgeSettings, model: ModelSettings) -> Iterator[str]:
    """What is to be expected of this model's texts, said before any is generated."""
    if not encoder.has_chat_template:
        yield (
            "it has no chat template, so prompts are plain text: a model that was trained on conversations "
            "needs its own template, and a base model may write nothing or run on without an end"
        )
    for kind in KINDS:
        prompt = knowledge.prompt(kind)
        opening = opened_reasoning(encoder.encode(["x"], prompt.system)[0].text)
        if opening is not None:
            yield (
                f"its chat template opens {opening}: answers on {kind}s begin with reasoning, which is cut "
                f"off and must end within knowledge.{kind}.max_tokens={prompt.max_tokens}; if the template "
                "has a switch for it, set that in model.chat_template_args"
            )


def _subjects(
    kind: Kind,
    entities: pa.Table,
    tables: "DomainTables",
    knowledge: KnowledgeSettings,
    cutoff: datetime | None,
    item_word: str,
    rating_range: tuple[float, float] | None,
    cleaner: DataCleaner,
) -> Subjects:
    ids = _column(entities, "entity_id")
    constants: dict[str, Any] = {
        "item_word": item_word,
        "item_words": plural(item_word),
        "factors": knowledge.factors_of(item_word),
        "max_words": knowledge.prompt(kind).max_words,
    }
    if kind == "item":
        return ItemSubjects(ids, tables, constants, cleaner)
    item_ids = _column(tables.items, "item_id")
    histories = Histories(tables.interactions, ids, item_ids, cutoff, knowledge.max_history)
    low, high = map(_as_written, rating_range or (None, None))
    constants |= {"min_rating": low, "max_rating": high}
    return UserSubjects(ids, tables, histories, constants, cleaner)


def _as_written(rating: float | None) -> str | None:
    return None if rating is None else f"{rating:g}"


def _column(table: pa.Table, name: str) -> pa.Array:
    column = table[name].combine_chunks()
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


@dataclass(frozen=True, slots=True)
class _Written:
    """A prompt, the time of the latest event that it shows (microseconds; None: no event), and its titles."""

    prompt: EncodedPrompt
    latest_time: int | None
    titles: list[str]


@dataclass(frozen=True)
class _Writer:
    """Writes the prompts of one kind."""

    kind: Kind
    settings: PromptSettings
    template: PromptTemplate
    answer_prefix: PromptTemplate | None
    encoder: PromptEncoder
    budget_tokens: int
    max_model_len: int
    num_frame_control_tokens: int

    @classmethod
    def of(
        cls,
        kind: Kind,
        knowledge: KnowledgeSettings,
        model: ModelSettings,
        encoder: PromptEncoder,
        cleaner: DataCleaner,
    ) -> "_Writer":
        settings = knowledge.prompt(kind)
        prefix = settings.answer_prefix or None
        shown = (("template", settings.template), ("system", settings.system), ("answer_prefix", prefix))
        for field, text in shown:
            if token := cleaner.finds_control_token(text or ""):
                raise ConfigError(f"knowledge.{kind}.{field}: {token} is the chat format's to write")
        budget = model.max_model_len - settings.max_tokens
        if budget < 1:
            raise ConfigError(
                f"knowledge.{kind}.max_tokens={settings.max_tokens} leaves no room for a prompt"
                f" in model.max_model_len={model.max_model_len}"
            )
        return cls(
            kind=kind,
            settings=settings,
            template=PromptTemplate(kind, settings.template),
            answer_prefix=PromptTemplate(kind, prefix, "answer_prefix") if prefix else None,
            encoder=encoder,
            budget_tokens=budget,
            max_model_len=model.max_model_len,
            num_frame_control_tokens=encoder.control_tokens_of_frame(settings.system),
        )

    def batches(
        self, entities: pa.Table, subjects: Subjects, cutoff: datetime | None
    ) -> Iterator[RenderedPrompts]:
        """The prompts and failures of `entities`, `BATCH_SIZE` entities at a time."""
        for start in range(0, entities.num_rows, BATCH_SIZE):
            batch = entities.slice(start, BATCH_SIZE)
            rows = range(start, start + batch.num_rows)
            outcomes = self._outcomes(rows, subjects)
            yield self._tables(batch, outcomes, cutoff)
            logger.debug("%s prompts: %d of %d", self.kind, rows.stop, entities.num_rows)

    def _outcomes(self, rows: range, subjects: Subjects) -> list[_Written | str]:
        """For each row its prompt, or the reason why there is none."""
        objections = [subjects.objection(row, int(subjects.sizes[row])) for row in rows]
        promptable = [row for row, objection in zip(rows, objections, strict=True) if objection is None]

        def write(pairs: list[tuple[int, int]]) -> list[EncodedPrompt]:
            shown = [subjects.variables(promptable[index], size) for index, size in pairs]
            messages = list(map(self.template.render, shown))
            prefixes = list(map(self.answer_prefix.render, shown)) if self.answer_prefix else None
            return self.encoder.encode(messages, self.settings.system, prefixes)

        sizes = [int(subjects.sizes[row]) for row in promptable]
        fitted = iter(zip(promptable, longest_fitting(write, sizes, self.budget_tokens), strict=True))
        return [objection or self._judged(*next(fitted), subjects) for objection in objections]

    def _judged(self, row: int, fitted: Fitted | None, subjects: Subjects) -> _Written | str:
        if fitted is None:
            bare = "without any rating " if self.kind == "user" else ""
            return (
                f"too long: {bare}the prompt and knowledge.{self.kind}.max_tokens="
                f"{self.settings.max_tokens} exceed model.max_model_len={self.max_model_len}"
            )
        shown = (row, fitted.size)
        return subjects.objection(*shown) or _Written(
            fitted.prompt, subjects.latest_time(*shown), subjects.titles(*shown)
        )

    def _tables(
        self, entities: pa.Table, outcomes: list[_Written | str], cutoff: datetime | None
    ) -> RenderedPrompts:
        written = np.array([not isinstance(outcome, str) for outcome in outcomes], dtype=bool)
        prompts = [outcome for outcome in outcomes if not isinstance(outcome, str)]
        reasons = [outcome for outcome in outcomes if isinstance(outcome, str)]
        table = self._prompts_table(entities.filter(pa.array(written)), prompts, cutoff)
        failed = self._failed_table(entities.filter(pa.array(~written)), reasons)
        tainted = self._tainted(table)
        if tainted.any():
            reason = "a control token of the model stands in the prompt's data"
            removed = table.filter(pa.array(tainted))
            refused = self._failed_table(removed, [reason] * removed.num_rows)
            failed = pa.concat_tables([failed, refused])
            table = table.filter(pa.array(~tainted))
        return RenderedPrompts(table, failed)

    def _tainted(self, table: pa.Table) -> np.ndarray:
        counts = self.encoder.count_control_tokens(_column(table, "prompt_token_ids"))
        return counts != self.num_frame_control_tokens

    def _prompts_table(
        self, entities: pa.Table, written: list[_Written], cutoff: datetime | None
    ) -> pa.Table:
        prompts = [outcome.prompt for outcome in written]
        columns: dict[str, Any] = {
            **{name: entities[name] for name in GROUPS.names},
            "prompt": pa.array([prompt.text for prompt in prompts], pa.string()),
            "prompt_token_ids": pa.array([prompt.token_ids for prompt in prompts], TOKEN_IDS),
            "prompt_hash": pa.array([_sha256(prompt.text) for prompt in prompts], pa.string()),
            "max_tokens": pa.array([self.settings.max_tokens] * len(prompts), pa.int32()),
            "history_cutoff": pa.array([cutoff] * len(prompts), TIMESTAMP),
            "latest_event": pa.array([outcome.latest_time for outcome in written], TIMESTAMP),
            "titles": pa.array([outcome.titles for outcome in written], pa.list_(pa.string())),
            "answer_prefix": pa.array([prompt.answer_prefix for prompt in prompts], pa.string()),
        }
        return pa.table(columns, schema=PROMPTS)

    def _failed_table(self, entities: pa.Table, reasons: list[str]) -> pa.Table:
        nulls = pa.nulls(len(reasons))
        columns = {
            "stage": pa.array(["prompt"] * len(reasons), pa.string()),
            "file": nulls.cast(pa.string()),
            "line": nulls.cast(pa.int64()),
            "entity_id": entities["entity_id"],
            "kind": entities["kind"],
            "reason": pa.array(reasons, pa.string()),
            "content": nulls.cast(pa.string()),
        }
        return pa.table(columns, schema=FAILED)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
