import pytest
import torch

from drafters.cpu_norms import PROVIDER, register_cpu_norms

ir = pytest.importorskip("vllm.ir")


@pytest.fixture(scope="module")
def priorities():
    from vllm.platforms import current_platform

    current_platform.import_kernels()
    found = register_cpu_norms(ir.ops)
    if not found:
        pytest.skip("this vLLM is no CPU build")
    assert register_cpu_norms(ir.ops) == found, "once more is no error"
    return found


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_the_kernels_compute_what_vllm_computes_without_them(priorities, dtype, tolerance):
    torch.manual_seed(0)
    x, residual = torch.randn(5, 576, dtype=dtype), torch.randn(5, 576, dtype=dtype)
    weight = torch.rand(576, dtype=dtype)
    assert priorities == {"rms_norm": [PROVIDER, "native"], "fused_add_rms_norm": [PROVIDER, "native"]}
    close = {"rtol": tolerance, "atol": tolerance}
    norm, fused = ir.ops.rms_norm.impls, ir.ops.fused_add_rms_norm.impls
    torch.testing.assert_close(
        norm[PROVIDER].impl_fn(x, weight, 1e-5), norm["native"].impl_fn(x, weight, 1e-5), **close
    )
    wanted = fused["native"].impl_fn(x, residual, weight, 1e-5)
    found = fused[PROVIDER].impl_fn(x.clone(), residual.clone(), weight, 1e-5)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, **close)


def test_what_the_kernels_cannot_do_is_left_to_vllm(priorities):
    x, weight = torch.randn(4, 8), torch.ones(8)
    takes = ir.ops.rms_norm.impls[PROVIDER].supports_args
    assert takes(x, weight, 1e-5)
    assert not takes(x, None, 1e-5)
    assert not takes(x, weight.bfloat16(), 1e-5)
    assert not takes(x, weight, 1e-5, 4)
    assert not takes(x[:, ::2], weight[::2], 1e-5)
