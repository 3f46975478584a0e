"""Means, confidence intervals and paired differences over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from pipeline.evaluate.resampling import Replicates, difference_interval
from pipeline.evaluate.results import Metric, Result

CONFIDENCE = 0.95
ALL = "all"  # models


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its confidence interval (Student's t)."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Interval":
        """The interval of at least two values; of equal values it is a point."""
        array = np.asarray(values, dtype=np.float64)
        mean = float(array.mean())
        error = float(array.std(ddof=1) / np.sqrt(len(array)))
        reach = error * float(stats.t.ppf((1.0 + CONFIDENCE) / 2.0, len(array) - 1))
        return cls(mean, mean - reach, mean + reach)

    @property
    def half_width(self) -> float:
        """How far the interval reaches to each side."""
        return (self.high - self.low) / 2.0

    def is_within(self, bound: float) -> bool | None:
        """Whether the true value lies within plus or minus `bound`; None: the interval cannot tell."""
        if -bound <= self.low and self.high <= bound:
            return True
        if self.high < -bound or self.low > bound:
            return False
        return None

    def times_as_many(self, bound: float) -> float:
        """With how many times as much data it would reach `bound` to each side: it shrinks by 1/sqrt(n)."""
        return (self.half_width / bound) ** 2

    def or_wider(self, other: "Interval | None") -> "Interval":
        """About the same mean, to each side as far as the farther of both."""
        other = other or self
        return Interval(self.mean, min(self.low, other.low), max(self.high, other.high))


@dataclass(frozen=True)
class Summary:
    """One model with one knowledge, over the seeds."""

    model: str
    knowledge: str
    auc: Interval
    logloss: Interval


@dataclass(frozen=True)
class Comparison:
    """Two kinds of knowledge, one model: `knowledge` minus `baseline`, paired by seed."""

    model: str  # "all": the mean over the models, paired by seed
    knowledge: str
    baseline: str
    auc: Interval
    logloss: Interval
    auc_resampled: Interval | None = None  # test users and seeds drawn anew; the mean is that of `auc`
    logloss_resampled: Interval | None = None

    @property
    def auc_range(self) -> Interval:
        """The wider of both intervals of AUC to each side."""
        return self.auc.or_wider(self.auc_resampled)


def summarize_results(results: Sequence[Result]) -> list[Summary]:
    """A summary of each model and knowledge, in the order of `results`."""
    cells = dict.fromkeys((result.model, result.knowledge) for result in results)
    return [
        Summary(
            *cell,
            Interval.of(_values(results, *cell, "auc")),
            Interval.of(_values(results, *cell, "logloss")),
        )
        for cell in cells
    ]


def compare(
    results: Sequence[Result], baselines: Sequence[str], replicates: Replicates | None = None
) -> list[Comparison]:
    """Every knowledge against each of `baselines`, for each model and for their mean (`all`)."""
    models = list(dict.fromkeys(result.model for result in results))
    knowledge = list(dict.fromkeys(result.knowledge for result in results))
    pairs = [(name, baseline) for baseline in baselines for name in knowledge if name != baseline]
    return [
        _comparison(results, replicates, model, models if model == ALL else [model], name, baseline)
        for name, baseline in pairs
        for model in [*models, ALL]
    ]


def _comparison(
    results: Sequence[Result],
    replicates: Replicates | None,
    label: str,
    models: Sequence[str],
    name: str,
    baseline: str,
) -> Comparison:
    auc, logloss = (
        Interval.of(_differences(results, models, name, baseline, metric)) for metric in ("auc", "logloss")
    )
    if replicates is None:
        return Comparison(label, name, baseline, auc, logloss)
    auc_range, logloss_range = (
        difference_interval(replicates, models, name, baseline, metric, CONFIDENCE)
        for metric in ("auc", "logloss")
    )
    return Comparison(
        label,
        name,
        baseline,
        auc,
        logloss,
        auc_resampled=Interval(auc.mean, *auc_range),
        logloss_resampled=Interval(logloss.mean, *logloss_range),
    )


def _differences(
    results: Sequence[Result], models: Sequence[str], name: str, baseline: str, metric: Metric
) -> list[float]:
    """For each seed the difference, averaged over `models`."""
    differences = [
        np.subtract(_values(results, model, name, metric), _values(results, model, baseline, metric))
        for model in models
    ]
    values: list[float] = np.mean(differences, axis=0).tolist()
    return values


def _values(results: Sequence[Result], model: str, knowledge: str, metric: Metric) -> list[float]:
    """The metric for each seed, in the order of seeds."""
    found = [result for result in results if (result.model, result.knowledge) == (model, knowledge)]
    return [getattr(result, metric) for result in sorted(found, key=lambda result: result.seed)]
