"""GPTQ: rounding of weights to int8 steps with a small error in the layer's output.

Rounding each weight to the nearest step does not minimise the error of the output: inputs are correlated, and
the errors of one channel add up to a shift. GPTQ rounds the weights of one input at a time and adjusts the
remaining weights to compensate the error. It has no cost at run time.

Source:
    Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers",
    ICLR 2023.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.onnx_graph.stored_weight import INT8_MAX

# Relative to the mean square input; keeps the decomposition stable with few inputs or inputs that are zero.
DAMPING = 0.01
_BLOCK = 128
# Maps at a time: the overlapping windows of one map take nine times its memory.
_CONV_BATCH = 16


def gptq_steps(rows: Tensor, gram: Tensor) -> Tensor:
    """Round weights to whole int8 steps, weighting the errors by the Gram matrix of the inputs.

    Args:
        rows: Weights in steps, float64 `(groups, outputs, I)`.
        gram: Gram matrix of the inputs, `(groups, I, I)`.

    Returns:
        Whole numbers from -127 to 127, float64 `(groups, outputs, I)`.
    """
    rows, gram = rows.clone(), gram.double().clone()
    inputs = gram.shape[-1]
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    diagonal += DAMPING * diagonal.mean(-1, keepdim=True) + torch.finfo(torch.float32).tiny
    # The inputs with the most energy come first, while many weights are left to compensate their errors.
    order = diagonal.argsort(dim=-1, descending=True)
    back = order.argsort(dim=-1)
    rows = rows.take_along_dim(order[:, None, :], -1)
    gram = gram.take_along_dim(order[:, None, :], -1).take_along_dim(order[:, :, None], -2)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    factor = torch.linalg.cholesky(inverse, upper=True)
    steps = torch.empty_like(rows)
    for start in range(0, inputs, _BLOCK):
        end = min(start + _BLOCK, inputs)
        errors = torch.empty_like(rows[..., start:end])
        for i in range(start, end):
            column = rows[..., i]
            steps[..., i] = column.round().clamp(-INT8_MAX, INT8_MAX)
            error = (column - steps[..., i]) / factor[:, i, i, None]
            rows[..., i:end] -= error[..., None] * factor[:, i, None, i:end]
            errors[..., i - start] = error
        rows[..., end:] -= errors @ factor[:, start:end, end:]
    return steps.take_along_dim(back[:, None, :], -1)


def linear_gram(rows: Tensor) -> Tensor:
    """Return the Gram matrix of the inputs of a linear layer.

    Args:
        rows: float32 `(N, I)`.

    Returns:
        float64 `(1, I, I)`.
    """
    return (rows.T @ rows).double()[None]


def conv_gram(conv: nn.Conv2d, maps: Tensor) -> Tensor:
    """Return the Gram matrices of the input windows of a convolution.

    Args:
        conv: The convolution.
        maps: Its input, float32 `(N, C, H, W)`.

    Returns:
        float64 `(groups, I, I)`, I = C / groups x kernel area, in the order of the flattened weight.
    """
    inputs = conv.weight[0].numel()
    gram = torch.zeros(conv.groups, inputs, inputs, dtype=torch.float64)
    padding: Any = conv.padding
    kernel: Any = conv.kernel_size
    for batch in torch.split(maps, _CONV_BATCH):
        windows = F.unfold(batch, kernel, conv.dilation, padding, conv.stride)
        columns = windows.reshape(len(batch), conv.groups, inputs, -1).movedim(0, 2).flatten(2)
        gram += columns @ columns.transpose(1, 2)
    return gram


def recurrent_gram(lstm: nn.LSTM, inputs: Tensor) -> Tensor:
    """Return the Gram matrix of the hidden states that an LSTM's recurrent weight multiplies.

    Args:
        lstm: LSTM of one layer and one direction, `batch_first`.
        inputs: float32 `(N, T, I)`.

    Returns:
        float64 `(1, hidden, hidden)`.
    """
    # `forward` rather than a call: a call would run the forward hook that this is computed in.
    states, _ = lstm.forward(inputs)
    # The state after the last step is not multiplied by the recurrent weight.
    return linear_gram(states[:, :-1].flatten(0, 1))
