"""The network in PyTorch."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from implementations import LeftOut
from networks import STRIDE, Arrays, Run
from pytorch_stack import pytorch

EPSILON = 1e-3  # of Keras's layer normalisation


def runner(name: str, folder: Path) -> Run:
    torch = pytorch()
    torch.set_num_threads(1)
    network = build(torch, dict(np.load(folder / "weights.npz")))
    if name.endswith("int8"):
        network = _quantised(torch, network)

    def run(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(x)).numpy()

    return run


def _quantised(torch: Any, network: Any) -> Any:
    try:
        quantize_dynamic = torch.ao.quantization.quantize_dynamic
    except AttributeError:
        raise LeftOut("this PyTorch has no quantize_dynamic any more") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is going to move to another package
        return quantize_dynamic(network, {torch.nn.LSTM, torch.nn.Linear})


def build(torch: Any, weights: Arrays) -> Any:
    """features (frames, mels) -> log_probs (frames / 4, symbols), a Module."""
    nn: Any = torch.nn

    class Recogniser(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolutions = nn.ModuleList(_convolution(torch, weights, i) for i in range(2))
            count = sum(name.startswith("norm") for name in weights) // 2
            self.recurrent = nn.ModuleList(_recurrent(torch, weights, i) for i in range(count))
            self.norms = nn.ModuleList(_norm(torch, weights, i) for i in range(count))
            self.logits = nn.Linear(*weights["logits_kernel"].shape)
            _fill(torch, self.logits.weight, weights["logits_kernel"].T)
            _fill(torch, self.logits.bias, weights["logits_bias"])

        def forward(self, x: Any) -> Any:
            x = x[None, None]
            for convolution in self.convolutions:
                x = torch.relu(convolution(x))
            x = x.permute(2, 0, 3, 1).flatten(2)  # (frames, 1, frequency and channels)
            for layer, norm in zip(self.recurrent, self.norms, strict=True):
                x = norm(layer(x)[0])
            return torch.log_softmax(self.logits(x[:, 0]), -1)

    return Recogniser().eval()


def _fill(torch: Any, parameter: Any, value: np.ndarray) -> None:
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(np.ascontiguousarray(value)))


def _convolution(torch: Any, weights: Arrays, index: int) -> Any:
    kernel = weights[f"convolution_{index}_kernel"].transpose(3, 2, 0, 1)
    made = torch.nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, STRIDE, padding=1)
    _fill(torch, made.weight, kernel)
    _fill(torch, made.bias, weights[f"convolution_{index}_bias"])
    return made


def _recurrent(torch: Any, weights: Arrays, index: int) -> Any:
    """PyTorch has the gates in Keras's order, i, f, g, o, and a second bias."""
    inputs, width = weights[f"recurrent_{index}_forward_kernel"].shape
    made = torch.nn.LSTM(inputs, width // 4, bidirectional=True)
    for way, suffix in (("forward", "l0"), ("backward", "l0_reverse")):
        prefix = f"recurrent_{index}_{way}"
        _fill(torch, getattr(made, f"weight_ih_{suffix}"), weights[f"{prefix}_kernel"].T)
        _fill(torch, getattr(made, f"weight_hh_{suffix}"), weights[f"{prefix}_recurrent"].T)
        _fill(torch, getattr(made, f"bias_ih_{suffix}"), weights[f"{prefix}_bias"])
        _fill(torch, getattr(made, f"bias_hh_{suffix}"), 0 * weights[f"{prefix}_bias"])
    return made


def _norm(torch: Any, weights: Arrays, index: int) -> Any:
    gamma, beta = weights[f"norm_{index}_gamma"], weights[f"norm_{index}_beta"]
    made = torch.nn.LayerNorm(len(gamma), EPSILON)
    _fill(torch, made.weight, gamma)
    _fill(torch, made.bias, beta)
    return made
