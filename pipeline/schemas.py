"""The declared pyarrow schema of every table that crosses a step, and the one check that enforces it."""

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import DataError

TIMESTAMP = pa.timestamp("us", tz="UTC")
# What users or models wrote. Of a whole dataset it can exceed the 2 GiB that a `pa.string()` column holds in
# one piece, and pyarrow joins a column to one piece to take rows of it, or to sort it.
TEXT = pa.large_string()
TOKEN_IDS = pa.list_(pa.int32())


def _field(name: str, kind: pa.DataType, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable)


# Domain tables: what a reader makes of raw files.
USERS = pa.schema(
    [
        _field("user_id", pa.string()),
        _field("attributes", pa.map_(TEXT, TEXT)),  # for example age, gender, occupation
    ]
)
ITEMS = pa.schema(
    [
        _field("item_id", pa.string()),
        _field("title", TEXT),
        _field("categories", pa.list_(TEXT)),  # for example genres, in the order of the raw file
        _field("attributes", pa.map_(TEXT, TEXT)),  # for example year
    ]
)
INTERACTIONS = pa.schema(
    [
        _field("user_id", pa.string()),
        _field("item_id", pa.string()),
        _field("rating", pa.float32(), nullable=True),  # null: implicit feedback
        _field("timestamp", TIMESTAMP),
    ]
)
# Interactions that came with words of their own, for example reviews: in place of INTERACTIONS where the
# dataset names a column of them.
INTERACTIONS_WITH_TEXT = pa.schema([*INTERACTIONS, _field("text", TEXT, nullable=True)])

# A row that could not be used: of the raw data (`file`, `line`), or of a run (`entity_id`, `kind`).
FAILED = pa.schema(
    [
        _field("stage", pa.string()),  # read | prompt | generate
        _field("file", pa.string(), nullable=True),
        _field("line", pa.int64(), nullable=True),  # 1-based
        _field("entity_id", pa.string(), nullable=True),
        _field("kind", pa.string(), nullable=True),
        _field("reason", pa.string()),
        _field("content", pa.string(), nullable=True),  # the raw line, shortened
    ]
)

# One row for each entity and its group of similar entities (a retrieval pool is kept for each).
GROUPS = pa.schema(
    [
        _field("entity_id", pa.string()),
        _field("kind", pa.string()),
        _field("group", pa.string()),
    ]
)

PROMPTS = pa.schema(
    [
        *GROUPS,
        _field("prompt", TEXT),  # after the chat template
        _field("prompt_token_ids", TOKEN_IDS),
        _field("prompt_hash", pa.string()),  # sha256 of the prompt, hex
        _field("max_tokens", pa.int32()),
        _field("history_cutoff", TIMESTAMP, nullable=True),  # null for items
        _field("latest_event", TIMESTAMP, nullable=True),  # the latest one shown; null: none is shown
        _field("titles", pa.list_(pa.string()), nullable=True),  # the item's, or those of the history shown
        _field("answer_prefix", pa.string(), nullable=True),  # the answer's first words, part of the prompt
    ]
)

PLAN = pa.schema(
    [
        _field("shard", pa.string()),  # for example user-00003; also the name of the part
        *PROMPTS,
    ]
)

# What a row of the plan is about, without the prompt itself: small enough to hold for all rows at once.
_NOT_IN_OUTLINE = ("prompt", "prompt_token_ids", "titles", "answer_prefix")
OUTLINE = pa.schema([field for field in PLAN if field.name not in _NOT_IN_OUTLINE])
NUMBERED_OUTLINE = pa.schema([*OUTLINE, _field("row", pa.int64())])  # its row among the rendered prompts

# What became of an entity since the snapshot in force; see `pipeline/night/changes.py`.
CHANGES = pa.schema(
    [
        _field("kind", pa.string()),
        _field("entity_id", pa.string()),
        _field("change", pa.string()),
    ]
)

# The product. One row for each entity.
KNOWLEDGE = pa.schema(
    [
        _field("entity_id", pa.string()),
        _field("kind", pa.string()),  # user | item
        _field("group", pa.string()),
        _field("text", TEXT),  # the answer prefix and what the model wrote after its reasoning
        _field("parsed", TEXT, nullable=True),  # the JSON asked for; null: plain text, or malformed
        _field("token_ids", TOKEN_IDS),
        _field("prompt_hash", pa.string()),
        _field("num_prompt_tokens", pa.int32()),
        _field("num_output_tokens", pa.int32()),
        _field("num_draft_tokens", pa.int32()),  # proposed and verified
        _field("num_accepted_tokens", pa.int32()),  # draft tokens that the verification took
        _field("num_relaxed_tokens", pa.int32()),  # of these, not the model's argmax
        _field("num_decode_steps", pa.int32()),  # forward passes that wrote at least one token
        _field("num_reasoning_tokens", pa.int32(), nullable=True),  # about so many were cut off before `text`
        _field("num_control_tokens", pa.int32(), nullable=True),  # of the model, that stand in `text`
        _field("finish_reason", pa.string()),  # stop | length | repetition
        _field("model", pa.string()),
        _field("model_revision", pa.string()),
        _field("knowledge", pa.string()),  # the prompt set
        _field("acceptance", pa.string()),  # strict | relaxed(k=2,p=0.1)
        _field("datastore_version", pa.string(), nullable=True),  # null: pools were empty
        _field("fingerprint", pa.string()),
        _field("run_id", pa.string()),
        _field("generated_at", TIMESTAMP),
        _field("history_cutoff", TIMESTAMP, nullable=True),  # null for items
        # The entity of the same prompt for which the run generated the text; null: the row's own. Where it is
        # set nothing was decoded for the row, and its DECODING_COUNTS are 0.
        _field("shared_from", pa.string(), nullable=True),
    ]
)

# How a row was decoded: its columns that are summed up over rows.
DECODING_COUNTS = (
    "num_output_tokens",
    "num_decode_steps",
    "num_draft_tokens",
    "num_accepted_tokens",
    "num_relaxed_tokens",
)


def conform(table: pa.Table, schema: pa.Schema, what: str, unique: tuple[str, ...] = ()) -> pa.Table:
    """Return `table` cast to `schema`; raise `DataError` naming `what` if it does not fit.

    Columns are reordered; missing or additional ones are errors. `unique` names the columns that
    together identify a row: nulls and duplicates in them are rejected.
    """
    missing = [name for name in schema.names if name not in table.column_names]
    extra = [name for name in table.column_names if name not in schema.names]
    if missing or extra:
        raise DataError(f"{what}: columns missing {missing}, not in the schema {extra}")
    try:
        table = table.select(schema.names).cast(schema)
        table.validate()
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, ValueError) as error:
        raise DataError(f"{what}: {error}") from error
    _reject_nulls(table, schema, what)
    if unique:
        _reject_duplicates(table, unique, what)
    return table


def _reject_nulls(table: pa.Table, schema: pa.Schema, what: str) -> None:
    for field in schema:
        if not field.nullable and table[field.name].null_count:
            row = pc.index(pc.is_null(table[field.name]), True).as_py()
            raise DataError(f"{what}: row {row} has no {field.name}")


def _reject_duplicates(table: pa.Table, unique: tuple[str, ...], what: str) -> None:
    counts = table.select(list(unique)).group_by(list(unique)).aggregate([([], "count_all")])
    repeated = counts.filter(pc.greater(counts["count_all"], 1))
    if repeated.num_rows:
        example = {name: repeated[name][0].as_py() for name in unique}
        raise DataError(f"{what}: {repeated.num_rows} ids stand more than once, for example {example}")
