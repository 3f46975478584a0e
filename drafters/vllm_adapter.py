"""What LASER is to vLLM: a proposer and a worker extension; its sampling is in `vllm_sampling`.

Use with a plain `vllm.LLM`:

    llm = LLM(model=..., **engine_args(LaserConfig(max_draft_tokens=16)))
    install(llm)
    extra_args = request_args("req-1", rule=AcceptanceRule(top_k=2, min_prob=0.1))
    llm.generate(prompt, SamplingParams(temperature=0, extra_args=extra_args))
    finish(llm, [FinishedRequest("req-1", "item", "entity", output_token_ids)])

Works with vLLM 0.22 to 0.32 (V1 model runner). `check_contract` names what a newer vLLM has changed.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from vllm import SamplingParams

from drafters.acceptance import AcceptanceRule
from drafters.batch_rules import BatchRules, MismatchShares
from drafters.calibration import Calibration
from drafters.cpu_norms import register_cpu_norms
from drafters.datastore import Datastore, Document
from drafters.laser import DraftKey, LaserDrafter, SourceStats, Verification, available_threads
from drafters.messages import DrafterStats, FinishedRequest, LaserConfig, RequestStats
from drafters.request_decoding import RequestDecoding, VerifiedDraft
from drafters.step_time import StepTimeModel
from drafters.teaching import Teacher
from drafters.vllm_sampling import check_sampler, install_cpu_sampling, install_rejection_sampler

CONFIG_KEY = "laser"
REQUEST_KEY = "laser"
STRICT = AcceptanceRule()


class VllmContractError(RuntimeError):
    """The installed vLLM lacks something that this adapter builds on."""


def engine_args(config: LaserConfig) -> dict[str, Any]:
    """Keyword arguments that make a `vllm.LLM` draft with LASER; follow with `install`."""
    return {
        "speculative_config": {
            "method": "custom_class",
            "model": f"{__name__}.LaserProposer",
            "num_speculative_tokens": config.max_draft_tokens,
        },
        "worker_extension_cls": f"{__name__}.LaserWorkerExtension",
        "additional_config": {CONFIG_KEY: asdict(config)},
    }


def request_args(key: str, draft: DraftKey | None = None, rule: AcceptanceRule = STRICT) -> dict[str, Any]:
    """`SamplingParams.extra_args` of a request: its key for `finish`, its pools, its acceptance rule."""
    return {
        REQUEST_KEY: {
            "key": key,
            "draft": asdict(draft or DraftKey()),
            "rule": asdict(rule),
        }
    }


def install(llm: Any) -> None:
    """Connect the proposer and the acceptance rule with the engine's workers; once, before any request."""
    llm.collective_rpc("laser_install")


def finish(
    llm: Any, finished: Sequence[FinishedRequest], learn_texts: bool = True
) -> dict[str, RequestStats]:
    """Take the statistics of finished requests, by key; with `learn_texts` their texts draft for others."""
    payload = [(r.key, r.kind, r.entity_id, list(r.token_ids)) for r in finished]
    stats = llm.collective_rpc("laser_finish", args=(payload, learn_texts))[0]
    return {key: RequestStats(*values) for key, values in stats.items()}


def teach(llm: Any, kind: str, texts: Sequence[tuple[str, Sequence[int]]]) -> None:
    """Let earlier texts, (entity id, token ids), draft for all requests of `kind`."""
    llm.collective_rpc("laser_teach", args=(kind, [(entity, list(ids)) for entity, ids in texts]))


def drafter_stats(llm: Any) -> DrafterStats:
    """Running totals of the first worker's drafter, whose drafts vLLM takes."""
    raw = llm.collective_rpc("laser_stats")[0]
    sources = {name: SourceStats(*counts) for name, counts in raw.pop("sources").items()}
    return DrafterStats(sources=sources, **raw)


def calibration(llm: Any) -> dict[str, Any]:
    """What the drafter has learned; stored with the datastore, it gives the next run a warm start."""
    learned: dict[str, Any] = llm.collective_rpc("laser_calibration")[0]
    return learned


def eager_cpu_args() -> dict[str, Any]:
    """Keyword arguments for an eager `vllm.LLM` on a CPU, in this process: norms in one pass each.

    Empty where vLLM has no table of replaceable operations, or no such kernels.
    """
    from vllm.platforms import current_platform

    try:
        from vllm import ir
    except ImportError:
        return {}
    current_platform.import_kernels()
    priorities = register_cpu_norms(ir.ops)
    return {"kernel_config": {"ir_op_priority": priorities}} if priorities else {}


def check_contract(model_runner: Any) -> None:
    """Raise `VllmContractError` if `model_runner` lacks something that this file reads or replaces."""
    import vllm

    def require(present: bool, what: str) -> None:
        if not present:
            raise VllmContractError(f"vLLM {vllm.__version__}: {what}; drafters/vllm_*.py must be adapted")

    require(
        isinstance(getattr(model_runner, "drafter", None), LaserProposer), "model_runner.drafter is not ours"
    )
    check_sampler(model_runner, require)
    batch = getattr(model_runner, "input_batch", None)
    for name in ("req_ids", "num_prompt_tokens", "token_ids_cpu", "num_tokens_no_spec"):
        require(hasattr(batch, name), f"model_runner.input_batch.{name} is gone")
    require(isinstance(getattr(model_runner, "requests", None), dict), "model_runner.requests is no dict")
    starts = getattr(getattr(model_runner, "query_start_loc", None), "np", None)
    require(isinstance(starts, np.ndarray), "model_runner.query_start_loc.np is no array")
    for name in ("all_stop_token_ids", "max_tokens", "temperature"):
        require(hasattr(SamplingParams, name), f"SamplingParams.{name} is gone")


def _request_options(parameters: SamplingParams) -> dict[str, Any]:
    options: dict[str, Any] = (parameters.extra_args or {}).get(REQUEST_KEY, {})
    return options


def rule_of(parameters: SamplingParams) -> AcceptanceRule:
    """The acceptance rule of a request; strict if it is sampled, which has a verification of its own."""
    if parameters.temperature > 0:
        return STRICT
    stops = tuple(sorted(parameters.all_stop_token_ids))
    return AcceptanceRule(**{**_request_options(parameters).get("rule", {}), "stop_token_ids": stops})


class LaserProposer:
    """The proposer that vLLM builds for `method="custom_class"`."""

    def __init__(self, vllm_config: Any) -> None:
        """Raises `DatastoreError` if a file of the datastore is altered: searched, it could end the process.

        To see that, all of it is read once, which brings it into the page cache too.
        """
        config = LaserConfig(**vllm_config.additional_config[CONFIG_KEY])
        vocab_size = vllm_config.model_config.get_vocab_size()
        datastore = None
        learned = None
        if config.datastore is not None:
            datastore = Datastore.open(Path(config.datastore), config.tokenizer_hash, vocab_size)
            datastore.verify()
            learned = datastore.calibration()
        self.drafter = LaserDrafter(
            vocab_size,
            config.max_draft_tokens,
            datastore,
            None if learned is None else Calibration.from_dict(learned),
            num_threads=available_threads(),
        )
        self.teacher = Teacher(self.drafter.teach)
        self.num_steps = 0
        self.propose_sec = 0.0  # the whole of it, what is learned and counted included
        self._model_runner: Any = None
        self._rules: BatchRules | None = None
        self._mismatches = MismatchShares()
        self._decoding: dict[str, RequestDecoding] = {}
        self._key_of: dict[str, str] = {}
        self._last_propose: float | None = None

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """There is no draft model; the native code is compiled here rather than in the first step."""
        self.drafter.start("warm-up", 1)
        context = np.zeros((1, 64), np.int32)
        self.drafter.propose(["warm-up"], np.zeros(1, np.int64), context, np.array([8]))
        self.drafter.finish("warm-up")
        StepTimeModel.compile()

    def attach(self, model_runner: Any) -> None:
        """Learn where requests are described; replace the runner's rejection sampler."""
        check_contract(model_runner)
        self._model_runner = model_runner
        self._rules = BatchRules(
            lambda request_id: rule_of(self._parameters(request_id)), lambda: model_runner.input_batch.req_ids
        )
        # Where a row's context leaves no room for a whole draft, vLLM would not ask for any, but verify
        # zeros in every row. The drafter keeps to the room of each row by itself.
        if hasattr(model_runner, "effective_drafter_max_model_len"):
            model_runner.effective_drafter_max_model_len += model_runner.num_spec_tokens
        install_rejection_sampler(model_runner, self._rules)
        install_cpu_sampling()

    def _parameters(self, request_id: str) -> SamplingParams:
        return self._model_runner.requests[request_id].sampling_params

    def propose(
        self,
        sampled_token_ids: list[list[int]],
        num_tokens_no_spec: npt.NDArray[Any],
        token_ids_cpu: npt.NDArray[np.int32],
        slot_mappings: Any = None,
    ) -> list[list[int]]:
        """Draft for every row that has just got tokens; [] for rows still in prefill.

        `sampled_token_ids` [rows]; `num_tokens_no_spec` [rows]; `token_ids_cpu` [rows, max_model_len].
        """
        if self._rules is None:
            return [[] for _ in sampled_token_ids]
        started = time.perf_counter()
        drafts = self._propose(self._rules, started, sampled_token_ids, num_tokens_no_spec, token_ids_cpu)
        self.propose_sec += time.perf_counter() - started
        return drafts

    def _propose(
        self,
        batch_rules: BatchRules,
        now: float,
        sampled_token_ids: list[list[int]],
        num_tokens_no_spec: npt.NDArray[Any],
        token_ids_cpu: npt.NDArray[np.int32],
    ) -> list[list[int]]:
        """See `propose`; `now` is when the step that wrote `sampled_token_ids` ended."""
        request_ids = self._model_runner.input_batch.req_ids
        num_sampled = [len(tokens) for tokens in sampled_token_ids]
        verified = batch_rules.take_step(num_sampled)
        self._forget_absent(request_ids)
        self._note_step_time(now, request_ids, verified)
        self.num_steps += 1
        rows = [row for row, count in enumerate(num_sampled) if count]
        rules = [batch_rules.rule(request_ids[row]) for row in rows]
        for row, rule in zip(rows, rules, strict=True):
            self._count(request_ids[row], row, verified[row])
            self._mismatches.note(rule, num_sampled[row], verified[row])
        drafts: list[list[int]] = [[] for _ in sampled_token_ids]
        if rows:
            row_array = np.array(rows, np.int64)
            proposed = self.drafter.propose(
                [request_ids[row] for row in rows],
                row_array,
                token_ids_cpu,
                np.asarray(num_tokens_no_spec[row_array], np.int64),
                Verification(
                    np.array([verified[row].num_draft_tokens for row in rows], np.int64),
                    np.array([self._mismatches.share(rule) for rule in rules]),
                ),
            )
            for row, draft in zip(rows, proposed, strict=True):
                drafts[row] = draft
        return drafts

    def _note_step_time(self, now: float, request_ids: list[str], verified: list[VerifiedDraft]) -> None:
        """Teach the step's seconds, with its tokens: those that were decoded, and those of prompts."""
        last, self._last_propose = self._last_propose, now
        num_tokens = int(self._model_runner.query_start_loc.np[len(request_ids)])
        num_decoded = sum(
            1 + draft.num_draft_tokens
            for request_id, draft in zip(request_ids, verified, strict=True)
            if request_id in self.drafter
        )
        if last is not None:
            self.drafter.step_time.observe(num_decoded, now - last, num_tokens - num_decoded)

    def _count(self, request_id: str, row: int, draft: VerifiedDraft) -> None:
        if request_id not in self.drafter:
            parameters = self._parameters(request_id)
            options = _request_options(parameters)
            num_prompt_tokens = int(self._model_runner.input_batch.num_prompt_tokens[row])
            key = DraftKey(**options.get("draft", {}))
            self.drafter.start(request_id, num_prompt_tokens, key, parameters.max_tokens)
            self._key_of[request_id] = options.get("key", request_id)
        self._decoding.setdefault(self._key_of[request_id], RequestDecoding()).add(draft)

    def _forget_absent(self, request_ids: list[str]) -> None:
        """Requests that left the batch are finished, or preempted: those start anew when they return."""
        present = set(request_ids)
        for request_id in self.drafter.active():
            if request_id not in present:
                self.drafter.finish(request_id)
                self._key_of.pop(request_id, None)
                assert self._rules is not None
                self._rules.forget(request_id)

    def take_stats(self, key: str, num_output_tokens: int) -> RequestStats:
        """The statistics of the request with `key` and its output's length; they are forgotten here."""
        return self._decoding.pop(key, RequestDecoding()).stats(num_output_tokens)

    def summary(self) -> dict[str, Any]:
        """Running totals, as plain values."""
        costs = self.drafter.step_time.costs(1.0)
        return {
            "sources": {
                name: (stats.num_draft_tokens, stats.num_accepted_tokens)
                for name, stats in self.drafter.stats().items()
            },
            "price": self.drafter.price,
            "base_sec": costs.base,
            "marginal_sec": costs.marginal,
            "propose_sec": self.propose_sec,
            "num_steps": self.num_steps,
        }


class LaserWorkerExtension:
    """Methods that vLLM mixes into its worker, for `collective_rpc`."""

    model_runner: Any

    def laser_install(self) -> None:
        """Connect proposer and model runner."""
        self.model_runner.drafter.attach(self.model_runner)

    def laser_teach(self, kind: str, texts: list[tuple[str, list[int]]]) -> None:
        """Add (entity id, token ids) to the texts that draft for requests of `kind`."""
        self._laser_learn(kind, texts)
        self.model_runner.drafter.teacher.wait()

    def _laser_learn(self, kind: str, texts: list[tuple[str, list[int]]]) -> None:
        documents = [Document.of(entity, np.array(ids, np.int64)) for entity, ids in texts]
        self.model_runner.drafter.teacher.add(kind, documents)

    def laser_finish(
        self, finished: list[tuple[str, str, str, list[int]]], learn_texts: bool
    ) -> dict[str, tuple[int, int, int, int]]:
        """Statistics by key of finished requests, whose texts are added to their kinds' pools if wanted."""
        texts: dict[str, list[tuple[str, list[int]]]] = {}
        for _, kind, entity_id, token_ids in finished if learn_texts else ():
            texts.setdefault(kind, []).append((entity_id, token_ids))
        for kind, entries in texts.items():
            self._laser_learn(kind, entries)
        proposer = self.model_runner.drafter
        stats = {key: proposer.take_stats(key, len(token_ids)) for key, _, _, token_ids in finished}
        return {
            key: (s.num_decode_steps, s.num_draft_tokens, s.num_accepted_tokens, s.num_relaxed_tokens)
            for key, s in stats.items()
        }

    def laser_stats(self) -> dict[str, Any]:
        """Running totals of the drafter."""
        summary: dict[str, Any] = self.model_runner.drafter.summary()
        return summary

    def laser_calibration(self) -> dict[str, Any]:
        """The drafter's calibration, for JSON."""
        learned: dict[str, Any] = self.model_runner.drafter.drafter.calibration.to_dict()
        return learned
