"""Our records and payloads beside TensorFlow's own."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechrnn.data import tfrecord

tf = pytest.importorskip("tensorflow")

# Lengths on both sides of those at which protocol buffers take another byte to write them.
CONTENT = st.one_of(
    st.binary(max_size=300),
    st.integers(-20, 20).map(lambda n: bytes(2**14 + n)),
    st.integers(-20, 20).map(lambda n: b"a" * (2**21 + n)),
)


def example(values):
    features = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        for name, value in values.items()
    }
    return tf.train.Example(features=tf.train.Features(feature=features))


@settings(max_examples=50)
@given(st.dictionaries(st.text(max_size=200), CONTENT, max_size=4))
def test_a_payload_is_read_by_tensorflow_and_by_name(values):
    assert tf.train.Example.FromString(tfrecord.example(values)) == example(values)
    for name, value in values.items():
        assert tfrecord.value(tfrecord.example(values), name) == value
    with pytest.raises(KeyError):
        tfrecord.value(tfrecord.example(values), "another" * 60)


def test_the_payload_of_an_utterance_is_byte_for_byte_tensorflows():
    names = ["audio", "utterance_id", "text", "speaker"]
    values = {name: name.encode() * 1000 for name in names}
    assert tfrecord.example(values) == example(values).SerializeToString(deterministic=True)


def test_records_are_those_that_tensorflow_writes(tmp_path):
    payloads = [b"", b"a", bytes(range(256)) * 1000]
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for payload in payloads:
            writer.write(payload)
    ours = b"".join(map(tfrecord.record, payloads))
    assert ours == (tmp_path / "theirs").read_bytes()
    at = 0
    for payload in payloads:
        at += tfrecord.HEADER
        assert ours[at : at + len(payload)] == payload
        at += len(payload) + tfrecord.FOOTER
    assert at == len(ours)


def test_preparing_imports_no_tensorflow():
    script = "import sys, speechrnn.data.prepare; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
