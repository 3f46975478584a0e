"""RMS norms of an engine that runs eagerly on a CPU.

vLLM leaves them to the compiler there; without it each is eight passes of separate operations, a quarter of
the step of a small model. The kernels that vLLM's CPU build carries are registered as a provider of its own.
"""

from typing import Any

import torch

PROVIDER = "cpu_kernel"


def register_cpu_norms(ops: Any) -> dict[str, list[str]]:
    """Add the kernels to `ops`, vLLM's table of replaceable operations; the priorities that choose them.

    Empty if this build of vLLM has no such kernels.
    """
    if not all(hasattr(torch.ops._C, name) for name in ("rms_norm", "fused_add_rms_norm")):
        return {}
    if PROVIDER not in ops.rms_norm.impls:
        ops.rms_norm.register_impl(PROVIDER, supports_args=_is_plain)(rms_norm)
        ops.fused_add_rms_norm.register_impl(PROVIDER, supports_args=_is_plain_sum, inplace=True)(
            fused_add_rms_norm
        )
    return {name: [PROVIDER, "native"] for name in ("rms_norm", "fused_add_rms_norm")}


def rms_norm(
    x: torch.Tensor, weight: torch.Tensor | None, epsilon: float, variance_size: int | None = None
) -> torch.Tensor:
    """x [..., hidden] over the root of its mean square, times `weight` [hidden]."""
    out = torch.empty(x.shape, dtype=x.dtype)
    torch.ops._C.rms_norm(out, x, weight, epsilon)
    return out


def fused_add_rms_norm(
    x: torch.Tensor,
    x_residual: torch.Tensor,
    weight: torch.Tensor | None,
    epsilon: float,
    variance_size: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(norm of the sum, sum) of two tensors [..., hidden]; both in place."""
    torch.ops._C.fused_add_rms_norm(x, x_residual, weight, epsilon)
    return x, x_residual


def _is_plain(
    x: torch.Tensor, weight: torch.Tensor | None, epsilon: float, variance_size: int | None = None
) -> bool:
    """What the kernel computes: rows that lie one behind the other, weighted, all of each row."""
    is_weighted = weight is not None and weight.dtype == x.dtype
    return is_weighted and variance_size is None and x.is_contiguous()


def _is_plain_sum(
    x: torch.Tensor,
    x_residual: torch.Tensor,
    weight: torch.Tensor | None,
    epsilon: float,
    variance_size: int | None = None,
) -> bool:
    return x_residual.is_contiguous() and _is_plain(x, weight, epsilon, variance_size)
