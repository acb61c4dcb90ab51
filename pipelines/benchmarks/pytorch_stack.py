"""The recurrent stack in PyTorch, with loss and optimiser."""

from __future__ import annotations

import importlib
from typing import Any

from implementations import Actions, LeftOut, timed
from shapes import Shape, draw_batch

CLIP_NORM = 1.0
LEARNING_RATE = 1e-4
PYTORCH_LAYERS = {"simple_rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}


def pytorch() -> Any:
    """The package, which is optional here: hence no import at the top."""
    try:
        return importlib.import_module("torch")
    except ImportError:
        raise LeftOut("PyTorch is not installed: pip install torch") from None


class PyTorchStack:
    """Bidirectional layers, Linear above them, CTC, clipping by the global norm and Adam.

    "dense" runs over the padding, so that its backward direction comes out of the padding into
    the utterance: fast, but a row's result depends on its batch-mates. "packed" leaves padding
    out. bfloat16 is autocast's, and CTC is in float32.
    """

    def __init__(self, implementation: str, shape: Shape):
        if shape.cell not in PYTORCH_LAYERS:
            raise LeftOut("PyTorch has no such layer")
        self.torch, self.shape = pytorch(), shape
        nn = self.torch.nn
        self.torch.manual_seed(shape.seed)
        self.packed, self.bfloat16 = "packed" in implementation, "bfloat16" in implementation
        self.recurrent = getattr(nn, PYTORCH_LAYERS[shape.cell])(
            shape.features, shape.units, shape.layers, batch_first=True, bidirectional=True
        )
        self.dense = nn.Linear(2 * shape.units, shape.symbols)
        self.weights = [*self.recurrent.parameters(), *self.dense.parameters()]
        self.ctc = nn.CTCLoss(reduction="sum")
        x, frames, labels = (self.torch.from_numpy(array) for array in draw_batch(shape))
        self.x, self.frames, self.labels = x, frames.long(), labels.long()
        self.label_counts = (self.labels != 0).sum(1)
        self.optimizer = self._fastest_adam()

    def _fastest_adam(self) -> Any:
        """Adam as one fused kernel or as PyTorch's default, whichever takes less time here."""
        self.backward()
        found: dict[float, Any] = {}
        for fused in (True, None):
            try:
                # No learning yet: the first step is to be that of the initial weights.
                optimizer = self.torch.optim.Adam(self.weights, lr=0.0, fused=fused)
            except (RuntimeError, TypeError):
                continue  # a version without the fused kernel
            optimizer.step()
            found[timed(optimizer.step, 0.1)[0]] = optimizer
        fastest = found[min(found)]
        fastest.param_groups[0]["lr"] = LEARNING_RATE
        return fastest

    def logits(self) -> Any:
        rnn = self.torch.nn.utils.rnn
        with self.torch.autocast("cpu", self.torch.bfloat16, enabled=self.bfloat16):
            if not self.packed:
                return self.dense(self.recurrent(self.x)[0])
            packed = rnn.pack_padded_sequence(
                self.x, self.frames, batch_first=True, enforce_sorted=False
            )
            y, _ = rnn.pad_packed_sequence(self.recurrent(packed)[0], batch_first=True)
            return self.dense(y)

    def backward(self) -> Any:
        log_probs = self.logits().float().log_softmax(-1).transpose(0, 1)
        losses = self.ctc(log_probs, self.labels, self.frames, self.label_counts)
        loss = losses / self.shape.batch
        loss.backward()
        return loss

    def train(self) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.backward()
        self.torch.nn.utils.clip_grad_norm_(self.weights, CLIP_NORM)
        self.optimizer.step()
        return float(loss)

    def infer(self) -> Any:
        with self.torch.inference_mode():
            return self.logits()

    def actions(self) -> Actions:
        return {"train": self.train, "infer": self.infer}
