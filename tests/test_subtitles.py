"""Subtitles that players read, and the commands that write them."""

from __future__ import annotations

import itertools
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from speechrnn.runtime.subtitles import (
    LINE_CHARACTERS,
    LINES,
    LONGEST_S,
    as_written,
    cues,
    srt,
    vtt,
)
from speechrnn.specs import TextRules
from speechrnn.text import normalise


def word(text, start_s, end_s):
    return SimpleNamespace(text=text, start_s=start_s, end_s=end_s)


def evenly(texts, each=0.4, begin=0.0):
    return [word(t, begin + i * each, begin + (i + 1) * each) for i, t in enumerate(texts)]


def test_subrip_by_hand():
    said = [word("yes", 1.0, 1.25), word("no", 1.25, 2.0), word("stop", 3725.5, 3726.5)]
    assert srt(cues(said, 4000)) == (
        "1\n00:00:01,000 --> 00:00:02,000\nyes no\n\n2\n01:02:05,500 --> 01:02:06,500\nstop\n\n"
    )


def test_webvtt_by_hand():
    said = [word("a<b", 0.0, 1.0), word("&", 5.0, 6.0), word("-->", 6.0, 7.0)]
    assert vtt(cues(said, 8)) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\na&lt;b\n\n"
        "00:00:05.000 --> 00:00:07.000\n&amp; --&gt;\n"
    )
    assert vtt([]) == "WEBVTT\n"
    assert srt([]) == ""


@given(
    texts=st.lists(st.text("abcdefgh", min_size=1, max_size=50), max_size=40),
    lengths=st.lists(st.integers(0, 9000), min_size=40, max_size=40),
    gaps=st.lists(st.sampled_from([0, 0, 0, 1, 300, 599, 600, 5000]), min_size=40, max_size=40),
    breaks=st.sets(st.integers(0, 40)),
)
def test_cues_hold_every_word_and_keep_their_limits(texts, lengths, gaps, breaks):
    said, now = [], 0
    for text, length, gap in zip(texts, lengths, gaps, strict=False):
        said.append(word(text, (now + gap) / 1000, (now + gap + length) / 1000))
        now += gap + length
    found = cues(said, now / 1000, breaks)
    assert " ".join(line for cue in found for line in cue.lines).split() == texts
    for cue in found:
        assert 0 <= cue.start_ms < cue.end_ms
        assert cue.end_ms - cue.start_ms <= 1000 * LONGEST_S
        assert 1 <= len(cue.lines) <= LINES
        assert all(len(line) <= LINE_CHARACTERS or " " not in line for line in cue.lines)
    for one, other in itertools.pairwise(found):
        assert one.end_ms <= other.start_ms


def test_a_pause_a_break_and_too_much_text_each_begin_a_cue():
    texts = ["word"] * 9
    assert len(cues(evenly(texts, 0.2), 60)) == 1
    assert [c.lines for c in cues(evenly(texts, 0.2), 60, breaks=[4])] == [
        ("word word word word",), ("word word word word word",)
    ]  # fmt: skip
    apart = [*evenly(texts[:4], 0.2), *evenly(texts[4:], 0.2, begin=1.5)]
    assert [c.start_ms for c in cues(apart, 60)] == [0, 1500]
    assert [len(c.lines) for c in cues(evenly(["word"] * 20, 0.2), 60)] == [2, 1]
    assert [c.end_ms for c in cues(evenly(texts, 2.0), 60)][:2] == [6000, 12000]


def test_a_word_of_a_script_without_spaces_is_cut_to_fit():
    text = "".join(chr(0x4E00 + i) for i in range(152))
    found = cues([word(text, 1.0, 58.0), word("end", 58.1, 58.5)], 60.0)
    assert "".join("".join(cue.lines) for cue in found).replace(" ", "") == f"{text}end"
    assert all(len(cue.lines) <= LINES for cue in found)
    assert all(len(line) <= LINE_CHARACTERS for cue in found for line in cue.lines)
    assert all(cue.end_ms - cue.start_ms <= 1000 * LONGEST_S + 1 for cue in found)
    assert all(a.end_ms <= b.start_ms for a, b in itertools.pairwise(found))


def test_a_short_word_stays_until_it_can_be_read_or_the_next_comes():
    alone, crowded = [word("a", 1.0, 1.1)], [word("a", 1.0, 1.1), word("b", 1.5, 3.0)]
    assert cues(alone, 60)[0].end_ms == 1700
    assert cues(alone, 1.4)[0].end_ms == 1400
    assert [c.end_ms for c in cues(crowded, 60, breaks=[1])] == [1500, 3000]


def test_words_are_written_as_their_transcript_has_them():
    text = "“Yes,” she said:\n\n – Don’t stop-and-go …\nNow!"
    said = evenly(normalise(text, TextRules()).split())
    assert len(said) == 8
    found = as_written(text, said, TextRules())
    assert [(w.text, w.begins_line) for w in found] == [
        ("“Yes,”", True), ("she", False), ("said: –", False), ("Don’t", True),
        ("stop-and-go …", False), ("Now!", True),
    ]  # fmt: skip
    assert (found[4].start_s, found[4].end_s) == (said[4].start_s, said[6].end_s)


def test_words_that_cannot_be_told_apart_stay_as_they_were_aligned():
    said = evenly(["one", "two"])
    assert [w.text for w in as_written("One, two, three", said, TextRules())] == ["one", "two"]
    assert as_written("", [], TextRules()) == []


# --- the commands, with the shipped model ---

TIMES = re.compile(r"\d\d:\d\d:\d\d[,.]\d{3} --> \d\d:\d\d:\d\d[,.]\d{3}")


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Two bursts of noise; --no-reject makes letters of them."""
    rng = np.random.default_rng(0)
    level = np.repeat([0.0, 0.2, 0.0, 0.2, 0.0], [4800, 8000, 16000, 8000, 4800])
    path = tmp_path_factory.mktemp("bursts") / "bursts.wav"
    soundfile.write(path, level * rng.uniform(-1, 1, len(level)), 16000)
    return path


@pytest.fixture(scope="module")
def model():
    from speechrnn.runtime import default_model

    return default_model()


def test_transcribe_writes_each_format(speechrnn, recording):
    call = ("transcribe", recording, "--no-reject")
    code, text, _ = speechrnn(*call, "--format", "txt")
    assert code == 0 and (text == speechrnn(*call)[1])
    code, out, _ = speechrnn(*call, "--format", "json")
    assert (code, out) == (0, speechrnn(*call, "--json")[1])
    (heard,) = json.loads(out)
    for found in heard["words"]:
        assert "".join(symbol["text"] for symbol in found["symbols"]) == found["text"]
    code, out, _ = speechrnn(*call, "--format", "srt")
    assert code == 0 and out.startswith("1\n") and TIMES.search(out)
    code, out, _ = speechrnn(*call, "--format", "vtt")
    assert code == 0 and out.startswith("WEBVTT\n\n") and TIMES.search(out)
    assert " ".join(line for line in out.splitlines()[1:] if not TIMES.match(line)).split() == (
        heard["text"].split()
    )


def test_several_recordings_of_subtitles_are_a_file_each(speechrnn, recording, tmp_path):
    other = tmp_path / "other.wav"
    other.write_bytes(recording.read_bytes())
    both = ("transcribe", recording, other, "--no-reject", "--format", "srt")
    code, _, err = speechrnn(*both)
    assert code == 2 and "name a folder" in err
    folder = tmp_path / "out"
    code, out, _ = speechrnn(*both, "--output", folder)
    written = [folder / "bursts.srt", folder / "other.srt"]
    assert (code, out.split()) == (0, [str(path) for path in written])
    alone = speechrnn(*both[:2], *both[3:])[1]
    assert [path.read_text() for path in written] == [alone, alone]
    same = tmp_path / "more" / "other.wav"
    code, _, err = speechrnn("transcribe", other, same, "--format", "srt", "--output", folder)
    assert code == 2 and "one at a time" in err


@pytest.mark.parametrize(
    "options",
    [
        ("--format", "ssa"),
        ("--format", "srt", "--json"),
        ("--stream", "--format", "vtt"),
        ("--stream", "--output", "folder"),
    ],
)
def test_formats_that_cannot_be_are_wrong_usage(speechrnn, recording, options):
    assert speechrnn("transcribe", recording, *options)[0] == 2


def test_align_prints_words_times_and_the_mismatch(speechrnn, recording, model):
    code, out, _ = speechrnn("align", model, recording, "Yes, NO")
    *words, last = out.splitlines()
    assert code == 0
    assert [line.split()[-1] for line in words] == ["yes", "no"]
    assert all(float(a) < float(b) for a, b, *_ in map(str.split, words))
    assert re.fullmatch(r"mismatch \d+\.\d{3} nats a symbol", last)
    code, out, _ = speechrnn("align", model, recording, "Yes, NO", "--json")
    found = json.loads(out)
    assert (code, found["text"]) == (0, "yes no")
    assert found["mismatch"] == pytest.approx(float(last.split()[1]), abs=6e-4)
    assert [w["text"] for w in found["words"]] == ["yes", "no"]


def test_align_reads_a_file_and_keeps_its_lines_and_spelling(speechrnn, recording, model, tmp_path):
    path = tmp_path / "said.txt"
    path.write_text("Yes,\nNO!\n", encoding="utf-8")
    code, out, _ = speechrnn("align", model, recording, path, "--format", "srt")
    assert code == 0
    assert [line for line in out.splitlines() if line in ("Yes,", "NO!")] == ["Yes,", "NO!"]
    assert len(TIMES.findall(out)) == 2


@pytest.mark.parametrize(
    ("transcript", "told"),
    [
        ("yes " * 200, "200 symbols|799 symbols"),
        ("naïve", "ï.*not in the alphabet"),
        ("!!!", "empty after normalisation"),
        ("missing.txt", "no transcript at missing.txt"),
        ("/no/such/folder/talk.srt", "no transcript at"),
        ("talk.LAB", "no transcript at talk.LAB"),
        ("/", "no transcript at /"),
    ],
)
def test_align_refuses_what_cannot_have_been_said(speechrnn, recording, model, transcript, told):
    code, _, err = speechrnn("align", model, recording, transcript)
    assert code == 3 and re.search(told, err.replace("\n", " "))
