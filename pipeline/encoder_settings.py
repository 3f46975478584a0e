"""Settings of what comes after generation: sentence encoder, and exports for CTR libraries."""

from typing import Literal

from pydantic import Field

from pipeline.settings_base import Settings

ExportFormat = Literal["fuxictr", "recbole", "kar", "torch"]
EXPORT_FORMATS: tuple[ExportFormat, ...] = ("fuxictr", "recbole", "kar", "torch")


class EncoderSettings(Settings):
    """The sentence encoder that turns a text into a vector, and what is made of the vector."""

    path: str = Field(
        default="package:all-minilm-l6-v2",
        description="local folder, hub id, or 'package:<name>' for an embedded encoder",
    )
    revision: str | None = Field(default=None, description="branch, tag or commit of a hub id")
    backend: Literal["sentence-transformers", "vllm"] = "sentence-transformers"
    batch_size: int = Field(default=64, ge=1, description="texts that are encoded together")
    normalize: bool = Field(default=True, description="vectors of length one, before any reduction")
    max_tokens: int | None = Field(
        default=None, ge=8, description="longer texts are cut; null: the encoder's own"
    )
    prefix: str = Field(default="", description="put before every text, as E5 models want 'passage: '")
    trust_remote_code: bool = False
    reduced_dim: int | None = Field(default=None, ge=1, description="PCA to this dimension; null: none")
    refit: bool = Field(default=False, description="fit the PCA anew, and encode everything again")
    num_fit_rows: int = Field(default=20_000, ge=2, description="texts that the PCA is fitted on")
    rows_per_part: int = Field(default=8_192, ge=1, description="rows of a part: what a kill can cost")
    keep_versions: int = Field(default=3, ge=1, description="complete versions that pruning leaves")


class ExportSettings(Settings):
    """What is exported, under which names."""

    formats: list[ExportFormat] = Field(default=list(EXPORT_FORMATS), min_length=1)
    version: str | None = Field(default=None, description="null: the embeddings in force")
    user_field: str = Field(default="user_id", pattern=r"^\w+$", description="what the CTR data calls a user")
    item_field: str = Field(
        default="item_id", pattern=r"^\w+$", description="what the CTR data calls an item"
    )

    def field(self, kind: str) -> str:
        """The column that names entities of `kind`."""
        return self.user_field if kind == "user" else self.item_field
