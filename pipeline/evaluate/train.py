"""Trains and tests CTR models: one training for each model, knowledge and seed, on all cores."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import torch
from sklearn.metrics import log_loss, roc_auc_score
from torch import nn

from pipeline.evaluate.features import KNOWLEDGE_HISTORY, Inputs
from pipeline.evaluate.models import build_model
from pipeline.evaluate.results import GREEDY, NONE, SHUFFLED, Result, Trial
from pipeline.evaluate.split import TEST, TRAIN, VALIDATION, Events
from pipeline.evaluate.vectors import Vectors, deranged
from pipeline.evaluation_settings import CtrModel, CtrTrainingSettings

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Workbench:
    """All that a training needs; pickled once for each process."""

    inputs: Inputs
    events: Events
    knowledge: dict[str, Vectors]  # of greedy, strict and relaxed
    training: CtrTrainingSettings


def run_trial(bench: Workbench, trial: Trial, vectors: Vectors) -> Result:
    """Train on the training part, stop by the validation AUC, and measure on the test part.

    Initial parameters, dropout and the order of batches follow from model and seed alone, so trials that
    are paired by seed differ in nothing but `vectors`.
    """
    torch.manual_seed(trial.seed)
    rng = np.random.default_rng(trial.seed)
    model, columns = _model_with_inputs(bench, trial.model, vectors)
    labels = torch.from_numpy(bench.events.labels)
    num_epochs = _fit(model, columns, labels, bench, rng)
    return _measured(bench, trial, _predict(model, columns, bench.events.of_part(TEST)), num_epochs)


def _model_with_inputs(bench: Workbench, name: CtrModel, vectors: Vectors) -> tuple[nn.Module, Tensors]:
    knowledge = [f for f in bench.inputs.knowledge_fields if name == "din" or f.name != KNOWLEDGE_HISTORY]
    fields = [*bench.inputs.fields, *knowledge]
    tables = {f"{kind}_knowledge": table for kind, table in vectors.items()}
    columns = {field.name: torch.from_numpy(bench.inputs.values[field.name]) for field in fields}
    return build_model(name, fields, tables, bench.training), columns


def _fit(
    model: nn.Module, columns: Tensors, labels: torch.Tensor, bench: Workbench, rng: np.random.Generator
) -> int:
    """Train until the validation AUC has not risen for `patience` epochs; keep the best. Epochs trained."""
    training = bench.training
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=training.learning_rate, weight_decay=training.weight_decay)
    rows, validation = bench.events.of_part(TRAIN), bench.events.of_part(VALIDATION)
    best_auc, best_epoch, best = -1.0, 0, deepcopy(model.state_dict())
    for epoch in range(1, training.max_epochs + 1):
        model.train()
        for batch in _batches(rng.permutation(rows), training.batch_size):
            loss = nn.functional.binary_cross_entropy(model(_taken(columns, batch)), labels[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        auc = roc_auc_score(bench.events.labels[validation], _predict(model, columns, validation))
        if auc > best_auc:
            best_auc, best_epoch, best = auc, epoch, deepcopy(model.state_dict())
        elif epoch - best_epoch >= training.patience:
            break
    model.load_state_dict(best)
    return epoch


def _batches(rows: np.ndarray, size: int) -> Iterator[torch.Tensor]:
    """`rows` in batches; a last one of a single row is left out, as batch normalization cannot take it."""
    for first in range(0, len(rows), size):
        batch = rows[first : first + size]
        if len(batch) > 1:
            yield torch.from_numpy(batch)


def _taken(columns: Tensors, rows: torch.Tensor) -> Tensors:
    return {name: values[rows] for name, values in columns.items()}


def _predict(model: nn.Module, columns: Tensors, rows: np.ndarray) -> np.ndarray:
    """float64 probabilities of the events `rows`."""
    model.eval()
    with torch.no_grad():
        parts = [
            model(_taken(columns, torch.from_numpy(part)))
            for part in np.array_split(rows, 1 + len(rows) // 8192)
        ]
    return torch.cat(parts).numpy().astype(np.float64)


def _measured(bench: Workbench, trial: Trial, predicted: np.ndarray, num_epochs: int) -> Result:
    test, warm = bench.events.of_part(TEST), bench.events.warm
    labels = bench.events.labels
    warm_predicted = predicted[np.searchsorted(test, warm)]
    has_both = len(np.unique(labels[warm])) == 2
    return Result(
        model=trial.model,
        knowledge=trial.knowledge,
        seed=trial.seed,
        auc=float(roc_auc_score(labels[test], predicted)),
        logloss=float(log_loss(labels[test], predicted)),
        auc_warm=float(roc_auc_score(labels[warm], warm_predicted)) if has_both else None,
        num_epochs=num_epochs,
        predicted=predicted,
    )


def run_trials(
    bench: Workbench, trials: list[Trial], num_processes: int, on_result: Callable[[Result], None]
) -> list[Result]:
    """The results of `trials`, in their order; each training runs on one core and repeats exactly."""
    pool = ProcessPoolExecutor(
        num_processes, mp_context=get_context("spawn"), initializer=_start_process, initargs=(bench,)
    )
    results = []
    with pool:
        for result in pool.map(_run_in_process, trials):
            on_result(result)
            results.append(result)
    return results


_bench: Workbench | None = None  # of a training process, set by `_start_process`


def _start_process(bench: Workbench) -> None:
    global _bench
    torch.set_num_threads(1)
    _bench = bench


def _run_in_process(trial: Trial) -> Result:
    assert _bench is not None
    return run_trial(_bench, trial, vectors_of(_bench.knowledge, trial))


def vectors_of(knowledge: dict[str, Vectors], trial: Trial) -> Vectors:
    """The tables that the trial's models see.

    `none` is a table of zeros, as for entities without a text: it adds nothing, and leaves every shape and
    every random number as it is with knowledge. `shuffled` is the greedy knowledge given to the wrong
    entities, another way for each seed.
    """
    if trial.knowledge == NONE:
        return {kind: np.zeros_like(table) for kind, table in knowledge[GREEDY].items()}
    if trial.knowledge == SHUFFLED:
        return {kind: deranged(table, trial.seed) for kind, table in knowledge[GREEDY].items()}
    return knowledge[trial.knowledge]
