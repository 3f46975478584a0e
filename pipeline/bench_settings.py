"""Settings of `make bench`: what is compared, and how much of it."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.settings_base import Settings

BenchMethod = Literal[
    "none", "ngram", "suffix", "laser-strict", "laser-relaxed", "laser-guarded", "laser-deferred"
]


class BenchSettings(Settings):
    """How much `make bench` measures."""

    concurrencies: list[Annotated[int, Field(ge=1)]] = Field(default=[1, 4, 16, 64], min_length=1)
    methods: list[BenchMethod] = ["none", "ngram", "suffix", "laser-strict", "laser-relaxed"]
    num_repeats: int = Field(default=3, ge=1)
    num_pool: int = Field(default=600, ge=1)
    use_published: bool = False
    num_warmup: int = Field(default=32, ge=1)
