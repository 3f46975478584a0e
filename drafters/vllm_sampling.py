"""vLLM's sampling with LASER's acceptance rule, and the parts of it that a CPU does better."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from vllm.v1.outputs import SamplerOutput
from vllm.v1.sample.logits_processor.builtin import LogitBiasLogitsProcessor, MinTokensLogitsProcessor
from vllm.v1.sample.ops import penalties
from vllm.v1.sample.rejection_sampler import RejectionSampler
from vllm.v1.sample.sampler import Sampler
from vllm.v1.spec_decode.metadata import SpecDecodeMetadata

from drafters.acceptance import AcceptanceRule, raise_above_argmax, relaxed_matches
from drafters.batch_rules import BatchRules
from drafters.cpu_logits import greedy_tokens
from drafters.cpu_verification import NO_TOKEN, VERIFIED_DTYPES, CpuVerifier, StepDrafts
from drafters.penalties import sparse_penalties


def install_cpu_sampling() -> None:
    """Replace vLLM's penalties and argmax on a CPU in this process, with drafts or without; once."""
    if hasattr(penalties.apply_penalties, "__wrapped__"):
        return
    penalties.apply_penalties = sparse_penalties(penalties.apply_penalties)
    sample_any = Sampler.greedy_sample

    def greedy_sample(logits: torch.Tensor) -> torch.Tensor:
        is_plain = logits.device.type == "cpu" and logits.dtype == torch.float32
        return greedy_tokens(logits) if is_plain else sample_any(logits)

    Sampler.greedy_sample = staticmethod(greedy_sample)


def check_sampler(model_runner: Any, require: Callable[[bool, str], None]) -> None:
    """Call `require` with each thing that this file reads or replaces, and what its absence means."""
    sampler = getattr(model_runner, "rejection_sampler", None)
    require(isinstance(sampler, RejectionSampler), "model_runner.rejection_sampler is no RejectionSampler")
    for method in ("forward", "apply_logits_processors"):
        require(callable(getattr(RejectionSampler, method, None)), f"RejectionSampler.{method} is gone")
    require(callable(getattr(Sampler, "greedy_sample", None)), "Sampler.greedy_sample is gone")


def install_rejection_sampler(model_runner: Any, rules: BatchRules) -> None:
    """Let the runner verify by `rules`."""
    sampler = model_runner.rejection_sampler
    sampler.__class__ = LaserRejectionSampler
    sampler.laser_rules = rules
    sampler.laser_runner = model_runner
    sampler.laser_verifier = None
    if model_runner.device.type == "cpu" and model_runner.model_config.dtype in VERIFIED_DTYPES:
        sampler.laser_verifier = CpuVerifier()
        _compile_verification(model_runner, sampler.laser_verifier)


def _compile_verification(model_runner: Any, verifier: CpuVerifier) -> None:
    """Verify nothing, so that native code is compiled now rather than in the first step."""
    model = model_runner.model_config
    batch = model_runner.input_batch
    drafts = StepDrafts(
        tokens=np.zeros(0, np.int32),
        num_tokens=[0],
        context=batch.token_ids_cpu,
        context_lengths=np.zeros_like(batch.num_tokens_no_spec),
        penalties=np.ones(1, np.float32),
        rules=[AcceptanceRule()],
    )
    verifier.verify(torch.zeros((1, model.get_vocab_size()), dtype=model.dtype), drafts)


class LaserRejectionSampler(RejectionSampler):
    """vLLM's rejection sampler with the relaxed rule for greedy requests.

    An acceptable draft token's logit is raised above the argmax after penalties and masks; the greedy
    verification then takes it. Sampled requests keep the standard rejection sampling. On a CPU a batch of
    greedy requests is verified by `CpuVerifier`, to the same result.
    """

    laser_rules: BatchRules
    laser_runner: Any
    laser_verifier: CpuVerifier | None  # None: vLLM's own verification for all batches

    def forward(self, metadata: Any, draft_probs: Any, logits: torch.Tensor, sampling_metadata: Any) -> Any:
        """Verify; remember the step's drafts for the proposer."""
        metadata, logits, sampling_metadata = _without_placeholders(metadata, logits, sampling_metadata)
        self.laser_rules.verified = list(metadata.num_draft_tokens)
        self.laser_rules.relaxed = None
        verifier = self.laser_verifier
        is_real = draft_probs is None and not getattr(self, "synthetic_mode", False)
        if verifier is None or not (is_real and _is_plain_greedy(logits, sampling_metadata)):
            return super().forward(metadata, draft_probs, logits, sampling_metadata)
        drafts = self._drafts(metadata, sampling_metadata)
        tokens, self.laser_rules.relaxed = verifier.verify(logits, drafts)
        return SamplerOutput(sampled_token_ids=tokens, logprobs_tensors=None)

    def _drafts(self, metadata: Any, sampling_metadata: Any) -> StepDrafts:
        batch = self.laser_runner.input_batch
        num_requests = len(metadata.num_draft_tokens)
        repetition = np.ones(num_requests, np.float32)
        if not sampling_metadata.no_penalties:
            repetition = sampling_metadata.repetition_penalties[:num_requests].numpy()
        return StepDrafts(
            tokens=metadata.draft_token_ids.numpy(),
            num_tokens=metadata.num_draft_tokens,
            context=batch.token_ids_cpu,
            context_lengths=batch.num_tokens_no_spec,
            penalties=repetition,
            rules=self.laser_rules.of_rows(num_requests),
        )

    def apply_logits_processors(
        self, logits: torch.Tensor, sampling_metadata: Any, metadata: Any
    ) -> torch.Tensor:
        """Penalties and masks, then the acceptance rule."""
        logits = super().apply_logits_processors(logits, sampling_metadata, metadata)
        rules = self.laser_rules.positions(metadata.num_draft_tokens, logits.device)
        if rules is None:
            return logits
        accepted = relaxed_matches(logits, metadata.draft_token_ids, rules)
        self.laser_rules.relaxed = accepted
        return raise_above_argmax(logits, metadata.draft_token_ids, accepted)


def _without_placeholders(
    metadata: SpecDecodeMetadata, logits: torch.Tensor, sampling: Any
) -> tuple[SpecDecodeMetadata, torch.Tensor, Any]:
    """The step without the draft tokens that are none, as if the scheduler had asked for the others only.

    vLLM's scheduler gives a request whose whole prompt but the last token is cached `num_speculative_tokens`
    drafts of -1, so that all rows of a full CUDA graph have one length; and -1 takes the place of what a
    grammar forbids. To the rule and to the counts these are no drafts. The host knows them, so that nothing
    waits for a GPU.
    """
    drafts = (sampling.spec_token_ids or [])[: len(metadata.num_draft_tokens)]
    if not any(NO_TOKEN in draft for draft in drafts):
        return metadata, logits, sampling
    kept = [draft[: draft.index(NO_TOKEN)] if NO_TOKEN in draft else draft for draft in drafts]
    num_drafts = np.array([len(draft) for draft in kept], np.int32)
    # A request's rows of logits are those of its drafts and one more: the first ones stay.
    places = np.concatenate([np.arange(count + 1) for count in metadata.num_draft_tokens])
    is_kept = places <= np.repeat(num_drafts, np.add(metadata.num_draft_tokens, 1))
    rows = torch.from_numpy(is_kept.nonzero()[0]).to(logits.device)
    bonus = np.cumsum(num_drafts + 1, dtype=np.int32) - 1
    targets = np.setdiff1d(np.arange(len(rows), dtype=np.int32), bonus)

    def on_device(values: Any) -> torch.Tensor:
        return torch.as_tensor(values, dtype=torch.int32, device=logits.device)

    step = SpecDecodeMetadata(
        draft_token_ids=on_device([token for draft in kept for token in draft]),
        num_draft_tokens=num_drafts.tolist(),
        cu_num_draft_tokens=on_device(np.cumsum(num_drafts)),
        cu_num_sampled_tokens=on_device(bonus + 1),
        target_logits_indices=on_device(targets),
        bonus_logits_indices=on_device(bonus),
        logits_indices=metadata.logits_indices[rows],
    )
    return step, logits[rows], replace(sampling, spec_token_ids=kept)


def _is_plain_greedy(logits: torch.Tensor, sampling: Any) -> bool:
    """Whether these logits are of greedy requests, and only repetition penalties change them."""
    budgets = getattr(sampling, "thinking_budget_state_holder", None)
    return (
        logits.dtype in VERIFIED_DTYPES
        and sampling.all_greedy
        and sampling.max_num_logprobs is None
        and not getattr(sampling, "logprob_token_ids", None)
        and not sampling.bad_words_token_ids
        and sampling.allowed_token_ids_mask is None
        and (budgets is None or not budgets.has_tracked_requests())
        and all(_does_nothing(processor) for processor in sampling.logitsprocs.non_argmax_invariant)
        and (
            sampling.no_penalties
            or not (sampling.presence_penalties.any() or sampling.frequency_penalties.any())
        )
    )


def _does_nothing(processor: Any) -> bool:
    if isinstance(processor, LogitBiasLogitsProcessor):
        return not processor.biases
    return isinstance(processor, MinTokensLogitsProcessor) and not processor.min_toks
