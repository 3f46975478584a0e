"""Steps of speculative decoding with random logits, as vLLM's sampler sees them."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from vllm.v1.sample.logits_processor import LogitsProcessors
from vllm.v1.sample.metadata import SamplingMetadata
from vllm.v1.sample.rejection_sampler import RejectionSampler
from vllm.v1.sample.sampler import Sampler
from vllm.v1.spec_decode.metadata import SpecDecodeMetadata

from drafters.acceptance import AcceptanceRule
from drafters.batch_rules import BatchRules
from drafters.vllm_sampling import LaserRejectionSampler, install_rejection_sampler

RANKS = (0.55, 0.25, 0.15, 0.05)  # how often a draft token is the first, second, ... choice


def register_kernels() -> None:
    """What a worker does before it verifies: where Triton is missing, vLLM brings native kernels."""
    from vllm.platforms import current_platform

    current_platform.register_triton_kernel_overrides()


@dataclass
class Step:
    """Drafts of some requests and the model's logits for them."""

    logits: torch.Tensor  # [num_drafts + requests, vocab]
    num_drafts: list[int]  # [requests]
    drafts: npt.NDArray[np.int32]  # [num_drafts]
    context: npt.NDArray[np.int32]  # [requests, max_len]
    num_prompt: npt.NDArray[np.int64]  # [requests]
    lengths: npt.NDArray[np.int64]  # [requests] prompt and output
    penalties: torch.Tensor  # [requests] of repetition
    rules: list[AcceptanceRule]  # [requests]

    def metadata(self) -> SpecDecodeMetadata:
        """The drafts as vLLM's model runner describes them."""
        ends = np.cumsum(self.num_drafts)
        starts = ends - self.num_drafts + np.arange(len(ends))
        targets = [np.arange(start, start + n) for start, n in zip(starts, self.num_drafts, strict=True)]
        return SpecDecodeMetadata(
            draft_token_ids=torch.from_numpy(self.drafts),
            num_draft_tokens=self.num_drafts,
            cu_num_draft_tokens=torch.tensor(ends, dtype=torch.int32),
            cu_num_sampled_tokens=torch.tensor(np.cumsum(np.add(self.num_drafts, 1)), dtype=torch.int32),
            target_logits_indices=torch.tensor(np.concatenate(targets), dtype=torch.int64),
            bonus_logits_indices=torch.tensor(starts + self.num_drafts, dtype=torch.int64),
            logits_indices=torch.arange(len(self.logits)),
        )

    def sampling(self, **changes: Any) -> SamplingMetadata:
        """The requests' sampling parameters: greedy, with the repetition penalties."""
        vocab_size = self.logits.shape[1]
        prompts = torch.full((len(self.rules), max(self.num_prompt)), vocab_size, dtype=torch.int64)
        outputs = []
        for row, (num_prompt, length) in enumerate(zip(self.num_prompt, self.lengths, strict=True)):
            prompts[row, :num_prompt] = torch.from_numpy(self.context[row, :num_prompt])
            outputs.append(self.context[row, num_prompt:length].tolist())
        drafts = np.split(self.drafts, np.cumsum(self.num_drafts)[:-1])
        zeros = torch.zeros(len(self.rules))
        values: dict[str, Any] = {
            "temperature": None, "all_greedy": True, "all_random": False, "top_p": None, "top_k": None,
            "generators": {}, "max_num_logprobs": None, "no_penalties": bool((self.penalties == 1.0).all()),
            "prompt_token_ids": prompts, "frequency_penalties": zeros, "presence_penalties": zeros,
            "repetition_penalties": self.penalties, "output_token_ids": outputs,
            "allowed_token_ids_mask": None, "bad_words_token_ids": {}, "logitsprocs": LogitsProcessors(),
            "spec_token_ids": [draft.tolist() for draft in drafts],
        }  # fmt: skip
        return SamplingMetadata(**values | changes)

    def sampler(self) -> LaserRejectionSampler:
        """A sampler as the adapter installs it, for exactly these requests."""
        ids = [str(row) for row in range(len(self.rules))]
        runner = SimpleNamespace(
            rejection_sampler=RejectionSampler(Sampler()),
            input_batch=SimpleNamespace(
                req_ids=ids, token_ids_cpu=self.context, num_tokens_no_spec=self.lengths.astype(np.int32)
            ),
            device=self.logits.device,
            model_config=SimpleNamespace(
                dtype=self.logits.dtype, get_vocab_size=lambda: self.logits.shape[1]
            ),
        )
        install_rejection_sampler(runner, BatchRules(lambda name: self.rules[int(name)], lambda: ids))
        sampler: LaserRejectionSampler = runner.rejection_sampler
        return sampler


def random_step(
    seed: int,
    num_requests: int,
    rules: list[AcceptanceRule],
    vocab_size: int,
    longest: int = 5,
    max_len: int = 40,
    repetition: float = 1.3,
    dtype: torch.dtype = torch.bfloat16,
) -> Step:
    """Drafts of up to `longest` tokens, most of them among the likely ones; `rules` in turn.

    Halves of integers as logits make many ties.
    """
    random = np.random.default_rng(seed)
    num_drafts = random.integers(0, longest + 1, num_requests)
    num_drafts[0] = longest
    num_rows = num_drafts.sum() + num_requests
    logits = torch.tensor((random.normal(size=(num_rows, vocab_size)) * 4).round() / 2).to(dtype)
    is_bonus = np.zeros(num_rows, bool)
    is_bonus[np.cumsum(num_drafts + 1) - 1] = True
    ranked = np.argsort(-logits.float().numpy(), axis=1, kind="stable")
    choice = random.choice(len(RANKS), num_rows, p=RANKS)
    num_prompt = random.integers(1, max_len // 4, num_requests)
    return Step(
        logits=logits,
        num_drafts=num_drafts.tolist(),
        drafts=ranked[np.arange(num_rows), choice][~is_bonus].astype(np.int32),
        context=random.integers(0, vocab_size, (num_requests, max_len)).astype(np.int32),
        num_prompt=num_prompt,
        lengths=num_prompt + random.integers(0, max_len // 2, num_requests),
        penalties=torch.tensor(random.choice([1.0, repetition], num_requests), dtype=torch.float32),
        rules=[rules[n % len(rules)] for n in range(num_requests)],
    )
