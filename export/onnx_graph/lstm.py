"""Export of `nn.LSTM` as the single ONNX operator LSTM.

The exporter of torch turns `nn.LSTM` into some forty nodes that slice and stack weights and compute shapes.
TensorRT and the storage of int8 weights both need the single operator.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.errors import GraphUnsupported
from export.onnx_graph.stored_weight import StoredWeight


class OnnxLSTM(nn.Module):
    """Placeholder for an `nn.LSTM` during export; it cannot compute.

    Args:
        lstm: LSTM with `batch_first`, biases and no projection; any number of layers and directions.

    Raises:
        GraphUnsupported: The LSTM is of another kind.

    Source:
        ONNX operator LSTM-14: gates in the order input, output, forget, cell; both directions in one tensor.
    """

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        if not lstm.batch_first or not lstm.bias or lstm.proj_size:
            raise GraphUnsupported("head", "an LSTM must have batch_first and biases and no projection")
        self.hidden = lstm.hidden_size
        self.layers = lstm.num_layers
        self.directions = 2 if lstm.bidirectional else 1
        for layer in range(self.layers):
            for kind in ("ih", "hh"):
                weight = onnx_gates(
                    [getattr(lstm, name).numpy() for name in parameter_names(lstm, f"weight_{kind}", layer)]
                )
                self.register_buffer(f"weight_{kind}_l{layer}", torch.from_numpy(weight))
            biases = [
                onnx_gates(
                    [getattr(lstm, name).numpy() for name in parameter_names(lstm, f"bias_{kind}", layer)]
                )
                for kind in ("ih", "hh")
            ]
            self.register_buffer(f"bias_l{layer}", torch.from_numpy(np.concatenate(biases, axis=1)))

    def forward(self, inputs: Tensor) -> tuple[Tensor, None]:
        steps = inputs.transpose(0, 1)
        time, batch = steps.shape[0], steps.shape[1]
        for layer in range(self.layers):
            weights = [getattr(self, f"{kind}_l{layer}") for kind in ("weight_ih", "weight_hh", "bias")]
            states = torch.onnx.ops.symbolic(
                "LSTM",
                (steps, *weights),
                {
                    "hidden_size": self.hidden,
                    "direction": "bidirectional" if self.directions == 2 else "forward",
                },
                dtype=torch.float32,
                shape=(time, self.directions, batch, self.hidden),
                version=14,
            )
            steps = states.squeeze(1) if self.directions == 1 else states.transpose(1, 2).flatten(2)
        return steps.transpose(0, 1), None


def parameter_names(lstm: nn.LSTM, parameter: str, layer: int) -> list[str]:
    """Return the names of the torch parameters that one ONNX tensor contains.

    Args:
        lstm: The module.
        parameter: `weight_ih`, `weight_hh`, `bias_ih` or `bias_hh`.
        layer: From 0.

    Returns:
        One name per direction.
    """
    ends = ("", "_reverse") if lstm.bidirectional else ("",)
    return [f"{parameter}_l{layer}{end}" for end in ends]


def onnx_gates(directions: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Reorder the gates of parameters from torch's order to ONNX's and stack the directions.

    Args:
        directions: Per direction `(4 * hidden, …)`, gates input, forget, cell, output.

    Returns:
        `(directions, 4 * hidden, …)`, gates input, output, forget, cell.
    """
    stacked = []
    for array in directions:
        input_, forget, cell, output = np.split(array, 4)
        stacked.append(np.concatenate([input_, output, forget, cell]))
    return np.stack(stacked)


def torch_gates(stacked: NDArray[Any]) -> list[NDArray[Any]]:
    """Reorder the gates of parameters from ONNX's order to torch's and split the directions.

    Args:
        stacked: `(directions, 4 * hidden, …)`, gates input, output, forget, cell.

    Returns:
        Per direction `(4 * hidden, …)`, gates input, forget, cell, output.
    """
    directions = []
    for array in stacked:
        input_, output, forget, cell = np.split(array, 4)
        directions.append(np.concatenate([input_, forget, cell, output]))
    return directions


def with_onnx_lstms(network: nn.Module) -> nn.Module:
    """Copy a network with each of its LSTMs replaced by its ONNX operator.

    Args:
        network: The network; it is not changed.

    Returns:
        The copy; it can be exported but not run.
    """
    network = copy.deepcopy(network)
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.LSTM):
            network.set_submodule(name, OnnxLSTM(module))
    return network


def onnx_stored(network: nn.Module, prefix: str, stored: Mapping[str, StoredWeight]) -> list[StoredWeight]:
    """Return the stored weights of a network as its ONNX graph contains them.

    Args:
        network: The network that was rounded.
        prefix: Prefix of the network in the stored weights' names.
        stored: Result of `round_weights`.

    Returns:
        The weights of this network; those of an LSTM in ONNX's order of gates.
    """
    rest = {key: weight for key, weight in stored.items() if key.startswith(f"{prefix}.")}
    lstm_weights = []
    for name, module in network.named_modules():
        if not isinstance(module, nn.LSTM):
            continue
        for layer in range(module.num_layers):
            for parameter in ("weight_ih", "weight_hh"):
                keys = [f"{prefix}.{name}.{own}" for own in parameter_names(module, parameter, layer)]
                if keys[0] not in rest:
                    continue
                parts = [rest.pop(key) for key in keys]
                scale = parts[0].scale
                lstm_weights.append(
                    StoredWeight(
                        onnx_gates([part.values for part in parts]),
                        None if scale is None else onnx_gates([scale])[0],
                        axis=1,
                    )
                )
    return [*rest.values(), *lstm_weights]
