"""What a model is too unsure of is left out of the text, and counted."""

import itertools
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from conftest import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st

from speechrnn.corpora import noise
from speechrnn.decoding.greedy import greedy
from speechrnn.decoding.rejection import Rejection, doubt, stretches, without_noise, word_doubts
from speechrnn.errors import ModelError, ScoringError
from speechrnn.evaluation.rejection import false_words, tune
from speechrnn.runtime import Endpoint, Recognizer, Stream, container, open_model
from speechrnn.runtime.reading import Reader
from speechrnn.specs import AlphabetSpec, FeatureSpec, ModelSpec, RecogniserSpec, Statistics
from speechrnn.text import Alphabet

RATE = 16000
ALPHABET = Alphabet(AlphabetSpec((" ", "a", "b")))
NOTHING, SPACE, A, B = range(4)
SPEC = RecogniserSpec(
    features=FeatureSpec(mels=20, fft_length=256, window_ms=16.0),
    alphabet=ALPHABET.spec,
    model=ModelSpec(
        cell="simple_rnn",
        units=8,
        layers=1,
        bidirectional=False,
        subsampling="stack",
        time_stride=1,
    ),
    statistics=Statistics((-6.0,) * 20, (3.0,) * 20),
)  # a frame is 10 ms


def posteriors(*labels_and_sureness):
    """(frames, 4) log_probs: each frame's best label and its posterior, the rest alike."""
    rows = [np.full(4, (1 - p) / 3) for _, p in labels_and_sureness]
    for row, (label, p) in zip(rows, labels_and_sureness, strict=True):
        row[label] = p
    return np.log(np.array(rows, np.float32).reshape(-1, 4) + 1e-12)


def said(labels, sureness):
    return [(label, sureness) for label in labels]


SURE, UNSURE = said([A, A, NOTHING, SPACE, B], 0.99), said([B, NOTHING, A, SPACE, A], 0.5)
PAUSE = said([NOTHING] * 100, 0.999)


def hypothesis(log_probs, most_doubt):
    heard = greedy(log_probs, ALPHABET)
    return without_noise(heard, log_probs, Rejection(most_doubt), 0.01)


def test_doubt_is_the_entropy_by_symbol():
    log_probs = posteriors(*said([A, A, NOTHING, B], 0.7))
    tokens = greedy(log_probs, ALPHABET).tokens
    entropy = -0.7 * np.log(0.7) - 0.3 * np.log(0.1)
    # Two symbols, four frames; what stands around them does not count.
    assert doubt(log_probs, tokens) == pytest.approx(2 * entropy, rel=1e-5)
    around = posteriors(*said([NOTHING], 0.4), *said([A, A, NOTHING, B], 0.7), (NOTHING, 0.4))
    tokens = greedy(around, ALPHABET).tokens
    assert doubt(around, tokens) == pytest.approx(2 * entropy, rel=1e-5)


def test_a_posterior_of_zero_has_no_doubt():
    log_probs = np.full([3, 4], -np.inf, np.float32)
    log_probs[:, A] = 0
    assert doubt(log_probs, greedy(log_probs, ALPHABET).tokens) == pytest.approx(0)


@given(best=st.lists(st.sampled_from([NOTHING, NOTHING, NOTHING, SPACE, A, B]), max_size=60))
def test_stretches_are_parted_where_an_endpoint_would_be(best):
    """A pause of 3 frames, told frame by frame."""
    tokens = greedy(posteriors(*said(best, 0.9)), ALPHABET).tokens
    expected, quiet = [], 3
    for frame, label in enumerate(best):
        if label in (NOTHING, SPACE):
            quiet += 1
            continue
        if quiet >= 3:
            expected.append(set())
        expected[-1].add(frame)
        quiet = 0
    found = [
        {f for t in part if not t.symbol.isspace() for f in range(t.start_frame, t.end_frame)}
        for part in stretches(tokens, 3)
    ]
    assert found == expected


def test_the_unsure_stretch_alone_is_left_out():
    log_probs = posteriors(*SURE, *PAUSE, *UNSURE, *PAUSE, (SPACE, 0.9), *SURE)
    assert greedy(log_probs, ALPHABET).text == "a bba a a b"
    log_probs = posteriors(
        *SURE, (SPACE, 0.9), *PAUSE, *UNSURE, (SPACE, 0.9), *PAUSE, (SPACE, 0.9), *SURE
    )
    heard = greedy(log_probs, ALPHABET)
    left, count = hypothesis(log_probs, 0.6)
    assert (heard.text, left.text, count) == ("a b ba a a b", "a b a b", 1)
    assert left.words == tuple(word for word in heard.words if word.confidence > 0.6)
    assert left.confidence > heard.confidence
    doubts = word_doubts(heard, log_probs, 1.0, 0.01)
    assert [found > 0.6 for found in doubts] == [False, False, True, True, False, False]


def test_where_all_is_noise_there_is_silence():
    left, count = hypothesis(posteriors(*PAUSE, *UNSURE, *PAUSE), 0.6)
    assert (left.text, left.words, left.tokens, count) == ("", (), (), 1)
    assert left.confidence == pytest.approx(0.5 / 3, abs=1e-5)  # the smallest blank posterior
    assert hypothesis(posteriors(*PAUSE), 0.6)[1] == 0
    assert hypothesis(posteriors(), 0.6)[0].text == ""


frames = st.tuples(st.sampled_from([NOTHING] * 4 + [SPACE, A, B]), st.floats(0.4, 0.999))


@given(found=st.lists(st.one_of(frames, st.just(None)), max_size=40), limits=st.tuples(
    st.floats(0, 5), st.floats(0, 5)))  # fmt: skip
def test_a_higher_limit_keeps_all_that_a_lower_one_keeps(found, limits):
    parts = [PAUSE if one is None else [one] for one in found]
    log_probs = posteriors(*itertools.chain.from_iterable(parts))
    heard = greedy(log_probs, ALPHABET)
    kept = []
    for limit in (*sorted(limits), 1e9):
        left, count = hypothesis(log_probs, limit)
        assert " ".join(word.text for word in left.words) == left.text
        assert (count == 0) == (left == heard)
        kept.append({token.start_frame for token in left.tokens if token.symbol != " "})
    assert (
        kept[0]
        <= kept[1]
        <= kept[2]
        == {token.start_frame for token in heard.tokens if token.symbol != " "}
    )


def test_a_rejection_travels_as_plain_data():
    rejection = Rejection(0.7, 1.5, 600, 3, 0.5, 1658.0, 98.0)
    assert Rejection.from_dict(json.loads(json.dumps(rejection.to_dict()))) == rejection


@pytest.mark.parametrize(
    "data",
    [{}, {"most_doubt": -1.0}, {"most_doubt": float("nan")}, {"most_doubt": "much"},
     {"most_doubt": 1.0, "pause_s": 0}, {"most_doubt": 1.0, "loudness": 3}],
)  # fmt: skip
def test_a_foreign_rejection_is_refused(data):
    with pytest.raises(ModelError, match="rejection is not one this version reads"):
        Rejection.from_dict(data)


class Scripted:
    """A recogniser that says what it is told, by the length of the waveform."""

    alphabet, spec = ALPHABET, SPEC

    def __init__(self, answers, of_noise):
        self.answers, self.of_noise = answers, itertools.cycle(of_noise)

    def log_probs(self, waveform):
        return self.answers[len(waveform)] if len(waveform) < 1000 else next(self.of_noise)


def of_doubt(labels, each):
    """A stretch in which every frame has this doubt, all of them symbols."""
    sureness = np.linspace(0.5, 1 - 1e-9, 100_001)
    entropy = -sureness * np.log(sureness) - (1 - sureness) * np.log((1 - sureness) / 3)
    return said(labels, sureness[np.argmin(np.abs(entropy - each))])


def test_tuning_loses_as_many_right_words_as_it_may():
    ab = [A, SPACE, B]
    answers = {i: posteriors(*of_doubt(ab, i / 100)) for i in range(1, 101)}
    answers[200] = posteriors(*of_doubt(ab, 1.1))
    clips = [posteriors(*of_doubt(ab, d), *PAUSE, (SPACE, 0.9), *of_doubt([A], 0.9))
             for d in (0.3, 0.989, 1.05)]  # fmt: skip
    # Two right words in each of a hundred, of doubts 0.01 to 1; beyond, one of two.
    utterances = [(np.zeros(i, np.float32), "A, b!") for i in range(1, 101)]
    utterances.append((np.zeros(200, np.float32), "b a a a"))
    found = tune(Scripted(answers, clips), utterances, noise_minutes=1, most_lost=0.02)
    assert (found.dev_words_right, found.dev_words_lost) == (201, 3)
    found = tune(Scripted(answers, clips), utterances[:-1], noise_minutes=1, most_lost=0.02)
    assert (found.dev_words_right, found.dev_words_lost) == (200, 4)
    assert found.most_doubt == pytest.approx(0.98, abs=1e-3)
    assert found.noise_hours == pytest.approx(1 / 60, abs=5e-4)  # kept to 4 s
    # Six clips, each of the three twice: three words each; two, none and none of the pairs pass.
    assert found.false_words_per_hour_before == pytest.approx(18 * 60)
    assert found.false_words_per_hour == pytest.approx((2 * 2 + 6) * 60)
    none = tune(Scripted(answers, clips), utterances[:-1], noise_minutes=1, most_lost=0)
    assert none.dev_words_lost == 0 and none.most_doubt == pytest.approx(1, abs=1e-3)


def test_false_words_are_counted_by_kind():
    clips = [posteriors(*of_doubt([A, SPACE, B], d)) for d in (0.2, 0.4, 0.9)]
    sounds = [(name, np.zeros(2 * RATE, np.float32)) for name in ("hum", "rain", "hum")]
    found = false_words(Scripted({}, clips), 0.5, sounds)
    assert found.keys() == {"hum", "rain"}
    assert (found["hum"].words, found["hum"].passed) == (4, 2)
    assert (found["rain"].words, found["rain"].passed) == (2, 2)
    assert found["hum"].hours == pytest.approx(4 / 3600)


def test_tuning_wants_a_word_that_is_right():
    answers = {1: posteriors(*said([A], 0.9)), 2: posteriors(*PAUSE)}
    for utterances in ([], [(np.zeros(1), "b"), (np.zeros(2), "a"), (np.zeros(1), "")]):
        with pytest.raises(ScoringError, match="not one word"):
            tune(Scripted(answers, [posteriors(*PAUSE)]), utterances)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model of random weights that streams, with a rejection of about half of what it says."""
    from speechrnn import model as network
    from speechrnn.export.tflite import export_tflite
    from speechrnn.runtime.tensorflow import KerasRecognizer

    model, rng = network.build(SPEC, seed=1), np.random.default_rng(1)
    model.set_weights(
        [
            w + rng.normal(0, 0.6, w.shape) if w.dtype == np.float32 else w
            for w in model.get_weights()
        ]
    )
    scores = KerasRecognizer(model, SPEC, {}).log_probs(bursts())
    weights, bias = model.logits.get_weights()
    # So that three frames of four are blank, and there are pauses.
    bias[NOTHING] += np.quantile(scores[:, 1:].max(axis=1) - scores[:, NOTHING], 0.75)
    model.logits.set_weights([weights, bias])
    folder = tmp_path_factory.mktemp("rejection")
    export_tflite(model, SPEC, {"name": "x"}, folder / "all.tflite", "float32")
    recogniser = Recognizer(folder / "all.tflite")
    waveform, log_probs = bursts(), recogniser.log_probs(bursts())
    heard = greedy(log_probs, ALPHABET)
    doubts = sorted({*word_doubts(heard, log_probs, PAUSE_S, 0.01)})
    assert len(doubts) > 3
    rejection = Rejection(doubts[len(doubts) // 2] + 1e-3, PAUSE_S)
    content = container.with_card(folder / "all.tflite", rejection=rejection.to_dict())
    (folder / "some.tflite").write_bytes(content)
    soundfile.write(folder / "bursts.wav", waveform, RATE, subtype="FLOAT")
    return folder, rejection


PAUSE_S = 0.03


def bursts():
    """Noise that grows and wanes from one moment to the next."""
    rng = np.random.default_rng(3)
    levels = 10 ** rng.uniform(-3, -0.5, 60)
    parts = [rng.normal(0, level, rng.integers(300, 2500)) for level in levels]
    return np.concatenate(parts).astype(np.float32)


def test_a_recogniser_leaves_out_what_its_card_says(files):
    folder, rejection = files
    every, some = Recognizer(folder / "all.tflite"), Recognizer(folder / "some.tflite")
    assert (every.rejection, some.rejection) == (None, rejection)
    heard, left = every.transcribe(bursts()), some.transcribe(bursts())
    np.testing.assert_array_equal(left.log_probs, heard.log_probs)
    assert heard.rejected == 0 < left.rejected
    assert " ".join(word.text for word in left.words) == left.text
    assert 0 < len(left.text) < len(heard.text)
    kept = greedy(left.log_probs, ALPHABET)
    kept, count = without_noise(kept, left.log_probs, rejection, 0.01)
    assert (left.text, left.rejected) == (kept.text, count)
    for unrejecting in (
        Recognizer(folder / "some.tflite", reject=False),
        open_model(folder / "some.tflite", reject=False),
    ):
        found = unrejecting.transcribe(bursts())
        assert (found.text, found.words, found.rejected) == (heard.text, heard.words, 0)


def test_a_new_card_leaves_the_network_alone(files):
    folder, rejection = files
    before, after = (container.read(folder / f"{name}.tflite") for name in ("all", "some"))
    assert after.card == {**before.card, "rejection": rejection.to_dict()}
    assert after.spec == before.spec
    assert abs(len(after.model_bytes) - len(before.model_bytes)) < 1000
    again = container.pack(after.model_bytes, before.spec, before.card)
    assert again == (folder / "all.tflite").read_bytes()


def test_a_damaged_rejection_is_a_bad_model(files, tmp_path):
    content = container.with_card(files[0] / "all.tflite", rejection={"most_doubt": None})
    (tmp_path / "m.tflite").write_bytes(content)
    with pytest.raises(ModelError, match="rejection"):
        Recognizer(tmp_path / "m.tflite")


def test_a_stream_leaves_out_the_same(files):
    folder, _ = files
    recogniser = Recognizer(folder / "some.tflite")
    stream = recogniser.stream(Endpoint(1e9, 1e9, 1e9))
    for start in range(0, len(bursts()), 3000):
        stream.feed(bursts()[start : start + 3000])
    heard, whole = stream.finish(), recogniser.transcribe(bursts())
    assert (heard.text, heard.rejected) == (whole.text, whole.rejected)
    assert stream.rejected == whole.rejected > 0
    assert [word.text for word in heard.words] == [word.text for word in whole.words]
    assert len(heard.log_probs) == len(whole.log_probs)


def scripted_stream(parts, rejection):
    """A stream of frames of 10 ms that a model has scripted; fed in pieces of five."""
    log_probs, given, received = posteriors(*parts), 0, 0

    def step(waveform, state, final):
        nonlocal given
        available = len(log_probs) if final else SPEC.features.frames(received - 1)
        piece, given = log_probs[given:available], available
        return piece, state

    stream, finals = Stream(Reader(SPEC, rejection), {}, step, Endpoint(0.3)), []
    samples = SPEC.features.window_samples + (len(log_probs) - 1) * SPEC.features.hop_samples
    for start in range(0, samples, 800):
        received = min(samples, start + 800)
        finals += [one for one in stream.feed(np.zeros(received - start)) if one.is_final]
    return [*finals, stream.finish()], stream.rejected


def test_a_result_of_noise_alone_is_counted_and_not_given():
    parts = [*SURE, *PAUSE, *UNSURE, *PAUSE, *SURE, *PAUSE, *UNSURE]
    finals, rejected = scripted_stream(parts, Rejection(0.6, 0.3))
    assert [one.text for one in finals] == ["a b", "a b", ""]
    assert rejected == 2
    # Times go on behind what was left out.
    assert finals[1].words[0].start_s == pytest.approx(2.10)
    finals, rejected = scripted_stream(parts, None)
    assert [one.text for one in finals] == ["a b", "ba a", "a b", "ba a"]
    assert rejected == 0


def test_the_command_tells_what_it_left_out(files, speechrnn):
    folder, _ = files
    model, wav = folder / "some.tflite", folder / "bursts.wav"
    heard = Recognizer(model).transcribe(wav)
    code, out, err = speechrnn("transcribe", wav, "--model", model)
    assert (code, out) == (0, heard.text + "\n")
    assert f"{heard.rejected} stretch" in err and "taken for noise" in err
    code, out, _ = speechrnn("transcribe", wav, "--model", model, "--json")
    assert json.loads(out)[0]["rejected"] == heard.rejected
    code, out, err = speechrnn("transcribe", wav, "--model", model, "--no-reject")
    assert out == Recognizer(model, reject=False).transcribe(wav).text + "\n"
    assert "noise" not in err
    assert "taken for noise" in speechrnn("transcribe", wav, "--model", model, "--stream")[2]
    assert "most_doubt" in speechrnn("info", model)[1]


def test_the_runs_recogniser_rejects_too(files):
    from speechrnn.runtime.tensorflow import KerasRecognizer

    quiet = SimpleNamespace(trainable_variables=[])  # is not called
    card = {"rejection": files[1].to_dict()}
    assert KerasRecognizer(quiet, SPEC, card).rejection == files[1]


def test_the_pipeline_puts_a_limit_into_the_card(files, tmp_path):
    model, clip = tmp_path / "m.tflite", files[0] / "bursts.wav"
    model.write_bytes((files[0] / "all.tflite").read_bytes())
    # All that this model can be right in is what it says.
    text = Recognizer(model).transcribe(clip).text
    (tmp_path / "m.tsv").write_text(f"path\ttext\tsplit\n{clip}\t{text}\tdev\n")
    script = [sys.executable, str(REPOSITORY / "pipelines" / "reject_noise.py")]
    command = [*script, str(model), str(tmp_path / "m.tsv"), "--minutes", "0.1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Recognizer(model).rejection is None
    done = subprocess.run([*command, "--write"], capture_output=True, text=True)
    found = Recognizer(model).rejection
    assert found.dev_words_right == len(text.split()) and found.dev_words_lost == 0
    assert f"limit {found.most_doubt:.3f} nats" in done.stdout
    assert "bells *" in done.stdout and "speech backwards *" in done.stdout
    done = subprocess.run([*command, "--split", "test"], capture_output=True, text=True)
    assert (done.returncode, "no split 'test'" in done.stderr) == (3, True)


@pytest.mark.parametrize("kind", [*noise.KINDS, *noise.OTHER_KINDS])
@pytest.mark.parametrize("rate", [8000, 16000])
def test_noise_is_ten_seconds_of_sound_at_the_level_it_should_have(kind, rate):
    found = list(noise.clips(0.5, seed=5, sample_rate=rate, kinds=[kind]))
    assert len(found) == 3
    for name, clip in found:
        assert (name, clip.shape, clip.dtype) == (kind, (10 * rate,), np.float32)
        assert np.abs(clip).max() <= 1
        level = 20 * np.log10(np.sqrt(np.mean(clip**2)))
        # Clicks at -10 dB are clipped, and so less than they should be.
        assert -50.1 < level < -9.9
    levels = [np.mean(clip**2) for _, clip in found]
    assert len(set(levels)) == 3


def test_noise_is_the_same_for_the_same_seed():
    def clips(seed):
        return [clip for _, clip in noise.clips(len(noise.KINDS) / 6, seed)]

    first, again, other = clips(1), clips(1), clips(2)
    assert len(first) == len(noise.KINDS)
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)
