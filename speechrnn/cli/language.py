"""Text to a language model: lm."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from speechrnn.cli.app import SHORT_WAIT, Json, answer, app, console, examples
from speechrnn.specs import TextRules

if TYPE_CHECKING:
    from speechrnn.decoding.ngram import NGramModel, Perplexity

Advance = Callable[[int], object]


@dataclasses.dataclass(frozen=True)
class _Reading:
    """How sentences become tokens, whichever file they stand in."""

    units: str
    rules: TextRules = dataclasses.field(default_factory=TextRules)
    symbols: frozenset[str] = frozenset()  # of a model's alphabet; empty: any
    dev_fraction: float = 0.1

    def tokens(
        self, path: Path, split: str, words: Counter[str], advance: Advance
    ) -> Iterator[list[str]]:
        """The tokens of each sentence that is not empty; ``words`` counts its words."""
        from speechrnn.corpora import sentences
        from speechrnn.decoding.ngram import characters
        from speechrnn.text import normalise

        for written in sentences.read(path, split, self.dev_fraction, advance):
            text = normalise(written, self.rules)
            found = text.split()
            words.update(found)
            if found:
                yield found if self.units == "words" else characters(text)

    def foreign(self, words: Iterable[str]) -> list[str]:
        """The words that the model's alphabet cannot write, sorted."""
        return sorted(w for w in words if self.symbols and not self.symbols.issuperset(w))


@app.command(
    epilog=examples(
        "speechrnn lm mine.csv -o lm.arpa --lexicon words.txt",
        "speechrnn lm mine.csv more.txt -o lm.arpa --order 4 --prune 0,0,1 --model model.tflite",
        "speechrnn lm mine.csv -o letters.arpa --units characters --order 6 --held-out mine.csv",
    )
)
def lm(
    texts: Annotated[
        list[Path],
        typer.Argument(metavar="TEXT...", help="A sentence a line, or manifests: TSV, CSV, JSON."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The ARPA file to write.")],
    order: Annotated[
        int, typer.Option(min=1, help="Words or characters in an n-gram; decoding reads 2 to 6.")
    ] = 3,
    prune: Annotated[
        str,
        typer.Option(help="Of each order the count up to which n-grams are left out, as 0,0,1."),
    ] = "0",
    min_count: Annotated[
        int, typer.Option(min=1, help="Words, or characters, that occur less often are unknown.")
    ] = 1,
    units: Annotated[
        str, typer.Option(help="words, or characters with | for the space.")
    ] = "words",
    split: Annotated[str | None, typer.Option(help="Of manifests; default: train.")] = None,
    held_out: Annotated[
        Path | None,
        typer.Option(help="Tell the perplexity on this text, or on the dev split of a manifest."),
    ] = None,
    lexicon: Annotated[
        Path | None, typer.Option(help="Write the words too, one a line, for decoding.")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="Normalise as for this recogniser, and tell what it cannot write."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Estimate an n-gram language model by modified Kneser-Ney smoothing, as an ARPA file.

    Text is normalised as transcripts are: lower case, no punctuation; with --model by the rules of
    that model's alphabet. Of a manifest only the split train is read, unless --split names another.
    """
    from speechrnn.decoding import arpa, kneser_ney

    if units not in ("words", "characters"):
        raise typer.BadParameter(f"{units!r}; choose words or characters", param_hint="--units")
    thresholds = _numbers(prune)
    _check_paths(texts, held_out, split, out, lexicon)
    reading = _reading(units, model)
    words: Counter[str] = Counter()
    sentences = 0

    def read(advance: Advance) -> Iterator[list[str]]:
        nonlocal sentences
        for path in texts:
            for tokens in reading.tokens(path, split or "train", words, advance):
                sentences += 1
                yield tokens

    _tell_splits(texts, split or "train")
    with _progress("counting, writing", texts) as advance:
        estimated = kneser_ney.estimate(read(advance), order, thresholds, min_count)
        arpa.write_arpa(estimated, out)
    _tell_doubts(estimated, order, units)
    facts: dict[str, Any] = {
        "path": str(out),
        "units": units,
        "order": estimated.order,
        "ngrams": [len(grams) for grams in estimated.ngrams],
        "vocabulary": len(estimated.vocabulary),
        "sentences": sentences,
        "words": words.total(),
        "discounts": estimated.discounts,
        "fallback_orders": estimated.fallback_orders,
    }
    facts |= _word_list(lexicon, words, min_count, reading)
    if held_out is not None:
        facts["held_out"] = _held_out(estimated, held_out, reading)
    answer(facts, _table(facts), as_json)


def _numbers(prune: str) -> list[int]:
    try:
        return [int(number) for number in prune.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"{prune!r}; give whole numbers with commas between, as 0,0,1", param_hint="--prune"
        ) from None


def _check_paths(
    texts: list[Path], held_out: Path | None, split: str | None, out: Path, lexicon: Path | None
) -> None:
    """Raise BadParameter for an output that is an input too, or a split of what has none."""
    from speechrnn.corpora import sentences

    inputs = {path.resolve() for path in [*texts, held_out] if path is not None}
    for option, path in (("--out", out), ("--lexicon", lexicon)):
        if path is not None and path.resolve() in inputs:
            raise typer.BadParameter(f"{path} is read too", param_hint=option)
    if lexicon is not None and lexicon.resolve() == out.resolve():
        raise typer.BadParameter("it is the file of --out", param_hint="--lexicon")
    if split is not None and not any(map(sentences.is_manifest, texts)):
        raise typer.BadParameter("no TEXT is a manifest", param_hint="--split")
    for path in (out, lexicon):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)


def _reading(units: str, model: Path | None) -> _Reading:
    if model is None:
        return _Reading(units)
    from speechrnn.runtime import open_model

    recogniser = open_model(model, decoder=None)
    alphabet = recogniser.alphabet.spec
    return _Reading(
        units,
        alphabet.rules,
        frozenset(alphabet.symbols),
        recogniser.card.get("dev_fraction", 0.1),
    )


@contextlib.contextmanager
def _progress(title: str, paths: list[Path]) -> Iterator[Advance]:
    """What to call with the bytes of ``paths`` that are read; a bar where it takes long, and
    ``title`` for what is done after the last of them."""
    from rich.progress import Progress

    bar = Progress(console=console, transient=True)
    sizes = [path.stat().st_size for path in paths if path.is_file()]
    reading = bar.add_task("reading", total=sum(sizes))

    def advance(size: int) -> None:
        bar.update(reading, advance=size)
        if bar.finished:
            bar.add_task(title, total=None)

    start = threading.Timer(SHORT_WAIT, bar.start)
    start.start()
    try:
        yield advance
    finally:
        start.cancel()
        start.join()
        if bar.live.is_started:
            bar.stop()


def _held_out(model: NGramModel, path: Path, reading: _Reading) -> dict[str, Any]:
    _tell_splits([path], "dev")
    with _progress("scoring", [path]) as advance:
        tokens = reading.tokens(path, "dev", Counter(), advance)
        result: Perplexity = model.perplexity(tokens)
    return {
        "path": str(path),
        **dataclasses.asdict(result),
        "unknown_rate": result.unknown_rate,
    }


def _word_list(
    path: Path | None, words: Counter[str], min_count: int, reading: _Reading
) -> dict[str, Any]:
    """Write the words that occur often enough and can be written; tell of those that cannot."""
    from speechrnn.files import write_atomically

    foreign = reading.foreign(words)
    if foreign:
        shown = ", ".join(foreign[:10]) + (", ..." if len(foreign) > 10 else "")
        left_out = "; they are left out of the lexicon" if path else ""
        _tell(
            f"{len(foreign)} words, {sum(words[w] for w in foreign)} times in the text, have "
            f"characters that the model's alphabet lacks{left_out}: {shown}"
        )
    found: dict[str, Any] = {"foreign_words": len(foreign)} if reading.symbols else {}
    if path is not None:
        common = {word for word, count in words.items() if count >= min_count}
        listed = sorted(common.difference(foreign))
        write_atomically(path, "".join(f"{word}\n" for word in listed).encode())
        found |= {"lexicon": str(path), "lexicon_words": len(listed)}
    return found


def _tell(message: str) -> None:
    console.print(f"note: {message}", markup=False, highlight=False)


def _tell_splits(paths: list[Path], split: str) -> None:
    from speechrnn.corpora import sentences

    for path in filter(sentences.is_manifest, paths):
        _tell(f"of {path} the split {split} is read")


def _tell_doubts(model: NGramModel, order: int, units: str) -> None:
    if model.order < order:
        _tell(
            f"there are no n-grams of order {model.order + 1}: the sentences are too short, or all "
            f"are pruned; the model has order {model.order}"
        )
    if not 2 <= model.order <= 6:
        _tell(f"the model has order {model.order}; decoding reads orders 2 to 6")
    of_order = [n for n in model.fallback_orders if (units, n) != ("characters", 1)]
    if of_order:  # an alphabet has no rare characters: no wonder at order 1
        _tell(
            f"the text is too small or too even to estimate the discounts of n-grams of order "
            f"{', '.join(map(str, of_order))}; 0.5, 1 and 1.5 stand in. More text, or a lower "
            "order, is better"
        )


def _table(facts: dict[str, Any]) -> str:
    what = "word" if facts["units"] == "words" else "character"
    lines = {
        "text": f"{facts['sentences']} sentences, {facts['words']} words",
        "vocabulary": f"{facts['vocabulary']} {what}s",
    }
    for length, count in enumerate(facts["ngrams"], start=1):
        lines[f"n-grams of order {length}"] = str(count)
    if "held_out" in facts:
        held_out = facts["held_out"]
        lines["held-out text"] = (
            f"{held_out['sentences']} sentences, {held_out['tokens']} tokens with their ends, "
            f"{held_out['unknown']} unknown ({held_out['unknown_rate']:.2%})"
        )
        lines["held-out perplexity"] = (
            f"{held_out['perplexity']:.2f} a {what}, {held_out['perplexity_without_unknown']:.2f} "
            "without the unknown"
        )
    if "lexicon" in facts:
        lines["lexicon"] = f"{facts['lexicon']}, {facts['lexicon_words']} words"
    lines["language model"] = facts["path"]
    return "\n".join(f"{key:22} {value}" for key, value in lines.items())
