"""Selective language modeling (Rho-1, "Not All Tokens Are What You Need", section 2.2) for PyTorch."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Optional, Tuple, Union

import torch
from torch import Tensor
from torch.nn import functional


def select_tokens(excess: Tensor, ratio: float) -> Tensor:
    """Marks the top ceil(ratio * N), at least one, of the N numbers in `excess`; NaN counts as no candidate and is never marked.

    Of equal numbers the earlier ones are taken. Returns booleans of the same shape.
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio must be above 0 and at most 1, not {ratio}")
    flat = excess.detach().reshape(-1)
    candidates = ~torch.isnan(flat)
    total = int(candidates.sum())
    # In decimal, so that 7 % of 100 is 7 and not 8.
    count = max(1, math.ceil(Decimal(str(ratio)) * total))
    order = torch.sort(torch.where(candidates, flat, torch.full_like(flat, -math.inf)), descending=True, stable=True).indices
    # NaN sorts with -inf: candidates that are -inf themselves stand before them only if they come first in the batch.
    order = order[candidates[order]]
    selected = torch.zeros_like(candidates)
    selected[order[:count]] = True
    return selected.reshape(excess.shape)


def selective_loss(
    logits: Tensor,
    labels: Tensor,
    reference_losses: "Union[Tensor, object]",
    ratio: float,
    *,
    ignore_index: int = -100,
    shift: bool = True,
    reduction: str = "mean",
    return_selected: bool = False,
) -> "Union[Tensor, Tuple[Tensor, ...]]":
    """Cross entropy over the tokens with the highest excess loss.

    excess = current loss - reference loss, signed and without gradient; the top ceil(ratio * N) of the batch's N candidates count:
    loss = sum of the current loss over the selected / their number. Candidates are the predicted tokens with a label other than
    `ignore_index` and with a reference loss. ratio = 1 is plain language modeling over the candidates.

    logits: [batch, length, vocabulary], any float type; the loss is computed in float32.
    labels: [batch, length], aligned with the input: with `shift` (the default) logits[:, t] are compared with labels[:, t + 1].
        Without it logits[:, t] are compared with labels[:, t], and reference losses are aligned with labels.
    reference_losses: [batch, length], nats, aligned with `labels`: [b, t] is the loss of token t, as `ScorerClient` gives them;
        NaN where there is none. A tensor or anything that torch.as_tensor takes.
    reduction: "mean", or "sum" for steps of several micro-batches or ranks: returns (sum, count), to be divided by the count of
        the whole step. (Means of means would weigh tokens by their micro-batch.)
    return_selected: also return booleans [batch, length], aligned with `labels`.
    """
    if logits.dim() != 3 or labels.shape != logits.shape[:2]:
        raise ValueError(f"expected logits [batch, length, vocabulary] and labels [batch, length], not {list(logits.shape)} and {list(labels.shape)}")
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be 'mean' or 'sum', not {reduction!r}")
    reference = torch.as_tensor(reference_losses, dtype=torch.float32, device=logits.device)
    if reference.shape != labels.shape:
        raise ValueError(f"expected reference_losses {list(labels.shape)} as labels, not {list(reference.shape)}")
    targets, predicted = labels, logits
    if shift:
        targets, predicted, reference = labels[:, 1:], logits[:, :-1], reference[:, 1:]
    current = functional.cross_entropy(
        predicted.reshape(-1, predicted.shape[-1]).float(), targets.reshape(-1), ignore_index=ignore_index, reduction="none").view(targets.shape)
    excess = torch.where(targets != ignore_index, current.detach() - reference, torch.full_like(reference, math.nan))
    selected = select_tokens(excess, ratio)
    count = int(selected.sum())
    # Outside the selection the loss may be infinite; times zero that would be NaN.
    total = torch.where(selected, current, torch.zeros_like(current)).sum()
    result: Tuple[object, ...] = (total, count) if reduction == "sum" else (total / max(count, 1),)
    if return_selected:
        marks = torch.zeros(labels.shape, dtype=torch.bool, device=labels.device)
        marks[:, 1 if shift else 0:] = selected
        result += (marks,)
    return result if len(result) > 1 else result[0]  # type: ignore[return-value]


__all__ = ["select_tokens", "selective_loss"]
