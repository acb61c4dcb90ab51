"""Frozen descriptions that travel with a model: its features, its alphabet, its network.

Standard library only: the training recipe, the SavedModel, the ``.tflite`` and the device
runtime all read the same description, so that none of them can disagree about a window
length or a symbol. Recipes use these classes as their sections as they stand.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from speechrnn.errors import ModelError

FORBID_UNKNOWN_KEYS = {"extra": "forbid"}  # how pydantic is to read these classes in a recipe


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True)
class FeatureSpec:
    """How a waveform becomes frames: (samples,) in [-1, 1] -> (frames, dimension).

    frames = 1 + (samples - window) // hop: no centring, no statistics over a batch.
    """

    __pydantic_config__ = FORBID_UNKNOWN_KEYS

    kind: Literal["log_mel", "mfcc", "log_spectrogram"] = "log_mel"  # what a frame holds
    sample_rate: int = 16000  # Hz; recordings of other rates are resampled
    window_ms: float = 25.0  # that a frame sees
    hop_ms: float = 10.0  # from a frame to the next
    fft_length: int = 512  # a power of two: TFLite's RFFT2D takes no other
    mels: int = 80  # bands of log_mel and mfcc
    mfccs: int = 40  # numbers in a frame of mfcc
    low_hz: float = 20.0  # where the lowest band begins
    high_hz: float = 7600.0  # where the highest ends
    floor: float = 1e-8  # power below this counts as this: about the noise of 16-bit samples
    # By mean and deviation of the training split, or of each utterance, which then cannot stream.
    normalisation: Literal["global", "utterance"] = "global"

    def __post_init__(self) -> None:
        n = self.fft_length
        # Upper bounds far above any use, so that a description from elsewhere fills no memory.
        _require(
            4000 <= self.sample_rate <= 768_000,
            f"sample_rate is {self.sample_rate}; 4000 to 768000",
        )
        _require(
            0 < n <= 65536 and n & (n - 1) == 0,
            f"fft_length is {n}; it must be a power of two, at most 65536",
        )
        _require(
            0 < self.window_samples <= n,
            f"window_ms {self.window_ms} is {self.window_samples} samples; 1 to fft_length {n}",
        )
        _require(self.hop_samples > 0, f"hop_ms is {self.hop_ms}; at least one sample")
        _require(
            0 <= self.low_hz < self.high_hz <= self.sample_rate / 2,
            f"low_hz {self.low_hz} and high_hz {self.high_hz} must rise within 0 and half of "
            f"sample_rate {self.sample_rate}",
        )
        _require(self.mels > 0, f"mels is {self.mels}; at least 1")
        _require(
            0 < self.mfccs <= self.mels or self.kind != "mfcc",
            f"mfccs is {self.mfccs}; 1 to mels {self.mels}",
        )
        _require(self.floor > 0, f"floor is {self.floor}; it must be positive")

    @property
    def window_samples(self) -> int:
        return round(self.window_ms * self.sample_rate / 1000)

    @property
    def hop_samples(self) -> int:
        return round(self.hop_ms * self.sample_rate / 1000)

    @property
    def dimension(self) -> int:
        """Numbers in a frame."""
        bins = self.fft_length // 2 + 1
        return {"log_mel": self.mels, "mfcc": self.mfccs, "log_spectrogram": bins}[self.kind]

    def frames(self, samples: int) -> int:
        """Frames that ``samples`` give: 0 for less than one window."""
        return max(0, 1 + (samples - self.window_samples) // self.hop_samples)


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of each feature dimension over the training set."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class TextRules:
    """How a transcript is normalised before it becomes labels; recorded with every model."""

    __pydantic_config__ = FORBID_UNKNOWN_KEYS

    unicode_form: Literal["NFC", "NFKC", "none"] = "NFC"  # in which characters are composed
    case: Literal["lower", "fold", "keep"] = "lower"  # capitals become small letters, or stay
    punctuation: Literal["space", "remove", "keep"] = "space"  # becomes a space, goes, or stays
    keep: str = "'"  # punctuation that is spelling, not punctuation


@dataclass(frozen=True)
class AlphabetSpec:
    """The symbols a model writes. Label 0 is the CTC blank; ``symbols[i]`` is label i + 1."""

    symbols: tuple[str, ...]
    rules: TextRules = field(default_factory=TextRules)

    def __post_init__(self) -> None:
        _require(len(self.symbols) > 0, "an alphabet needs at least one symbol")
        _require(
            len(set(self.symbols)) == len(self.symbols), "a symbol stands twice in the alphabet"
        )

    @property
    def size(self) -> int:
        """Number of labels, the blank included."""
        return len(self.symbols) + 1


# Time strides of the two convolutions whose product is the model's time_stride.
CONVOLUTION_STRIDES = {1: (1, 1), 2: (2, 1), 3: (3, 1), 4: (2, 2), 6: (3, 2)}


@dataclass(frozen=True)
class ModelSpec:
    """The network between features and logits."""

    __pydantic_config__ = FORBID_UNKNOWN_KEYS

    cell: Literal["simple_rnn", "lstm", "gru", "clockwork", "depth_gated"] = "lstm"  # recurrent
    periods: tuple[int, ...] = (1, 2, 4, 8)  # frames, of a clockwork cell's modules
    units: int = 256  # of each direction
    layers: int = 3  # recurrent, one on the other
    bidirectional: bool = True  # reads from both ends; without chunks it cannot stream
    subsampling: Literal["stack", "conv"] = "conv"  # frames side by side, or two convolutions
    time_stride: int = 3  # feature frames per output frame; convolutions take 1, 2, 3, 4 or 6
    conv_channels: int = 32  # of each convolution
    dropout: float = 0.3  # after the subsampling and after every recurrent layer
    layer_norm: bool = True  # after every recurrent layer
    # What a model waits for before it writes a frame, in output frames of time_stride * hop_ms. A
    # layer of both directions waits for the recording's end, unless it has chunks.

    lookahead: int = 0  # frames behind its own that a one-way model's last convolution reads
    chunk: int = 0  # frames that a two-way model writes at a time; 0: all
    right_context: int = 0  # frames behind a chunk that it reads

    def __post_init__(self) -> None:
        for name in ("units", "layers", "time_stride", "conv_channels"):
            _require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; at least 1")
        for name in ("lookahead", "chunk", "right_context"):
            value = getattr(self, name)
            _require(0 <= value <= 100_000, f"{name} is {value}; at least 0, at most 100000")
        _require(
            self.lookahead == 0 or not self.bidirectional,
            f"lookahead is {self.lookahead} in a bidirectional model, which sees what follows "
            "anyway; set bidirectional to false, or chunk and right_context",
        )
        _require(
            self.chunk == 0 or self.bidirectional,
            f"chunk is {self.chunk} in a model of one direction, which needs none to stream; set "
            "bidirectional to true, or lookahead",
        )
        _require(
            self.right_context == 0 or self.chunk > 0,
            f"right_context is {self.right_context} without chunks; set chunk",
        )
        _require(0 <= self.dropout < 1, f"dropout is {self.dropout}; 0 to below 1")
        _require(
            self.subsampling == "stack" or self.time_stride in CONVOLUTION_STRIDES,
            f"time_stride is {self.time_stride}; convolutions take 1, 2, 3, 4 or 6",
        )
        _require(
            len(self.periods) > 0 and all(a < b for a, b in pairwise((0, *self.periods))),
            f"periods are {list(self.periods)}; they must be positive and rising",
        )
        _require(
            self.cell != "clockwork" or self.units % len(self.periods) == 0,
            f"{self.units} units do not divide into {len(self.periods)} modules, one for each of "
            "the periods",
        )

    def output_frames(self, feature_frames: int) -> int:
        """Logit frames that ``feature_frames`` give: the ceiling of frames / time_stride."""
        return -(-feature_frames // self.time_stride)

    def complete_frames(self, feature_frames: int) -> int:
        """Logit frames that no further feature frame can change, of a recording that goes on: a
        model that streams has written so many."""
        ready = (feature_frames - 1 - self.context[1]) // self.time_stride + 1
        if self.chunk:
            return max(0, ready - self.right_context) // self.chunk * self.chunk
        return max(0, ready - self.lookahead)

    @property
    def context(self) -> tuple[int, int]:
        """Feature frames before and behind frame ``j * time_stride`` that the subsampling reads
        for its output j."""
        if self.subsampling == "stack":
            return 0, self.time_stride - 1
        # Each convolution reads a frame on either side: the second one of the first's outputs.
        reach = CONVOLUTION_STRIDES[self.time_stride][0] + 1
        return reach, reach


def _with_tuples(data: dict[str, Any]) -> dict[str, Any]:
    """JSON's lists as the tuples that a frozen description holds."""
    return {key: tuple(v) if isinstance(v, list) else v for key, v in data.items()}


@dataclass(frozen=True)
class RecogniserSpec:
    """All that is needed to build a recogniser and to read what it writes.

    ``statistics`` is None where the features are normalised by utterance.
    """

    features: FeatureSpec
    alphabet: AlphabetSpec
    model: ModelSpec
    statistics: Statistics | None = None

    def output_frames(self, samples: int) -> int:
        """Logit frames that a waveform of ``samples`` gives."""
        return self.model.output_frames(self.features.frames(samples))

    @property
    def streams(self) -> bool:
        """Whether text can be had before the recording ends."""
        one_way = not self.model.bidirectional or self.model.chunk > 0
        return one_way and self.statistics is not None

    @property
    def latency_ms(self) -> float | None:
        """How long a stream may wait before it writes a frame, from the end of the frame's own
        audio until all is heard that it reads; None where that is until the recording ends."""
        if not self.streams:
            return None
        model, hop_ms = self.model, 1000 * self.features.hop_samples / self.features.sample_rate
        frames = max(0, model.chunk - 1) + model.right_context + model.lookahead
        behind = frames * model.time_stride + model.context[1] - (model.time_stride - 1)
        return behind * hop_ms + self.features.window_ms - hop_ms

    @property
    def carried_samples(self) -> int:
        """Samples before an output frame's own with which a stream's next piece begins."""
        # One frame at least, for no device has to bear an empty tensor then.
        return max(self.model.context[0], 1) * self.features.hop_samples

    @property
    def seconds_per_output_frame(self) -> float:
        return self.model.time_stride * self.features.hop_samples / self.features.sample_rate

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; ``from_dict`` is the inverse."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> RecogniserSpec:
        """Build from plain data.

        Raises:
            ModelError: a field is missing, unknown or out of range.
        """
        try:
            alphabet = data["alphabet"]
            statistics = data.get("statistics")
            return RecogniserSpec(
                features=FeatureSpec(**data["features"]),
                alphabet=AlphabetSpec(
                    symbols=tuple(alphabet["symbols"]), rules=TextRules(**alphabet["rules"])
                ),
                model=ModelSpec(**_with_tuples(data["model"])),
                statistics=statistics
                and Statistics(mean=tuple(statistics["mean"]), std=tuple(statistics["std"])),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"the model's description is not one this version reads ({error!r}); "
                "export it again with this version"
            ) from error
