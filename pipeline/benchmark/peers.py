"""What the bench needs from vLLM's own drafters: their time, and a warm pool for the suffix tree.

Mixed into the worker of the engines that do not draft with LASER; nothing but the bench uses it. Like
`drafters/vllm_*.py` and `drafters/bench_verification/` it knows vLLM's internals: here, the runner's drafter.
"""

import time
from typing import Any

EXTENSION = f"{__name__}.PeerExtension"


class PeerExtension:
    """Worker methods for `collective_rpc`."""

    model_runner: Any

    def bench_install(self) -> None:
        """Measure the time in the drafter's `propose`."""
        self.model_runner.bench_propose = [0.0, 0]  # seconds, calls
        drafter = getattr(self.model_runner, "drafter", None)
        if drafter is None:
            return
        propose, totals = drafter.propose, self.model_runner.bench_propose

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return propose(*args, **kwargs)
            finally:
                totals[0] += time.perf_counter() - started
                totals[1] += 1

        drafter.propose = timed

    def bench_propose_totals(self) -> tuple[float, int]:
        """(seconds in `propose`, calls) since `bench_install`."""
        seconds, calls = self.model_runner.bench_propose
        return seconds, calls

    def bench_warm(self, texts: list[list[int]]) -> None:
        """Put `texts` into the suffix tree, as if this engine had generated them before."""
        cache = getattr(getattr(self.model_runner, "drafter", None), "suffix_cache", None)
        if cache is None:
            return
        for number, token_ids in enumerate(texts):
            request_id = f"pool-{number}"
            cache.start_request(request_id, token_ids[:1])
            cache.add_active_response(request_id, token_ids)
            cache.stop_request(request_id)

    def bench_forget(self) -> None:
        """Drop from the suffix tree what was generated since `bench_warm`: measured texts are no pool."""
        cache = getattr(getattr(self.model_runner, "drafter", None), "suffix_cache", None)
        if cache is None:
            return
        for request_id in list(cache.cached_requests):
            if not str(request_id).startswith("pool-"):
                if request_id in cache.active_requests:
                    cache.stop_request(request_id)
                cache.evict_cached_response(request_id)
