"""TensorFlow datasets: read by name, record by record; AN4 and any corpus as one."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import unittest
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import RATE, REPOSITORY, whistle

from speechrnn import audio, corpora, recipe
from speechrnn.corpora import an4, manifest, recordings
from speechrnn.errors import AudioError, DataError, ManifestError

tfds = pytest.importorskip("tensorflow_datasets")

from speechrnn.corpora import tfds_an4, tfds_export  # noqa: E402  they need it

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorflow_datasets")


@pytest.fixture(scope="module")
def stored(tmp_path_factory, whistles: Path) -> Path:
    """The whistles as a TensorFlow dataset: the folder of datasets."""
    out = tmp_path_factory.mktemp("datasets")
    folder = tfds_export.store(whistles, out, "whistled")
    assert folder == out / "whistled" / "1.0.0"
    return out


@pytest.fixture(scope="module")
def several(tmp_path_factory) -> Path:
    """A dataset of several features of text and of audio in every form, in several files."""
    out = tmp_path_factory.mktemp("several")
    features = tfds.features.FeaturesDict(
        {
            "speech": tfds.features.Audio(shape=(None,), dtype=np.int64, sample_rate=8_000),
            "stereo": tfds.features.Audio(shape=(None, 2), dtype=np.float32, sample_rate=RATE),
            "file": tfds.features.Audio(
                file_format="wav", shape=(None,), dtype=np.int16, sample_rate=RATE, lazy_decode=True
            ),
            "rateless": tfds.features.Audio(shape=(None,), dtype=np.int16),
            "text": tfds.features.Text(),
            "text_normalized": tfds.features.Text(),
            "speaker_id": np.int64,
        }
    )

    def examples():
        for number in range(9):
            wave = whistle("ab", number)
            pcm = audio.to_pcm16(wave)
            file = io.BytesIO()
            soundfile.write(file, pcm, RATE, format="WAV")
            file.seek(0)
            yield (
                f"k{number}",
                {
                    "speech": pcm.astype(np.int64),
                    "stereo": np.stack([wave, 0 * wave], axis=1),
                    "file": file,
                    "rateless": pcm,
                    "text": f"number  {number}",
                    "text_normalized": f"n{number}",
                    "speaker_id": number % 2,
                },
            )

    builder = tfds.dataset_builders.AdhocBuilder(
        name="several",
        version="1.0.0",
        features=features,
        split_datasets={"train": examples(), "validation": examples()},
        data_dir=out,
        file_format="tfrecord",
    )
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=3))
    return out


def as_tensorflow_reads(out: Path, name: str, split: str) -> list[dict]:
    return list(tfds.as_numpy(tfds.load(name, split=split, data_dir=out)))


def test_a_corpus_becomes_a_dataset_that_tfds_loads(stored: Path, whistles: Path) -> None:
    originals = {u.utterance_id: u for u in manifest.read(whistles)}
    for split in ("train", "dev"):
        loaded = as_tensorflow_reads(stored, "whistled", split)
        assert len(loaded) == sum(u.split == split for u in originals.values())
        for example in loaded:
            original = originals[example["id"].decode()]
            assert example["text"].decode() == original.text
            assert example["speaker"].decode() == original.speaker
            expected = audio.to_pcm16(audio.load(original.path))
            np.testing.assert_array_equal(example["audio"], expected)


def test_others_load_it_from_its_folder_without_this_package(stored: Path) -> None:
    script = f"""
import sys
import tensorflow_datasets as tfds
builder = tfds.builder_from_directory({str(stored / "whistled" / "1.0.0")!r})
assert builder.info.features["audio"].sample_rate == 16000
print(builder.info.splits["train"].num_examples, "speechrnn" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["60", "False"], done.stderr


def test_what_is_read_back_is_the_corpus(stored: Path, whistles: Path) -> None:
    originals = {u.utterance_id: u for u in manifest.read(whistles)}
    found = corpora.read(f"tfds:whistled@{stored}")
    assert {u.utterance_id for u in found} == originals.keys()
    for utterance in found:
        original = originals[utterance.utterance_id]
        for name in ("text", "split", "speaker"):
            assert getattr(utterance, name) == getattr(original, name)
        there = pickle.loads(pickle.dumps(utterance))
        # 16-bit files: what is stored is what they hold.
        np.testing.assert_array_equal(recordings.load(there), recordings.load(original))
    assert len({json.dumps(recordings.state(u)) for u in found}) == len(found)
    assert recordings.header(found[0]) == (RATE, 1)


def test_splits_are_read_by_name(stored: Path) -> None:
    found = corpora.read(f"tfds:whistled@{stored}?splits=dev")
    assert [u.split for u in found] == ["dev"] * 12
    assert found == [u for u in corpora.read(f"tfds:whistled@{stored}") if u.split == "dev"]
    with pytest.raises(ManifestError, match="no split 'clean'; it has train, dev"):
        corpora.read(f"tfds:whistled@{stored}?splits=dev,clean")


@pytest.mark.parametrize(
    ("feature", "form", "rate"),
    [("speech", "numbers", 8_000), ("stereo", "numbers", RATE), ("file", "file", RATE)],
)
def test_records_are_those_that_tensorflow_reads_in_the_same_order(
    several: Path, feature: str, form: str, rate: int
) -> None:
    source = f"tfds:several:1.0.0@{several}?audio={feature}"
    found = [u for u in corpora.read(source) if u.split == "dev"]
    decoders = {name: tfds.decode.SkipDecoding() for name in ("file",)}
    builder = tfds.builder_from_directory(several / "several" / "1.0.0")
    read = tfds.ReadConfig(interleave_cycle_length=1)
    expected = builder.as_dataset(split="validation", decoders=decoders, read_config=read)
    pairs = list(zip(found, tfds.as_numpy(expected), strict=True))
    assert len(pairs) == 9
    for utterance, example in pairs:
        assert utterance.text == " ".join(example["text"].decode().split())
        assert utterance.speaker == str(example["speaker_id"])
        assert utterance.within.form == form
        waveform = recordings.load(utterance, rate)
        content = example[feature]
        if form == "file":
            content = soundfile.read(io.BytesIO(content), dtype="int16")[0]
        if feature == "stereo":
            np.testing.assert_allclose(waveform, content.mean(axis=1), atol=1e-7)
        else:
            np.testing.assert_array_equal(waveform, content.astype(np.float32) / 32_768)


def test_features_are_named_where_there_are_several_or_none(several: Path) -> None:
    def refusal(options: str) -> str:
        with pytest.raises(ManifestError) as caught:
            corpora.read(f"tfds:several@{several}{options}")
        return str(caught.value)

    assert "4 features of audio (" in refusal("")
    assert "speech (Audio)" in refusal("")
    assert "?audio=NAME" in refusal("?audio=text")
    assert "does not say the sample rate of rateless" in refusal("?audio=rateless")
    assert "no option txt" in refusal("?txt=text")
    read = corpora.read(
        f"tfds:several@{several}?audio=rateless&sample_rate=16000&text=text_normalized"
    )
    assert read[0].text.startswith("n")
    assert len(recordings.load(read[0], 8_000)) == pytest.approx(len(whistle("ab", 0)) / 2, rel=0.3)
    with pytest.raises(ManifestError, match="cannot be had"):
        corpora.read(f"tfds:nothing_of_this_name@{several}")
    with pytest.raises(ManifestError, match="names no dataset"):
        corpora.read("tfds:")


def test_a_dataset_that_is_cut_or_damaged_is_refused_by_name(
    stored: Path, whistles: Path, tmp_path: Path
) -> None:
    found = corpora.read(f"tfds:whistled@{stored}")
    path = found[0].path
    whole = path.read_bytes()
    copy = tmp_path / path.name
    copy.write_bytes(whole[:-100])
    with pytest.raises(AudioError) as caught:
        recordings.load(replace(found[59], path=copy))
    assert str(copy) in str(caught.value)
    copy.unlink()
    with pytest.raises(AudioError, match="does not exist"):
        recordings.load(replace(found[0], path=copy))
    place = found[0].within
    broken = bytearray(whole)
    broken[place.offset : place.offset + 40] = bytes(40)
    copy.write_bytes(broken)
    with pytest.raises(AudioError, match=r"train\[0\] is damaged"):
        recordings.load(replace(found[0], path=copy))


def test_any_changed_byte_of_a_record_is_refused_or_gives_bounded_audio(
    stored: Path, tmp_path: Path
) -> None:
    """Nothing but a typed error leaves the walk through a record's structure."""
    utterance = corpora.read(f"tfds:whistled@{stored}")[0]
    place = utterance.within
    with utterance.path.open("rb") as file:
        file.seek(place.offset)
        record = file.read(place.size)
    rng = np.random.default_rng(0)
    path = tmp_path / "record"
    outcomes = set()
    for trial in range(300):
        changed = bytearray(record)
        for at in rng.integers(0, 60 if trial % 2 else len(record), 3):
            changed[at] = rng.integers(256)
        path.write_bytes(changed)
        one = replace(utterance, path=path, within=replace(place, offset=0))
        try:
            waveform = recordings.load(one, max_seconds=20)
            assert len(waveform) <= 20 * RATE
            outcomes.add("audio")
        except AudioError as error:
            assert str(path) in str(error)
            outcomes.add(error.reason)
    assert {"audio", "unreadable"} <= outcomes


@pytest.mark.parametrize(
    ("limit", "reason"), [({"max_seconds": 0.1}, "too_long"), ({"sample_rate": RATE}, None)]
)
def test_limits_hold_as_for_files(stored: Path, limit: dict, reason: str | None) -> None:
    utterance = corpora.read(f"tfds:whistled@{stored}")[0]
    if reason is None:
        assert len(recordings.load(utterance, **limit)) > 0
        return
    with pytest.raises(AudioError) as caught:
        recordings.load(utterance, **limit)
    assert caught.value.reason == reason


def test_a_recipe_keeps_the_name_of_a_dataset(tmp_path: Path) -> None:
    tree = {"name": "x", "output": "runs/x", "data": {"manifest": "tfds:a/b@gs://bucket/c?text=t"}}
    loaded = recipe.from_dict(tree)
    assert loaded.data.manifest == "tfds:a/b@gs://bucket/c?text=t"
    assert recipe.from_dict(loaded.model_dump(mode="json")) == loaded
    tree["data"]["manifest"] = "folder/m.tsv"
    loaded = recipe.from_dict(tree)
    assert loaded.data.manifest == Path("folder/m.tsv")
    assert recipe.from_dict(loaded.model_dump(mode="json")) == loaded


def test_a_dataset_is_not_overwritten_and_ids_stand_once(
    stored: Path, whistles: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="is there already"):
        tfds_export.store(whistles, stored, "whistled")
    path = tmp_path / "m.csv"
    path.write_text("id,path,text\na,1.wav,x\na,2.wav,y\n")
    with pytest.raises(ManifestError, match="line 3: utterance_id a already stands"):
        tfds_export.store(path, tmp_path / "out", "twice")


# AN4

SPEAKERS = {"train": ["fabc", "mdef", "fbbh"], "test": ["mghi"]}  # fbbh is one of ours for dev


def miniature(folder: Path) -> Path:
    """What AN4's archive holds, unpacked, with four utterances."""
    (folder / "an4" / "etc").mkdir(parents=True)
    for part, speakers in SPEAKERS.items():
        names = [f"an4_clstk/{speaker}/cen1-{speaker}-b" for speaker in speakers]
        lines = [f"<s> WORDS OF {name[-6:-2]} </s> ({Path(name).name})" for name in names]
        etc = folder / "an4" / "etc"
        (etc / f"an4_{part}.fileids").write_text("\n".join(names) + "\n")
        (etc / f"an4_{part}.transcription").write_text("\n".join(lines) + "\n")
        for number, name in enumerate(names):
            path = folder / "an4" / "wav" / f"{name}.sph"
            path.parent.mkdir(parents=True, exist_ok=True)
            wave = whistle("ab", number)
            soundfile.write(path, wave, RATE, format="NIST", subtype="PCM_16")
    return folder


@pytest.mark.parametrize(
    ("config", "splits"),
    [("official", {"train": 3, "test": 1}), ("with_dev", {"train": 2, "dev": 1, "test": 1})],
)
def test_an4_is_a_dataset_as_tfds_tests_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str, splits: dict[str, int]
) -> None:
    pytest.importorskip("dill", reason="tfds.testing imports it, and does not ask for it")
    monkeypatch.setattr(an4, "SIZES", {"train": 2, "dev": 1, "test": 1})

    class Case(tfds.testing.DatasetBuilderTestCase):
        DATASET_CLASS = tfds_an4.An4
        EXAMPLE_DIR = str(miniature(tmp_path))
        SPLITS = splits
        BUILDER_CONFIG_NAMES_TO_TEST = (config,)
        SKIP_CHECKSUMS = True  # its publisher gives none

    out = io.StringIO()
    suite = unittest.TestLoader().loadTestsFromTestCase(Case)
    result = unittest.TextTestRunner(stream=out).run(suite)
    assert result.wasSuccessful(), out.getvalue()
    assert result.testsRun - len(result.skipped) >= 3


def test_an_sphere_file_that_is_cut_is_refused(tmp_path: Path) -> None:
    """libsndfile reads what is left of it without a word."""
    path = next(miniature(tmp_path).rglob("*.sph"))
    content = path.read_bytes()
    path.write_bytes(content[:-200])
    assert soundfile.info(path).frames > 0
    with pytest.raises(AudioError, match="truncated") as caught:
        audio.load(path)
    assert caught.value.reason == "truncated"


def test_the_script_makes_a_dataset(tmp_path: Path, whistles: Path) -> None:
    script = REPOSITORY / "pipelines" / "make_tfds.py"
    command = [sys.executable, script, tmp_path / "none.csv", tmp_path, "--name", "x"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert (done.returncode, "cannot read the manifest" in done.stderr) == (3, True)
