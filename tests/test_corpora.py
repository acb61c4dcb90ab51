"""Any corpus by its name: folders, archives, and parts of recordings."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import RATE, whistle, write_recipe

from speechrnn import audio, corpora
from speechrnn.corpora import archives, recordings
from speechrnn.corpora.utterance import Member, Stretch, Utterance
from speechrnn.errors import AudioError, ManifestError

FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}


def recorded(path: Path, text: str = "abcd", seed: int = 0) -> np.ndarray:
    """A whistled recording as a file, in the format of its suffix; its waveform."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = whistle(text, seed)
    kind, subtype = FORMATS[path.suffix[1:]]
    soundfile.write(path, wave, RATE, format=kind, subtype=subtype)
    return wave


def written(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def packed(path: Path, files: dict[str, bytes], form: int = tarfile.USTAR_FORMAT) -> Path:
    """A tar archive of files by name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def encoded(suffix: str, text: str = "abcd", seed: int = 0) -> bytes:
    file = io.BytesIO()
    kind, subtype = FORMATS[suffix]
    soundfile.write(file, whistle(text, seed), RATE, format=kind, subtype=subtype)
    return file.getvalue()


def told(source: str | Path, *names: str) -> list[tuple[object, ...]]:
    return [tuple(getattr(u, name) for name in names) for u in corpora.read(source)]


def refusal(source: str | Path) -> str:
    with pytest.raises(ManifestError) as caught:
        corpora.read(source)
    return str(caught.value)


# Kaldi


@pytest.fixture
def kaldi(tmp_path: Path) -> Path:
    """Two recordings of several utterances each, cut by ``segments``."""
    for number, name in enumerate(("one", "two")):
        recorded(tmp_path / f"wav/{name}.flac", "abcdabcd", number)
    written(tmp_path / "wav.scp", "one wav/one.flac\ntwo wav/two.flac\n")
    written(tmp_path / "segments", "u1 one 0.1 0.7\nu2 one 0.7 -1\nu3 two 0 0.5\n")
    written(tmp_path / "text", "u1 first  words\nu2 second\nu3\n")
    written(tmp_path / "utt2spk", "u1 ann\nu2 ann\nu3 ben\n")
    return tmp_path


def test_kaldis_segments_are_parts_of_recordings(kaldi: Path) -> None:
    utterances = corpora.read(kaldi)
    assert [(u.utterance_id, u.text, u.speaker, u.within) for u in utterances] == [
        ("u1", "first words", "ann", Stretch(0.1, 0.7)),
        ("u2", "second", "ann", Stretch(0.7, None)),
        ("u3", "", "ben", Stretch(0.0, 0.5)),
    ]
    whole = audio.load(kaldi / "wav/one.flac")
    for utterance, part in zip(
        utterances, (slice(1600, 11_200), slice(11_200, None)), strict=False
    ):
        np.testing.assert_array_equal(recordings.load(utterance), whole[part])


def test_kaldis_commands_are_refused_by_line_and_never_run(kaldi: Path) -> None:
    canary = kaldi / "canary"
    written(kaldi / "wav.scp", f"one wav/one.flac\ntwo touch {canary}; cat wav/two.flac |\n")
    message = refusal(kaldi)
    assert "wav.scp, line 2 is a command" in message
    assert not canary.exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("wav.scp", "one wav/one.flac\n", "two is not in wav.scp"),
        ("wav.scp", "one wav/one.flac\ntwo raw.ark:1234\n", "line 2: 'raw.ark:1234' lies in"),
        ("segments", "u1 one 0 1\nu2 one 2 1\nu3 two 0 1\n", "segments, line 2: 2.0 s to 1.0 s"),
        ("segments", "u1 one 0 1\nu2 one x 1\nu3 two 0 1\n", "segments, line 2"),
        ("segments", "u1 one 0 1\nu2 one nan 1\nu3 two 0 1\n", "segments, line 2"),
        ("segments", "u1 one 0 1\nu3 two 0 1\n", "text, line 2: u2 is not in segments"),
        ("wav.scp", "one a.wav\ntwo b.wav\none c.wav\n", "wav.scp, line 3: one already stands"),
    ],
)
def test_a_kaldi_folder_that_disagrees_with_itself_is_refused_by_line(
    kaldi: Path, name: str, content: str, words: str
) -> None:
    written(kaldi / name, content)
    assert words in refusal(kaldi)


def test_folders_of_kaldi_folders_are_splits(tmp_path: Path) -> None:
    for name in ("train", "dev", "eval", "cards"):
        recorded(tmp_path / f"{name}.wav")
        written(tmp_path / name / "wav.scp", f"{name}1 {tmp_path / name}.wav\n")
        written(tmp_path / name / "text", f"{name}1 words\n")
    assert {split for (split,) in told(tmp_path, "split")} == {"train", "dev", "test", "cards"}


# LibriSpeech and Common Voice


def test_librispeech_is_read_with_its_subsets_as_splits(tmp_path: Path) -> None:
    for subset, speaker in (("train-clean-5", 11), ("dev-other", 22), ("test-clean", 33)):
        folder = tmp_path / subset / str(speaker) / "7"
        recorded(folder / f"{speaker}-7-0000.flac")
        recorded(folder / f"{speaker}-7-0001.opus")
        lines = f"{speaker}-7-0000 ONE TWO\n{speaker}-7-0001 THREE\n"
        written(folder / f"{speaker}-7.trans.txt", lines)
    found = told(tmp_path, "utterance_id", "text", "split", "speaker", "columns")
    assert ("22-7-0000", "ONE TWO", "dev", "22", {"subset": "dev-other"}) in found
    assert {each[2] for each in found} == {"train", "dev", "test"}
    assert len(found) == 6
    one = told(tmp_path / "dev-other", "utterance_id", "split")
    assert one == [("22-7-0000", "dev"), ("22-7-0001", "dev")]
    (tmp_path / "train-clean-5/11/7/11-7-0001.opus").unlink()
    assert "11-7.trans.txt, line 2: 11-7-0001 has no recording" in refusal(tmp_path)


def test_common_voice_is_read_with_its_clips_and_splits(tmp_path: Path) -> None:
    header = "client_id\tpath\tsentence\tup_votes\tage\tgender\taccents\tlocale\tsegment\n"
    for name in ("train", "dev", "test", "validated"):
        recorded(tmp_path / f"clips/common_voice_{name}.mp3")
        row = f'{name}er\tcommon_voice_{name}.mp3\t"Hi," she said\t2\ttwenties\t\t\ten\t\n'
        written(tmp_path / f"{name}.tsv", header + row)
    found = told(tmp_path, "utterance_id", "text", "split", "speaker", "path")
    assert found[1] == (
        "common_voice_dev",
        '"Hi," she said',
        "dev",
        "dever",
        tmp_path / "clips/common_voice_dev.mp3",
    )
    assert [each[2] for each in found] == ["train", "dev", "test"]
    ((path, columns),) = told(tmp_path / "validated.tsv", "path", "columns")
    assert path == tmp_path / "clips/common_voice_validated.mp3"
    assert columns["age"] == "twenties"
    assert len(audio.load(path)) > 0


# Archives


def test_webdataset_shards_are_read_in_every_format(tmp_path: Path) -> None:
    for split in ("train", "dev"):
        files = {"README": b"what this is"}
        for number, suffix in enumerate(FORMATS):
            files[f"in/{split}{number}.{suffix}"] = encoded(suffix, seed=number)
            if number % 2:
                files[f"in/{split}{number}.txt"] = "γειά\n".encode()
            else:
                facts = {"text": "words", "speaker": f"s{number}", "room": "hall", "more": [1]}
                files[f"in/{split}{number}.json"] = json.dumps(facts).encode()
        packed(tmp_path / f"{split}-000.tar", files)
    utterances = corpora.read(tmp_path)
    assert len(utterances) == 10
    assert told(tmp_path, "utterance_id", "text", "split", "speaker", "columns")[5:7] == [
        ("in/train0", "words", "train", "s0", {"room": "hall"}),
        ("in/train1", "γειά", "train", "", {}),
    ]
    for utterance in utterances:
        suffix = Path(utterance.within.name).suffix
        seed = list(FORMATS).index(suffix[1:])
        alone = tmp_path / f"alone{suffix}"
        recorded(alone, seed=seed)
        there = pickle.loads(pickle.dumps(utterance))  # as a worker process gets it
        np.testing.assert_array_equal(recordings.load(there), audio.load(alone))
        assert recordings.header(utterance) == (
            soundfile.info(alone).samplerate,
            soundfile.info(alone).channels,
        )


def test_shards_are_named_by_a_range(tmp_path: Path) -> None:
    for number in range(3):
        files = {f"k{number}.wav": encoded("wav"), f"k{number}.txt": b"text"}
        packed(tmp_path / f"train-{number:03d}.tar", files)
    found = told(f"{tmp_path}/train-{{000..002}}.tar", "utterance_id", "path")
    assert found[2] == ("k2", tmp_path / "train-002.tar")
    assert "train-003.tar" in refusal(f"{tmp_path}/train-{{000..003}}.tar")
    assert len(archives.expand("a{0..1}/b_OP_08..11_CL_.tar")) == 8
    assert archives.expand("b_OP_08..09_CL_.tar") == [Path("b08.tar"), Path("b09.tar")]
    assert "must rise" in refusal("x{3..1}.tar")


def test_nemos_tarred_manifest_finds_its_recordings(tmp_path: Path) -> None:
    rows = []
    for shard in range(2):
        packed(tmp_path / f"audio_{shard}.tar", {"same.wav": encoded("wav", seed=shard)})
        row = {"audio_filepath": "same.wav", "text": f"t{shard}", "duration": 1, "shard_id": shard}
        rows.append(json.dumps({**row, "utterance_id": f"u{shard}"}))
    path = written(tmp_path / "tarred_audio_manifest.json", "\n".join(rows))
    for source in (path, tmp_path):
        for seed, utterance in enumerate(corpora.read(source)):
            np.testing.assert_allclose(
                recordings.load(utterance), whistle("abcd", seed), atol=1 / 32_768
            )
    written(path, rows[0].replace("same", "other"))
    assert "line 1: audio_0.tar holds no other.wav" in refusal(path)
    written(path, rows[0].replace('"shard_id": 0', '"shard_id": 7'))
    assert "line 1: audio_7.tar is not beside it" in refusal(path)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a.wav": b"x"}, "a has no transcript; add a.txt"),
        ({"a.wav": b"x", "a.json": b"{"}, "a.json is not JSON"),
        ({"a.wav": b"x", "a.json": b"[]"}, "a.json is no JSON object"),
        ({"a.wav": b"x", "a.txt": b"\xff"}, "a.txt is not UTF-8"),
        ({"a.wav": b"x", "a.mp3": b"x", "a.txt": b"t"}, "a has 2 recordings"),
        ({"a.txt": b"t"}, "holds no utterance"),
    ],
)
def test_samples_that_are_none_are_refused(
    tmp_path: Path, files: dict[str, bytes], words: str
) -> None:
    assert words in refusal(packed(tmp_path / "a.tar", files))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_an_archive_that_is_cut_is_refused_by_name_wherever_it_is_cut(
    tmp_path: Path, form: int
) -> None:
    name = "long" * 40 + "ü" if form != tarfile.USTAR_FORMAT else "short"
    whole = packed(tmp_path / "x.tar", {f"{name}.wav": bytes(3000), f"{name}.txt": b"t"}, form)
    content = whole.read_bytes()
    end = -(-len(content.rstrip(b"\0")) // 512) * 512  # of the last member, with its padding
    with archives.Archive(whole) as archive:
        assert len(list(archive.members())) == 2
    for size in [*range(512, end, 512), *range(300, end, 777), end]:
        whole.write_bytes(content[:size])
        with archives.Archive(whole) as archive, pytest.raises(ManifestError, match=r"x\.tar"):
            list(archive.members())


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    path = packed(tmp_path / "x.tar", {"a.wav": b"x", "a.txt": b"t"})
    content = bytearray(path.read_bytes())
    content[1024 + 3] ^= 1  # in the name of the second member
    path.write_bytes(content)
    assert "x.tar is damaged at byte 1024" in refusal(path)


def test_a_packed_archive_is_refused_with_what_to_do(tmp_path: Path) -> None:
    plain = packed(tmp_path / "x.tar", {"a.wav": b"x", "a.txt": b"t"})
    with tarfile.open(tmp_path / "y.tar", "w:gz") as tar:
        tar.add(plain, arcname="a.wav")
    assert "compressed with gzip" in refusal(tmp_path / "y.tar")


def test_an_archive_that_was_cut_since_is_named_with_its_member(tmp_path: Path) -> None:
    path = packed(tmp_path / "x.tar", {"a.wav": encoded("wav"), "a.txt": b"t"})
    (utterance,) = corpora.read(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(AudioError, match=r"x\.tar:a\.wav is truncated") as caught:
        recordings.load(utterance)
    assert caught.value.reason == "truncated"
    path.unlink()
    with pytest.raises(AudioError, match="does not exist") as caught:
        recordings.load(utterance)
    assert caught.value.reason == "missing"


def test_damaged_audio_in_an_archive_is_refused_as_in_a_file(tmp_path: Path) -> None:
    for suffix in FORMATS:
        content = encoded(suffix)
        path = packed(tmp_path / "x.tar", {f"a.{suffix}": content[: len(content) // 2]})
        with archives.Archive(path) as archive:
            (member,) = archive.members()
        with pytest.raises(AudioError, match=rf"x\.tar:a\.{suffix}") as caught:
            recordings.load(Utterance("a", path, "", "train", within=member))
        assert caught.value.reason == "truncated"


# Parts of recordings, and what tells that one changed


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("rate", [8_000, RATE])
def test_a_part_of_a_recording_is_the_same_as_in_the_whole(
    tmp_path: Path, suffix: str, rate: int
) -> None:
    path = tmp_path / f"a.{suffix}"
    recorded(path, "abcdabcdabcd")
    stored = soundfile.info(path).samplerate  # Opus has its own
    whole = audio.load(path, stored)
    part = audio.load(path, stored, start_s=0.5, end_s=1.25)
    np.testing.assert_array_equal(part, whole[round(0.5 * stored) : round(1.25 * stored)])
    resampled = recordings.load(Utterance("a", path, "", "", within=Stretch(0.5, 1.25)), rate)
    assert abs(len(resampled) - 0.75 * rate) <= 1


def test_a_part_behind_the_end_is_refused(tmp_path: Path) -> None:
    wave = recorded(tmp_path / "a.wav")
    end = len(wave) / RATE
    load = audio.load
    assert len(load(tmp_path / "a.wav", start_s=end - 0.25, end_s=end + 0.4)) == RATE // 4
    for start, stop in ((0.0, end + 0.6), (end + 1, end + 2), (end + 1, None)):
        with pytest.raises(AudioError) as caught:
            load(tmp_path / "a.wav", start_s=start, end_s=stop)
        assert caught.value.reason in ("truncated", "empty")
    with pytest.raises(AudioError, match=r"longer than 0\.1 s"):
        load(tmp_path / "a.wav", start_s=0.1, end_s=0.3, max_seconds=0.1)


def test_bytes_and_files_load_as_the_file_does(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    recorded(path)
    expected = audio.load(path)
    np.testing.assert_array_equal(audio.load(path.read_bytes()), expected)
    with path.open("rb") as file:
        np.testing.assert_array_equal(audio.load(file), expected)
    with pytest.raises(AudioError, match="the recording is an empty file"):
        audio.load(b"")
    with pytest.raises(AudioError, match="a joke is no recording"):
        audio.load(b"not audio", name="a joke")


def test_the_state_of_a_recording_changes_with_it_and_its_place(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    recorded(path)
    places = [None, Member("a", 0, 1), Member("a", 1, 1), Stretch(0, 1), Stretch(0, None)]
    states = [recordings.state(Utterance("a", path, "", "", within=place)) for place in places]
    assert len({json.dumps(state) for state in states}) == len(places)
    utterance = Utterance("a", path, "", "")
    before = recordings.state(utterance)
    assert recordings.state(utterance) == before
    os.utime(path, ns=(1, 1))
    assert recordings.state(utterance) != before
    path.unlink()
    assert recordings.state(utterance) != before


# Names


def test_a_folder_with_a_manifest_is_named_by_the_folder(whistles: Path) -> None:
    assert corpora.read(whistles.parent) == corpora.read(whistles)
    assert corpora.is_one(whistles.parent)
    assert corpora.is_one("a.CSV")
    assert corpora.is_one("tfds:ljspeech")
    assert not corpora.is_one(Path(__file__).parent)
    assert "none of manifest.tsv" in refusal(Path(__file__).parent)


def test_a_corpus_in_tars_is_prepared_evaluated_and_told_about(
    whistles: Path, trained: Path, tmp_path: Path, speechrnn
) -> None:
    chosen = [*corpora.read(whistles)[:6], *corpora.read(whistles)[-6:]]
    for split in ("train", "dev"):
        files = {}
        for utterance in (u for u in chosen if u.split == split):
            name = utterance.utterance_id
            files |= {
                f"{name}.wav": utterance.path.read_bytes(),
                f"{name}.txt": utterance.text.encode(),
            }
        packed(tmp_path / f"{split}.tar", files)
    of_files = tmp_path / "files.csv"
    of_files.write_text(
        "id,path,text\n"
        + "".join(f"{u.utterance_id},{u.path},{u.text}\n" for u in chosen if u.split == "dev")
    )
    code, out, _ = speechrnn("evaluate", trained, tmp_path, "--split", "dev", "--json")
    same = speechrnn("evaluate", trained, of_files, "--json")[1]
    assert code == 0
    assert json.loads(out)["scores"] == json.loads(same)["scores"]
    code, out, _ = speechrnn("info", tmp_path)
    assert (code, "6 utterances" in out) == (0, True)
    code, out, _ = speechrnn("doctor", tmp_path, "--json")
    assert code == 0
    assert "unreadable" not in out


def test_a_corpus_in_tars_is_prepared_once_and_again_when_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorflow")
    from speechrnn import recipe
    from speechrnn.data import prepare

    def pack(texts: dict[str, str]) -> None:
        for split in ("train", "dev"):
            files = {}
            for name, text in texts.items():
                files[f"{split}{name}.flac"] = encoded("flac")
                files[f"{split}{name}.txt"] = text.encode()
            packed(tmp_path / "shards" / f"{split}.tar", files)

    loaded = recipe.load(
        write_recipe(tmp_path, tmp_path / "shards", data={"workers": 2}),
    )
    pack({"a": "ab", "b": "cd", "c": "abcd"})
    index = prepare.prepare(loaded, progress=False)
    assert {split: len(index.split(split)) for split in index.splits} == {"train": 3, "dev": 3}
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "prepare", lambda *_: pytest.fail("it was prepared"))
        assert prepare.prepared(loaded).corpus_sha256 == index.corpus_sha256
    pack({"a": "ab", "b": "cd", "c": "abcd", "d": "dd"})
    assert len(prepare.prepared(loaded, progress=False).split("train")) == 4


def test_the_fingerprint_of_a_corpus_changes_with_what_is_read(
    kaldi: Path, tmp_path: Path, whistles: Path
) -> None:
    before = corpora.fingerprint(kaldi)
    assert corpora.fingerprint(kaldi) == before
    written(kaldi / "text", "u1 other words\n")
    assert corpora.fingerprint(kaldi) != before
    path = written(tmp_path / "m" / "manifest.tsv", whistles.read_text())
    # A manifest's is that of its content: a copy elsewhere has the same.
    assert corpora.fingerprint(path) == corpora.fingerprint(whistles)
    assert len({corpora.fingerprint(each) for each in (path, path.parent, kaldi)}) == 3
    with pytest.raises(OSError):
        corpora.fingerprint(tmp_path / "none.tsv")


def test_json_without_end_is_refused(tmp_path: Path) -> None:
    deep = b'{"a":' * 100_000
    (tmp_path / "deep.json").write_bytes(deep)
    listed = tmp_path / "listed.jsonl"
    listed.write_bytes(b'{"audio_filepath": "a.wav", "text": "a"}\n' + deep)
    archive = packed(tmp_path / "deep.tar", {"a.wav": b"", "a.json": deep})
    for source in (tmp_path / "deep.json", listed, archive):
        with pytest.raises(ManifestError, match="is not JSON"):
            corpora.read(source)


def test_nemos_manifest_that_names_a_path_outside_of_its_archives_is_refused(
    tmp_path: Path,
) -> None:
    packed(tmp_path / "audio_0.tar", {"a.wav": b""})
    row = {"audio_filepath": "/elsewhere/a.wav", "text": "a", "shard_id": 0}
    (tmp_path / "listed.json").write_text(json.dumps(row))
    with pytest.raises(ManifestError, match=r"line 1: audio_0.tar holds no /elsewhere/a.wav"):
        corpora.read(tmp_path / "listed.json")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.m4a", "a.txt"], "a.m4a is no recording that is read here"),
        (["x/1.5_a.wav", "x/1.5_a.txt"], "5_a.wav: a sample's name ends at its first dot"),
    ],
)
def test_no_sample_of_a_shard_is_passed_over(
    tmp_path: Path, names: list[str], message: str
) -> None:
    sound = {"ok.wav": b"", "ok.txt": b"fine", "about.json": b"{}"}
    archive = packed(tmp_path / "train.tar", sound | dict.fromkeys(names, b"a"))
    with pytest.raises(ManifestError, match=message):
        corpora.read(archive)


def test_a_file_that_a_shard_holds_twice_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "train.tar"
    with tarfile.open(archive, "w") as tar:
        for name in ("a.wav", "a.txt", "a.txt"):
            tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(ManifestError, match=r"a\.txt stands there twice"):
        corpora.read(archive)


def test_nemos_offsets_are_parts_of_recordings(tmp_path: Path) -> None:
    recorded(tmp_path / "long.wav")
    whole = audio.load(tmp_path / "long.wav")
    rows = [
        {"audio_filepath": "long.wav", "text": f"t{at}", "offset": at, "duration": 0.25}
        for at in (0, 0.25)
    ]
    first, second = corpora.read(written(tmp_path / "parts.json", "\n".join(map(json.dumps, rows))))
    assert (first.utterance_id, second.utterance_id) == ("long-0", "long-0.25")
    quarter = RATE // 4
    np.testing.assert_array_equal(recordings.load(first), whole[:quarter])
    np.testing.assert_array_equal(recordings.load(second), whole[quarter : 2 * quarter])
