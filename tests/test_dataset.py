"""Batches: every utterance once, as its recording and transcript say, from any step on."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from conftest import RATE, write_recipe

from speechrnn import data, recipe
from speechrnn.audio import from_pcm16
from speechrnn.corpora import manifest
from speechrnn.corpora.manifest import Utterance
from speechrnn.data.dataset import Batches, recogniser_spec
from speechrnn.data.prepare import prepare
from speechrnn.errors import DataError
from speechrnn.features import graph, reference

AUGMENT = {
    "speed": [0.9, 1.1],
    "tempo": [0.9, 1.1],
    "room": {"probability": 0.3},
    "babble": {"probability": 0.3},
    "gain_db": [-6, 6],
    "telephone": {"probability": 0.3},
    "frequency_masks": 1,
    "time_masks": 2,
}


def source(loaded, split="train"):
    index = prepare(loaded, progress=False)
    return Batches(loaded, recogniser_spec(loaded, index), index, split)


@pytest.fixture(scope="module")
def path(whistles, tmp_path_factory):
    """A recipe whose corpus is prepared once for all that follows."""
    return write_recipe(tmp_path_factory.mktemp("dataset"), whistles, augment=AUGMENT)


@pytest.fixture(scope="module")
def train(path):
    return source(recipe.load(path))


@pytest.fixture(scope="module")
def listed(whistles):
    return {u.utterance_id: u for u in manifest.read(whistles)}


def arrays(dataset):
    return [{key: value.numpy() for key, value in batch.items()} for batch in dataset]


def by_utterance(batches, rows):
    """utterance_id -> its valid frames of features, its labels' row and its samples."""
    return {
        rows[row].utterance_id: (
            batch["features"][i, : batch["frames"][i]],
            batch["labels"][i],
            batch["samples"][i],
        )
        for batch in batches
        for i, row in enumerate(batch["utterances"])
    }


def names(batches, rows):
    return [rows[row].utterance_id for batch in batches for row in batch["utterances"]]


@pytest.mark.parametrize("split", ["train", "dev"])
def test_a_pass_holds_every_utterance_once_with_its_labels(path, listed, split):
    batches_of = source(recipe.load(path), split)
    expected = [name for name, utterance in listed.items() if utterance.split == split]
    label = {symbol: i + 1 for i, symbol in enumerate(" abcd")}  # 0 is the blank and padding
    for dataset in (batches_of.plain(), batches_of.epochs(4, 5)):
        found = arrays(dataset)
        assert sorted(names(found, batches_of.rows)) == sorted(expected)
        for name, (_, labels, _) in by_utterance(found, batches_of.rows).items():
            written = [label[char] for char in listed[name].text]
            assert labels.tolist() == written + [0] * (len(labels) - len(written))
        for batch in found:
            assert batch["labels"].shape[1] == max(np.sum(batch["labels"] > 0, axis=1))


def test_without_augmentation_features_are_those_of_the_definition(path, listed):
    loaded = recipe.load(path)
    dev = source(loaded, "dev")
    statistics = dev.index.statistics
    found = by_utterance(arrays(dev.plain()), dev.rows)
    assert len(found) == 12
    for name, (features, _, samples) in found.items():
        pcm, _ = soundfile.read(listed[name].path, dtype="int16")
        expected = reference.features(from_pcm16(pcm), loaded.features)
        expected = (expected - np.array(statistics.mean)) / np.array(statistics.std)
        assert samples == len(pcm)
        assert features.shape == expected.shape
        # Both float32: FFTs of another order of sums, and a logarithm of small powers.
        np.testing.assert_allclose(features, expected, atol=1e-4)


def test_frames_count_what_samples_give_and_all_behind_is_zero(train):
    spec, padded = train.spec.features, 0
    for batch in arrays(train.epochs(2, 3)):
        for i, (frames, samples) in enumerate(zip(batch["frames"], batch["samples"], strict=True)):
            assert frames == 1 + (samples - spec.window_samples) // spec.hop_samples
            assert batch["features"][i, :frames].any(axis=1).sum() > frames / 2  # masks are short
            assert not batch["features"][i, frames:].any()
        padded += (batch["frames"] < batch["features"].shape[1]).sum()
        assert (batch["epoch"] == 2).all()
    assert padded > 0


def test_an_epoch_is_resumed_identically_within_it_and_at_its_end(train):
    whole = arrays(train.epochs(1, 3))
    in_first = len(train.plan(1))
    assert len(whole) == in_first + len(train.plan(2))
    for skip in (1, in_first // 2, in_first):  # tests/test_reliability_scale.py tries every one
        rest = arrays(train.epochs(1, 3, skip=skip))
        assert len(rest) == len(whole) - skip
        for resumed, original in zip(rest, whole[skip:], strict=True):
            assert resumed.keys() == original.keys()
            for key, value in original.items():
                np.testing.assert_array_equal(resumed[key], value)


def test_an_utterance_is_augmented_alike_in_any_batch(path, train):
    small = source(recipe.load(path, ["data.batch_seconds=3"]))
    assert len(small.plan(1)) > 2 * len(train.plan(1))
    expected = by_utterance(arrays(train.epochs(1, 2)), train.rows)
    found = by_utterance(arrays(small.epochs(1, 2)), small.rows)
    for name, (features, _, samples) in expected.items():
        assert found[name][2] == samples
        # Kernels vectorise over another batch shape; the sums are the same.
        np.testing.assert_allclose(found[name][0], features, atol=2e-5)


def test_other_epochs_and_seeds_augment_otherwise(path, train):
    other_seed = source(recipe.load(path, ["seed=2"]))
    expected = by_utterance(arrays(train.epochs(1, 2)), train.rows)
    for dataset in (train.epochs(2, 3), other_seed.epochs(1, 2)):
        found = by_utterance(arrays(dataset), train.rows)
        same = [name for name in expected if found[name][2] == expected[name][2]]
        # Speed alone changes the length of nearly every utterance.
        assert len(same) <= 3


def test_the_script_functions_give_an_epoch_and_plain_splits(path, train):
    loaded = recipe.load(path)
    dev = source(loaded, "dev")
    pairs = [
        (data.batches(loaded, "train"), train.epochs(0, 1)),
        (data.batches(loaded, "dev"), dev.plain()),
    ]
    for dataset, expected in pairs:
        for batch, other in zip(arrays(dataset), arrays(expected), strict=True):
            np.testing.assert_array_equal(batch["features"], other["features"])


def test_the_first_epoch_goes_from_short_to_long_and_no_batch_is_over_budget(train):
    first, second = ([train.rows[i] for b in train.plan(e) for i in b] for e in (0, 1))
    lengths = [row.samples for row in first]
    assert lengths == sorted(lengths)
    assert [row.samples for row in second] != lengths
    for rows in train.plan(1):
        longest = max(train.rows[i].samples for i in rows)
        assert longest * len(rows) <= train.recipe.data.batch_seconds * RATE


def test_speed_never_takes_the_frames_that_the_labels_need(tmp_path):
    """0.6 s are 58 frames, 20 of the model's: at half the time, 10 labels still fit."""
    letters = "abcdefghijklmnopqrst"
    texts = {"tight": letters, "over": letters[:15], "loose": letters[:8]}
    rng = np.random.default_rng(0)
    utterances = []
    for name, text in texts.items():
        soundfile.write(tmp_path / f"{name}.wav", rng.normal(0, 0.1, int(0.6 * RATE)), RATE)
        utterances.append(Utterance(name, tmp_path / f"{name}.wav", text, "train"))
    manifest.write(tmp_path / "manifest.tsv", utterances)
    fast = {"speed": [1.6, 2.0]}
    path = write_recipe(tmp_path, tmp_path / "manifest.tsv", augment=fast)
    batches = source(recipe.load(path))
    stride = batches.spec.model.time_stride
    for batch in arrays(batches.epochs(0, 20)):
        for frames, labels in zip(batch["frames"], batch["labels"], strict=True):
            assert -(-frames // stride) >= np.count_nonzero(labels)
        samples = dict(zip(names([batch], batches.rows), batch["samples"].tolist(), strict=True))
        for name, count in samples.items():
            if name == "loose":
                assert 0.6 * RATE / 2.0 - 1 <= count <= 0.6 * RATE / 1.6
            else:
                assert count == int(0.6 * RATE)  # as it was recorded


def test_labels_that_the_model_cannot_write_are_refused_by_name(path, train):
    coarse = replace(train.spec.model, subsampling="stack", time_stride=40)
    with pytest.raises(DataError, match=r"u0\d\d; prepare again"):
        Batches(recipe.load(path), replace(train.spec, model=coarse), train.index, "train")


def test_a_split_that_is_not_there_is_refused(path):
    with pytest.raises(DataError, match="'eval'"):
        data.batches(recipe.load(path), "eval")


def test_one_graph_serves_batches_of_every_shape(train, monkeypatch):
    traced = []
    real = graph.features

    def counting(waveforms, spec):
        traced.append(waveforms.shape)
        return real(waveforms, spec)

    monkeypatch.setattr(graph, "features", counting)
    dataset = train.epochs(0, 3)
    built = len(traced)
    assert built >= 1
    shapes = {batch["features"].shape for batch in dataset}
    assert len(shapes) > 5
    assert len(traced) == built
    assert dataset.element_spec["features"].shape.as_list() == [
        None,
        None,
        train.recipe.features.mels,
    ]


@pytest.mark.parametrize("workers", [2, 11])
def test_the_parts_of_all_workers_are_the_batches_of_one(train, workers):
    """Eleven workers: more than any batch has utterances."""
    whole = arrays(train.epochs(1, 2))
    parts = [arrays(train.epochs(1, 2, worker=i, workers=workers)) for i in range(workers)]
    empty, missing = 0, 0
    for batch, *shares in zip(whole, *parts, strict=True):
        together = np.concatenate([share["utterances"] for share in shares])
        np.testing.assert_array_equal(together, batch["utterances"])
        assert {int(share["batch_size"]) for share in [batch, *shares]} == {len(together)}
        found, expected = by_utterance(shares, train.rows), by_utterance([batch], train.rows)
        for name, (features, labels, samples) in expected.items():
            assert found[name][2] == samples
            np.testing.assert_array_equal(np.trim_zeros(found[name][1]), np.trim_zeros(labels))
            # Kernels vectorise over another batch shape; the sums are the same.
            np.testing.assert_allclose(found[name][0], features, atol=2e-5)
        for share in shares:
            assert {k: (v.dtype, v.ndim) for k, v in share.items()} == {
                k: (v.dtype, v.ndim) for k, v in batch.items()
            }
            assert share["features"].shape[2] == batch["features"].shape[2]
            empty += len(share["utterances"]) == 0
        missing += max(0, workers - len(together))
    assert empty == missing and (empty > len(whole) or workers < 11)


def test_workers_resume_identically(train):
    rest = arrays(train.epochs(1, 3, skip=3, worker=1, workers=2))
    whole = arrays(train.epochs(1, 3, worker=1, workers=2))[3:]
    for resumed, original in zip(rest, whole, strict=True):
        for key, value in original.items():
            np.testing.assert_array_equal(resumed[key], value)


def test_a_script_that_ends_in_the_midst_of_epochs_ends(tmp_path):
    """It would abort or hang: TensorFlow's threads are within Python when the interpreter goes.

    Batches of a minute, so that all four iterators have much left to read by then.
    """
    utterances = []
    for number in range(150):
        noise = np.random.default_rng(number).normal(0, 0.1, 10 * RATE)
        soundfile.write(tmp_path / f"{number}.wav", noise, RATE)
        utterances.append(Utterance(f"u{number}", tmp_path / f"{number}.wav", "ab", "train"))
    manifest.write(tmp_path / "manifest.tsv", utterances)
    path = write_recipe(tmp_path, tmp_path / "manifest.tsv", data={"batch_seconds": 60})
    script = """
        import sys
        from speechrnn import data, recipe

        loaded = recipe.load(sys.argv[1])
        iterators = [iter(data.batches(loaded, "train", epochs=9)) for _ in range(4)]
        for iterator in iterators:
            print(*next(iterator))
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0 and done.stdout.count("features") == 4, done.stderr
