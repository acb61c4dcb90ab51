"""Beam search through the commands, in a stream, and inside an exported file."""

from __future__ import annotations

import json
import pickle
import sys
from dataclasses import replace

import numpy as np
import pytest
from test_beam import ALPHABET, WORDS, spoken

from speechrnn.corpora import manifest
from speechrnn.decoding import carried
from speechrnn.decoding.beam import BeamDecoder
from speechrnn.decoding.greedy import greedy
from speechrnn.decoding.rejection import Rejection
from speechrnn.decoding.settings import DecoderSettings
from speechrnn.errors import MissingExtra, ModelError, UsageError
from speechrnn.evaluation.evaluate import evaluate
from speechrnn.runtime import Endpoint, Recognizer, Stream, open_model
from speechrnn.runtime.reading import Listened, Reader
from speechrnn.specs import FeatureSpec, ModelSpec, RecogniserSpec, Statistics


@pytest.fixture(scope="module")
def files(tmp_path_factory, whistles):
    """A lexicon of dev words, and a language model of training text, as the command makes it."""
    folder = tmp_path_factory.mktemp("decoding")
    words = {w for u in manifest.read(whistles) if u.split == "dev" for w in u.text.split()}
    (folder / "words.txt").write_text("\n".join(sorted(words)))
    return folder


@pytest.fixture(scope="module")
def carrying(trained, files, tmp_path_factory):
    """A device file that carries its lexicon."""
    from speechrnn.decoding import settings
    from speechrnn.export.tflite import export_tflite
    from speechrnn.training import run

    found = DecoderSettings(lexicon=files / "words.txt", word_score=0.5, hotwords={"abcd": 1})
    settings.save(files / "decoder.json", found, {})
    loaded = run.load(trained)
    card = {**loaded.card, carried.KEY: carried.pack(found)}
    path = tmp_path_factory.mktemp("carrying") / "carrying.tflite"
    export_tflite(loaded.model, loaded.spec, card, path, "float32", recordings=[])
    return path


def hypotheses(out):
    return {row["utterance_id"]: row["hypothesis"] for row in json.loads(out)["scores"]}


def test_evaluate_hears_the_words_of_a_lexicon_in_any_number_of_processes(
    speechrnn, trained, whistles, files
):
    words = (files / "words.txt").read_text().split()
    found = []
    for jobs in ("1", "2"):
        options = ["--lexicon", files / "words.txt", "--jobs", jobs, "--json"]
        code, out, err = speechrnn("evaluate", trained, whistles, "--split", "dev", *options)
        assert code == 0, err
        found.append(hypotheses(out))
    assert found[0] == found[1]
    assert {word for text in found[0].values() for word in text.split()} <= set(words)
    decoder = BeamDecoder(
        open_model(trained).alphabet, DecoderSettings(lexicon=files / "words.txt")
    )
    recogniser = open_model(trained)
    for utterance in manifest.read(whistles)[-2:]:
        log_probs, _ = recogniser.reader.quiet(recogniser.listen(utterance.path).log_probs)
        assert decoder.decode(log_probs).text == found[0][utterance.utterance_id]


def test_a_model_of_language_is_made_tuned_and_used(speechrnn, trained, whistles, files):
    arpa, decoder = files / "lm.arpa", files / "tuned.json"
    assert speechrnn("lm", whistles, "-o", arpa, "--order", "2")[0] == 0
    options = ["--lm", arpa, "-o", decoder, "--trials", "4", "--json"]
    code, out, err = speechrnn("tune", trained, whistles, *options)
    assert code == 0, err
    told = json.loads(out)
    options = ["--split", "dev", "--decoder", decoder, "--json"]
    code, out, err = speechrnn("evaluate", trained, whistles, *options)
    assert code == 0, err
    assert json.loads(out)["wer"] == told["tuned"]["wer"]
    assert told["settings"]["lm"] == str(arpa)


def test_hotwords_are_heard(speechrnn, trained, whistles):
    path = manifest.read(whistles)[-1].path
    _, plain, _ = speechrnn("transcribe", path, "--model", trained)
    code, hot, err = speechrnn(
        "transcribe", path, "--model", trained, "--hotword", "dd:80", "--hotword", "zz"
    )
    assert (code, "zz" in err) == (3, True)  # the alphabet has no z
    code, hot, err = speechrnn("transcribe", path, "--model", trained, "--hotword", "dd:80")
    assert code == 0, err
    assert "dd" in hot.split()
    assert "dd" not in plain.split()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--greedy", "--beam", "8"], "no search"),
        (["--hotword", "a:much"], "no number"),
        (["--word-score", "1"], "no lexicon"),
        (["--lm", "none.arpa"], "none.arpa"),
        (["--decoder", "none.json"], "none.json"),
        (["--beam", "8", "--lm-weight", "3"], "weighs no language model"),
        (["--beam", "8", "--rescore-weight", "3"], "weighs no --rescore"),
        (["--beam", "8", "--n-best", "3", "--format", "srt"], "have room"),
    ],
)
def test_options_that_cannot_be_used_say_so(speechrnn, trained, whistles, options, message):
    path = manifest.read(whistles)[0].path
    code, out, err = speechrnn("transcribe", path, "--model", trained, *options)
    assert code in (2, 3, 4)
    assert out == ""
    assert message in err


def test_the_n_best_are_printed_with_their_scores(speechrnn, trained, whistles, files):
    path = manifest.read(whistles)[-1].path
    options = ["--model", trained, "--lexicon", files / "words.txt", "--n-best", "3"]
    code, out, err = speechrnn("transcribe", path, *options, "--json")
    assert code == 0, err
    (found,) = json.loads(out)
    texts = [each["text"] for each in found["alternatives"]]
    scores = [each["score"] for each in found["alternatives"]]
    assert (len(set(texts)), texts[0], scores) == (3, found["text"], sorted(scores, reverse=True))
    lines = speechrnn("transcribe", path, *options)[1].splitlines()
    assert [line.split(maxsplit=1)[1] for line in lines[1:]] == texts
    code, out, err = speechrnn("transcribe", path, "--model", trained, "--n-best", "3")
    assert (code, out) == (2, "")
    assert "--beam" in err


# A file that carries its decoder


def test_a_file_that_carries_a_decoder_decodes_with_it(speechrnn, carrying, files, whistles):
    path = manifest.read(whistles)[-1].path
    carried_text = speechrnn("transcribe", path, "--model", carrying)[1]
    options = ["--model", carrying, "--decoder", files / "decoder.json"]
    assert speechrnn("transcribe", path, *options)[1] == carried_text
    words = (files / "words.txt").read_text().split()
    assert set(carried_text.split()) <= {*words, "abcd"}
    plain = Recognizer(carrying, decoder=None).transcribe(path).text
    assert speechrnn("transcribe", path, "--model", carrying, "--greedy")[1].strip() == plain
    assert Recognizer(carrying).transcribe(path).text == carried_text.strip()


def test_an_option_goes_on_top_of_what_is_carried(speechrnn, carrying, whistles, files):
    """A hotword does not take the lexicon away."""
    path = manifest.read(whistles)[-1].path
    hot = speechrnn("transcribe", path, "--model", carrying, "--hotword", "dd:80")[1].split()
    assert "dd" in hot
    assert set(hot) <= {*(files / "words.txt").read_text().split(), "dd"}


def test_what_is_carried_serves_in_other_processes(carrying, whistles):
    utterances = [u for u in manifest.read(whistles) if u.split == "dev"][:4]
    one = evaluate(Recognizer(carrying), utterances, progress=False)
    two = evaluate(Recognizer(carrying), utterances, progress=False, jobs=2)
    assert one.rates.scores == two.rates.scores
    assert one.confidence == two.confidence


def test_info_tells_what_is_carried_and_not_its_content(speechrnn, carrying, files):
    code, out, err = speechrnn("info", carrying, "--json")
    assert code == 0, err
    told = json.loads(out)["decoder"]
    assert told["word_score"] == 0.5
    assert 0 < told["lexicon_bytes"] < 1000


def test_without_the_extra_a_carried_decoder_is_named_and_greedy_goes_on(
    carrying, whistles, monkeypatch
):
    for name in list(sys.modules):
        if name.startswith(("flashlight", "speechrnn.decoding.beam", "speechrnn.decoding.search")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "flashlight", None)
    with pytest.raises(MissingExtra, match=r"--greedy.*\[decode\]"):
        Recognizer(carrying)
    assert Recognizer(carrying, decoder=None).transcribe(manifest.read(whistles)[-1].path).text


def test_what_never_searches_needs_no_extra_for_a_carried_decoder(
    speechrnn, carrying, whistles, monkeypatch
):
    path = manifest.read(whistles)[-1].path
    monkeypatch.setitem(sys.modules, "speechrnn.decoding.beam", None)
    assert speechrnn("align", carrying, path, "a")[0] == 0
    assert speechrnn("info", carrying)[0] == 0
    assert speechrnn("transcribe", path, "--model", carrying, "--greedy")[0] == 0


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"settings": {}, "files": {"lm": "not base 85 \x00"}},
        {"settings": {}, "files": {"../../lm": ""}},
        {"settings": {"beam": 0}, "files": {}},
        {"settings": {"bean": 1}, "files": {}},
    ],
)
def test_a_damaged_decoder_in_a_card_is_refused(data, tmp_path):
    with pytest.raises(ModelError, match="export it again"):
        carried.unpack(data, tmp_path, "x.tflite")


def test_what_cannot_be_carried_is_refused(files, monkeypatch):
    with pytest.raises(UsageError, match="recurrent"):
        carried.pack(DecoderSettings(neural_lm=files))
    monkeypatch.setattr(carried, "MOST_BYTES", 10)
    with pytest.raises(UsageError, match="MB"):
        carried.pack(DecoderSettings(lexicon=files / "words.txt"))


# Behind the network


def spec():
    return RecogniserSpec(
        features=FeatureSpec(mels=2),
        alphabet=ALPHABET.spec,
        model=ModelSpec(bidirectional=False, subsampling="stack", time_stride=1),
        statistics=Statistics((0.0, 0.0), (1.0, 1.0)),
    )


@pytest.fixture(scope="module")
def lexicon(tmp_path_factory):
    path = tmp_path_factory.mktemp("lexicon") / "words.txt"
    path.write_text("\n".join(WORDS))
    return DecoderSettings(lexicon=path)


def doubtful(words):
    """Words of which a letter in five is nearly another one."""
    log_probs = spoken(words)
    rng = np.random.default_rng(3)
    logits = log_probs + rng.normal(0, 1.8, log_probs.shape)
    return (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(np.float32)


def test_a_stream_s_final_results_are_searched_and_partial_ones_are_not(lexicon):
    log_probs = np.concatenate([doubtful(["ab", "ba", "ab"]), spoken([])])
    reader = Reader(spec(), decoder=BeamDecoder(ALPHABET, lexicon))

    def step(waveform, state, final):
        done = int(state["done"])
        ready = len(log_probs) if final else min(len(log_probs), done + len(waveform) // 160)
        return log_probs[done:ready], {"done": np.array(ready)}

    stream = Stream(reader, {"done": np.array(0)}, step, Endpoint())
    partial = stream.feed(np.zeros(160 * len(log_probs), np.float32))
    final = stream.finish()
    assert not partial[-1].is_final
    assert partial[-1].text == greedy(partial[-1].log_probs, ALPHABET).text
    assert set(final.text.split()) <= set(WORDS)
    assert final.text != greedy(log_probs, ALPHABET).text, "the search had nothing to mend"
    assert final.text == reader.decoder.decode(log_probs).text


def test_noise_is_silence_to_a_search(lexicon):
    clear, noise = spoken(["ab"]), np.log(np.full([60, 4], 0.25, np.float32))
    noise[::7, 2] += 0.1  # a letter is best, and hardly
    pause = np.log(np.tile(np.float32([0.97, 0.01, 0.01, 0.01]), (200, 1)))
    log_probs = np.concatenate([clear, pause, noise, pause, clear])
    decoder = BeamDecoder(ALPHABET, lexicon)
    listened = Listened(log_probs, None, len(log_probs) / 100)
    loud = Reader(spec(), decoder=decoder).transcript(listened)
    assert len(loud.text.split()) > 2, "the noise writes no words"
    quiet = Reader(spec(), Rejection(most_doubt=5.0), decoder=decoder).transcript(listened)
    assert (quiet.text, quiet.rejected) == ("ab ab", 1)
    np.testing.assert_array_equal(quiet.log_probs, log_probs)


def test_a_reader_reads_alike_in_another_process(lexicon):
    log_probs = doubtful(["ab", "ba", "a"])
    reader = Reader(spec(), Rejection(most_doubt=5.0), decoder=BeamDecoder(ALPHABET, lexicon))
    listened = Listened(log_probs, None, 1.0)
    again = pickle.loads(pickle.dumps(reader)).transcript(listened)
    here = reader.transcript(listened)
    assert (again.text, again.words) == (here.text, here.words)


# A recurrent language model behind the search


class Counting:
    """A language model for which a text is as likely as it has few words."""

    def scores(self, texts):
        return np.array([-3.0 * len(text.split()) for text in texts])


def test_what_is_left_of_a_search_is_put_in_order_by_another_model(lexicon):
    log_probs = doubtful(["ab", "ba", "a", "ab"])
    plain = BeamDecoder(ALPHABET, lexicon)
    listed = plain.n_best(log_probs, 64)
    rescored = BeamDecoder(ALPHABET, replace(lexicon, rescore_weight=2.0))
    rescored._rescorer = Counting()
    best = max(listed, key=lambda each: each.score - 6.0 * len(each.hypothesis.text.split()))
    assert best.hypothesis.text != listed[0].hypothesis.text, "the model changes nothing"
    assert rescored.decode(log_probs).text == best.hypothesis.text
    again = rescored.n_best(log_probs, 3)
    assert again[0].hypothesis == best.hypothesis
    assert again[0].score == pytest.approx(best.score - 6.0 * len(best.hypothesis.text.split()))
    rescored._rescorer, rescored.settings = Counting(), replace(lexicon, rescore_weight=0.0)
    assert rescored.n_best(log_probs, 3) == listed[:3]


def test_a_recurrent_model_that_is_none_is_refused(lexicon, trained, tmp_path):
    for folder in (tmp_path, trained):
        with pytest.raises(ModelError):
            BeamDecoder(ALPHABET, replace(lexicon, rescore_lm=folder))
        with pytest.raises(ModelError):
            BeamDecoder(ALPHABET, DecoderSettings(neural_lm=folder))
