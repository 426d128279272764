"""log sum exp over pairs (x_k + b_mk): as a batched matrix product, exactly, as the fork computes it, and its
limits.

Shape letters: R regions; L cells of a region; M instances; K values of a patch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

inf = float("inf")
BLOCK = 1 << 17
"""Numbers of an answer that are worked on at a time: half a megabyte, as a core's own cache holds."""


def product(x_RLK: Tensor, b_RMK: Tensor, normalise: bool, log_k: float = 0.0) -> Tensor:
    """log sum_k exp(x_lk + b_mk - log_k) (R, L, M) as one batched matrix product of exponentials.

    normalise: less log sum_k exp(b_mk - log_k), so that the rows of b count as log probabilities.
    Both factors lie in [0, 1]: the column maxima of b (of rows shifted to maximum 0, where those are
    normalised) move over to x, then x is shifted by its own maximum s. A cell's most likely instance so never
    underflows: y = s + log(exp(x + peak - s) . exp(b - peak)), and the rows' sums are exp(b - peak) .
    exp(peak), without a second exponential of b.
    An instance more than about e^83 times less likely than the best one of its cell (e^705 in float64)
    underflows. On a CPU, outside compilation, such entries are computed again, exactly. Under compilation, and on
    a GPU, which would have to be waited for in every layer, they take the
    value s - 83 with gradient 0: their true gradient would be below e^-83 of the best one's.
    NaN spreads over its cell; -inf drops out; a cell of only -inf gives -inf, with gradient 0.
    """
    if normalise:
        b_RMK = b_RMK - finite(b_RMK.detach().amax(2, keepdim=True))
    peak_R1K = b_RMK.detach().amax(1, keepdim=True)
    w_RMK = torch.exp(b_RMK - (finite(peak_R1K) + log_k))
    moved_RLK = x_RLK + peak_R1K
    shift_RL1 = moved_RLK.detach().amax(2, keepdim=True)
    acc_RLM = torch.bmm(torch.exp(moved_RLK - finite(shift_RL1)), w_RMK.transpose(1, 2))
    floor = 100 * torch.finfo(acc_RLM.dtype).tiny
    y_RLM = shift_RL1 + acc_RLM.clamp(min=floor).log()
    if may_look(acc_RLM) and not acc_RLM.is_cuda:
        low = ((acc_RLM < floor) & (shift_RL1 > -inf)).nonzero(as_tuple=True)
        if len(low[0]):
            y_RLM = y_RLM.index_put(low, log_sum_exp(x_RLK[low[0], low[1]] + b_RMK[low[0], low[2]]) - log_k)
    if normalise:
        return y_RLM - (w_RMK * peak_R1K.exp()).sum(2).log().unsqueeze(1)
    return y_RLM


def log_sum_exp(z: Tensor) -> Tensor:
    """log sum exp over the last axis; -inf, with gradient 0, where all entries are -inf."""
    shift = z.detach().amax(-1, keepdim=True)
    total = torch.exp(z - finite(shift)).sum(-1)
    # Two wheres: the logarithm never sees a 0, whose gradient would be infinite.
    value = torch.where(total == 0, 1.0, total).log()
    return torch.where(total == 0, -inf, value) + finite(shift).squeeze(-1)


def finite(x: Tensor) -> Tensor:
    """x with -inf replaced by 0, so that differences of it are no NaN."""
    return torch.where(x == -inf, 0.0, x)


def may_look(x: Tensor) -> bool:
    """Whether Python may branch on values of x: not while compiling, exporting or capturing."""
    if torch.compiler.is_compiling() or x.is_meta:
        return False
    return not (x.is_cuda and torch.cuda.is_current_stream_capturing())


def extremum(z: Tensor, largest: bool, strict: bool) -> Tensor:
    """max (or min) over the last axis; every entry equal to it takes the full gradient, as in the original.

    strict: NaN is skipped, as the fork's comparisons do; a row of only NaN gives -inf (or +inf).
    """
    if strict:
        z = torch.where(z.isnan(), -inf if largest else inf, z)
    value = (z.amax(-1) if largest else z.amin(-1)).detach()
    hit = (z.detach() == value.unsqueeze(-1)) & z.detach().isfinite()
    return value + torch.where(hit, z - z.detach(), 0.0).sum(-1)  # the sum is 0; it carries the gradient


def max_plus(x_RLK: Tensor, b_RMK: Tensor) -> Tensor:
    """max_k (x_lk + b_mk) (R, L, M).

    In blocks of the answer that a processor's cache holds, a k at a time: neither (R, L, M, K), which is too much,
    nor K walks over memory. Where gradients or a compiler need whole expressions, one block.
    """
    b_RKM = b_RMK.transpose(1, 2)
    if not may_look(x_RLK) or (torch.is_grad_enabled() and (x_RLK.requires_grad or b_RMK.requires_grad)):
        y_RLM = x_RLK[:, :, :1] + b_RKM[:, :1]
        for k in range(1, x_RLK.shape[2]):
            y_RLM = torch.maximum(y_RLM, x_RLK[:, :, k : k + 1] + b_RKM[:, k : k + 1])
        return y_RLM
    b_RKM, (regions, cells, k_all) = b_RKM.contiguous(), x_RLK.shape
    y_RLM = x_RLK.new_empty(regions, cells, b_RKM.shape[2])
    l_step = max(1, (BLOCK if x_RLK.device.type == "cpu" else y_RLM.numel()) // b_RKM.shape[2])
    r_step = max(1, l_step // max(cells, 1))
    for r in range(0, regions, r_step):
        for low in range(0, cells, l_step):
            x, b = x_RLK[r : r + r_step, low : low + l_step], b_RKM[r : r + r_step]
            y = y_RLM[r : r + r_step, low : low + l_step]
            other = torch.empty_like(y)
            torch.add(x[:, :, :1], b[:, :1], out=y)
            for k in range(1, k_all):
                torch.maximum(y, torch.add(x[:, :, k : k + 1], b[:, k : k + 1], out=other), out=y)
    return y_RLM


def fork_mean(z: Tensor, eps: Tensor, log_k: float) -> Tensor:
    """(1/eps) log sum_k exp(eps z_k - log_k) over the last axis, in the order and with the accidents of the
    fork.

    The shift skips NaN; it is the minimum for eps <= 0; a row of only -inf, and eps = 0, give NaN or
    infinity.
    """
    low = torch.where(z.isnan(), -inf, z).amax(-1, keepdim=True)
    high = torch.where(z.isnan(), inf, z).amin(-1, keepdim=True)
    shift = torch.where(eps > 0, low, high).detach()
    return shift.squeeze(-1) + torch.exp(eps * (z - shift) - log_k).sum(-1).log() / eps


def fork_epsilon_gradient(y: Tensor, z: Tensor, normed: Tensor | None, eps: Tensor) -> Tensor:
    """y, whose derivative by eps is the fork's: (1/eps) (mean_k [z_k exp(eps (z_k - y)) - b_k exp(eps b_k)] -
    y).

    The term in b (normed) stands where the offsets are normalised on the fly. Right when y is a log mean; in
    softmax_mode the mean ought to be a sum, which the fork overlooks.
    """
    with torch.no_grad():
        terms = z * torch.exp(eps * (z - y.unsqueeze(-1)))
        if normed is not None:
            terms = terms - normed * torch.exp(eps * normed)
        slope = (terms.mean(-1) - y) / eps
    value: Tensor = with_slope(y, eps, slope)
    return value


def entropy_gradient(b: Tensor, log_w: Tensor, coefficient: float) -> Tensor:
    """b unchanged; backward adds coefficient times the gradient of sum w log w, w = exp(log_w)."""
    with torch.no_grad():
        w, slope = log_w.exp(), 1 + log_w
        pull = coefficient * w * (slope - (w * slope).sum(-1, keepdim=True))
    value: Tensor = with_pull(b, pull)
    return value


# Gradients that belong to no value. Operators of their own, since the compiler takes those as they are.


@torch.library.custom_op("netspec::with_slope", mutates_args=())
def with_slope(y: Tensor, parameter: Tensor, slope: Tensor) -> Tensor:
    """y, with dy / dparameter = slope."""
    return y.clone()


@torch.library.custom_op("netspec::with_pull", mutates_args=())
def with_pull(b: Tensor, pull: Tensor) -> Tensor:
    """b, with `pull` added to whatever gradient comes back."""
    return b.clone()


def _copy_of_first(first: Tensor, *others: Tensor) -> Tensor:
    return torch.empty_like(first)


def _keep_last(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[-1])


def _slope_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
    return gradient, (gradient * ctx.saved_tensors[0]).sum(), None


def _pull_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
    return gradient + ctx.saved_tensors[0], None


with_slope.register_fake(_copy_of_first)
with_pull.register_fake(_copy_of_first)
with_slope.register_autograd(_slope_backward, setup_context=_keep_last)
with_pull.register_autograd(_pull_backward, setup_context=_keep_last)
