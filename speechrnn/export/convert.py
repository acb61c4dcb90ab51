"""SavedModel -> TFLite flatbuffer, as a program of its own: the converter leaks memory.

    python -m speechrnn.export.convert SAVED_MODEL OUT.tflite float32|float16|int8

TensorFlow announces the removal of ``tf.lite``; its use is confined to this module.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import speechrnn
from speechrnn.errors import ModelError


def convert(saved_model: Path, precision: str) -> bytes:
    """Run this module as a process on ``saved_model`` -> the flatbuffer.

    Raises:
        ModelError: the converter failed; the message ends with what it said last.
    """
    out = saved_model.with_name(saved_model.name + ".tflite")
    command = [sys.executable, "-m", __spec__.name, str(saved_model), str(out), precision]
    package_root = str(Path(speechrnn.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "2"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode or not out.exists():
        said = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise ModelError(f"TensorFlow's converter to TFLite failed ({done.returncode}):\n{said}")
    return out.read_bytes()


def main(saved_model: str, out: str, precision: str) -> None:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(saved_model)
    # A loop writes its outputs in place. Without this it cuts and joins tensors whose shapes are
    # known only then, so that the runtime plans every iteration anew and copies inputs as well.
    converter._experimental_enable_dynamic_update_slice = True
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]  # weights only, without a data set
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    Path(out).write_bytes(converter.convert())


if __name__ == "__main__":
    main(*sys.argv[1:])
