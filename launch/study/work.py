"""The packs of a study: what is missing of them, and the jobs that make it."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections

from launch.study import jobs
from launch.study.packs import Pack
from launch.study.state import is_settled, steps_done
from stlm_jax.runtime.progress import Progress, note

_POLL = 2.0  # seconds
Key = tuple[str, int]  # a trial: its setting and seed


class Work:
    """A study's packs and trials.

    Attributes:
        packs: of the study.
        configs: of each trial's run.
        folders: of each trial.
        failed: why a trial could not be made in this start, by trial.
    """

    def __init__(self, packs: Sequence[Pack], base: Sequence[str]):
        """Looks at no trial's folder yet.

        Args:
            packs: of the study.
            base: options of the base configuration, whose data are there.
        """
        self.packs, self._base = list(packs), list(base)
        self.configs: dict[Key, ml_collections.ConfigDict] = {}
        self.folders: dict[Key, Path] = {}
        for pack in self.packs:
            self.configs |= pack.configs(base)
            self.folders |= {key: pack.run_folder(*key) for key in pack.trials()}
        self.failed: dict[Key, str] = {}

    def missing(self, pack: Pack) -> list[Key]:
        """Its trials that are not settled."""
        return [
            key for key in pack.trials() if not is_settled(self.folders[key], self.configs[key])
        ]

    def left(self, pack: Pack) -> Pack | None:
        """The pack of what is missing; None where nothing is.

        A seed that one setting lacks is of the command for all that lack any: it goes on with what
        is there.
        """
        missing = self.missing(pack)
        if not missing:
            return None
        settings = [name for name in pack.settings if any(key[0] == name for key in missing)]
        seeds = [seed for seed in pack.seeds if any(key[1] == seed for key in missing)]
        return pack.only(settings, seeds)

    def config(self, pack: Pack) -> ml_collections.ConfigDict:
        """Of the ensemble that a pack is."""
        return pack.config(self._base)

    def command(self, pack: Pack) -> list[str]:
        """That makes a pack."""
        return pack.command(self._base)

    def run(
        self,
        submit: Callable[[Pack, list[str]], Any],
        parallel: int,
        tell: Callable[[], None] = lambda: None,
        earlier: Mapping[str, Any] | None = None,
    ) -> None:
        """Has what is missing made, so many packs at a time; a pack that fails stops no other.

        Of a pack that fails, its settings are tried once more each alone, so that one which cannot
        be trained does not keep the others from it.

        Args:
            submit: has submitit run a pack's command; returns its job.
            parallel: packs at a time.
            tell: called whenever a pack has ended.
            earlier: by pack, jobs that are at work on it already.
        """
        waiting = deque(left for pack in self.packs if (left := self.left(pack)))
        running = {
            pack.name: (earlier[pack.name], pack)
            for pack in waiting
            if earlier and pack.name in earlier
        }
        waiting = deque(pack for pack in waiting if pack.name not in running)
        steps = {key: self._steps(key) for key in self.configs}
        begun = self._done(steps)
        with Progress("study", sum(steps.values()), begun, unit="step") as progress:
            try:
                while waiting or running:
                    self._start(waiting, running, submit, parallel)
                    time.sleep(_POLL)
                    progress.reach(self._done(steps))
                    for name, (job, pack) in list(running.items()):
                        if job.done():
                            del running[name]
                            waiting.extendleft(reversed(self._end(job, pack)))
                            tell()
            except KeyboardInterrupt:
                self._stop(running)
                raise

    def _stop(self, running: Mapping[str, tuple[Any, Pack]]) -> None:
        """Ends the jobs of this machine, once they have saved."""
        local = jobs.submitit().LocalJob
        here = [(job, pack) for job, pack in running.values() if isinstance(job, local)]
        told: set[str] = set()
        while left := [(job, pack) for job, pack in here if not job.done()]:
            for _, pack in left:
                # Once, as a second signal would not let it save.
                if pack.name not in told and jobs.stop(pack.folder):
                    told.add(pack.name)
                    note(f"{pack.name}: saves and stops; Ctrl-C again does not wait for it")
            time.sleep(0.2)

    def _start(
        self,
        waiting: deque[Pack],
        running: dict[str, tuple[Any, Pack]],
        submit: Callable[[Pack, list[str]], Any],
        parallel: int,
    ) -> None:
        """Starts as many of those that wait as may run; two never work in one folder."""
        for _ in range(len(waiting)):
            if len(running) >= parallel:
                return
            pack = waiting.popleft()
            if pack.name in running or jobs.is_at_work(pack.folder):
                waiting.append(pack)  # as of a study that was killed, whose jobs go on
                continue
            left = self.left(pack)
            if left is None:
                continue
            note(
                f"{pack.name}: {len(left.settings)} settings, seeds "
                f"{','.join(map(str, left.seeds))}; log in {pack.folder / jobs.LOG}"
            )
            running[pack.name] = submit(left, self.command(left)), left

    def _end(self, job: Any, pack: Pack) -> list[Pack]:
        """What is to be tried again after a job."""
        why, missing = jobs.outcome(job, pack.folder / jobs.LOG), self.missing(pack)
        if not missing:
            note(f"{pack.name}: done")
            return []
        why = why or f"it left nothing, see {pack.folder / jobs.LOG}"
        settings = [name for name in pack.settings if any(key[0] == name for key in missing)]
        if len(pack.settings) > 1:
            note(f"{pack.name}: {why}; trying {', '.join(settings)} each alone")
            return [pack.only([name]) for name in settings]
        note(f"warning: {pack.name}: {', '.join(settings)} failed: {why}")
        self.failed |= dict.fromkeys(missing, why)
        return []

    def _steps(self, key: Key) -> int:
        """Of a trial, of all its categories."""
        from launch.work import work_of  # here, as it lists the images

        return sum(number or 0 for number in work_of(self.configs[key], None).steps.values())

    def _done(self, steps: Mapping[Key, int]) -> int:
        return sum(
            min(steps_done(folder, self.configs[key].data.categories), steps[key])
            for key, folder in self.folders.items()
        )
