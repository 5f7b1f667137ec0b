"""The study of a search: Optuna's, in a journal that several hosts append to."""

import contextlib
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.tuning.library import optuna_here
from launch.tuning.space import Space

NAME = "search"  # of the study
JOURNAL = "journal.log"


class Study:
    """A study whose trials are drawn from a space.

    Nothing here is decided twice: what a trial's parameters are depends on the seed, its number and
    the trials before it.
    """

    def __init__(self, folder: Path, space: Space, seed: int):
        """The study in a folder, made where there is none."""
        optuna = optuna_here()
        storages = optuna.storages
        folder.mkdir(parents=True, exist_ok=True)
        lock = storages.journal.JournalFileSymlinkLock(str(folder / JOURNAL))
        _mend(folder / JOURNAL, lock)
        backend = storages.journal.JournalFileBackend(str(folder / JOURNAL), lock)
        self._study = optuna.create_study(
            storage=storages.JournalStorage(backend),
            study_name=NAME,
            direction="maximize",
            load_if_exists=True,
        )
        self._space, self._seed, self._states = space, seed, optuna.trial.TrialState

    def trials(self) -> list[Any]:
        """All trials that were asked for, in order."""
        trials = self._study.get_trials(deepcopy=False)
        return [trial for trial in trials if trial.state != self._states.WAITING]

    def running(self) -> list[int]:
        """The numbers of those that have no result yet."""
        return [t.number for t in self.trials() if t.state == self._states.RUNNING]

    def is_finished(self, trial: Any) -> bool:
        """Whether a trial has a value."""
        return trial.state == self._states.COMPLETE

    def best(self) -> Any | None:
        """The trial with the largest value, of several the first; None before there is any."""
        finished = [trial for trial in self.trials() if self.is_finished(trial)]
        return max(finished, key=lambda trial: (trial.value, -trial.number), default=None)

    def begin(self, default: Mapping[str, Any] | None) -> None:
        """Has the first trial be that of the parameters `default`, if they are given."""
        if default and not self._study.get_trials(deepcopy=False):
            self._study.enqueue_trial(dict(default))

    def ask(self, count: int, unfinished: Sequence[int]) -> dict[int, dict[str, str]]:
        """What some new trials change, by number; before them, what `unfinished` ones do.

        Those are trials of a search that was killed while it asked: what they have is kept.
        """
        known = {trial.number: trial for trial in self.trials()}
        found = {number: self._overrides(known[number]._trial_id) for number in unfinished}
        for _ in range(count):
            trial = self._study.ask()
            found[trial.number] = self._overrides(trial._trial_id)
        return found

    def _overrides(self, trial_id: int) -> dict[str, str]:
        optuna = optuna_here()
        number = self._study._storage.get_trial(trial_id).number
        digest = hashlib.sha256(f"{self._seed}/{number}".encode()).digest()
        self._study.sampler = optuna.samplers.TPESampler(
            seed=int.from_bytes(digest[:4], "big"), multivariate=True, constant_liar=True
        )
        return self._space.overrides(optuna.trial.Trial(self._study, trial_id))

    def tell(self, number: int, value: float | None, facts: Mapping[str, Any]) -> None:
        """Gives a trial its value, None of a training that diverged; nothing where it has one.

        Args:
            number: of the trial.
            value: of the objective.
            facts: what else is known of it, JSON values, as attributes that the dashboard shows.
        """
        (trial,) = (trial for trial in self.trials() if trial.number == number)
        if trial.state != self._states.RUNNING:
            return
        for name, fact in facts.items():
            self._study._storage.set_trial_user_attr(trial._trial_id, name, fact)
        state = self._states.PRUNED if value is None else self._states.COMPLETE
        self._study.tell(number, value, state, skip_if_finished=True)


def _mend(journal: Path, lock: Any) -> None:
    """Cuts off half a line, which a process that was killed while it wrote may have left."""
    if not journal.exists():
        return
    lock.acquire()
    try:
        with open(journal, "r+b") as file:
            content = file.read()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                file.truncate(whole)
                file.flush()
                os.fsync(file.fileno())
    finally:
        with contextlib.suppress(RuntimeError):  # another took it for one left behind
            lock.release()


def names_of(trials: Iterable[Any]) -> list[str]:
    """The parameters that any of the trials has, in the order in which they appear."""
    return list(dict.fromkeys(name for trial in trials for name in trial.params))
