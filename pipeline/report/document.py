"""From figures to the report: what is said, in which order."""

from pipeline.report import decoding_sections, night_sections
from pipeline.report.blocks import Document, Tile
from pipeline.report.figures import READ_STAGE, RunFigures, ratio
from pipeline.report.formats import count, decimal, duration, moment, percent


def build_document(figures: RunFigures) -> Document:
    """The report on `figures`. A run that went wrong begins with its failures and steps, another one with
    texts: that every step is done is no news."""
    steps = [night_sections.failures(figures), night_sections.steps(figures)]
    samples = night_sections.samples(figures)
    is_good = figures.verdict.state in ("done", "running")
    sections = [
        *([samples] if is_good else steps),
        night_sections.changes(figures),
        night_sections.quality(figures),
        night_sections.comparison(figures),
        decoding_sections.decoding(figures),
        decoding_sections.over_time(figures),
        decoding_sections.shards(figures),
        *(steps if is_good else [samples]),
        night_sections.about(figures),
    ]
    return Document(
        title=_title(figures),
        subtitle=_subtitle(figures),
        verdict=figures.verdict,
        tiles=[tile for tile in _tiles(figures) if tile is not None],
        sections=[section for section in sections if section is not None and section.blocks],
    )


def _title(figures: RunFigures) -> str:
    if figures.night is None:
        return f"Run {figures.facts.run_id}"
    if figures.started_at is None:
        return "The night"
    return f"Night of {figures.started_at.day} {figures.started_at:%B %Y}"


def _subtitle(figures: RunFigures) -> str:
    parts = [figures.facts.dataset, figures.facts.run_id if figures.night else None, figures.facts.model]
    if figures.started_at:
        parts.append(f"began {moment(figures.started_at)}")
    if figures.seconds is not None:
        parts.append(f"took {duration(figures.seconds)}")
    return " · ".join(part for part in parts if part)


def _tiles(figures: RunFigures) -> list[Tile | None]:
    first = [_texts(figures), _carried(figures), _failed(figures), _bad_raw_rows(figures)]
    return [*first, *_decoding_tiles(figures), _saved(figures)]


def _texts(figures: RunFigures) -> Tile:
    planned = figures.facts.num_planned
    note = f"of {count(planned)} planned" if planned else ""
    if figures.night and figures.night.counts:
        new, changed = figures.night.total("new"), figures.night.total("changed")
        note = f"{count(new)} new, {count(changed)} changed"
    return Tile("texts written", count(figures.rows.of_kind().num_rows), note)


def _carried(figures: RunFigures) -> Tile | None:
    if figures.night is None or not figures.night.counts:
        return None
    return Tile(
        "carried over", count(figures.night.total("carried")), f"{count(figures.night.total('gone'))} gone"
    )


def _failed(figures: RunFigures) -> Tile:
    number, entities = figures.num_without_text, figures.num_entities
    notes = [f"{percent(number / entities)} of {count(entities)} entities"] if number and entities else []
    stages = {stage: rows for stage, rows in figures.num_failed.items() if stage != READ_STAGE}
    if len(stages) > 1:
        notes += [f"{count(rows)} in {stage}" for stage, rows in stages.items()]
    return Tile("failed rows", count(number), ", ".join(notes))


def _bad_raw_rows(figures: RunFigures) -> Tile | None:
    number = figures.num_failed.get(READ_STAGE, 0)
    return Tile("bad raw rows", count(number), "not used; see Failures") if number else None


def _decoding_tiles(figures: RunFigures) -> list[Tile | None]:
    total, speed = figures.rows.of_kind(), figures.speed
    if not total.num_rows:
        return []
    looping, measured = sum(figures.rows.num_looping.values()), sum(figures.rows.num_measured.values())
    return [
        Tile("tokens", count(total.num_output_tokens), f"{decimal(_mean_length(figures), 0)} a text"),
        Tile(
            "tokens/s", decimal(speed.tokens_per_sec, 0), f"{duration(speed.decode_sec or None)} of decoding"
        ),
        Tile("tokens per step", decimal(total.tokens_per_step), _per_step_note(figures)),
        Tile("drafts accepted", percent(total.acceptance), f"{count(total.num_draft_tokens)} drafted"),
        Tile("relaxed tokens", percent(total.relaxed_share), "not the model's first choice"),
        Tile(
            "looping texts",
            percent(ratio(looping, measured)),
            f"{count(looping)} of {count(measured)} measured",
        ),
    ]


def _per_step_note(figures: RunFigures) -> str:
    if figures.facts.is_new:
        return "1.00 is without drafts"
    return night_sections.repeated_prompts(figures)


def _mean_length(figures: RunFigures) -> float | None:
    total = figures.rows.of_kind()
    return ratio(total.num_output_tokens, total.num_rows - sum(figures.rows.num_shared.values()))


def _saved(figures: RunFigures) -> Tile | None:
    night = figures.night
    if night is None or night.saved_decode_sec is None:
        return None
    return Tile("decoding saved", duration(night.saved_decode_sec), "by carrying texts over")
