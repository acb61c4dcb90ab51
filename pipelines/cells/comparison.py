"""What is compared: the rows, what all of them have in common, and the recipe of each training."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import yaml

from cells import size
from cells.rows import ONE_WAY, TRAINING, TRIAL, TWO_WAY, Job, Row
from speechrnn import recipe as recipes
from speechrnn.data.dataset import recogniser_spec
from speechrnn.data.index import Index
from speechrnn.data.prepare import prepared
from speechrnn.errors import DataError
from speechrnn.recipe import Recipe
from speechrnn.specs import ModelSpec, RecogniserSpec

# One learning rate is fair to no cell: without gates a recurrence is unstable where gated ones
# learn fastest. Each cell has the rate at which its two-way network has the lowest dev loss after
# a short training, with a seed that no row has.
LEARNING_RATES = (0.0008, 0.002, 0.005)
# Where the best of them is the lowest or the highest, the next one beyond is tried, too.
RATE_STEP, MOST_RATES = 2.5, 5
TRIAL_SEED = 0
TRIAL_PART = 4  # a trial has a fourth of the epochs

LOOKAHEAD_MS = 300.0  # what a one-way network hears of what follows, as in an4_lookahead.yaml
RATE = "training.learning_rate"
# No part of what a result depends on; a corpus is known by its content.
NOT_SETTINGS = (
    ("name",), ("output",), ("data", "manifest"), ("data", "prepared"), ("data", "workers"),
    ("training", "threads"), ("training", "show_pairs"), ("training", "checkpoint_every_seconds"),
)  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """What all rows have in common."""

    recipe_file: Path
    output: Path
    overrides: tuple[str, ...] = ()

    @cached_property
    def recipe(self) -> Recipe:
        """Without what a row sets. Its ``prepared`` are the shards of all rows."""
        own = [f"output={self.output}", f"data.prepared={self.output / 'prepared'}"]
        return recipes.load(self.recipe_file, [*own, *self.overrides])

    @cached_property
    def index(self) -> Index:
        return prepared(self.recipe)

    @cached_property
    def settings(self) -> str:
        """What tells these results from those of other settings: a hash of the recipe as it is
        written, of the corpus and of how a row is made of both."""
        tree = yaml.safe_load(self.recipe_file.read_text(encoding="utf-8"))
        for section, key in (path for path in NOT_SETTINGS if len(path) == 2):
            tree.get(section, {}).pop(key, None)
        for (key,) in (path for path in NOT_SETTINGS if len(path) == 1):
            tree.pop(key, None)
        kept = {".".join(path) for path in NOT_SETTINGS}
        overrides = sorted(o for o in self.overrides if o.partition("=")[0].strip() not in kept)
        told = [tree, overrides, self.index.corpus_sha256, LEARNING_RATES, LOOKAHEAD_MS, TRIAL_PART]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]

    @cached_property
    def fixed_rate(self) -> float | None:
        """The learning rate of all cells, where one is given: nothing is tried then."""
        given = any(override.partition("=")[0].strip() == RATE for override in self.overrides)
        return self.recipe.training.learning_rate if given else None

    def spec(self, row: Row) -> RecogniserSpec:
        """The network of a row, with the recipe's units."""
        spec = recogniser_spec(self.recipe, self.index)
        one_way = row.directions == ONE_WAY
        frame_ms = 1000 * spec.seconds_per_output_frame
        model: ModelSpec = replace(
            spec.model,
            cell=cast(Any, row.cell),
            # Of a clockwork they must be a multiple of its modules'.
            units=-(-spec.model.units // len(spec.model.periods)) * len(spec.model.periods),
            bidirectional=not one_way,
            lookahead=round(LOOKAHEAD_MS / frame_ms) if one_way else 0,
        )
        return replace(spec, model=model)

    def sized(self, row: Row) -> RecogniserSpec:
        """The network of a row, with the units that give it as many parameters as the recipe's."""
        if row not in self._sized:
            spec = self.spec(row)
            units = size.units_for(spec, self._parameters)[0]
            self._sized[row] = size.with_units(spec, units)
        return self._sized[row]

    @cached_property
    def _sized(self) -> dict[Row, RecogniserSpec]:
        """Found once: networks are built for it."""
        return {}

    @cached_property
    def _parameters(self) -> int:
        return size.count_parameters(recogniser_spec(self.recipe, self.index))

    def recipe_of(self, job: Job, units: int, folder: Path) -> Recipe:
        model = self.spec(job.row).model
        overrides = [
            f"name={self.recipe.name}-{job.name}",
            f"output={folder / 'run'}",
            f"data.prepared={self.recipe.prepared}",
            *self.overrides,
            f"seed={job.seed}",
            f"model.cell={job.cell}",
            f"model.units={units}",
            f"model.bidirectional={str(model.bidirectional).lower()}",
            f"model.lookahead={model.lookahead}",
            f"{RATE}={job.learning_rate!r}",
        ]
        if job.kind == TRIAL:
            epochs = max(1, self.recipe.training.epochs // TRIAL_PART)
            overrides += [f"training.epochs={epochs}", f"training.validate_every_epochs={epochs}"]
        return recipes.load(self.recipe_file, overrides)

    def trials(self, cells: Iterable[str], lines: Sequence[dict[str, Any]]) -> list[Job]:
        """The trials that are known to be needed; ``lines`` of those that are done may add some."""
        if self.fixed_rate is not None:
            return []
        return [
            Job(TRIAL, cell, TWO_WAY, TRIAL_SEED, rate)
            for cell in cells
            for rate in rates_to_try(cell, lines)
        ]

    def trainings(self, rows: Sequence[Row], seeds: Sequence[int], lines: list[dict]) -> list[Job]:
        """A seed of every row before the next seed, so that an early table has all rows.

        ``lines`` of the results hold the trials, all of them, of these rows' cells.
        """
        rates = {row.cell: self.fixed_rate or chosen_rate(row.cell, lines) for row in rows}
        return [
            Job(TRAINING, row.cell, row.directions, seed, rates[row.cell])
            for seed in seeds
            for row in rows
        ]


def rates_to_try(cell: str, lines: Iterable[dict[str, Any]]) -> list[float]:
    """The learning rates of a cell's trials, the next one beyond an edge that is the best so far
    included; the lowest first."""
    tried = _trials_of(cell, lines)
    rates = sorted({*LEARNING_RATES, *tried})
    if set(LEARNING_RATES) <= tried.keys() and len(rates) < MOST_RATES:
        best = min((loss, rate) for rate, loss in tried.items())[1]
        if best == rates[0]:
            rates.insert(0, _rounded(best / RATE_STEP))
        elif best == rates[-1]:
            rates.append(_rounded(best * RATE_STEP))
    return rates


def chosen_rate(cell: str, lines: Iterable[dict[str, Any]]) -> float:
    """The learning rate with the lowest dev loss among the trials of a cell.

    Raises:
        DataError: no trial of it had a finite loss.
    """
    loss, rate = min((loss, rate) for rate, loss in _trials_of(cell, lines).items())
    if loss == math.inf:
        raise DataError(
            f"{cell} has no finite dev loss at any of the learning rates tried; give one that is "
            f"lower than all of them: {RATE}=0.0001"
        )
    return rate


def _trials_of(cell: str, lines: Iterable[dict[str, Any]]) -> dict[float, float]:
    """Learning rate -> dev loss; infinite where it was not finite at the end, or for so long that
    the trial was given up."""
    return {
        line["learning_rate"]: math.inf if line["dev_loss"] is None else line["dev_loss"]
        for line in lines
        if line["kind"] == TRIAL and line["cell"] == cell
    }


def _rounded(rate: float) -> float:
    return float(f"{rate:.3g}")
