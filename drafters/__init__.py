"""Retrieval drafting for batch generation: datastore, retrieval, draft budget, acceptance, vLLM adapter.

Usable with a plain `vllm.LLM`; knows neither Ray nor Hydra nor the pipeline. Start at `drafters.laser`
(the drafter, free of vLLM) and `drafters.vllm_adapter` (how it enters vLLM).
"""
