"""Settings of the evaluation with CTR models."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from pipeline.settings_base import Settings

CtrModel = Literal["din", "dcnv2", "deepfm", "autoint"]
CTR_MODELS: tuple[CtrModel, ...] = ("din", "dcnv2", "deepfm", "autoint")


class CtrTrainingSettings(Settings):
    """How a CTR model is built and trained: the same for every model, knowledge and seed."""

    embedding_dim: int = Field(default=16, ge=2, multiple_of=2, description="of every field")
    hidden: list[Annotated[int, Field(ge=1)]] = Field(default=[64, 32], min_length=1)
    dropout: float = Field(default=0.2, ge=0.0, lt=1.0)
    learning_rate: float = Field(default=0.002, gt=0.0)
    weight_decay: float = Field(default=1e-5, ge=0.0)
    batch_size: int = Field(default=1024, ge=2)
    max_epochs: int = Field(default=15, ge=1)
    patience: int = Field(default=2, ge=1, description="epochs without a better validation AUC, then it ends")


class EvaluationSettings(Settings):
    """What `make evaluate` compares, and on which interactions."""

    models: list[CtrModel] = Field(default=list(CTR_MODELS), min_length=1)
    num_seeds: int = Field(default=5, ge=2)
    positive_above: float = Field(default=3.0, description="a rating above it is a positive label")
    test_fraction: float = Field(
        default=0.2,
        gt=0.0,
        lt=1.0,
        description="of the interactions, the latest; unless history_cutoff is set",
    )
    validation_fraction: float = Field(
        default=0.1, gt=0.0, lt=1.0, description="of those before the cutoff, the latest: for early stopping"
    )
    max_user_history: int = Field(default=20, ge=1, description="liked items that a CTR model sees of a user")
    dimension: int = Field(default=32, ge=1, description="of the knowledge vectors that CTR models see (PCA)")
    goal: float = Field(default=0.001, gt=0.0, description="|AUC(relaxed) - AUC(greedy)| that is aimed at")
    training: CtrTrainingSettings = CtrTrainingSettings()

    @field_validator("models")
    @classmethod
    def _different(cls, models: list[CtrModel]) -> list[CtrModel]:
        if len(set(models)) < len(models):
            raise ValueError("must be different from each other")
        return models
