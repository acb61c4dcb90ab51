"""How fast a waveform becomes log-mels: speechrnn's graph and device file, librosa, PyTorch.

    python pipelines/benchmarks/features.py                  half a minute
    python pipelines/benchmarks/features.py --rounds 200 --json features.json

PyTorch is optional (pip install torch); without it its row is left out.

The same numbers from 10 s of noise, by one thread, in one process, in turns, of which the best
counts: the features of the shipped model, by its definition in ``speechrnn.features``. Neither
librosa nor PyTorch places a window within a longer FFT where speechrnn does; both get the recording
with as many zeros around it as makes the frames the same. "difference" is the largest |a - b| /
(1 + |b|) to the definition in NumPy; the device file's features are normalised, and so is what they
are compared with. A row that differs by more than 0.001 is not timed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from implementations import LeftOut
from networks import difference
from pytorch_stack import pytorch
from rates import Rates
from report import left_out, table
from rich.console import Console

from speechrnn.features import reference
from speechrnn.runtime import container, default_model
from speechrnn.specs import FeatureSpec, RecogniserSpec

SECONDS = 10
LIMIT = 1e-3  # float32 sums of 257 products, and the logarithm of what may be near its floor
Extract = Callable[[], np.ndarray]  # (frames, mels)


def by_speechrnn(wave: np.ndarray, spec: FeatureSpec) -> Extract:
    """The graph that training has in its input pipeline."""
    import tensorflow as tf

    from speechrnn.features import graph

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    signature = [tf.TensorSpec([None, None], tf.float32)]
    compiled = tf.function(lambda x: graph.features(x, spec), input_signature=signature)
    batch = tf.constant(wave[None])
    return lambda: compiled(batch).numpy()[0]


def by_device_file(wave: np.ndarray, path: Path) -> Extract:
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(str(path), num_threads=1).get_signature_runner("features")
    return lambda: run(waveform=wave)["features"]


def padded(wave: np.ndarray, spec: FeatureSpec) -> np.ndarray:
    """Zeros around it: others centre a window of 400 samples in an FFT of 512."""
    missing = spec.fft_length - spec.window_samples
    return np.pad(wave, (missing // 2, missing - missing // 2))


def by_librosa(wave: np.ndarray, spec: FeatureSpec) -> Extract:
    from librosa.feature import melspectrogram

    samples = padded(wave, spec)

    def extract() -> np.ndarray:
        power = melspectrogram(
            y=samples,
            sr=spec.sample_rate,
            n_fft=spec.fft_length,
            hop_length=spec.hop_samples,
            win_length=spec.window_samples,
            center=False,
            n_mels=spec.mels,
            fmin=spec.low_hz,
            fmax=spec.high_hz,
        )
        return np.log(np.maximum(power, spec.floor)).T

    return extract


def by_pytorch(wave: np.ndarray, spec: FeatureSpec) -> Extract:
    """``torch.stft`` and a product with librosa's filters, as torchaudio does it."""
    from librosa.filters import mel

    torch = pytorch()
    torch.set_num_threads(1)
    filters = mel(
        sr=spec.sample_rate,
        n_fft=spec.fft_length,
        n_mels=spec.mels,
        fmin=spec.low_hz,
        fmax=spec.high_hz,
    )
    samples, weights = torch.tensor(padded(wave, spec)), torch.tensor(filters)
    window = torch.hann_window(spec.window_samples)
    sizes = spec.fft_length, spec.hop_samples, spec.window_samples

    def extract() -> np.ndarray:
        spectrum = torch.stft(samples, *sizes, window, center=False, return_complex=True)
        power = spectrum.real**2 + spectrum.imag**2
        return torch.log(torch.clamp(weights @ power, min=spec.floor)).numpy().T

    return extract


def expected(wave: np.ndarray, spec: RecogniserSpec) -> dict[str, np.ndarray]:
    """The definition's numbers, and the same normalised as a device file has them."""
    plain = reference.features(wave, spec.features)
    if spec.statistics is None:
        return {"plain": plain}
    mean, std = (np.array(each, np.float32) for each in (spec.statistics.mean, spec.statistics.std))
    return {"plain": plain, "normalised": (plain - mean) / std}


def implementations(path: Path, spec: RecogniserSpec, wave: np.ndarray) -> dict[str, Callable]:
    return {
        "speechrnn, TensorFlow's graph": lambda: by_speechrnn(wave, spec.features),
        "speechrnn, the device file in LiteRT": lambda: by_device_file(wave, path),
        "librosa": lambda: by_librosa(wave, spec.features),
        "PyTorch, stft and mel filters": lambda: by_pytorch(wave, spec.features),
    }


def compare(path: Path, rounds: int) -> dict[str, Any]:
    """Each implementation's best times, and who is left out for which reason."""
    spec = container.read(path).spec
    rate = spec.features.sample_rate
    wave = np.random.default_rng(0).normal(0, 0.1, SECONDS * rate).astype(np.float32)
    right = expected(wave, spec)
    works: list[tuple[str, Callable[[], float]]] = []
    differences, missing = {}, {}
    for name, make in implementations(path, spec, wave).items():
        target = right["normalised" if "device" in name else "plain"]
        try:
            extract = make()
            found = difference(extract(), target)
            if not found <= LIMIT:  # a NaN must fail too
                raise LeftOut(f"its log-mels differ by {found:.1e}")
        except LeftOut as reason:
            missing[name] = str(reason)
            continue
        differences[name] = found
        works.append((name, partial(_through, extract)))
    rates = Rates()
    rates.rounds(works, rounds)
    rows = [
        {
            "name": name,
            "seconds": SECONDS / rates.wall[name],
            "processor_seconds": SECONDS / rates.processor[name],
            "difference": differences[name],
        }
        for name, _ in works
    ]
    features = {"mels": spec.features.mels, "fft_length": spec.features.fft_length}
    return {"audio_seconds": SECONDS, **features, "rows": rows, "left_out": missing}


def _through(extract: Extract) -> float:
    """Extract, and the seconds of audio that this went through."""
    extract()
    return SECONDS


def main(given: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--json", type=Path, metavar="OUT")
    options = parser.parse_args(given)
    found = compare(default_model(), options.rounds)
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False, soft_wrap=True)
    rows = [
        [row["name"], *(f"{1e3 * row[key]:.2f}" for key in ("seconds", "processor_seconds")),
         f"{row['difference']:.0e}"]
        for row in found["rows"]
    ]  # fmt: skip
    title = f"{found['mels']} log-mels of {SECONDS} s, one thread, the best of {options.rounds}"
    console.print(table(title, ["", "ms", "processor ms", "difference"], rows))
    left_out(console, found["left_out"])
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return found


if __name__ == "__main__":
    main()
