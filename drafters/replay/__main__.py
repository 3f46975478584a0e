"""`python -m drafters.replay TRACE...`: LASER and Arctic's suffix tree on the same recordings."""

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drafters.replay.arctic_method import (
    DEFAULT_SETTINGS,
    ArcticMissingError,
    ArcticReplay,
    ArcticSetting,
    build_tree,
)
from drafters.replay.frontier import Point, compare
from drafters.replay.laser_method import LaserReplay, build_pools, carried, warm_calibration
from drafters.replay.report import Row, describe_split, duel_dict, table, verdict
from drafters.replay.simulator import ReplayResult, replay
from drafters.replay.traces import Split, TraceError, read_trace, split_by_entity

logger = logging.getLogger(__name__)
DEFAULT_PRICES = (0.005, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.85)


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay every trace; print tables and verdicts. Returns the exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        reports = [_replay_trace(path, options) for path in options.traces]
    except TraceError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    if options.json:
        options.json.write_text(json.dumps(reports, indent=1) + "\n", encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m drafters.replay", description=__doc__)
    parser.add_argument("traces", nargs="+", type=Path, metavar="TRACE", help="Parquet file of recordings")
    parser.add_argument("--price", type=float, nargs="+", default=DEFAULT_PRICES, help="LASER's prices")
    parser.add_argument(
        "--arctic",
        type=_arctic_setting,
        nargs="*",
        default=DEFAULT_SETTINGS,
        metavar="FACTOR,OFFSET,MIN_PROB",
        help="Arctic's settings; none: leave it out",
    )
    parser.add_argument("--max-draft-tokens", type=int, default=16)
    parser.add_argument("--batch", type=int, default=1, help="requests replayed at once")
    parser.add_argument("--threads", type=int, default=1, help="threads of LASER's native call")
    parser.add_argument("--held-out", type=int, default=12, help="percent of the entities that are measured")
    parser.add_argument("--limit", type=int, help="measure at most so many texts")
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    return parser


def _arctic_setting(text: str) -> ArcticSetting:
    try:
        factor, offset, min_prob = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not FACTOR,OFFSET,MIN_PROB") from None
    return ArcticSetting(factor, offset, min_prob)


def _replay_trace(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    split = _split(path, options)
    _say(describe_split(path.name, split))
    laser = _replay_laser(split, options)
    arctic = _replay_arctic(split, options)
    _say(table([*laser, *arctic]))
    duels = compare([_point(row.result) for row in laser], [_point(row.result) for row in arctic])
    if arctic:
        _say(verdict(path.name, duels) + "\n")
    return {
        "trace": path.name,
        "rows": [row.to_dict() for row in [*laser, *arctic]],
        "duels": [duel_dict(duel) for duel in duels] if arctic else [],
    }


def _split(path: Path, options: argparse.Namespace) -> Split:
    split = split_by_entity(read_trace(path), options.held_out)
    split = Split(split.pool, split.warm, split.measured[: options.limit])
    if not (split.pool and split.measured):
        raise TraceError(f"{path}: too few recordings for a pool and held-out texts")
    return split


def _replay_laser(split: Split, options: argparse.Namespace) -> list[Row]:
    """As from night to night: the warm texts teach the calibration as they are written, then are pooled."""
    everything = [*split.known, *split.measured]
    vocab_size = max(int(recording.text.max()) for recording in everything) + 1
    rows = []
    with tempfile.TemporaryDirectory(prefix="replay-") as folder:
        earlier = build_pools(Path(folder) / "earlier", split.pool, vocab_size)
        calibration = warm_calibration(earlier, split.warm, options.max_draft_tokens)
        datastore = build_pools(Path(folder) / "measured", split.known, vocab_size)
        for price in options.price:
            drafter = LaserReplay(
                datastore, price, options.max_draft_tokens, carried(calibration), options.threads
            )
            rows.append(Row("laser", f"price {price:g}", replay(drafter, split.measured, options.batch)))
    return rows


def _replay_arctic(split: Split, options: argparse.Namespace) -> list[Row]:
    """From the texts that LASER knows, all of them; its settings need no calibration."""
    if not options.arctic:
        return []
    try:
        cache = build_tree([recording.output for recording in split.known])
    except ArcticMissingError as error:
        logger.warning("%s", error)
        return []
    rows = []
    for setting in options.arctic:
        result = replay(ArcticReplay(cache, setting, options.max_draft_tokens), split.measured, options.batch)
        name = f"{setting.factor:g} x match + {setting.offset:g}, p {setting.min_prob:g}"
        rows.append(Row("arctic", name, result))
    return rows


def _point(result: ReplayResult) -> Point:
    return Point(result.drafted_per_step, result.tokens_per_step)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
