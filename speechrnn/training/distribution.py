"""One device, several, or several machines: who computes which part of a step, and who writes.

Of a training on several machines every process is a worker, and one of them is the chief: it
prepares, reads and writes the run directory, and keeps the time. The others get from it what they
have to know. All of them hold the same weights and change them alike.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from speechrnn.errors import MachineRefused, UsageError
from speechrnn.recipe import TrainingSection

_ADDRESS = re.compile(r"\S+:\d{1,5}")
REMIND_SECONDS = 30.0  # between two messages of a worker that waits for others to start
Groups = Mapping[str, list[np.ndarray]]


class Distribution:
    """How one process takes part in a training; without arguments, alone and on one device.

    ``worker`` is the number of this process among ``workers``, 0 being the chief; ``replicas`` are
    the devices of this process, each with the model's variables.
    """

    def __init__(
        self, strategy: tf.distribute.Strategy | None = None, worker: int = 0, workers: int = 1
    ):
        self.strategy, self.worker, self.workers = strategy, worker, workers
        self.replicas = strategy.num_replicas_in_sync // workers if strategy else 1
        self._across = tf.function(
            self._sum_over_workers, input_signature=[tf.TensorSpec([None], tf.float32)]
        )

    @property
    def is_chief(self) -> bool:
        return self.worker == 0

    def scope(self) -> AbstractContextManager[Any]:
        """Variables made within it are the same on every device and every worker."""
        return self.strategy.scope() if self.strategy else nullcontext()

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """``function`` on every device of this process; tensors that it gives stay apart."""
        return self.strategy.run(function, args=args) if self.strategy else function(*args)

    def first(self, values: Any) -> Any:
        """Of what ``run`` gave, the first device's."""
        if self.strategy is None:
            return values
        local = self.strategy.experimental_local_results
        return tf.nest.map_structure(lambda value: local(value)[0], values)

    def replica(self) -> tf.Tensor | int:
        """Within ``run``: the number of the device among this process's."""
        if self.replicas == 1:
            return 0
        context = tf.distribute.get_replica_context()
        return context.replica_id_in_sync_group - self.worker * self.replicas

    def total(self, tensors: list[tf.Tensor]) -> list[tf.Tensor]:
        """Within ``run``: the sums over all devices of all workers, the same bits everywhere."""
        if self.strategy is None:
            return tensors
        placed = [tf.identity(tensor) for tensor in tensors]  # an argument has no device yet
        context = tf.distribute.get_replica_context()
        return list(context.all_reduce(tf.distribute.ReduceOp.SUM, placed))

    def agree(self, *numbers: float) -> np.ndarray:
        """This worker's numbers -> everybody's, (workers, n) float64. All have to call it."""
        table = np.zeros([self.workers, len(numbers)])
        table[self.worker] = numbers
        return self._combined(table)

    def gather(self, value: Any) -> list[Any]:
        """What json can write -> everybody's, by worker. All have to call it."""
        if self.workers == 1:
            return [value]
        data = np.frombuffer(json.dumps(value).encode(), np.uint8)
        lengths = self.agree(len(data))[:, 0].astype(int)
        table = np.zeros([self.workers, lengths.max() + lengths.max() % 2], np.uint8)
        table[self.worker, : len(data)] = data
        table = self._combined(table)
        return [
            json.loads(row[:length].tobytes()) for row, length in zip(table, lengths, strict=True)
        ]

    def from_chief(self, value: Any) -> Any:
        """The chief's value, which json can write, at every worker. All have to call it."""
        return self.gather(value if self.is_chief else None)[0]

    def arrays_from_chief(self, arrays: Groups) -> dict[str, list[np.ndarray]]:
        """The chief's arrays, bit for bit, for workers that have some of the same shapes."""
        if self.workers == 1:
            return dict(arrays)
        return {
            group: [self._combined(a if self.is_chief else np.zeros_like(a)) for a in list_]
            for group, list_ in arrays.items()
        }

    def _combined(self, array: np.ndarray) -> np.ndarray:
        """The sum over workers of an array that is not zero at one of them at most in any place:
        exact for every type, as it is taken over halves of 16 bits, which float32 holds."""
        if self.workers == 1:
            return array
        halves = np.ascontiguousarray(array).reshape(-1).view(np.uint16).astype(np.float32)
        summed = self.first(self._across(halves)).numpy() / self.replicas
        return summed.astype(np.uint16).view(array.dtype).reshape(array.shape)

    def _sum_over_workers(self, vector: tf.Tensor) -> Any:
        return self.run(lambda each: self.total([each])[0], vector)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Within it, the loss of another worker is an error that says what to do.

        Raises:
            MachineRefused: a worker ended or cannot be reached.
        """
        try:
            yield
        except tf.errors.OpError as error:
            if self.workers == 1 or not _is_lost(error):
                raise
            raise MachineRefused(
                f"worker {self.worker} of {self.workers} lost another worker, so this training "
                "ends: its own messages say why it went. Start all workers again with the same "
                "command; they go on from the last checkpoint. (TensorFlow: "
                f"{_cause(error)})"
            ) from error


def start(section: TrainingSection) -> Distribution:
    """What ``training.strategy`` asks for; waits until all workers are there. To be called before
    anything else uses TensorFlow.

    Raises:
        UsageError: TF_CONFIG is missing or does not describe workers; TensorFlow is in use.
    """
    kind = section.strategy
    cluster = Cluster.from_environment() if kind in ("auto", "multi_worker") else None
    if cluster is None and kind == "multi_worker":
        raise UsageError(
            "training.strategy is multi_worker, and the environment variable TF_CONFIG names no "
            "workers; see docs/many_machines.md, or set training.strategy=one"
        )
    if cluster is not None and (kind == "multi_worker" or len(cluster.hosts) > 1):
        return _join(cluster, section.join_minutes)
    several = len(tf.config.list_physical_devices("GPU")) > 1
    if kind == "mirrored" or (kind == "auto" and several):
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return Distribution(tf.distribute.MirroredStrategy([each.name for each in devices]))
    return Distribution()


@dataclass(frozen=True)
class Cluster:
    """What TF_CONFIG says: the workers' addresses, the chief's first, and which one this is."""

    hosts: tuple[str, ...]
    worker: int

    @classmethod
    def from_environment(cls) -> Cluster | None:
        """None where there is no TF_CONFIG. Raises UsageError if it cannot be understood."""
        text = os.environ.get("TF_CONFIG")
        if not text:
            return None
        try:
            told = json.loads(text)
            jobs, task = told["cluster"], told["task"]
            chief, workers = jobs.get("chief", []), jobs.get("worker", [])
            hosts, index = (*chief, *workers), int(task["index"])
            lists = isinstance(chief, list) and isinstance(workers, list)
            if not lists or not all(isinstance(h, str) and _ADDRESS.fullmatch(h) for h in hosts):
                raise ValueError("the addresses of a job are a list of host:port")
            if len(set(hosts)) < len(hosts):
                raise ValueError("two workers have one address")
            known = set(jobs) <= {"chief", "worker"} and task["type"] in jobs
            if not known or not 0 <= index < len(jobs[task["type"]]):
                raise ValueError(f"task {task} is none of {jobs}")
            number = index + (len(chief) if task["type"] == "worker" else 0)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                f"TF_CONFIG is {text!r} ({error}); it has to look like "
                '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", '
                '"index": 0}}, with jobs "worker" and at most "chief"'
            ) from error
        return cls(hosts, number)


def _join(cluster: Cluster, minutes: float) -> Distribution:
    with _deadline(cluster, minutes), _ctrl_c_ends_the_process():
        try:
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
        except RuntimeError as error:
            raise UsageError(
                "several workers have to be joined before anything else uses TensorFlow; call "
                f"speechrnn.training.train first in the process ({error})"
            ) from error
        except tf.errors.OpError as error:
            raise MachineRefused(
                f"worker {cluster.worker} at {cluster.hosts[cluster.worker]} cannot join "
                f"{', '.join(cluster.hosts)}: {error.message}. Check the addresses in TF_CONFIG, "
                "that the port is free, and that all workers start"
            ) from error
        found = Distribution(strategy, cluster.worker, len(cluster.hosts))
        found.agree(0.0)  # everybody is there, and can be heard
    if threading.current_thread() is threading.main_thread():
        # TensorFlow's own handler, set by now, would keep a worker alive that is asked to end.
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM) or signal.SIG_DFL)
    return found


@contextmanager
def _ctrl_c_ends_the_process() -> Iterator[None]:
    """At once: Python's own handler would wait for the end of TensorFlow's wait."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    if not main or before is signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _deadline(cluster: Cluster, minutes: float) -> Iterator[None]:
    """Ends the process with exit code 1 unless what is within it is done in time: TensorFlow's
    wait for others knows no end, and nothing but the end of the process interrupts it."""
    done = threading.Event()

    def watch() -> None:
        left, who = 60 * minutes, f"worker {cluster.worker} at {cluster.hosts[cluster.worker]}"
        hosts = ", ".join(cluster.hosts)
        while left > 0:
            wait = min(REMIND_SECONDS, left)
            if done.wait(wait):
                return
            left -= wait
            print(f"{who} waits for all of {hosts} to start", file=sys.stderr, flush=True)
        print(
            f"error: {who}: after {minutes:g} minutes not all of {hosts} have started. Look at "
            "their messages, check TF_CONFIG and that these ports can be reached, and start all "
            "workers again (training.join_minutes says how long to wait)",
            file=sys.stderr,
            flush=True,
        )
        os._exit(MachineRefused.exit_code)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _is_lost(error: tf.errors.OpError) -> bool:
    """Whether TensorFlow's error is of the connection between workers, and not of this one."""
    lost = tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError
    return isinstance(error, lost) or "ollective" in error.message


def _cause(error: tf.errors.OpError) -> str:
    """The line of TensorFlow's message that says what happened."""
    lines = [line for line in error.message.splitlines() if line.strip()]
    return next((line for line in lines if "aborted by" in line), lines[0] if lines else "")
