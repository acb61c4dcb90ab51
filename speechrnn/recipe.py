"""One typed description of a run: a YAML file and ``key=value`` overrides -> Recipe.

A recipe is that of a recogniser or, with the section ``language_model``, of a character language
model. The sections ``text``, ``features``, ``model`` and ``language_model`` are the descriptions
that travel with the model, as they stand. An unknown key is an error that names the nearest known
one. Paths are relative to the working directory.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

try:
    import yaml
    from pydantic import BeforeValidator, Field, ValidationError, model_validator
except ImportError as error:  # the device side has no recipes
    from speechrnn.errors import MissingExtra

    raise MissingExtra("reading a recipe", "train") from error

from speechrnn.augmentation import AugmentSection
from speechrnn.errors import RecipeError
from speechrnn.language import LanguageModelSpec
from speechrnn.section import Fraction, Section
from speechrnn.specs import FeatureSpec, ModelSpec, TextRules


def _corpus(named: object) -> object:
    return named if isinstance(named, str) and named.startswith("tfds:") else Path(str(named))


# A path, or a TensorFlow dataset by its name, which as a path would lose slashes.
Corpus = Annotated[Path | str, BeforeValidator(_corpus)]


class DataSection(Section):
    """Which recordings, and how they are prepared and batched."""

    manifest: Corpus  # see docs/corpora.md
    prepared: Path | None = None  # the shards' folder; default: OUTPUT/prepared
    alphabet: str | None = None  # every symbol, in order; default: derived from the training split
    dev_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1  # of a manifest that names no splits
    min_seconds: Annotated[float, Field(gt=0)] = 0.2  # of a recording; shorter ones are left out
    max_seconds: Annotated[float, Field(gt=0)] = 20.0  # longer ones are left out
    shard_utterances: Annotated[int, Field(gt=0)] = 64  # in a file; for millions, 2000
    batch_seconds: Annotated[float, Field(gt=0)] = 60.0  # of audio in a batch, padding included
    workers: Annotated[int, Field(ge=0)] = 0  # processes that prepare; 0: one a core


class TrainingSection(Section):
    """The optimiser, its schedule, and when to look, save and stop."""

    # A run directory of a recogniser. Its encoder, its feature statistics and what its output layer
    # has of this alphabet are where training starts, instead of random weights: docs/transfer.md.
    init_from: Path | None = None
    epochs: Annotated[int, Field(gt=0)] = 60  # times that the training split is gone through
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3  # the peak
    warmup_fraction: Fraction = 0.1  # of all steps, rising linearly to the peak
    final_learning_rate: Annotated[float, Field(ge=0)] = 1e-5  # the end of the cosine decay
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2  # AdamW's
    clip_norm: Annotated[float, Field(gt=0)] = 1.0  # at most, of the gradient over all weights
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0  # moving average that is scored; 0: none
    # Of matrix products in training and validation; saved and exported models use float32.
    precision: Literal["float32", "bfloat16"] = "float32"
    sorted_first_epoch: bool = True  # short utterances first, once
    validate_every_epochs: Annotated[int, Field(gt=0)] = 1  # dev is scored, the best model kept
    # Validations without a better dev WER, after which it ends; 0: no limit.
    patience_validations: Annotated[int, Field(ge=0)] = 0
    max_minutes: Annotated[float, Field(gt=0)] | None = None  # of steps and validations; then ends
    checkpoint_every_seconds: Annotated[float, Field(gt=0)] = 60.0  # at most lost when killed
    keep_checkpoints: Annotated[int, Field(gt=0)] = 2  # the newest; an older one if one is damaged
    # Two runs on one machine end in the same bits, whatever stops them on the way; its price is in
    # docs/exact_training.md.
    determinism: bool = False
    threads: Literal["auto"] | Annotated[int, Field(gt=0)] = "auto"  # auto: of all cores
    # auto: the workers of TF_CONFIG, else all GPUs of this machine, else one device. Whatever it
    # is, data.batch_seconds and the learning rate are those of the whole batch.
    strategy: Literal["auto", "one", "mirrored", "multi_worker"] = "auto"
    join_minutes: Annotated[float, Field(gt=0)] = 15.0  # that workers wait for each other to start
    # XLA compiles the network (not CTC), anew for every shape of a batch: docs/many_machines.md.
    jit: bool = False
    # Parts in which a batch is computed, for memory.
    accumulate: Annotated[int, Field(gt=0, le=65536)] = 1
    show_pairs: Annotated[int, Field(ge=0)] = 3  # reference/hypothesis pairs after an epoch


class Run(Section):
    """What every run has. ``output`` is the run directory."""

    name: str  # travels with the model
    output: Path  # the run directory
    corpus: str | None = None  # what is learned from; travels with the model, as its licence
    licence: str | None = None  # of the corpus
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0  # of weights, order, dropout and augmentation
    training: TrainingSection = TrainingSection()

    def to_yaml(self) -> str:
        """The whole recipe, defaults included; ``load_any`` reads it back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def fingerprint(self, *sections: str) -> str:
        """sha256 of the named sections: equal exactly where their values are."""
        data = self.model_dump(mode="json", include=set(sections))
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


class Recipe(Run):
    """The run of a recogniser."""

    data: DataSection
    text: TextRules = TextRules()
    features: FeatureSpec = FeatureSpec()
    augment: AugmentSection = AugmentSection()
    model: ModelSpec = ModelSpec()

    @property
    def prepared(self) -> Path:
        """The folder of the prepared shards."""
        return self.data.prepared or self.output / "prepared"


class TextsSection(Section):
    """Which texts a language model learns from: a manifest's transcripts, plain text, or both."""

    manifest: Corpus | None = None  # its transcripts, by their splits
    train_texts: tuple[Path, ...] = ()  # UTF-8, a text a line
    dev_texts: tuple[Path, ...] = ()  # likewise
    alphabet: str | None = None  # every symbol, in order; default: derived from the training texts
    dev_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1  # drawn where nothing else is for dev
    max_characters: Annotated[int, Field(gt=0)] = 1000  # of a text; longer ones are left out
    batch_characters: Annotated[int, Field(gt=0)] = 2000  # of a batch, padding included

    @model_validator(mode="after")
    def _names_a_source(self) -> TextsSection:
        if self.manifest is None and not self.train_texts:
            raise ValueError("no texts to train on; name manifest or train_texts")
        return self


class LanguageRecipe(Run):
    """The run of a character language model, told from a recogniser's by ``language_model``."""

    data: TextsSection
    text: TextRules = TextRules()
    language_model: LanguageModelSpec

    @model_validator(mode="after")
    def _starts_anew(self) -> LanguageRecipe:
        if self.training.init_from is not None:
            raise ValueError("training.init_from is for recognisers; a language model starts anew")
        return self


AnyRecipe = TypeVar("AnyRecipe", bound=Run)


def load(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """A YAML file and overrides such as ``training.epochs=3`` -> the recipe of a recogniser.

    Override values are YAML too: ``augment.speed=[0.9,1.1]``, ``data.alphabet=null``.

    Raises:
        RecipeError: no such file, not YAML, an unknown key, a value out of range; the recipe of
            a language model.
    """
    loaded = load_any(path, overrides)
    if isinstance(loaded, LanguageRecipe):
        raise RecipeError(
            f"{path} describes a language model (language_model), and a recogniser's recipe is "
            "needed; a language model has no step but `speechrnn train`"
        )
    return loaded


def load_any(path: str | Path, overrides: Iterable[str] = ()) -> Recipe | LanguageRecipe:
    """``load``, of a recogniser or a language model."""
    path = Path(path)
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise RecipeError(f"{path} holds no keys; a recipe starts with name, output and data")
    for override in overrides:
        _apply(tree, override)
    if "language_model" in tree:
        return _validated(LanguageRecipe, tree, str(path))
    return _validated(Recipe, tree, str(path))


def from_dict(tree: dict[str, Any], source: str = "recipe") -> Recipe:
    """Plain data -> Recipe. Raises RecipeError, naming the key and the nearest known one."""
    return _validated(Recipe, tree, source)


def _validated(kind: type[AnyRecipe], tree: dict[str, Any], source: str) -> AnyRecipe:
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        told = dict.fromkeys("  " + _describe(problem, kind, tree) for problem in error.errors())
        raise RecipeError("\n".join([f"{source}:", *told])) from error


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"{override!r} is no override; write key=value, as training.epochs=3")
    *parents, last = key.strip().split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise RecipeError(f"{override!r}: {parent} is a value, not a section")
    try:
        tree[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RecipeError(f"{override!r}: the value is not YAML: {error}") from error


def _describe(problem: Any, recipe: type[Run], tree: dict[str, Any]) -> str:
    """One of pydantic's problems in the project's words."""
    message = problem["msg"].removeprefix("Value error, ")
    location = [str(part) for part in problem["loc"]]
    if not location:  # of the recipe as a whole
        return message
    if location[-1] in ("start", "end") and not isinstance(_written(tree, location[:-1]), dict):
        location.pop()  # a plain value is both ends of its ramp
    key = ".".join(location)
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = _known_keys(recipe, location[:-1])
        near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.0)
        return f"unknown key {key}; did you mean {'.'.join([*location[:-1], *near])}?"
    if problem["type"].startswith("missing"):
        return f"{key} is missing"
    if problem["type"] == "tuple_type":
        message = "a range is needed; write [low, high]"
    found = f" (found {problem['input']!r})" if not isinstance(problem["input"], dict) else ""
    return f"{key}: {message}{found}"


def _written(tree: Any, location: Sequence[str]) -> Any:
    """What a recipe has at a place; None where it has nothing."""
    for name in location:
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


def _known_keys(recipe: type[Run], section: Sequence[str]) -> list[str]:
    kind: Any = recipe
    for name in section:
        kind = kind.model_fields[name].annotation
        kind = next((each for each in get_args(kind) if each is not type(None)), kind)
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind)]
    return list(kind.model_fields)
