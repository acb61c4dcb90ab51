from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from speechrnn import audio, recipe
from speechrnn.corpora import manifest, recordings
from speechrnn.corpora.utterance import Utterance
from speechrnn.data import index as index_module
from speechrnn.data import pool, shards, utterance
from speechrnn.data.index import Index
from speechrnn.data.prepare import LOCK_FILE, MADE_FROM_FILE, prepare, prepared, rejections
from speechrnn.errors import DataError, PreparedDataError, RecipeError
from speechrnn.features import reference
from speechrnn.files import locked

tf = pytest.importorskip("tensorflow")
RATE = 16_000


def speak(path: Path, seconds: float = 0.6, seed: int = 0) -> Path:
    """Noise with a beat: enough like speech to be prepared."""
    time = np.arange(round(seconds * RATE)) / RATE
    noise = np.random.default_rng(seed).normal(0, 0.1, len(time))
    soundfile.write(path, noise * (1 + np.sin(2 * np.pi * 4 * time)), RATE)
    return path


def corpus(folder: Path, train: int = 5, dev: int = 2) -> list[Utterance]:
    """``train`` and ``dev`` sound utterances, interleaved, with their manifest."""
    utterances = [
        Utterance(f"u{i}", speak(folder / f"{i}.flac", seed=i), f"text {i % 2}", split, f"s{i % 2}")
        for i, split in enumerate(["train", "dev"] * dev + ["train"] * (train - dev))
    ]
    manifest.write(folder / "manifest.tsv", utterances)
    return utterances


def recipe_for(folder: Path, **sections: Any) -> recipe.Recipe:
    data = {
        "manifest": str(folder / "manifest.tsv"),
        "shard_utterances": 2,
        "workers": 1,
        **sections.pop("data", {}),
    }
    return recipe.from_dict(
        {"name": "test", "output": str(folder / "run"), "data": data, **sections}
    )


def files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The ids that were decoded in this process since the list was last cleared."""
    ids: list[str] = []

    def counted(one: Utterance, settings: utterance.Settings) -> object:
        ids.append(one.utterance_id)
        return utterance.prepare_utterance(one, settings)

    monkeypatch.setattr(shards, "prepare_utterance", counted)
    return ids


def test_every_sound_utterance_is_found_by_its_index_row(tmp_path: Path) -> None:
    originals = {each.utterance_id: each for each in corpus(tmp_path)}
    made = prepare(recipe_for(tmp_path), progress=False)
    index = Index.load(made.root)
    assert index == made
    assert {row.utterance_id for row in index.rows} == originals.keys()
    for row in index.rows:
        original = originals[row.utterance_id]
        feature = tf.train.Example.FromString(index.read_payload(row)).features.feature
        values = {name: value.bytes_list.value[0] for name, value in feature.items()}
        expected, _ = soundfile.read(original.path, dtype="int16")
        assert values.pop("audio") == expected.astype("<i2").tobytes()
        assert values == {
            "utterance_id": row.utterance_id.encode(),
            "text": original.text.encode(),
            "speaker": original.speaker.encode(),
        }
        assert (row.samples, row.split) == (len(expected), original.split)
    assert index.rejected == {} and rejections(index.root) == []
    assert index.seconds("train") == pytest.approx(5 * 0.6)


def test_shards_are_tfrecords_that_tensorflow_reads(tmp_path: Path) -> None:
    corpus(tmp_path)
    index = prepare(recipe_for(tmp_path), progress=False)
    for number, shard in enumerate(index.shards):
        path = str(index.root / shard.name)
        payloads = [record.numpy() for record in tf.data.TFRecordDataset(path)]
        rows = [row for row in index.rows if row.shard == number]
        assert payloads == [index.read_payload(row) for row in rows]
        assert len(payloads) == shard.records <= 2
        assert len({row.split for row in rows}) == 1


def test_other_columns_of_the_manifest_change_nothing_that_is_prepared(
    tmp_path: Path, decoded: list[str]
) -> None:
    utterances = corpus(tmp_path)
    before = files(prepare(recipe_for(tmp_path), progress=False).root)
    decoded.clear()
    described = [replace(each, columns={"room": each.utterance_id}) for each in utterances]
    manifest.write(tmp_path / "manifest.tsv", described)
    assert manifest.read(tmp_path / "manifest.tsv")[0].columns
    after = files(prepare(recipe_for(tmp_path), progress=False).root)
    told = before.pop(MADE_FROM_FILE), after.pop(MADE_FROM_FILE)
    assert after == before and told[0] != told[1]
    assert decoded == []


def test_the_bytes_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    corpus(tmp_path)
    (tmp_path / "1.flac").write_text("broken")
    results = []
    for workers in (1, 2):
        data = {"workers": workers, "prepared": str(tmp_path / f"prepared{workers}")}
        results.append(files(prepare(recipe_for(tmp_path, data=data), progress=False).root))
    assert results[0] == results[1]


def test_a_rerun_decodes_nothing_and_changes_nothing(tmp_path: Path, decoded: list[str]) -> None:
    corpus(tmp_path)
    first = prepare(recipe_for(tmp_path), progress=False)
    before = files(first.root)
    assert len(decoded) == 7
    decoded.clear()
    # Should any worker be wanted after all, two would be started, out of the counter's sight.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "ProcessPoolExecutor", None)
        again = prepare(recipe_for(tmp_path, data={"workers": 2}), progress=False)
    assert decoded == []
    assert again == first and files(first.root) == before


def test_a_stopped_run_goes_on_with_the_missing_shards(tmp_path: Path, decoded: list[str]) -> None:
    corpus(tmp_path)
    index = prepare(recipe_for(tmp_path), progress=False)
    before = files(index.root)
    lost = [row.utterance_id for row in index.rows if row.shard == 1]
    (index.root / index_module.INDEX_FILE).unlink()
    (index.root / index.shards[1].name).rename(index.root / ".train-00001.tfrecord.0.partial")
    decoded.clear()
    prepare(recipe_for(tmp_path), progress=False)
    assert decoded == lost
    assert files(index.root) == before


def test_a_failure_inside_a_shard_leaves_the_earlier_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus(tmp_path)
    real = utterance.prepare_utterance

    def interrupted(one: Utterance, settings: utterance.Settings) -> object:
        if one.utterance_id == "u4":
            raise KeyboardInterrupt
        return real(one, settings)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "prepare_utterance", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(recipe_for(tmp_path), progress=False)
    root = recipe_for(tmp_path).prepared
    assert [path.name[:11] for path in root.glob("*.tfrecord")] == ["train-00000"]
    assert [path.name for path in root.iterdir() if "partial" in path.name] == []
    assert len(prepare(recipe_for(tmp_path), progress=False).rows) == 7


def test_only_shards_of_changed_utterances_are_decoded_again(
    tmp_path: Path, decoded: list[str]
) -> None:
    utterances = corpus(tmp_path)
    first = prepare(recipe_for(tmp_path), progress=False)
    decoded.clear()
    speak(tmp_path / "6.flac", seconds=0.7)  # the fifth in train, alone in its shard
    changed = prepare(recipe_for(tmp_path), progress=False)
    assert decoded == ["u6"]
    assert changed.corpus_sha256 != first.corpus_sha256

    manifest.write(tmp_path / "manifest.tsv", utterances[:-1])
    shrunk = prepare(recipe_for(tmp_path), progress=False)
    names = {path.name for path in shrunk.root.glob("*.tfrecord*")}
    assert names == {name for s in shrunk.shards for name in (s.name, s.name + ".json")}
    assert decoded == ["u6"]


def test_text_and_model_changes_decode_nothing(tmp_path: Path, decoded: list[str]) -> None:
    corpus(tmp_path)
    assert "T" not in prepare(recipe_for(tmp_path), progress=False).alphabet.symbols
    decoded.clear()
    kept = [{"data": {"alphabet": "tex 0"}}, {"model": {"time_stride": 6}}]
    counts = [prepare(recipe_for(tmp_path, **each), progress=False).rejected for each in kept]
    assert counts == [{"unknown_character": 3}, {}]  # every "text 1"
    assert decoded == []


def test_each_bad_utterance_is_reported_and_the_good_ones_are_kept(tmp_path: Path) -> None:
    good = corpus(tmp_path)
    texts = dict.fromkeys(
        ["missing", "empty", "unreadable", "truncated", "silent", "non_finite", "too_short"], "text"
    )
    texts |= {"too_long": "text", "zero_hz": "text", "1000_hz": "text"}
    texts |= {"unknown_character": "café", "empty_transcript": "...", "too_many_labels": "te" * 30}
    bad = [Utterance(name, tmp_path / f"{name}.wav", texts[name], "dev") for name in texts]
    bad.append(Utterance("u0", good[1].path, "text", "train"))
    for name in ("unknown_character", "empty_transcript", "too_many_labels"):
        speak(tmp_path / f"{name}.wav")
    spoil_recordings(tmp_path)
    manifest.write(tmp_path / "manifest.tsv", good + bad)

    index = prepare(recipe_for(tmp_path), progress=False)
    report = rejections(index.root)
    expected = {name: name for name in texts}
    expected |= {"zero_hz": "sample_rate", "1000_hz": "sample_rate", "u0": "duplicate_id"}
    assert {each.utterance_id: each.reason for each in report} == expected
    assert len(report) == len(bad) == sum(index.rejected.values())
    for each in report:  # the message alone tells which item it is about
        assert each.utterance_id in each.message
    assert {row.utterance_id for row in index.rows} == {each.utterance_id for each in good}


def spoil_recordings(folder: Path) -> None:
    (folder / "empty.wav").touch()
    (folder / "unreadable.wav").write_text("this is text " * 50)
    flac = speak(folder / "whole.flac", 2.0).read_bytes()
    # The content decides, not the name.
    (folder / "truncated.wav").write_bytes(flac[: len(flac) // 2])
    soundfile.write(folder / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(folder / "non_finite.wav", np.full(RATE, np.nan), RATE, subtype="FLOAT")
    speak(folder / "too_short.wav", 0.1)
    speak(folder / "too_long.wav", 21)
    for name, rate in (("zero_hz", 0), ("1000_hz", 1_000)):
        content = bytearray(speak(folder / f"{name}.wav").read_bytes())
        content[24:28] = struct.pack("<I", rate)
        (folder / f"{name}.wav").write_bytes(content)


def test_labels_and_repeats_must_fit_the_frames(tmp_path: Path) -> None:
    features = recipe_for(tmp_path).features
    seconds = (features.window_samples + 29 * features.hop_samples) / RATE  # 30 frames, 10 out
    fits = [("fits", "abcdefghij"), ("over", "abcdefghijk"), ("repeats", "aabcdefghi")]
    manifest.write(
        tmp_path / "manifest.tsv",
        [Utterance(n, speak(tmp_path / f"{n}.wav", seconds), t, "train") for n, t in fits],
    )
    index = prepare(recipe_for(tmp_path), progress=False)
    assert [row.utterance_id for row in index.rows] == ["fits"]
    assert [each.reason for each in rejections(index.root)] == ["too_many_labels"] * 2
    assert "10 labels and 1 repeats need 11 frames; the model gives 10" in (
        rejections(index.root)[1].message
    )
    assert "k" not in index.alphabet.symbols  # nor do rejected transcripts shape the alphabet


def test_an_unforeseen_error_is_one_rejection(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no idea")

    monkeypatch.setattr(recordings, "load", broken)
    settings = utterance.Settings(RATE, 0.1, 20)
    outcome = utterance.prepare_utterance(Utterance("a", Path("a"), "t", "train"), settings)
    assert isinstance(outcome, utterance.Rejected)
    assert (outcome.reason, outcome.message) == ("unexpected", "RuntimeError: no idea")


def test_no_training_utterance_left_is_an_error_that_counts_the_reasons(tmp_path: Path) -> None:
    missing = [Utterance(f"u{i}", tmp_path / f"{i}.wav", "text", "train") for i in range(3)]
    manifest.write(tmp_path / "manifest.tsv", missing)
    with pytest.raises(DataError, match="3 missing"):
        prepare(recipe_for(tmp_path), progress=False)
    assert len(rejections(recipe_for(tmp_path).prepared)) == 3


def test_an_alphabet_with_a_symbol_twice_is_a_recipe_error(tmp_path: Path) -> None:
    corpus(tmp_path)
    with pytest.raises(RecipeError, match=r"data\.alphabet"):
        prepare(recipe_for(tmp_path, data={"alphabet": "aba"}), progress=False)


@pytest.mark.parametrize("text", ["Καλημέρα σας", "नमस्ते दुनिया", "שלום עולם", "สวัสดี"])
def test_any_script_goes_through(tmp_path: Path, text: str) -> None:
    path = speak(tmp_path / "ηχώ 🎤.wav", 2.0)
    manifest.write(tmp_path / "manifest.tsv", [Utterance("ηχώ", path, text, "train", "Άννα")])
    prepare(recipe_for(tmp_path), progress=False)
    index = Index.load(tmp_path / "run" / "prepared")
    (row,) = index.rows
    assert (row.utterance_id, row.speaker, row.text) == ("ηχώ", "Άννα", text.lower())
    assert set(index.alphabet.symbols) == set(text.lower())


def test_statistics_are_those_of_all_training_frames(tmp_path: Path) -> None:
    spoken = corpus(tmp_path)
    spec = recipe_for(tmp_path).features
    index = prepare(recipe_for(tmp_path), progress=False)
    frames = np.concatenate(
        [
            reference.features(audio.from_pcm16(soundfile.read(each.path, dtype="int16")[0]), spec)
            for each in spoken
            if each.split == "train"
        ]
    ).astype(np.float64)
    assert index.statistics is not None
    # Both sum in float64, only in another order.
    np.testing.assert_allclose(index.statistics.mean, frames.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(index.statistics.std, frames.std(axis=0), rtol=1e-6)


def test_statistics_follow_the_features(tmp_path: Path) -> None:
    corpus(tmp_path)
    sizes = []
    for features in ({"mels": 80}, {"mels": 40, "mfccs": 13}, {"normalisation": "utterance"}):
        statistics = prepare(recipe_for(tmp_path, features=features), progress=False).statistics
        sizes.append(statistics and len(statistics.mean))
    assert sizes == [80, 40, None]


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_shard_is_named_and_mended(
    tmp_path: Path, damage: str, decoded: list[str]
) -> None:
    corpus(tmp_path)
    index = prepare(recipe_for(tmp_path), progress=False)
    index.verify()
    row = next(row for row in index.rows if row.utterance_id == "u2")  # the second in its shard
    path = index.root / index.shards[row.shard].name
    if damage == "flipped":
        flip(path, row.offset + row.length // 2)
    elif damage == "cut":  # between two records, where TFRecord's own checksums see nothing
        os.truncate(path, row.offset - 12)
    else:
        path.unlink()
    with pytest.raises(PreparedDataError, match=path.name):
        index.verify()
    with pytest.raises(PreparedDataError, match=rf"u2.*{path.name}|{path.name}.*u2"):
        index.read_payload(row)
    decoded.clear()
    assert prepare(recipe_for(tmp_path), progress=False) == index
    assert decoded == ["u0", "u2"]
    index.verify()


def test_a_training_starts_without_looking_at_recordings_or_into_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    utterances = corpus(tmp_path)
    index = prepare(recipe_for(tmp_path), progress=False)
    for each in utterances:
        each.path.unlink()
    monkeypatch.setattr(shards, "current", None)
    assert prepared(recipe_for(tmp_path), progress=False) == index
    assert prepared(recipe_for(tmp_path, data={"workers": 2, "batch_seconds": 5})) == index
    assert prepared(recipe_for(tmp_path, training={"epochs": 3})) == index


@pytest.mark.parametrize(
    "change", ["manifest", "recipe", "index", "shard cut", "shard gone", "never finished"]
)
def test_a_training_prepares_again_what_is_not_as_it_was(
    tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    utterances = corpus(tmp_path)
    sections: dict[str, Any] = {}
    index = prepare(recipe_for(tmp_path), progress=False)
    shard = index.root / index.shards[0].name
    if change == "manifest":
        manifest.write(tmp_path / "manifest.tsv", utterances[:-1])
    elif change == "recipe":
        sections = {"text": {"case": "keep"}}
    elif change == "index":
        flip(index.root / index_module.INDEX_FILE, 100)
    elif change == "shard cut":
        os.truncate(shard, index.shards[0].size - 1)
    elif change == "shard gone":
        shard.unlink()
    else:
        (index.root / MADE_FROM_FILE).unlink()
    asked = recipe_for(tmp_path, **sections)
    again = prepared(asked, progress=False)
    assert again == prepare(asked, progress=False)
    again.verify()
    monkeypatch.setattr(shards, "current", None)
    assert prepared(asked, progress=False) == again


def test_two_who_prepare_one_folder_wait_for_each_other(tmp_path: Path) -> None:
    corpus(tmp_path)
    asked = recipe_for(tmp_path)
    asked.prepared.mkdir(parents=True)
    with ThreadPoolExecutor(1) as second:
        with locked(asked.prepared / LOCK_FILE):
            waiting = second.submit(prepare, asked, False)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.5)
            assert [path.name for path in asked.prepared.iterdir()] == [LOCK_FILE]
        assert len(waiting.result().rows) == 7


def test_an_index_that_is_not_there_is_refused(tmp_path: Path) -> None:
    corpus(tmp_path)
    with pytest.raises(PreparedDataError, match="prepare"):
        Index.load(tmp_path)


def test_an_unknown_split_names_the_known_ones(tmp_path: Path) -> None:
    corpus(tmp_path)
    index = prepare(recipe_for(tmp_path), progress=False)
    with pytest.raises(DataError, match=r"'tset'.*dev, train"):
        index.split("tset")


def test_the_corpus_hash_names_content_not_shards(tmp_path: Path) -> None:
    utterances = corpus(tmp_path)
    first = prepare(recipe_for(tmp_path), progress=False)
    data = {"shard_utterances": 5, "prepared": str(tmp_path / "other")}
    assert prepare(recipe_for(tmp_path, data=data), False).corpus_sha256 == first.corpus_sha256
    manifest.write(
        tmp_path / "manifest.tsv", [replace(utterances[0], text="else"), *utterances[1:]]
    )
    assert prepare(recipe_for(tmp_path), False).corpus_sha256 != first.corpus_sha256


def test_workers_run_without_tensorflow_and_die_with_their_parent(tmp_path: Path) -> None:
    script = """
        import os, sys, time
        from pathlib import Path
        from speechrnn.corpora.utterance import Utterance
        from speechrnn.data import pool, shards
        from speechrnn.data.progress import Bar

        def look(one, settings):
            print(os.getpid(), "tensorflow" in sys.modules, flush=True)
            time.sleep(30)

        shards.prepare_utterance = look  # workers run this file too, under another name
        if __name__ == "__main__":
            plan = shards.Plan("a", (Utterance("a", Path("a"), "", "train"),) * 2, "")
            pool.bring_up_to_date(Path(sys.argv[1]), [plan], None, 2, Bar("", False))
    """
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(script))
    command = [sys.executable, path, tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        seen = [parent.stdout.readline().split() for _ in range(2)] if parent.stdout else []
        parent.send_signal(signal.SIGKILL)
    assert [loaded for _, loaded in seen] == ["False", "False"]
    deadline = time.monotonic() + 10
    while any(_alive(int(pid)) for pid, _ in seen) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(int(pid)) for pid, _ in seen)


def _alive(pid: int) -> bool:
    """Running: an orphan that ended may wait for whoever collects it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif("SPEECHRNN_DATA" not in os.environ, reason="SPEECHRNN_DATA is not set")
def test_recorded_speech_in_flac_and_opus_is_accepted_whole(tmp_path: Path) -> None:
    for corpus_name in ("an4", "librispeech"):
        listed = manifest.read(Path(os.environ["SPEECHRNN_DATA"]) / corpus_name / "manifest.tsv")
        some = listed[:: len(listed) // 20]
        manifest.write(tmp_path / "manifest.tsv", some)
        data = {"prepared": str(tmp_path / corpus_name), "max_seconds": 40}
        index = prepare(recipe_for(tmp_path, data=data), progress=False)
        assert index.rejected == {} and len(index.rows) == len(some)
        durations = {each.utterance_id: each.duration_s for each in some}
        for row in index.rows:  # the manifest rounds to 0.1 ms
            assert row.samples / RATE == pytest.approx(durations[row.utterance_id], abs=1e-3)
