from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speechrnn.corpora import manifest
from speechrnn.corpora.manifest import Utterance
from speechrnn.errors import ManifestError


def listed(folder: Path, content: str, name: str = "manifest.tsv") -> list[Utterance]:
    (folder / name).write_bytes(content.encode())
    return manifest.read(folder / name)


def refusal(folder: Path, content: str) -> str:
    with pytest.raises(ManifestError) as caught:
        listed(folder, content)
    return str(caught.value)


def test_our_tsv_is_read_with_every_field(tmp_path: Path) -> None:
    content = (
        "split\tutterance_id\tspeaker\tpath\tduration_s\ttext\textra\n"
        "dev\ta\tann\twav/a.wav\t1.5\tone two\tkept  too\n"
        "test\tb\t\t/data/b.flac\t\t\n"
    )
    assert listed(tmp_path, content) == [
        Utterance(
            *("a", tmp_path / "wav/a.wav", "one two", "dev", "ann", 1.5, 2, {"extra": "kept too"})
        ),
        Utterance("b", Path("/data/b.flac"), "", "test", "", None, 3),
    ]


def test_deepspeech_csv_is_read_with_its_quoting(tmp_path: Path) -> None:
    content = 'wav_filename,wav_filesize,transcript\r\nclips/a.wav,99,"yes, ""please"""\r\n'
    (only,) = listed(tmp_path, content)
    assert (only.utterance_id, only.text) == ("clips/a", 'yes, "please"')
    assert only.path == tmp_path / "clips/a.wav"


def test_nemo_json_lines_are_read(tmp_path: Path) -> None:
    rows = [
        {"audio_filepath": "a.wav", "duration": 2.5, "text": "caf\u00e9"},
        {"audio_filepath": "/b.wav", "duration": None, "text": "two\nlines"},
    ]
    first, second = listed(tmp_path, "\n\n".join(map(json.dumps, rows)))
    assert (first.text, first.duration_s, first.line) == ("café", 2.5, 1)
    assert (second.text, second.duration_s, second.line) == ("two lines", None, 3)


def test_other_columns_are_kept_where_they_say_something(tmp_path: Path) -> None:
    table = "path,text,Room,noise,\na.wav,one,Hall,,7\nb.wav,two,,street,8\n"
    assert [u.columns for u in listed(tmp_path, table)] == [{"Room": "Hall"}, {"noise": "street"}]
    rows = [
        {"audio_filepath": "a.wav", "text": "one", "room": 3, "clean": True, "words": ["one"]},
        {"audio_filepath": "b.wav", "text": "two", "room": None, "meta": {"a": 1}},
    ]
    found = listed(tmp_path, "\n".join(map(json.dumps, rows)))
    assert [u.columns for u in found] == [{"room": "3", "clean": "True"}, {}]


def test_utterances_are_hashed_by_what_they_are_and_sent_to_other_processes(tmp_path: Path) -> None:
    (only,) = listed(tmp_path, "path,text,room\na.wav,one,hall\n")
    assert {only, pickle.loads(pickle.dumps(only))} == {only}


@pytest.mark.parametrize("path", ["Audio", "file", "filename", "wav", "path", " audio_filepath "])
@pytest.mark.parametrize("text", ["text", "Transcript", "transcription", "SENTENCE"])
@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_usual_column_names_and_separators_are_known(
    tmp_path: Path, path: str, text: str, separator: str
) -> None:
    (only,) = listed(tmp_path, f"{text}{separator}{path}\nhello{separator}x/y.wav\n")
    assert (only.path, only.text) == (tmp_path / "x/y.wav", "hello")


def test_a_byte_order_mark_changes_nothing(tmp_path: Path) -> None:
    content = "path\ttext\na.wav\tβήτα\n"
    assert listed(tmp_path, "\ufeff" + content) == listed(tmp_path, content)


def test_quotes_in_a_tsv_are_ordinary_characters(tmp_path: Path) -> None:
    texts = [u.text for u in listed(tmp_path, 'path\ttext\na.wav\t"hi\nb.wav\tthere"\n')]
    assert texts == ['"hi', 'there"']


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["empty"]),
        ("path\ttext\n", ["no utterance"]),
        ("path,words\na.wav,hi\n", ["'words'", "text", "transcript"]),
        ("hello\n", ["'hello'", "path", "text"]),
        ('{"audio_filepath": "a.wav"}', ["line 1", "text"]),
        ('{"audio_filepath": "a.wav", "text": "a"}\n{oops', ["line 2", "JSON"]),
        ('{"audio_filepath": "a.wav", "text": "\\ud800"}', ["line 1", "Unicode"]),
        ("path,text\na.wav,one, two\n", ["line 2", "3 fields"]),
        ("path\ttext\na.wav\tok\n\thi\n", ["line 3", "no recording"]),
        ("path\ttext\tsplit\na.wav\thi\t../up\n", ["line 2", "'../up'"]),
        ("path\ttext\tduration\na.wav\thi\tlong\n", ["line 2", "'long'"]),
    ],
)
def test_a_malformed_manifest_is_refused_by_line(
    tmp_path: Path, content: str, words: list[str]
) -> None:
    message = refusal(tmp_path, content)
    assert all(word in message for word in [*words, "manifest.tsv"]), message


def test_a_missing_manifest_and_another_encoding_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"none\.tsv"):
        manifest.read(tmp_path / "none.tsv")
    (tmp_path / "excel.csv").write_bytes("path,text\na.wav,hi\n".encode("utf-16"))
    with pytest.raises(ManifestError, match="UTF-8"):
        manifest.read(tmp_path / "excel.csv")


def rows(count: int, speakers: int = 0) -> str:
    lines = [f"{i:04d}.wav\ttext\t{f's{i % speakers}' if speakers else ''}" for i in range(count)]
    return "\n".join(["path\ttext\tspeaker", *lines]) + "\n"


def test_missing_splits_are_drawn_near_the_fraction_whatever_the_order(tmp_path: Path) -> None:
    utterances = listed(tmp_path, rows(2_000))
    in_dev = {u.utterance_id for u in utterances if u.split == "dev"}
    # Binomial(2000, 0.1): 5 standard deviations are 67.
    assert abs(len(in_dev) - 200) < 67
    assert {u.split for u in utterances} == {"train", "dev"}
    header, *lines = rows(2_000).splitlines()
    half = listed(tmp_path, "\n".join([header, *lines[::-2]]))
    assert {u.utterance_id for u in half if u.split == "dev"} == in_dev & {
        u.utterance_id for u in half
    }


def test_a_speaker_is_never_in_two_splits(tmp_path: Path) -> None:
    utterances = listed(tmp_path, rows(500, speakers=25))
    splits = {(u.speaker, u.split) for u in utterances}
    assert len(splits) == 25
    assert {split for _, split in splits} == {"train", "dev"}


@pytest.mark.parametrize("fraction", [1e-9, 1 - 1e-9])
@pytest.mark.parametrize("speakers", [0, 1, 2, 3])
def test_both_splits_have_an_utterance(tmp_path: Path, fraction: float, speakers: int) -> None:
    path = tmp_path / "manifest.tsv"
    path.write_text(rows(3, speakers))
    assert {u.split for u in manifest.read(path, fraction)} == {"train", "dev"}


def test_given_splits_are_kept_as_they_are(tmp_path: Path) -> None:
    content = "path\ttext\tsplit\na.wav\ta\ttest\nb.wav\tb\ttest\n"
    assert [u.split for u in listed(tmp_path, content)] == ["test", "test"]


def test_the_first_of_an_id_is_kept_and_the_later_ones_are_named_with_their_lines(
    tmp_path: Path,
) -> None:
    utterances = listed(tmp_path, "id,path,text\na,1.wav,x\nb,2.wav,x\na,3.wav,x\n")
    kept, [(later, message)] = manifest.without_duplicates(utterances)
    assert [u.path.name for u in kept] == ["1.wav", "2.wav"]
    assert later.path.name == "3.wav"
    assert message.startswith("line 4: utterance_id a already stands in line 2")


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(WORDS, WORDS, st.sampled_from(["train", "dev"])), min_size=1))
def test_what_is_written_is_read_back(tmp_path: Path, drawn: list[tuple[str, str, str]]) -> None:
    originals = [
        Utterance(
            *(f"u{i}", tmp_path / f"a b/ü{i}.wav", text, split, speaker, i / 4, i + 2),
            columns={"room": speaker, "n": str(i)},
        )
        for i, (text, speaker, split) in enumerate(drawn)
    ]
    path = tmp_path / "sub" / "manifest.tsv"
    manifest.write(path, originals)
    for original, back in zip(originals, manifest.read(path), strict=True):
        assert back.path.resolve() == original.path
        assert (back.text, back.speaker) == (
            " ".join(original.text.split()),
            " ".join(original.speaker.split()),
        )
        assert (back.utterance_id, back.split, back.duration_s, back.line) == (
            *(original.utterance_id, original.split, original.duration_s, original.line),
        )
        assert (back.columns.get("room", ""), back.columns["n"]) == (
            " ".join(original.columns["room"].split()),
            original.columns["n"],
        )
    assert path.read_text("utf-8").startswith("utterance_id\tpath\ttext\tsplit\t")
