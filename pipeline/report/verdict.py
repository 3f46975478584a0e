"""How a run went: its state, a sentence that says so, the reason and what to do if it went wrong."""

from dataclasses import dataclass, replace

from pipeline.failure_bound import first_objection, too_many_failed
from pipeline.printable import plural
from pipeline.report.figures import RunFacts, ShardFigures, Speed, Verdict
from pipeline.report.formats import count, duration, percent
from pipeline.report.night import Night

RESUME = "Run the same command again: what is finished is kept, and only the rest is done."
STOPPED = (
    "Its process could not say why it ended: it was killed, its machine was lost, or its disk was full; "
    "run.log may say more."
)
BEFORE_GENERATION = (
    "Nothing was generated and nothing was replaced. Mend the cause, then run the night again."
)
NOT_PUBLISHED = (
    "Neither snapshot nor pools were put in force. Mend the cause, for example a full disk, then run the "
    "night again: what was generated is kept."
)
NOT_GOOD_ENOUGH = (
    "The snapshot was not published. If the texts are too far from strict ones, look at the quality table "
    "and the samples below: the same command with other budgets (quality.max_*) decides at once, a stricter "
    "acceptance writes the texts anew. If too few could be compared, see failed.parquet below the run's "
    "quality/ and run.log; the same command with retry_failed=true decodes those again."
)
ADVICE = {
    **dict.fromkeys(("tables", "groups", "prompts", "plan"), BEFORE_GENERATION),
    "generate": f"{RESUME} run.log holds what the engines said.",
    "quality": NOT_GOOD_ENOUGH,
    "validate": "Look at the quality table and the samples below; the snapshot was not published.",
    **dict.fromkeys(("snapshot", "datastore", "publish"), NOT_PUBLISHED),
}
RETRY = (
    "Look at the reasons below and mend their cause; the same command with retry_failed=true ({command}) "
    "then redoes the failed rows only. A higher max_failed_fraction lets the run pass as it is."
)
FAULTY = (
    "Look at the texts below: the model, its chat template or the prompt set does not fit. If a bound of "
    "publish.* is too narrow for this model, set it higher: the same command then judges the texts anew."
)
UNPROMPTED = (
    "Look at the reasons below: a larger model.max_model_len, a smaller max_tokens, or better data gives "
    "more of them a prompt. A higher max_failed_fraction lets the same command pass as it is."
)
RETRY_NIGHT = RETRY.format(command="python -m jobs.nightly ... retry_failed=true")
RETRY_RUN = RETRY.format(command="python -m jobs.generate ... retry_failed=true")


@dataclass(frozen=True)
class _Outcome:
    facts: RunFacts
    shards: ShardFigures
    num_rows: int
    num_failed: int  # rows that generation failed on
    seconds: float | None
    night: Night | None
    is_going: bool  # a process works on it

    @property
    def took(self) -> str:
        return "" if self.seconds is None else f" in {duration(self.seconds)}"

    @property
    def num_missing(self) -> int:
        return max(0, (self.shards.num_planned or 0) - self.shards.num_finished)


def judge(
    facts: RunFacts,
    shards: ShardFigures,
    speed: Speed,
    num_rows: int,
    num_failed: int,
    seconds: float | None,
    night: Night | None,
    is_going: bool,
) -> Verdict:
    """The verdict on a run or a night. `num_rows`: texts; `num_failed`: rows that generation failed on.

    `is_going`: a process works on it now.
    """
    outcome = _Outcome(facts, shards, num_rows, num_failed, seconds, night, is_going)
    if night is not None:
        return _of_night(outcome, night, has_decoded=speed.num_sessions > 0 or num_rows > 0)
    return _of_run(outcome)


def _of_night(outcome: _Outcome, night: Night, has_decoded: bool) -> Verdict:
    if night.is_going and outcome.is_going:
        return Verdict("running", f"The night has not ended: {_so_far(outcome)}.")
    if night.is_going:
        text = f"The night was stopped before its end: {_so_far(outcome)}."
        return Verdict("stopped", text, STOPPED, RESUME)
    if night.is_stopped:
        last = f" after step {night.steps[-1].name}" if night.steps else ""
        return Verdict(
            "stopped", f"The night stopped{last}, as it was told to: {_so_far(outcome)}.", None, RESUME
        )
    if not night.is_good:
        return _failed_night(outcome, night)
    broken = _broken(outcome)
    if broken is not None:
        return broken
    if outcome.facts.kinds and _too_many_failed(outcome):
        return _failed_rows(outcome, "night", RETRY_NIGHT)
    num_carried = night.total("carried")
    in_force = f" Version {night.version} is in force." if night.version else ""
    num_left = night.total("gone") + night.total("withheld")
    if not has_decoded and not outcome.facts.num_planned and not num_left:
        carried = f"all {count(num_carried)} entities were carried over, " if num_carried else ""
        return Verdict("done", f"Nothing had changed: {carried}no engine was started.{in_force}")
    carried = f"; {count(num_carried)} were carried over" if num_carried else ""
    written = _written(outcome) if outcome.num_rows or outcome.num_failed else "no text had to be written"
    return Verdict("done", f"The night went well: {written}{carried}.{in_force}")


def _failed_night(outcome: _Outcome, night: Night) -> Verdict:
    step = night.failed_step
    where = f" at step {step.name}" if step else ""
    told = (step.error if step else None) or night.error
    reason = (
        told or _reason(outcome) or f"night.json says {(step.status if step else night.status)!r}, no more"
    )
    advice = ADVICE.get(step.name if step else "", RESUME)
    if outcome.num_failed and _too_many_failed(outcome):
        advice = RETRY_NIGHT
    text = f"The night failed{where}: {_so_far(outcome)}.{_stays(night)}"
    return Verdict("failed", text, reason, advice)


def _stays(night: Night) -> str:
    if night.version:
        return f" Version {night.version} is in force."
    return f" Version {night.previous_version} stays in force." if night.previous_version else ""


def _of_run(outcome: _Outcome) -> Verdict:
    broken = _broken(outcome)
    if outcome.facts.has_ended and broken is not None:
        return broken
    refused = _objection_to_prompts(outcome.facts)
    if refused is not None:
        return Verdict("failed", f"The run failed: {_so_far(outcome)}.", refused, UNPROMPTED)
    if outcome.num_missing and not outcome.facts.has_ended:
        return _not_ended(outcome)
    if outcome.num_missing:
        text = f"The run failed: {_so_far(outcome)}."
        return Verdict(
            "failed", text, _reason(outcome) or "no reason was recorded; see run.log", ADVICE["generate"]
        )
    if _too_many_failed(outcome):
        return _failed_rows(outcome, "run", RETRY_RUN)
    if outcome.facts.objection is not None:
        return Verdict("failed", f"The run failed: {_so_far(outcome)}.", outcome.facts.objection, FAULTY)
    return Verdict("done", f"The run went well: {_written(outcome)}.")


def _not_ended(outcome: _Outcome) -> Verdict:
    if outcome.is_going:
        return Verdict("running", f"The run has not ended: {_so_far(outcome)}.")
    text = f"The run stopped before its end: {_so_far(outcome)}."
    return Verdict("stopped", text, STOPPED, RESUME)


def _broken(outcome: _Outcome) -> Verdict | None:
    parts = outcome.shards.broken
    if not parts:
        return None
    text = f"{plural(len(parts), 'finished part is', 'finished parts are')} broken: {_so_far(outcome)}."
    return Verdict("failed", text, parts[0], "Run the same command again: broken parts are found and redone.")


def _failed_rows(outcome: _Outcome, what: str, advice: str) -> Verdict:
    return Verdict("failed", f"The {what} failed: {_so_far(outcome)}.", _objection(outcome), advice)


def _objection_to_prompts(facts: RunFacts) -> str | None:
    """Why nothing was generated: too many entities got no prompt."""
    if facts.max_failed_fraction is None:
        return None
    before = [replace(counts, num_failed=0) for counts in facts.kinds]
    return first_objection(before, facts.max_failed_fraction)


def _objection(outcome: _Outcome) -> str | None:
    """Why so many failed that the run did, in words; None: it did not."""
    facts = outcome.facts
    if facts.max_failed_fraction is None:
        return None
    if facts.kinds:
        return first_objection(facts.kinds, facts.max_failed_fraction)
    planned, carried = facts.num_planned or 0, outcome.night.total("carried") if outcome.night else 0
    if not too_many_failed(outcome.num_failed, planned, facts.max_failed_fraction, carried):
        return None
    share, bound = percent(outcome.num_failed / max(1, planned)), percent(facts.max_failed_fraction)
    return f"{plural(outcome.num_failed, 'row')} failed, {share}; at most {bound} may."


def _too_many_failed(outcome: _Outcome) -> bool:
    return _objection(outcome) is not None


def _reason(outcome: _Outcome) -> str | None:
    reasons = outcome.facts.unfinished_reasons
    if reasons:
        text, number = max(reasons.items(), key=lambda item: item[1])
        return f"{text} ({plural(number, 'shard')})"
    return _objection(outcome)


def _written(outcome: _Outcome) -> str:
    total = (outcome.facts.num_planned or 0) or outcome.num_rows + outcome.num_failed
    if not outcome.num_failed:
        many = f"all {count(outcome.num_rows)} texts were"
        were = "the only text was" if outcome.num_rows == 1 else many
        return f"{were} written{outcome.took}{_without_prompt(outcome)}"
    share = percent(outcome.num_failed / max(1, total))
    bound = outcome.facts.max_failed_fraction
    is_within = bound is not None and not _too_many_failed(outcome)
    within = f", within the bound of {percent(bound)}" if is_within else ""
    written = f"{count(outcome.num_rows)} of {count(total)} texts were written{outcome.took}"
    return f"{written}; {count(outcome.num_failed)} failed ({share}{within}){_without_prompt(outcome)}"


def _without_prompt(outcome: _Outcome) -> str:
    number = sum(counts.num_rejected + counts.num_unknown for counts in outcome.facts.kinds)
    return f"; {plural(number, 'entity', 'entities')} got no prompt" if number else ""


def _so_far(outcome: _Outcome) -> str:
    planned = outcome.facts.num_planned
    if not planned and not outcome.num_rows:
        return "no text was planned"
    of = f" of {count(planned)}" if planned else ""
    text = f"{count(outcome.num_rows)}{of} texts were written"
    if outcome.shards.num_planned:
        finished = f"{count(outcome.shards.num_finished)} of {count(outcome.shards.num_planned)}"
        text += f", {finished} shards are finished"
    return text
