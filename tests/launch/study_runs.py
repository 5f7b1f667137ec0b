"""Folders of evaluated runs as a study finds them, by the functions that write real ones."""

import dataclasses

import numpy as np

from launch.study.trial import DIVERGED, DONE, MISSING, Study, Trial
from stlm_jax.config import default
from stlm_jax.evaluation.results import CategoryResult, ImageResult, RunResult
from stlm_jax.inference.cost import Cost
from stlm_jax.metrics import Accumulator
from stlm_jax.report import details_json, tables
from stlm_jax.report.replicates import write_replicates
from stlm_jax.runtime.files import write_json
from stlm_jax.workdir import CONFIG, DETAILS, METRICS, REPLICATES, RESULTS, RUN

IMAGES, SIZE, DRAWN = 24, 16, 200
BASELINE = "both"
SETTINGS = {
    BASELINE: "",
    "plain": "student.streams=plain",
    "no_fa": "student.fa=False",
    "level_1": "student.levels=(1,) student.decoder=None",
}
QUALITY = {BASELINE: 1.2, "plain": 0.5, "no_fa": 1.15, "level_1": 1.6}
STUDY = Study("components", BASELINE, SETTINGS, (0, 1, 2), ("60 steps a run, not 200 epochs",))


def category(name, quality, seed, images=IMAGES, first=0, drawn=DRAWN):
    """A category's results; a third of its images is good, and some are hard for every model."""
    scene, model = np.random.default_rng([first, *name.encode()]), np.random.default_rng(seed)
    results, accumulators = [], [Accumulator(bootstrap=drawn), Accumulator(bootstrap=drawn)]
    for place in range(images):
        mask = np.zeros((SIZE, SIZE), bool)
        label = place >= images // 3
        if label:
            row, column = scene.integers(0, SIZE - 6, 2)
            mask[row : row + 5, column : column + 6] = True
        noise = scene.normal(size=mask.shape) + 0.5 * model.normal(size=mask.shape)
        seen = np.round(4 * (noise + quality * scene.uniform(0.2, 1.8) * mask)) / 4
        score = float(np.sort(seen.ravel())[-20:].mean() + 0.1 * model.normal())
        kind = "crack" if label else "good"
        accumulators[0].add(seen, mask, score, label, kind, place=place)
        accumulators[1].add(np.round(seen), mask, score / 2, label, kind, place=place)
        nothing = np.zeros((0, 0))
        results.append(
            ImageResult(
                f"{kind}/{first + place:03}", kind, label, score, score / 2, nothing, None, nothing
            )
        )
    of_both = [accumulator.result() for accumulator in accumulators]
    return CategoryResult(name, *of_both, None, {}, results, step=seed)


def write_run(folder, categories, config=None, **changes):
    """A run's folder; `changes` are to its configuration's keys of evaluation."""
    if config is None:
        config = default()
        config.image_size = 64
    for key, value in changes.items():
        config.evaluate[key] = value
    run = RunResult(categories, Cost(1, 1.0, 1.0, 1, "cpu"), config)
    tables.write_tables(folder / RESULTS, {one.category: one.metrics for one in categories})
    write_json(folder / RESULTS / DETAILS, details_json.content(run))
    write_replicates(folder / RESULTS / REPLICATES, categories)
    (folder / CONFIG).write_text(config.to_json())
    write_json(folder / RUN, {"git_revision": "0123abc", "command": "python -m stlm_jax.main"})
    return folder


def trial(folder, setting, seed, names=("bottle", "cable"), **options):
    """A done trial with its folder; options as for `category`."""
    mark = 10 * list(SETTINGS).index(setting) + seed
    made = [category(name, QUALITY[setting], mark, **options) for name in names]
    write_run(folder / f"{setting}_{seed}", made)
    costs = {"seconds": 60.0 + 7 * mark, "passes": 1200.0 + mark, "together": 12}
    return Trial(setting, seed, folder / f"{setting}_{seed}", DONE, **costs)


def trials(folder):
    """All of `STUDY`, but for one that diverged and one that was never started."""
    made = [trial(folder, setting, seed) for setting in SETTINGS for seed in STUDY.seeds]
    for place, state, why in (
        (5, DIVERGED, "loss is nan at step 31"),
        (8, MISSING, "not started"),
    ):
        made[place] = dataclasses.replace(made[place], state=state, why=why)
    return made


def read_metrics(folder):
    """The values that a run's folder holds."""
    return tables.read_results(folder / RESULTS / METRICS)
