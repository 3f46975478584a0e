"""Measures verification on a CPU beside vLLM's rejection sampler: `python -m drafters.bench_verification`."""
