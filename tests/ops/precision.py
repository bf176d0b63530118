"""How much more than the reference, run in the same dtype, the tiled path may be off.

Both compute in float32 or better. What the tiled path rounds and the reference does not:

- scores carry a factor log2(e) and pass through one more sum for each mask: a few roundings of them;
- weights are rescaled whenever a later tile or round raises the maximum: one rounding each time;
- the backward gets the output as it was stored, in the dtype of the inputs: of `dS = P * (dP - delta)`, the
  term `delta = dO . O` is off by half an ulp of each output.
"""

import torch
from torch import Tensor

from reformer.ops import reference
from tests.ops.cases import Case, Inputs, window_counts


def rounding_budget(
    case: Case, inputs: Inputs, truth: dict[str, Tensor], dtype: torch.dtype, *, rounds_weights: bool = False
) -> dict[str, Tensor]:
    """Bounds of those roundings, of first order, for the output and the gradients of q, k and v.

    Args:
        case: without dropout.
        inputs: quantised to `dtype`, promoted to float64.
        truth: output and gradients in float64.
        dtype: of the inputs.
        rounds_weights: whether weights, and the gradients of scores, are multiplied in `dtype`.
    """
    counts = window_counts(case, inputs)
    q, k, v, grad = inputs.q, inputs.k, inputs.v, inputs.grad_out
    P = reference.weights(
        q, k, counts, penalize_self=case.penalize_self, correct_duplicates=case.correct_duplicates
    ).sum(2)
    ulp = torch.finfo(dtype).eps
    compute_ulp = torch.finfo(torch.promote_types(dtype, torch.float32)).eps
    num_scores = 4 * (q.abs() @ k.abs().mT).amax(-1, keepdim=True)
    # Relative error of a weight: of its score, and one rounding for each round and run of keys.
    weight_error = compute_ulp * (num_scores + 2 * counts.shape[2] + counts.shape[4] / 16)
    if rounds_weights:
        weight_error = weight_error + ulp / 2
    delta_size = (grad.abs() * truth["out"].abs()).sum(-1, keepdim=True)
    delta_error = ulp / 2 * delta_size
    size = grad.abs() @ v.abs().mT + delta_size
    score_error = P * (2 * weight_error * size + delta_error)
    budget = {
        "out": 2 * weight_error * (P @ v.abs()),
        "q": score_error @ k.abs(),
        "k": score_error.mT @ q.abs(),
        "v": (2 * weight_error * P).mT @ grad.abs(),
    }
    # Two results that are rounded to the dtype may differ by an ulp.
    return {name: b + ulp * truth[name].abs() for name, b in budget.items()}
