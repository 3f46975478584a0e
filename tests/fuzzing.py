"""How much the fuzz tests try: few and always the same cases; FUZZ_EXAMPLES=2000 tries that many new ones."""

import os

from hypothesis import HealthCheck, settings

NUM_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
FUZZED = settings(
    max_examples=NUM_EXAMPLES or 60,
    deadline=None,
    derandomize=NUM_EXAMPLES == 0,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
