"""`python -m drafters.bench_verification`: a step's verification by vLLM's sampler and by `CpuVerifier`."""

import argparse
import statistics
import sys
import time

import torch

from drafters.acceptance import AcceptanceRule
from drafters.bench_verification.steps import Step, random_step, register_kernels
from drafters.vllm_sampling import LaserRejectionSampler, install_cpu_sampling

LONGEST_DRAFT = {1: 16, 4: 8, 16: 4, 64: 2}  # by requests in a batch; about what a budget grants
MAX_LEN = 1024


def main() -> None:
    """Measure both in turn, on the same steps; a line for each batch size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocab-size", type=int, default=49_152)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    register_kernels()
    install_cpu_sampling()  # vLLM's sampler too has the short way for repetition penalties
    _say(f"{torch.get_num_threads()} threads, vocabulary of {arguments.vocab_size}, bfloat16, relaxed rule")
    _say("requests  rows  vLLM ms  CPU ms  ratio (lowest-highest round)")
    for num_requests, longest in LONGEST_DRAFT.items():
        rule = AcceptanceRule(2, 0.1)
        step = random_step(num_requests, num_requests, [rule], arguments.vocab_size, longest, MAX_LEN)
        theirs, ours = step.sampler(), step.sampler()
        theirs.laser_verifier = None
        rounds = [(_seconds(theirs, step), _seconds(ours, step)) for _ in range(arguments.rounds + 2)][2:]
        ratios = [slow / fast for slow, fast in rounds]
        slow, fast = (1e3 * statistics.median(column) for column in zip(*rounds, strict=True))
        _say(
            f"{num_requests:8d}  {len(step.logits):4d}  {slow:7.2f}  {fast:6.2f}  "
            f"{statistics.median(ratios):.1f} ({min(ratios):.1f}-{max(ratios):.1f})"
        )


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _seconds(sampler: LaserRejectionSampler, step: Step) -> float:
    metadata, sampling, logits = step.metadata(), step.sampling(), step.logits.clone()
    started = time.perf_counter()
    sampler.forward(metadata, None, logits, sampling)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
