"""Two systems compared: against closed forms, kaldialign, and what each refusal must name."""

from __future__ import annotations

import json
import math
import random

import kaldialign
import pytest

from speechrnn.errors import ScoringError
from speechrnn.evaluation.compare import compare, load
from speechrnn.evaluation.error_rates import score
from speechrnn.specs import TextRules


def written(path, references, hypotheses, groups=None, rules=None):
    """What evaluate --json writes of it, as far as it matters here."""
    path.write_text(json.dumps(score(references, hypotheses, groups, rules).to_dict()))
    return path


@pytest.fixture
def result(tmp_path):
    """result(references, hypotheses, ...) -> the evaluation, through a file."""
    count = iter(range(100))
    return lambda *args, **kw: load(written(tmp_path / f"{next(count)}.json", *args, **kw))


def spoken(utterances, seed=1):
    rng = random.Random(seed)
    return {f"u{i:04d}": " ".join(rng.choices("abcde", k=rng.randint(3, 9))) for i in utterances}


def misheard(references, share, seed):
    rng = random.Random(seed)
    return {
        i: " ".join(rng.choice("abcde") if rng.random() < share else w for w in text.split())
        for i, text in references.items()
    }


def test_a_clear_difference_is_told_in_one_sentence(result):
    references = spoken(range(200))
    a = result(references, misheard(references, 0.20, 2))
    b = result(references, misheard(references, 0.10, 3))
    found = compare(a, b)
    errors = [sum(item.errors for item in side.scores.values()) for side in (a, b)]
    assert [found.errors_a, found.errors_b] == errors
    assert found.improvement == pytest.approx((errors[0] - errors[1]) / found.words, rel=1e-12)
    low, high = found.improvement_ci95
    assert 0 < low < found.improvement < high
    assert (found.better, found.b_better) == ("b", 1.0)
    assert found.sentence().startswith(f"B is better: B makes {100 * found.improvement:.1f} points")
    assert "fewer errors than A (95 % interval" in found.sentence()
    assert "matched pairs p < 0.001" in found.sentence()


def test_the_systems_change_places_without_changing_the_answer(result):
    references = spoken(range(100))
    a = result(references, misheard(references, 0.20, 2))
    b = result(references, misheard(references, 0.10, 3))
    there, back = compare(a, b), compare(b, a)
    assert (there.better, back.better) == ("b", "a")
    assert back.improvement == -there.improvement
    # the 2.5 % quantile of 2,000 values is the 51st, and the 97.5 % quantile the 1950th
    spread = there.improvement_ci95[1] - there.improvement_ci95[0]
    assert back.improvement_ci95 == pytest.approx(
        [-bound for bound in reversed(there.improvement_ci95)], abs=0.02 * spread
    )
    assert back.matched_pairs.p == there.matched_pairs.p
    told = (pair.sentence().partition("(95 % interval ")[2].split(" ")[0] for pair in (there, back))
    assert all(float(bound) > 0 for bound in told)
    assert "A is better: B makes" in back.sentence() and "points more errors" in back.sentence()


def test_the_share_of_resamples_is_kaldialigns(result):
    references = spoken(range(150))
    sides = [misheard(references, 0.15, 2), misheard(references, 0.14, 3)]
    found = compare(*(result(references, side) for side in sides))
    texts = [[text.split() for text in side.values()] for side in (references, *sides)]
    theirs = kaldialign.bootstrap_wer_ci(*texts, replications=10_000)["p_s2_improv_over_s1"]
    assert 0.05 < theirs < 0.95
    # Binomial: one standard deviation is at most 0.011 of ours and 0.005 of theirs.
    assert found.b_better == pytest.approx(theirs, abs=0.05)


def coins(utterances, only_a, only_b, both=0):
    """One-word utterances: wrong in A alone, in B alone, in both, and the rest in none."""
    ids = [f"u{i:04d}" for i in range(utterances)]
    random.Random(0).shuffle(ids)
    wrong_a, wrong_b = ids[: only_a + both], ids[only_a : only_a + both + only_b]
    sides = ({i: "no" if i in wrong else "yes" for i in ids} for wrong in (wrong_a, wrong_b))
    return dict.fromkeys(ids, "yes"), *sides


def test_interval_and_number_to_tell_are_those_of_paired_coins(result):
    references, a, b = coins(400, only_a=30, only_b=20, both=10)
    found = compare(result(references, a), result(references, b))
    difference, discordant = 10 / 400, 50 / 400
    deviation = math.sqrt((discordant - difference**2) / 400)
    assert found.improvement == pytest.approx(difference, rel=1e-12)
    # 0.06 deviations for the quantile of 2,000 resamples, and steps of 1 / 400, a seventh of one
    bounds = [difference - 1.96 * deviation, difference + 1.96 * deviation]
    assert found.improvement_ci95 == pytest.approx(bounds, abs=0.3 * deviation)
    assert found.better is None
    # For a power of 80 % the difference must be 1.960 + 0.842 of its standard deviations.
    needed = 400 * (2.802 * deviation / difference) ** 2
    # The deviation of 2,000 resamples is known to 1.6 %, its square to 3.2 %; two digits are kept.
    assert found.utterances_to_tell == pytest.approx(needed, rel=0.12)
    assert f"it would take about {found.utterances_to_tell} utterances" in found.sentence()


def test_more_of_the_same_takes_as_many_utterances_to_tell(result):
    once = coins(200, 16, 10, both=5)
    many = [{f"{n}{i}": t for n in range(4) for i, t in side.items()} for side in once]
    found = []
    for references, a, b in (once, many):
        found.append(compare(result(references, a), result(references, b)))
    assert found[1].utterances_to_tell == pytest.approx(found[0].utterances_to_tell, rel=0.15)


def test_speakers_are_resampled_whole(result):
    references = spoken(range(60))
    speakers = {i: f"s{int(i[1:]) % 6}" for i in references}
    bad = {i: "" if speakers[i] == "s0" else text for i, text in references.items()}
    found = compare(result(references, bad, speakers), result(references, references, speakers))
    assert (found.units, found.resampled) == (6, "groups")
    # one of six speakers differs; a third of the resamples have none of it, (5 / 6)^6
    assert found.improvement_ci95[0] == 0.0
    assert found.b_better == pytest.approx(1 - (5 / 6) ** 6, abs=0.05)
    assert found.better is None


def test_systems_that_write_the_same_do_not_differ(result):
    references = spoken(range(20))
    side = result(references, misheard(references, 0.3, 1))
    found = compare(side, side)
    assert (found.improvement, found.improvement_ci95, found.b_better) == (0.0, (0.0, 0.0), 0.0)
    assert (found.matched_pairs.p, found.better, found.utterances_to_tell) == (1.0, None, None)
    assert found.sentence().startswith("No difference")


def test_as_many_errors_elsewhere_are_no_difference_either(result):
    references, a, b = coins(100, 10, 10)
    found = compare(result(references, a), result(references, b))
    assert (found.improvement, found.better, found.utterances_to_tell) == (0.0, None, None)
    assert found.sentence().startswith("Cannot tell: B makes as many errors as A (95 % interval")


def test_a_single_utterance_tells_nothing(result):
    references = {"a": "a b c d e f g h i j"}
    found = compare(
        result(references, {"a": "a x c x e x g h i j"}), result(references, references)
    )
    assert (found.units, found.better, found.utterances_to_tell) == (1, None, None)
    assert "a single utterance has no interval" in found.sentence()


@pytest.mark.parametrize(
    ("references", "a", "b"),
    [
        ({"a": "", "b": ""}, {"a": "x", "b": ""}, {"a": "", "b": ""}),  # infinite and 0
        ({"a": "", "b": ""}, {"a": "x", "b": ""}, {"a": "y", "b": "y z"}),  # both infinite
        ({"a": "", "b": "one"}, {"a": "x", "b": ""}, {"a": "", "b": "one"}),
        ({"a": "one", "b": "two"}, {"a": "", "b": ""}, {"a": "one", "b": "two"}),
        ({"a": "", "b": ""}, {"a": "", "b": ""}, {"a": "", "b": ""}),
    ],
)
def test_empty_texts_have_defined_results_that_json_can_hold(result, references, a, b):
    found = compare(result(references, a), result(references, b))
    assert found.better is None
    assert found.sentence() in found.table()
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    expected = (found.errors_a - found.errors_b) / found.words if found.words else None
    if found.words or found.errors_a == found.errors_b:
        assert data["improvement"] == (expected or 0.0)
    else:
        assert data["improvement"] is None


def test_what_differs_between_the_evaluations_is_named(result):
    references = {"a": "one", "b": "two"}
    base = result(references, references)
    more = result({**references, "c": "x"}, {**references, "c": "x"})
    with pytest.raises(ScoringError, match=r"1 only in .*\.json: c\..*--common"):
        compare(base, more)
    assert compare(base, more, common=True).utterances == 2
    other = {"a": "one", "b": "three"}
    with pytest.raises(
        ScoringError, match=r"1 utterances have .*: b; the first is 'two' .* 'three'"
    ):
        compare(base, result(other, other), common=True)
    kept = result(references, references, rules=TextRules(case="keep"))
    with pytest.raises(ScoringError, match="case is 'lower' and 'keep'"):
        compare(base, kept)
    with pytest.raises(ScoringError, match="no utterance in common"):
        compare(base, result({"z": "one"}, {"z": "one"}), common=True)


def test_a_result_of_another_version_of_the_rules_is_refused(result, tmp_path):
    base = result({"a": "one"}, {"a": "one"})
    data = score({"a": "one"}, {"a": "one"}).to_dict()
    data["normalisation"]["version"] = 0
    (tmp_path / "old.json").write_text(json.dumps(data))
    with pytest.raises(ScoringError, match="version is 1 and 0"):
        compare(base, load(tmp_path / "old.json"))


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"scores": [1], "normalisation": {}}', '{"scores": []}']
)
def test_another_file_is_refused_by_name(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ScoringError, match=r"x\.json is not what speechrnn evaluate --json prints"):
        load(tmp_path / "x.json")
    with pytest.raises(ScoringError, match=r"none\.json"):
        load(tmp_path / "none.json")


@pytest.mark.parametrize("change", [{"words": "3"}, {"group": None}, {"insertions": None}])
def test_a_score_of_another_kind_is_refused(tmp_path, change):
    data = score({"a": "one"}, {"a": "one"}).to_dict()
    data["scores"][0].update(change)
    (tmp_path / "x.json").write_text(json.dumps(data))
    with pytest.raises(ScoringError, match=next(iter(change))):
        load(tmp_path / "x.json")


def test_the_command_prints_the_sentence_and_json(speechrnn, tmp_path):
    references = spoken(range(80))
    files = [
        written(tmp_path / f"{name}.json", references, misheard(references, share, 5))
        for name, share in (("a", 0.3), ("b", 0.1))
    ]
    code, out, _ = speechrnn("compare", *files)
    assert code == 0
    assert out.splitlines()[-1].startswith("B is better: B makes")
    code, out, _ = speechrnn("compare", *files, "--json")
    data = json.loads(out)
    assert (code, data["better"], data["utterances"]) == (0, "b", 80)
    assert data["sentence"].startswith("B is better")
    assert {"z", "p", "segments"} <= data["matched_pairs"].keys()
    code, out, err = speechrnn("compare", files[0], tmp_path / "none.json")
    assert (code, out) == (3, "") and "none.json" in err


def test_what_powershell_writes_is_read(tmp_path):
    """It puts UTF-16 with a byte order mark into a file, older ones UTF-8 with one."""
    scored = score({"a": "one two", "b": "three"}, {"a": "one", "b": "three"})
    text = json.dumps(scored.to_dict(), ensure_ascii=False)
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "a.json").write_bytes(text.encode(encoding))
        assert load(tmp_path / "a.json").scores == {s.utterance_id: s for s in scored.scores}


@pytest.mark.parametrize("count", [-1, 2**31, 2**80])
def test_counts_that_cannot_be_are_refused(tmp_path, count):
    data = score({"a": "one two"}, {"a": "one"}).to_dict()
    data["scores"][0]["deletions"] = count
    (tmp_path / "a.json").write_text(json.dumps(data))
    with pytest.raises(ScoringError, match="deletions"):
        load(tmp_path / "a.json")
