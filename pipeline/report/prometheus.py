"""The figures in Prometheus text format, for node exporter's textfile collector or a pushgateway.

Every metric is a gauge on the dataset's latest run. What is unknown is left out, not zero.
"""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.exposition import push_to_gateway

from pipeline.generate.contract import SourceCounts
from pipeline.output_bounds import BOUNDED
from pipeline.report.figures import Decoding, RunFigures

PREFIX = "knowledge_run_"
JOB = "knowledge"
PUSH_TIMEOUT_SEC = 10.0
MAX_GROUPS = 50  # a label with more values would swell the database
Value = tuple[dict[str, str], float | None]


def to_prometheus(figures: RunFigures) -> str:
    """The metrics as text; it ends with a line feed."""
    return generate_latest(_registry(figures)).decode()


def push(figures: RunFigures, gateway: str) -> None:
    """Replace the dataset's metrics at a pushgateway (`host:port` or URL); raises `OSError`."""
    labels = {"dataset": figures.facts.dataset}
    push_to_gateway(gateway, JOB, _registry(figures), labels, timeout=PUSH_TIMEOUT_SEC)


class _Metrics:
    """Collects gauges that share the label `dataset`."""

    def __init__(self, dataset: str) -> None:
        self.registry = CollectorRegistry()
        self._dataset = dataset

    def add(self, name: str, documentation: str, value: float | None) -> None:
        """One value, if it is known."""
        self.add_each(name, documentation, [({}, value)])

    def add_each(self, name: str, documentation: str, values: Iterable[Value]) -> None:
        """One value for each set of labels, those that are known."""
        known = [(labels, value) for labels, value in values if value is not None]
        if not known:
            return
        names = ["dataset", *known[0][0]]
        gauge = Gauge(PREFIX + name, documentation, names, registry=self.registry)
        for labels, value in known:
            gauge.labels(dataset=self._dataset, **labels).set(value)


def _registry(figures: RunFigures) -> CollectorRegistry:
    metrics = _Metrics(figures.facts.dataset)
    _add_run(metrics, figures)
    _add_night(metrics, figures)
    _add_rows(metrics, figures)
    _add_drafts(metrics, figures)
    _add_speed(metrics, figures)
    return metrics.registry


def _add_run(metrics: _Metrics, figures: RunFigures) -> None:
    facts, night = figures.facts, figures.night
    names = ("run_id", "model", "knowledge", "drafter", "acceptance", "datastore_version")
    info = {name: str(getattr(facts, name) or "") for name in names}
    info["version"] = (night.version if night else None) or ""
    metrics.add_each("info", "What the latest run was; always 1.", [(info, 1)])
    is_done = figures.verdict.state == "done"
    metrics.add("success", "1 if the run ended as it should, else 0.", int(is_done))
    begin, end = figures.started_at, figures.ended_at
    metrics.add("start_timestamp_seconds", "When the run began.", begin.timestamp() if begin else None)
    metrics.add("end_timestamp_seconds", "When the run ended.", end.timestamp() if end else None)
    metrics.add("duration_seconds", "From beginning to end.", figures.seconds)
    shards = figures.shards
    counts = [({"state": "planned"}, shards.num_planned), ({"state": "finished"}, shards.num_finished)]
    metrics.add_each("shards", "Shards of the run.", counts)
    metrics.add("shard_median_seconds", "Median time of a shard.", shards.median_sec)
    slowest = shards.slowest[0].seconds if shards.slowest else None
    metrics.add("shard_slowest_seconds", "Time of the slowest shard.", slowest)
    flags = [({"figure": c.name}, float(bool(c.flag))) for c in figures.compared if c.bad and c.num_nights]
    metrics.add_each("outside_range", "1 if a figure is clearly worse than in the runs before.", flags)


def _add_night(metrics: _Metrics, figures: RunFigures) -> None:
    night = figures.night
    if night is not None:
        entities = [
            ({"kind": kind, "change": name}, counts.get(name, 0))
            for kind, counts in night.counts.items()
            for name in night.count_names
        ]
        metrics.add_each("entities", "Entities by what became of them tonight.", entities)
        metrics.add("saved_decode_seconds", "Decoding saved by carrying over.", night.saved_decode_sec)
        seconds = [({"step": step.name}, step.seconds) for step in night.steps]
        metrics.add_each("step_seconds", "Time of each step of the night.", seconds)
        good = [({"step": step.name}, float(step.is_good)) for step in night.steps]
        metrics.add_each("step_success", "1 if the step did what it should.", good)
    ok = [({"check": c.name}, float(c.is_ok)) for c in figures.quality if c.is_ok is not None]
    metrics.add_each("quality_success", "1 if a measure of the quality gate is within its budget.", ok)


def _add_rows(metrics: _Metrics, figures: RunFigures) -> None:
    rows = figures.rows
    reasons = [
        ({"kind": kind, "finish_reason": reason}, number)
        for kind, counts in rows.finish_reasons.items()
        for reason, number in counts.items()
    ]
    metrics.add_each("rows", "Texts written, by why they ended.", reasons)
    faults = [
        ({"kind": kind, "fault": name.removeprefix("num_")}, getattr(counts, name))
        for kind, counts in figures.facts.outputs.items()
        for name, _, _ in BOUNDED
    ]
    metrics.add_each("faulty_rows", "Texts that are empty or looping, or hold control tokens.", faults)
    for name, documentation in (
        ("named", "Share of texts that name their item, or one of the user's history."),
        ("named_other", "Share of texts that name what belongs to another entity."),
        ("shared_openings", "Share of texts whose first five words begin other texts too."),
        ("distinct", "Different texts, as a share of all."),
    ):
        found = figures.facts.aboutness.items()
        shares = [({"kind": str(kind)}, getattr(about, name)) for kind, about in found]
        metrics.add_each(f"{name}_ratio", documentation, shares)
    failed = [({"stage": stage}, number) for stage, number in figures.num_failed.items()]
    metrics.add_each("failed_rows", "Rows that failed, by stage.", failed or [({"stage": "generate"}, 0)])
    metrics.add("looping_ratio", "Share of looping texts among those measured.", rows.looping_share)
    parts = {kind: rows.of_kind(kind) for kind in rows.kinds}
    for name, documentation in (
        ("output_tokens", "Tokens written."),
        ("decode_steps", "Decoding steps, summed over texts."),
        ("draft_tokens", "Draft tokens verified."),
        ("accepted_tokens", "Draft tokens accepted."),
        ("relaxed_tokens", "Accepted tokens that are not the model's argmax."),
    ):
        values = [({"kind": kind}, getattr(part, f"num_{name}")) for kind, part in parts.items()]
        metrics.add_each(name, documentation, values)


def _add_drafts(metrics: _Metrics, figures: RunFigures) -> None:
    sources: dict[str, SourceCounts] = figures.speed.sources
    drafted = [({"source": name}, counts.num_draft_tokens) for name, counts in sources.items()]
    metrics.add_each("source_draft_tokens", "Draft tokens by source.", drafted)
    accepted = [({"source": name}, counts.num_accepted_tokens) for name, counts in sources.items()]
    metrics.add_each("source_accepted_tokens", "Accepted draft tokens by source.", accepted)
    largest = sorted(figures.rows.groups.items(), key=lambda item: -item[1].num_output_tokens)[:MAX_GROUPS]
    groups: list[tuple[dict[str, str], Decoding]] = [
        ({"kind": kind, "group": group}, part) for (kind, group), part in largest
    ]
    per_step = [(labels, part.tokens_per_step) for labels, part in groups]
    metrics.add_each("group_tokens_per_step_ratio", "Tokens per decoding step by group.", per_step)
    share = [(labels, part.acceptance) for labels, part in groups]
    metrics.add_each("group_acceptance_ratio", "Share of draft tokens accepted by group.", share)


def _add_speed(metrics: _Metrics, figures: RunFigures) -> None:
    total, speed = figures.rows.of_kind(), figures.speed
    metrics.add("tokens_per_step_ratio", "Tokens per decoding step.", total.tokens_per_step)
    metrics.add("acceptance_ratio", "Share of draft tokens accepted.", total.acceptance)
    metrics.add("tokens_per_second", "Tokens per second of all workers.", speed.tokens_per_sec)
    metrics.add("decode_seconds", "Time that workers decoded.", speed.decode_sec)
    step_sec = None if speed.drafter_ms is None else speed.drafter_ms / 1000
    metrics.add("drafter_seconds_per_step", "Drafting in one step of an engine.", step_sec)
    metrics.add("draft_price_ratio", "Mean chance from which a draft token was verified.", speed.price)
    metrics.add("batch_sequences", "Mean sequences in one worker's batch.", speed.num_running)
