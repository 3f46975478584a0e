"""One vLLM engine: requests in, finished texts with their statistics out. Owned by a single thread."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.environment import is_cpu_build, reject_unfit_build, silence_telemetry
from pipeline.errors import ModelError
from pipeline.generate.contract import SourceCounts, WorkerSpec
from pipeline.models.tokenizer import load_tokenizer, turn_end
from pipeline.prompts.outputs import json_schema
from pipeline.settings import EngineSettings, Kind, SamplingSettings
from pipeline.storage.location import data_path

FINISHED = ("stop", "length", "repetition")
STATE_EVERY_SEC = 1.0


@dataclass(frozen=True)
class TextRequest:
    """One text to write. `key` is unique within the engine."""

    key: str
    kind: Kind
    group: str
    entity_id: str
    prompt_token_ids: Sequence[int]
    max_tokens: int
    sampling: SamplingSettings | None = None  # None: as the model's settings say


@dataclass(frozen=True)
class WrittenText:
    """A finished text and how it was decoded; see `pipeline.schemas.KNOWLEDGE` for the counts."""

    key: str
    text: str
    token_ids: list[int]
    finish_reason: str
    num_draft_tokens: int
    num_accepted_tokens: int
    num_relaxed_tokens: int
    num_decode_steps: int


@dataclass(frozen=True)
class EngineState:
    """Running totals and the present batch of an engine, at most about `STATE_EVERY_SEC` old."""

    sources: dict[str, SourceCounts]  # draft source -> its draft tokens so far
    num_output_tokens: int = 0  # of all requests so far, unfinished ones included
    num_steps: int = 0  # that the drafter drafted in
    drafter_sec: float = 0.0
    num_running: int = 0
    price: float | None = None  # None without LASER


@dataclass(frozen=True)
class EarlierText:
    """A text of this run that is finished already; it drafts for others."""

    kind: str
    entity_id: str
    token_ids: Sequence[int]


def engine_environment(spec: WorkerSpec) -> None:
    """Set what vLLM reads from the environment; before it is imported."""
    silence_telemetry()
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # the engine lives and dies with its worker
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(spec.settings.engine.cpu_kv_cache_gib)
    if os.path.isdir(spec.model_path):  # noqa: PTH112  # a hub id is no path
        os.environ.update({"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"})


class TextEngine:
    """vLLM with the configured drafter and acceptance rule.

    `add` requests at any time; each `step` decodes the whole batch once and returns what has finished.
    Not thread-safe, and to be used in the thread that built it: native threads are bound to it.
    """

    def __init__(self, spec: WorkerSpec, learn_texts: bool = True, **engine_arguments: Any) -> None:
        """`learn_texts`: finished texts draft for later requests. `engine_arguments`: more for `vllm.LLM`."""
        reject_unfit_build()
        engine_environment(spec)
        from vllm import LLM
        from vllm.sampling_params import SamplingParams

        self.state = EngineState({})  # replaced as a whole: other threads may read it
        self._state_at = time.monotonic()
        self.num_output_tokens = 0  # of all requests so far, unfinished ones included
        self._num_tokens_of: dict[str, int] = {}
        self._num_steps_of: dict[str, int] = {}  # those that wrote tokens
        self._learn_texts = learn_texts
        self._spec = spec
        self._sampling_params = SamplingParams
        self._drafts_with_laser = spec.settings.drafter.name == "laser"
        self._requests: dict[str, TextRequest] = {}
        self._llm = LLM(**_engine_arguments(spec) | engine_arguments)
        model = spec.settings.model
        self.tokenizer = load_tokenizer(spec.model_path, model.trust_remote_code)
        closing = turn_end(self.tokenizer, model)
        self._stop_token_ids = [] if closing is None else [closing[1]]
        from drafters import vllm_adapter
        from drafters.vllm_sampling import install_cpu_sampling

        install_cpu_sampling()
        if self._drafts_with_laser:
            vllm_adapter.install(self._llm)

    @property
    def is_idle(self) -> bool:
        """Whether no request is unfinished."""
        return not self._requests

    def teach(self, texts: Sequence[EarlierText]) -> None:
        """Let `texts` draft for later requests."""
        if not self._drafts_with_laser:
            return
        from drafters import vllm_adapter

        for kind in {text.kind for text in texts}:
            batch = [(text.entity_id, text.token_ids) for text in texts if text.kind == kind]
            vllm_adapter.teach(self._llm, kind, batch)

    def add(self, request: TextRequest) -> None:
        """Queue `request`; raises what vLLM raises if it refuses the prompt."""
        self._llm.llm_engine.add_request(
            request.key,
            {"prompt_token_ids": list(request.prompt_token_ids)},
            self._parameters(request),
        )
        self._requests[request.key] = request

    def step(self) -> list[WrittenText]:
        """Decode the batch once; the texts that finished, in no particular order."""
        outputs = self._llm.llm_engine.step()
        for output in outputs:
            self._count_tokens(output)
        texts = self._finished([output for output in outputs if output.finished])
        now = time.monotonic()
        if self.is_idle or now - self._state_at >= STATE_EVERY_SEC:
            self.state, self._state_at = self._current_state(), now
        return texts

    def _finished(self, outputs: list[Any]) -> list[WrittenText]:
        texts = [self._written(output) for output in outputs]
        if texts and self._drafts_with_laser:
            texts = self._with_laser_counts(texts)
        for text in texts:
            del self._requests[text.key]
            del self._num_tokens_of[text.key], self._num_steps_of[text.key]
        return texts

    def abort(self) -> None:
        """Drop all unfinished requests."""
        self._llm.llm_engine.abort_request(list(self._requests))
        self._requests.clear()
        self._num_tokens_of.clear()
        self._num_steps_of.clear()

    def reset_prefix_cache(self) -> None:
        """Forget the prompts that were seen; no request may be unfinished."""
        self._llm.reset_prefix_cache()

    def call_workers(self, method: str, *args: Any) -> Any:
        """What the first worker returns for `method` (of its extension class)."""
        return self._llm.collective_rpc(method, args=args)[0]

    def _current_state(self) -> EngineState:
        num_running = min(len(self._requests), self._spec.settings.engine.max_num_seqs)
        if not self._drafts_with_laser:
            return EngineState({}, self.num_output_tokens, num_running=num_running)
        from drafters import vllm_adapter

        stats = vllm_adapter.drafter_stats(self._llm)
        sources = {
            name: SourceCounts(s.num_draft_tokens, s.num_accepted_tokens)
            for name, s in stats.sources.items()
            if s.num_draft_tokens
        }
        return EngineState(
            sources, self.num_output_tokens, stats.num_steps, stats.propose_sec, num_running, stats.price
        )

    def calibration(self) -> dict[str, Any] | None:
        """What the drafter has learned, for the next datastore version."""
        if not self._drafts_with_laser:
            return None
        from drafters import vllm_adapter

        return vllm_adapter.calibration(self._llm)

    def _count_tokens(self, output: Any) -> None:
        request_id, num_tokens = output.request_id, len(output.outputs[0].token_ids)
        num_new = num_tokens - self._num_tokens_of.get(request_id, 0)
        self.num_output_tokens += num_new
        self._num_tokens_of[request_id] = num_tokens
        self._num_steps_of[request_id] = self._num_steps_of.get(request_id, 0) + (num_new > 0)

    def _parameters(self, request: TextRequest) -> Any:
        sampling = request.sampling or self._spec.settings.model.sampling
        return self._sampling_params(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            repetition_penalty=sampling.repetition_penalty,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            seed=_seed(sampling),
            max_tokens=request.max_tokens,
            repetition_detection=_repetition_detection(sampling),
            stop_token_ids=self._stop_token_ids,  # beside those that the model's files name
            skip_special_tokens=False,  # what is not text must be seen, and counted
            structured_outputs=self._structured_outputs(request),
            extra_args=self._extra_args(request),
        )

    def _structured_outputs(self, request: TextRequest) -> Any:
        """The grammar of the answer, if its prompt set constrains it. Drafts and relaxed tokens obey it too:
        vLLM cuts drafts to what the grammar allows and masks the logits that the acceptance rule sees."""
        json_output = self._spec.settings.knowledge.prompt(request.kind).json_output
        if json_output is None or not json_output.constrained:
            return None
        from vllm.sampling_params import StructuredOutputsParams

        return StructuredOutputsParams(json=json_schema(json_output))

    def _extra_args(self, request: TextRequest) -> dict[str, Any] | None:
        if not self._drafts_with_laser:
            return None
        from drafters import vllm_adapter
        from drafters.acceptance import AcceptanceRule
        from drafters.laser import DraftKey

        rule = self._spec.settings.acceptance.rule_for(request.kind, request.group)
        return vllm_adapter.request_args(
            request.key,
            DraftKey(request.kind, request.group, request.entity_id),
            AcceptanceRule(rule.top_k, rule.min_prob, rule.max_relaxed_run, rule.deferred_tokens),
        )

    def _written(self, output: Any) -> WrittenText:
        completion = output.outputs[0]
        if completion.finish_reason not in FINISHED:
            raise ModelError(f"vLLM ended request {output.request_id} with {completion.finish_reason!r}")
        metrics = getattr(completion, "spec_decode_metrics", None)
        num_steps = self._num_steps_of[output.request_id]
        return WrittenText(
            key=output.request_id,
            text=completion.text,
            token_ids=list(completion.token_ids),
            finish_reason=completion.finish_reason,
            num_draft_tokens=metrics.num_draft_tokens if metrics else 0,
            num_accepted_tokens=len(completion.token_ids) - num_steps,
            num_relaxed_tokens=0,
            num_decode_steps=num_steps,
        )

    def _with_laser_counts(self, texts: list[WrittenText]) -> list[WrittenText]:
        from drafters import vllm_adapter

        finished = []
        for text in texts:
            request = self._requests[text.key]
            finished.append(
                vllm_adapter.FinishedRequest(text.key, request.kind, request.entity_id, text.token_ids)
            )
        stats = vllm_adapter.finish(self._llm, finished, self._learn_texts)
        return [
            replace(
                text,
                num_draft_tokens=stats[text.key].num_draft_tokens,
                num_accepted_tokens=stats[text.key].num_accepted_tokens,
                num_relaxed_tokens=stats[text.key].num_relaxed_tokens,
                num_decode_steps=stats[text.key].num_decode_steps,
            )
            for text in texts
        ]


def _seed(sampling: SamplingSettings) -> int | None:
    """The seed of a request, if it is sampled. On a CPU none: the engine's own seed has to do.

    vLLM takes back what it drew for a prompt that it has read only in part, which torch's generators cannot
    do on a CPU (`CPU Generator does not use offset`).
    """
    from vllm.platforms import current_platform

    return None if sampling.temperature == 0 or current_platform.is_cpu() else sampling.seed


def _repetition_detection(sampling: SamplingSettings) -> Any:
    if sampling.repetition_detection is None:
        return None
    from vllm.sampling_params import RepetitionDetectionParams

    return RepetitionDetectionParams(**sampling.repetition_detection.model_dump())


def _engine_arguments(spec: WorkerSpec) -> dict[str, Any]:
    model, engine, knowledge = spec.settings.model, spec.settings.engine, spec.settings.knowledge
    arguments: dict[str, Any] = {
        "model": spec.model_path,
        "dtype": model.dtype,
        "max_model_len": model.max_model_len,
        "trust_remote_code": model.trust_remote_code,
        "language_model_only": True,  # prompts are texts: no memory for the towers of multimodal models
        "load_format": "safetensors",
        "max_num_seqs": engine.max_num_seqs,
        "tensor_parallel_size": engine.tensor_parallel_size,
        "enforce_eager": engine.enforce_eager,
        "enable_prefix_caching": engine.enable_prefix_caching,
        "gpu_memory_utilization": engine.gpu_memory_utilization,
        "seed": model.sampling.seed,
        "disable_log_stats": True,
        **_drafter_arguments(spec),
        **_kernel_arguments(engine),
    }
    if any(
        prompt.json_output and prompt.json_output.constrained for prompt in (knowledge.user, knowledge.item)
    ):
        # Without this a model may fill max_tokens with white space between the keys.
        arguments["structured_outputs_config"] = {"backend": "xgrammar", "disable_any_whitespace": True}
    if engine.max_num_batched_tokens is not None:
        arguments["max_num_batched_tokens"] = engine.max_num_batched_tokens
    return arguments


def _kernel_arguments(engine: EngineSettings) -> dict[str, Any]:
    """Kernels are chosen within this process: an engine core in another one would not know them."""
    is_here = os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING") == "0"
    if not (engine.enforce_eager and is_cpu_build() and is_here):
        return {}
    from drafters.vllm_adapter import eager_cpu_args

    return eager_cpu_args()


def _pools(spec: WorkerSpec) -> str | None:
    if spec.datastore is None:
        return None
    from pipeline.storage.pool_copies import local_pools

    return str(local_pools(data_path(spec.datastore)))


def _drafter_arguments(spec: WorkerSpec) -> dict[str, Any]:
    drafter = spec.settings.drafter
    if drafter.name == "none":
        return {}
    if drafter.name == "laser":
        from drafters.vllm_adapter import LaserConfig, engine_args

        return engine_args(LaserConfig(drafter.max_draft_tokens, _pools(spec), spec.tokenizer_hash))
    speculative: dict[str, Any] = {
        "method": drafter.name,
        "num_speculative_tokens": drafter.max_draft_tokens,
    }
    return {"speculative_config": speculative, "per_request_spec_decode_metrics": "summary"}
