"""The benchmarks' results in one number each: speechrnn beside another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Found = dict[str, Any]


@dataclass(frozen=True)
class Ratio:
    """What the peer takes by what speechrnn takes: above 1, speechrnn is better."""

    what: str
    peer: str
    value: float


def ratios(results: Found) -> list[Ratio]:
    """All that can be had from the parts that were measured."""
    found = {name: part["found"] for name, part in results.items() if "found" in part}
    return [
        *_training(found.get("training_step", {"results": []})),
        *_inference(found.get("inference", {"rows": []})),
        *_features(found.get("features", {"rows": []})),
        *_decoding(found.get("decoding")),
        *_recognisers(found.get("recognisers", {"rows": []})),
    ]


def _beside(
    what: str, ours: float | None, peers: Mapping[str, list[float | None]]
) -> Iterator[Ratio]:
    """A ratio for each peer's best; none where one of the two was not measured."""
    for peer, values in peers.items():
        known = [value for value in values if value is not None]
        if ours and known:
            yield Ratio(what, peer, min(known) / ours)


def _training(found: Found) -> Iterator[Ratio]:
    for record in found["results"]:
        step = {row["implementation"]: row["train"]["best"] for row in record["rows"]}
        memory = {row["implementation"]: row["peak_memory_bytes"] for row in record["rows"]}
        cell = record["cell"].upper()
        for precision, suffix in (("float32", ""), ("bfloat16", "-bfloat16")):
            dense, packed = (f"pytorch-{kind}{suffix}" for kind in ("dense", "packed"))
            peers = {"PyTorch, dense": [step.get(dense)], "PyTorch, packed": [step.get(packed)]}
            if precision == "float32":
                peers = {"Keras": [step.get("keras")], **peers}
            yield from _beside(
                f"training step, {cell}, {precision}", step.get(f"ours-{precision}"), peers
            )
        if record is found["results"][0]:
            held = {
                "Keras": [memory.get("keras")],
                "PyTorch": [memory.get("pytorch-dense"), memory.get("pytorch-packed")],
            }
            yield from _beside(f"memory, training, {cell}", memory.get("ours-float32"), held)


def _inference(found: Found) -> Iterator[Ratio]:
    best = {row["form"]: row["best"] for row in found["rows"]}
    memory = {row["form"]: row["peak_memory_bytes"] for row in found["rows"]}
    for what, of in (("inference", best), ("memory, transcription", memory)):
        float32 = {
            "Keras": [of.get("keras-float32")],
            "PyTorch": [of.get("pytorch-float32")],
            "ONNX Runtime": [of.get("onnx-float32")],
        }
        yield from _beside(f"{what}, float32", of.get("litert-float32"), float32)
        int8 = {
            "PyTorch": [of.get("pytorch-int8")],
            "ONNX Runtime": [of.get("onnx-int8"), of.get("onnx-int8-float-convolutions")],
        }
        yield from _beside(f"{what}, int8", of.get("litert-int8"), int8)


def _features(found: Found) -> Iterator[Ratio]:
    rows = {row["name"].split(",")[0]: row["seconds"] for row in reversed(found["rows"])}
    peers = {name: [rows.get(name)] for name in ("librosa", "PyTorch")}
    # Of ours the last one set is the first row: the graph that training uses.
    yield from _beside("log-mels", rows.get("speechrnn"), peers)


def _decoding(found: Found | None) -> Iterator[Ratio]:
    if found is not None:
        yield Ratio("beam search", "flashlight-text", found["speed_of_flashlight"])


def _recognisers(found: Found) -> Iterator[Ratio]:
    rows = {row["recogniser"]: row for row in found["rows"]}
    for what, key in (("speed", "real_time_factor"), ("memory", "peak_memory_bytes")):
        of = {name: row[key] for name, row in rows.items()}
        peers = {"pocketsphinx": [of.get("pocketsphinx")]}
        yield from _beside(f"{what}, AN4 to text with a 3-gram", of.get("speechrnn-beam"), peers)
