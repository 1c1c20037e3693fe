"""The attention kernels of --attention_backend, in one table, and whose layers run them; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mlenergy.diffusion.config.optimizations import AttentionName

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan

AttentionLibrary = Literal["diffusers", "xfuser"]


@dataclass(frozen=True)
class AttentionKernel:
    """One value of --attention_backend.

    diffusers, xfuser: the name by which each library's dispatcher knows it; None: that one has it not.
    operators: parts of the names of torch's operators that show that it ran, as str(operator) writes
        them; empty where the choice is torch's, or where torch sees no operator at all.
    always_seen: it runs by such an operator in every version and on every GPU. Of one that does not, layers
        without any operator prove nothing.
    package: to be imported; None: torch has it. `kernels` fetches built kernels from the hub.
    capabilities: first numbers of the compute capabilities that it is built for; empty: of all.
    gives_log_sum_exp: returned in xfuser, so that the parts of a ring can be merged.
    shares_in_diffusers: works in diffusers' context parallelism on a GPU.
    is_searched: `mlenergy tune` tries it unasked: exact, and no slow reference.
    """

    diffusers: str | None
    xfuser: str | None
    operators: tuple[str, ...] = ()
    always_seen: bool = True
    package: str | None = None
    capabilities: frozenset[int] = frozenset()
    runs_on_cpu: bool = False
    half_precision_only: bool = False
    gives_log_sum_exp: bool = True
    shares_in_diffusers: bool = True
    is_searched: bool = True


_HOPPER, _BLACKWELL = frozenset({9}), frozenset({10})
# In the order in which `mlenergy tune` tries them.
ATTENTION: dict[AttentionName, AttentionKernel] = {
    "sdpa": AttentionKernel("native", "sdpa", runs_on_cpu=True, gives_log_sum_exp=False),
    "math": AttentionKernel(
        *("_native_math", "sdpa_math"),
        # Attention in parts: no kernel does it in one, and the softmax in the middle shows it.
        operators=("aten._softmax.", "aten._safe_softmax."),
        runs_on_cpu=True,
        gives_log_sum_exp=False,
        shares_in_diffusers=False,
        is_searched=False,
    ),
    "flash": AttentionKernel(
        *("_native_flash", "sdpa_flash"),
        operators=("_flash_attention",),
        runs_on_cpu=True,
        half_precision_only=True,
    ),
    "efficient": AttentionKernel(
        *("_native_efficient", "sdpa_efficient"),
        operators=("_efficient_attention",),
        shares_in_diffusers=False,
    ),
    "cudnn": AttentionKernel(
        *("_native_cudnn", "cudnn"), operators=("_cudnn_attention",), half_precision_only=True
    ),
    # flash_attn/flash_attn_interface.py of github.com/Dao-AILab/flash-attention, version 2.
    "fa2": AttentionKernel(
        *("flash", "flash"),
        operators=("flash_attn._flash_attn", "flash_attn.fwd"),
        package="flash_attn",
        half_precision_only=True,
    ),
    # hopper/flash_attn_interface.py of the same: flash_attn_3::_flash_attn_forward, once
    # flash_attn_3::fwd; diffusers 0.42.1 wraps it in _diffusers_flash_attn_3::_flash_attn_forward.
    "fa3": AttentionKernel(
        *("_flash_3", "flash_3"),
        operators=("flash_attn_3.",),
        package="flash_attn_interface",
        capabilities=_HOPPER,
        half_precision_only=True,
        shares_in_diffusers=False,
    ),
    # Written in CuTe's Python, which no operator of torch's shows; nor does the hub's (its 4.0.0.beta4).
    "fa4": AttentionKernel(
        *(None, "flash_4"),
        package="flash_attn.cute",
        capabilities=_HOPPER | _BLACKWELL,
        half_precision_only=True,
        gives_log_sum_exp=False,
    ),
    # The hub's operators are in a namespace of name, backend and build: _flash_attn2_cuda_1a2b3c4, in which
    # torch-ext/…/flash_attn_interface.py of github.com/huggingface/kernels-community registers
    # _flash_attn_forward. Diffusers 0.42.1 asks for version 3 of flash-attn2 and version 1 of flash-attn3.
    "fa2-hub": AttentionKernel(
        *("flash_hub", None), operators=("flash_attn2",), package="kernels", half_precision_only=True
    ),
    "fa3-hub": AttentionKernel(
        *("_flash_3_hub", None),
        operators=("flash_attn3",),
        package="kernels",
        capabilities=_HOPPER,
        half_precision_only=True,
    ),
    "fa4-hub": AttentionKernel(
        *("flash_4_hub", None),
        package="kernels",
        capabilities=_HOPPER | _BLACKWELL,
        half_precision_only=True,
        gives_log_sum_exp=False,
        shares_in_diffusers=False,
    ),
    # sageattention/sm80_compile.py and its like in github.com/thu-ml/SageAttention: sageattention::qk_int8_…,
    # sageattention_sm89::…, sageattention_sm90::…. Older versions have none, nor have the Triton
    # kernels that version 1 and GPUs of compute capability 8.6 run.
    "sage": AttentionKernel(
        *("sage", "sage"),
        operators=("sage",),
        always_seen=False,
        package="sageattention",
        half_precision_only=True,
        gives_log_sum_exp=False,
        is_searched=False,
    ),
}


def attention_library(plan: Plan) -> AttentionLibrary:
    """The library whose attention layers the denoiser has.

    xfuser puts its own into a transformer that it cuts: into stages, token sequences or matrices
    (xfuser 0.7.0, model_executor/models/transformers/base_transformer.py:
    _convert_transformer_for_parallel). Under data- and CFG-parallelism alone, and in UNets, diffusers'
    stay, on all ranks.
    """
    parallel = plan.parallel
    is_cut = parallel.pipefusion * parallel.sequence * parallel.tensor > 1
    if plan.engine == "xdit" and plan.spec.family.denoiser == "transformer" and is_cut:
        return "xfuser"
    return "diffusers"


def kernel_names(operators: Mapping[str, int]) -> str | None:
    """The names of the kernels that some operators are of, as --attention_backend has them, joined by "+".

    An operator of no known kernel is named as it is; None for no operators.
    """
    names = {_kernel_name(operator) for operator in operators}
    return "+".join(sorted(names)) or None


def _kernel_name(operator: str) -> str:
    known = (name for name, kernel in ATTENTION.items() if any(word in operator for word in kernel.operators))
    return next(known, operator)
