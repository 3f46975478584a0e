"""A night with `history_cutoff=today` keeps the moment it began with, also after midnight."""

from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline.night.record import unfinished_nights
from pipeline.settings import RunSettings
from pipeline.storage.layout import DatasetLayout
from pipeline.storage.run_settings import settings_digest

SAME_NIGHT = timedelta(hours=20)  # a night begun later is the next one of a daily schedule


def cutoff_values(settings: RunSettings) -> dict[str, Any]:
    """What the record of a night keeps for `with_cutoff_of_the_night`."""
    cutoff = settings.history_cutoff
    return {
        "history_cutoff": cutoff.isoformat() if cutoff else None,
        "cutoff_word": settings.cutoff_word,
        "settings_digest": settings_digest(settings),
    }


def with_cutoff_of_the_night(
    settings: RunSettings, layout: DatasetLayout, now: datetime | None = None
) -> RunSettings:
    """`settings` with the cutoff of the night that they go on with, if that stopped before its end.

    That is one of the same settings and the same word, begun less than `SAME_NIGHT` ago or asked for by its
    `run_id`; the youngest of several.
    """
    if settings.cutoff_word is None:
        return settings
    wanted, begun = cutoff_values(settings), []
    for _, night in unfinished_nights(layout):
        is_same = all(night.get(key) == wanted[key] for key in ("cutoff_word", "settings_digest"))
        if is_same and _is_gone_on_with(settings, night, now or datetime.now(UTC)):
            begun.append((night["started_at"], night["history_cutoff"]))
    if not begun:
        return settings
    return settings.model_copy(update={"history_cutoff": datetime.fromisoformat(max(begun)[1])})


def _is_gone_on_with(settings: RunSettings, night: dict[str, Any], now: datetime) -> bool:
    return (
        night["run_id"] == settings.run_id or now - datetime.fromisoformat(night["started_at"]) < SAME_NIGHT
    )
