"""Models that are programs, bombs or links: each function makes one, and gives what is opened."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flatbuffers
import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from speechrnn import arrays
from speechrnn import model as network
from speechrnn.export.savedmodel import describe as describe_saved_model
from speechrnn.files import sealed
from speechrnn.runtime import container
from speechrnn.specs import AlphabetSpec, FeatureSpec, ModelSpec, RecogniserSpec
from speechrnn.training import run

CARD = {"name": "hostile", "dev": {"wer": 0.5}}
SPEC = RecogniserSpec(FeatureSpec(mels=20), AlphabetSpec(("a", "b")), ModelSpec(units=8, layers=1))

Maker = Callable[[Path, Path], Path]  # a folder to make it in, the canary -> what is opened


class Touch:
    """Unpickled, it runs a command."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self) -> tuple:
        return os.system, (f"echo dead > {self.canary}",)


def _run(folder: Path, data: bytes | None = None, **changes: Any) -> Path:
    """A run directory with these weights and changes to its description."""
    folder.mkdir(exist_ok=True)
    run.save(folder, 1, network.build(SPEC, seed=0).get_weights(), SPEC, CARD)
    description = json.loads((folder / "model.json").read_bytes())
    if data is not None:
        (folder / "weights-1.npz").write_bytes(data)
        description["sha256"] = hashlib.sha256(data).hexdigest()
    for name, value in changes.items():
        if name in ("features", "model"):
            description["spec"][name].update(value)
        else:
            description[name] = value
    (folder / "model.json").write_bytes(sealed(description))
    return folder


def keras_lambda(folder: Path, canary: Path) -> Path:
    text = f"lambda x: __import__('os').system('echo dead > {canary}') or x"
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Lambda(eval(text))])
    path = folder / "model.keras"
    model.save(path)
    canary.write_text("alive")  # building it ran it
    return path


def keras_as_tflite(folder: Path, canary: Path) -> Path:
    return keras_lambda(folder, canary).rename(folder / "model.tflite")


def hdf5_weights(folder: Path, canary: Path) -> Path:
    path = folder / "made.weights.h5"
    network.build(SPEC, seed=0).save_weights(path)
    return _run(folder / "run", path.read_bytes())


def pickled_weights(folder: Path, canary: Path) -> Path:
    buffer = io.BytesIO()
    weights: dict[str, Any] = {"0000": np.array([Touch(canary)], object)}
    np.savez(buffer, **weights)
    return _run(folder, buffer.getvalue())


def bare_pickle(folder: Path, canary: Path) -> Path:
    return _run(folder, pickle.dumps(Touch(canary)))


def _npy(shape: str, content: bytes = b"") -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


def _zip(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def declared_terabyte(folder: Path, canary: Path) -> Path:
    return _run(folder, _zip({"0000.npy": _npy("(274877906944,)", bytes(64))}))


def compressed_bomb(folder: Path, canary: Path) -> Path:
    content = _npy("(134217728,)", bytes(2**29))
    return _run(folder, _zip({"0000.npy": content}, zipfile.ZIP_DEFLATED))


def overlapping_bomb(folder: Path, canary: Path) -> Path:
    """Many entries of one archive that all stand for the same bytes."""
    data = bytearray(_zip({"0000.npy": _npy("(262144,)", bytes(2**20))}))
    directory = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    entry, tail = bytes(data[directory:end]), bytearray(data[end:])
    many = b"".join(entry.replace(b"0000.npy", b"%04d.npy" % i) for i in range(2000))
    struct.pack_into("<HHI", tail, 8, 2000, 2000, len(many))
    return _run(folder, bytes(data[:directory]) + many + bytes(tail))


def enormous_units(folder: Path, canary: Path) -> Path:
    return _run(folder, model={"units": 2_000_000})


def enormous_layers(folder: Path, canary: Path) -> Path:
    return _run(folder, model={"layers": 10**9})


def enormous_fft(folder: Path, canary: Path) -> Path:
    return _run(folder, features={"fft_length": 2**34})


def enormous_features(folder: Path, canary: Path) -> Path:
    return _run(folder, features={"mels": 10**9})


def enormous_chunk(folder: Path, canary: Path) -> Path:
    return _run(folder, model={"chunk": 1, "right_context": 10**12})


def weights_elsewhere(folder: Path, canary: Path) -> Path:
    return _run(folder, weights=f"../{canary.name}")


def absolute_weights(folder: Path, canary: Path) -> Path:
    return _run(folder, weights=str(canary))


def linked_weights(folder: Path, canary: Path) -> Path:
    elsewhere = _run(folder / "elsewhere") / "weights-1.npz"
    made = _run(folder / "run")
    (made / "weights-1.npz").unlink()
    (made / "weights-1.npz").symlink_to(elsewhere)
    return made


def weights_from_a_device(folder: Path, canary: Path) -> Path:
    made = _run(folder)
    (made / "weights-1.npz").unlink()
    (made / "weights-1.npz").symlink_to("/dev/zero")
    return made


def weights_from_a_pipe(folder: Path, canary: Path) -> Path:
    made = _run(folder)
    (made / "weights-1.npz").unlink()
    os.mkfifo(made / "weights-1.npz")
    return made


def nested_description(folder: Path, canary: Path) -> Path:
    made = _run(folder)
    (made / "model.json").write_text("[" * 200_000)
    return made


def _saved(folder: Path, body: Callable[[tf.Tensor], Any], tracked: Any = None) -> Path:
    """A SavedModel that has all that speechrnn's have, and this in its function; ``tracked`` is
    what the function reads."""

    class Module(tf.Module):
        @tf.function(
            input_signature=[
                tf.TensorSpec([None, None], tf.float32, "waveform"),
                tf.TensorSpec([None], tf.int32, "lengths"),
            ]
        )
        def serve(self, waveform: tf.Tensor, lengths: tf.Tensor) -> dict[str, tf.Tensor]:
            with tf.control_dependencies([body(waveform)]):
                return {"log_probs": waveform[..., None] * tf.ones([1, 1, SPEC.alphabet.size])}

    module = Module()
    module.tracked = tracked
    tf.saved_model.save(module, str(folder / "1"), signatures=module.serve)
    describe_saved_model(folder / "1", SPEC, CARD)
    return folder


def graph_writes(folder: Path, canary: Path) -> Path:
    return _saved(folder, lambda _: tf.io.write_file(str(canary), "dead"))


def graph_reads(folder: Path, canary: Path) -> Path:
    return _saved(folder, lambda _: tf.io.read_file(str(canary)))


def graph_saves(folder: Path, canary: Path) -> Path:
    def save(waveform: tf.Tensor) -> Any:
        return tf.raw_ops.SaveV2(
            prefix=str(canary), tensor_names=["x"], shape_and_slices=[""], tensors=[waveform]
        )

    return _saved(folder, save)


def graph_prints_to_a_file(folder: Path, canary: Path) -> Path:
    return _saved(folder, lambda x: tf.print(x, output_stream=f"file://{canary}"))


def graph_calls_python(folder: Path, canary: Path) -> Path:
    return _saved(folder, lambda x: tf.numpy_function(lambda y: y, [x], tf.float32))


def graph_in_a_branch(folder: Path, canary: Path) -> Path:
    def branch(waveform: tf.Tensor) -> tf.Tensor:
        def write() -> tf.Tensor:
            with tf.control_dependencies([tf.io.write_file(str(canary), "dead")]):
                return tf.constant(1)

        return tf.cond(tf.size(waveform) > 0, write, lambda: tf.constant(0))

    return _saved(folder, branch)


def graph_on_loading(folder: Path, canary: Path) -> Path:
    """A table that is filled from a file when the model is loaded."""
    canary.write_text("alive 1")
    initializer = tf.lookup.TextFileInitializer(
        str(canary), tf.string, 0, tf.int64, 1, delimiter=" "
    )
    table = tf.lookup.StaticHashTable(initializer, -1)
    made = _saved(folder, lambda _: table.lookup(tf.constant(["alive"])), table)
    canary.write_text("alive")
    return made


def linked_graph(folder: Path, canary: Path) -> Path:
    made = _saved(folder, lambda x: tf.identity(x))
    graph = made / "1" / "saved_model.pb"
    graph.rename(folder.parent / f"{folder.name}.pb")
    graph.symlink_to(folder.parent / f"{folder.name}.pb")
    return made


def second_graph(folder: Path, canary: Path) -> Path:
    made = _saved(folder, lambda x: tf.identity(x))
    (made / "1" / "saved_model.pbtxt").write_text("saved_model_schema_version: 1")
    return made


def listed_elsewhere(folder: Path, canary: Path) -> Path:
    made = _saved(folder, lambda x: tf.identity(x))
    digest = hashlib.sha256(canary.read_bytes()).hexdigest()
    with (made / "1" / "assets.extra" / "SHA256SUMS").open("a") as sums:
        sums.write(f"{digest}  ../../{canary.name}\n")
    return made


def _tflite(folder: Path, name: str) -> Path:
    """The shipped model with an operation of this name in place of one of its own."""
    shipped = container.read(next((Path(arrays.__file__).parent / "pretrained").glob("*.tflite")))
    model = schema.ModelT.InitFromPackedBuf(bytearray(shipped.model_bytes), 0)
    model.operatorCodes[0].builtinCode = schema.BuiltinOperator.CUSTOM
    model.operatorCodes[0].deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    model.operatorCodes[0].customCode = name.encode()
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path = folder / "model.tflite"
    path.write_bytes(container.pack(bytes(builder.Output()), shipped.spec, shipped.card))
    return path


def custom_operation(folder: Path, canary: Path) -> Path:
    return _tflite(folder, "RunShell")


def flex_operation(folder: Path, canary: Path) -> Path:
    return _tflite(folder, "FlexWriteFile")


def no_flatbuffer(folder: Path, canary: Path) -> Path:
    content = b"\xff\xff\xff\x7fTFL3" + bytes(64) + container.TRAILER_MAGIC
    path = folder / "model.tflite"
    path.write_bytes(content + hashlib.sha256(content).digest())
    return path


MAKERS: tuple[Maker, ...] = (
    *(keras_lambda, keras_as_tflite, hdf5_weights, pickled_weights, bare_pickle),
    *(declared_terabyte, compressed_bomb, overlapping_bomb, enormous_units, enormous_layers),
    *(enormous_fft, enormous_features, enormous_chunk, weights_elsewhere, absolute_weights),
    *(linked_weights, weights_from_a_device, weights_from_a_pipe, nested_description),
    *(graph_writes, graph_reads, graph_saves, graph_prints_to_a_file, graph_calls_python),
    *(graph_in_a_branch, graph_on_loading, linked_graph, second_graph, listed_elsewhere),
    *(custom_operation, flex_operation, no_flatbuffer),
)
