"""The plan's arithmetic against numbers worked out by hand."""

import math

import pytest

from launch.chips import CHIPS, parse_topology
from launch.hlo import Traffic
from launch.measured import EVALUATION, FROM_STORE, GIB, STORE, TRAIN, Measured
from launch.roofline import bound, makespan, of_packs, wire_bytes
from launch.table import Plan, rows, time_of, totals
from launch.work import PUBLISHED, calls, count_images, work_of
from stlm_jax.config import default
from stlm_jax.runtime.errors import UserError


def test_the_side_that_takes_longest_bounds():
    rates = (100.0, 10.0, 1.0)
    assert bound(300, 20, 1, rates) == (3.0, "arithmetic")
    assert bound(300, 40, 1, rates) == (4.0, "memory")
    assert bound(300, 40, 5, rates) == (5.0, "links")
    assert bound(300, 40, 0, (100.0, 10.0, math.nan)) == (4.0, "memory")
    seconds, side = bound(300, 40, 1, (100.0, math.nan, 1.0))
    assert math.isnan(seconds) and side == ""


def test_bytes_sent_on_a_ring_of_four():
    traffic = {"all-reduce": Traffic(2, 400), "all-gather": Traffic(1, 400)}
    assert wire_bytes(traffic, 4) == 2 * 300 + 300
    assert wire_bytes({"reduce-scatter": Traffic(1, 100)}, 4) == 300
    assert wire_bytes({"collective-permute": Traffic(1, 100)}, 4) == 100
    assert wire_bytes(traffic, 1) == 0


@pytest.mark.parametrize(
    ("lengths", "groups", "expected"),
    [([3, 3, 2, 2, 2], 2, 7), ([5, 1, 1], 2, 5), ([4, 2], 8, 4), ([1, 2, 3], 1, 6)],
)
def test_the_longest_jobs_begin_first(lengths, groups, expected):
    assert makespan(lengths, groups) == expected  # 3 + 2 + 2: that rule's, and not the best, 6


def test_packs_last_as_long_as_the_device_with_the_longest_trainings():
    # Two devices, two groups each: 4 calls of both groups of the first, then 2 of one, which takes
    # half; a second pack of one group, 1 call of half. Devices work 6 + 4, 2 + 1 and 1 halves.
    assert of_packs([[6, 4, 2, 1], [1]], 2) == (6 + 1, 4 + 1 + 0.5, 7.0)
    assert of_packs([[6, 4, 2, 1]], 1) == (6, 6, 13)
    assert of_packs([[3], [2]], 1) == (5, 5, 5)


def test_float32_on_a_tpu_takes_passes_of_bfloat16():
    chip = CHIPS["v5e"]
    assert chip.operations("bfloat16", "highest") == 197e12
    assert chip.operations("float32", "default") == 197e12
    assert chip.operations("float32", "high") == pytest.approx(197e12 / 3)
    assert chip.operations("float32", "highest") == pytest.approx(197e12 / 6)
    assert CHIPS["h100"].operations("float32", "highest") == pytest.approx(67e12)


# --- topologies ---


@pytest.mark.parametrize(
    ("name", "platform", "chips"),
    [("v5e:4x4", "tpu", 16), ("v6e:2x2", "tpu", 4), ("v5p:2x2x1", "tpu", 4),
     ("v4:2x2x4", "tpu", 16), ("gpu:h100x8", "gpu", 8), ("cpu", "cpu", 1), ("cpu:8", "cpu", 8)],
)  # fmt: skip
def test_names_of_topologies(name, platform, chips):
    topology = parse_topology(name)
    assert (topology.platform, topology.chips) == (platform, chips)


@pytest.mark.parametrize("name", ["v5e", "v5e:4", "v5e:2x2x2", "v5p:4x4", "v7:2x2", "gpu:v5ex8",
                                  "gpu:h100", "v5e:0x4", "tpu", "cpu:0", ""])  # fmt: skip
def test_other_names_are_refused_in_one_line(name):
    with pytest.raises(UserError, match=rf"--topology={name}: .*(such as|slices of)") as caught:
        parse_topology(name)
    assert "\n" not in str(caught.value)


# --- the work of a configuration ---


def test_published_sets_add_up():
    """Their papers' own totals."""
    totals = {
        name: [sum(n) for n in zip(*s.values(), strict=True)] for name, s in PUBLISHED.items()
    }
    assert totals == {"mvtec_ad": [3629, 1725], "visa": [8659, 2162]}
    assert set(default().data.categories) == set(PUBLISHED["mvtec_ad"])


def test_steps_of_a_category():
    config = default()
    config.data.categories = ("toothbrush", "bottle")
    work = work_of(config, None)
    assert work.images == {"toothbrush": 60, "bottle": 209}
    assert work.steps == {"toothbrush": 200 * 30, "bottle": 200 * 104}  # the odd image is dropped
    assert work.tests == {"toothbrush": 42, "bottle": 83}
    config.calibration.held_out = 0.1
    assert work_of(config, None).images == {"toothbrush": 54, "bottle": 188}


def test_images_given_or_not_known():
    config = default()
    config.data.categories = ("nut",)
    source, counts = count_images(config, None)
    assert source == "" and counts == {"nut": (None, None)}
    assert work_of(config, None).steps == {"nut": None}
    assert work_of(config, 30).steps == {"nut": 200 * 15}
    config.train.steps = 7
    assert work_of(config, None).steps == {"nut": 7}


def test_calls_of_the_programs():
    work = {"images": {"a": 30, "b": 11}, "steps": {"a": 500, "b": 100}, "tests": {"a": 9, "b": 8}}
    assert calls(STORE, work, 1, 8) == {"a": 240, "b": 88}  # of each image each variant
    assert calls(EVALUATION, work, 4, 8) == {"a": 3, "b": 2}
    assert calls(EVALUATION, {**work, "tests": {"a": 9, "b": None}}, 4, 8) is None


# --- the table ---


def measured(name, devices=1, **fields):
    held = {"parameters": 1 * GIB, "optimiser": 2 * GIB, "teacher": 3 * GIB, "inputs": 0.5 * GIB}
    usual = dict(temporaries=4 * GIB, other=0.25 * GIB, peak=10.75 * GIB, flops=197e12,
                 accessed=819e9 / 2, seconds=12.0)  # fmt: skip
    return Measured(name, 2, devices, held, **{**usual, **fields})


def plan(*programs, price=None, **changed):
    work = {"images": {"a": 8, "b": 4}, "steps": {"a": 7200, "b": 3600}, "tests": {"a": 8, "b": 4},
            "packs": [[7200, 3600]], "each": 1, "sides": (2, 1), "runs": 1}  # fmt: skip
    return Plan(list(programs), {**work, **changed}, CHIPS["v5e"], 4, 15.75 * GIB, "bfloat16",
                "default", 8, price)  # fmt: skip


def test_hours_and_money_of_two_categories_on_four_chips():
    """A step takes a second, of which memory would need half; the longer category 7200 steps."""
    time = time_of(plan(measured(TRAIN, 2)), measured(TRAIN, 2))
    assert time.seconds == pytest.approx(1.0) and time.side == "arithmetic"
    assert (time.calls, time.hours, time.busy) == (7200, *map(pytest.approx, (2.0, 3.0)))
    in_turn = plan(measured(TRAIN), packs=[[7200], [3600]], sides=(1, 1))
    time = time_of(in_turn, measured(TRAIN))
    assert (time.calls, time.hours, time.busy) == (10800, *map(pytest.approx, (3.0, 3.0)))
    # Where two share a batch, they work both; nothing is known where a number of steps is not.
    time = time_of(plan(measured(TRAIN, 4), sides=(2, 2)), measured(TRAIN, 4))
    assert (time.hours, time.busy) == (pytest.approx(2.0), pytest.approx(6.0))
    time = time_of(plan(measured(TRAIN), packs=[[7200, None]]), measured(TRAIN))
    assert math.isnan(time.hours) and math.isnan(time.calls)
    store, evaluation = measured(STORE, flops=0.0, accessed=819e9), measured(EVALUATION)
    made = plan(measured(TRAIN), measured(FROM_STORE, flops=19.7e12, accessed=0.0), store,
                evaluation, price=1.5)  # fmt: skip
    cells = {line[0]: line[1:] for line in rows(made)}
    assert cells["bound by"] == ["arithmetic", "arithmetic", "memory", "arithmetic"]
    assert cells["hours at least"][:2] == ["2.00", "0.200"]
    assert cells["chip-hours at least"][:2] == ["8.00", "0.800"]
    assert cells["price at least"][:2] == ["12.00", "1.20"]
    assert cells["peak memory, GiB"][0] == "10.8" and cells["of 15.75 GiB"][0] == "68 %"
    # The store's 12 · 8 / 2 calls are dealt out to four chips: 12 seconds. The evaluation takes 4.
    live, stored = totals(made)
    assert live.startswith("with the teacher in every step (train + evaluation): at least 2.00")
    assert "8.00 chip-hours, 12.0" in live
    assert stored.startswith("with a teacher's store (teacher store + train from store + ev")
    assert totals(plan(store, evaluation)) == []  # of some programs nothing follows for all
    assert "at least 0.204 hours, 0.818 chip-hours, 1.23 to pay" in stored


def test_what_a_compiler_refused_is_told_as_far_as_it_is_known():
    refused = Measured(TRAIN, 2, 1, {"teacher": GIB}, peak=18 * GIB, refusal="no room")
    assert not refused.fits(15.75 * GIB) and not measured(TRAIN).fits(10 * GIB)
    assert measured(TRAIN).fits(10.75 * GIB) and measured(TRAIN).fits(math.inf)
    cells = {line[0]: line[1:] for line in rows(plan(refused, measured(EVALUATION)))}
    assert cells["peak memory, GiB"][0] == ">= 18.0" and cells["TFLOP a call"][0] == "-"


def test_an_ensemble_s_runs_are_each_evaluated():
    """Two images a call, of 8 and 4: 4 and 2 calls, of each of three runs; six jobs of 4 chips."""
    evaluated = measured(EVALUATION)
    time = time_of(plan(evaluated, runs=3), evaluated)
    assert time.calls == 3 * (4 + 2)
    assert 3600 * time.hours == pytest.approx(4 + 2)
    assert 3600 * time.busy == pytest.approx(18)


def test_the_trainings_of_a_program_are_told_where_there_are_several():
    made = plan(measured(TRAIN, 2, trainings=6), measured(EVALUATION))
    assert {line[0]: line[1:] for line in rows(made)}["trainings in it"] == ["6", "-"]
    made = plan(measured(TRAIN, 1, trainings=1), measured(EVALUATION))
    assert "trainings in it" not in {line[0] for line in rows(made)}


def test_collectives_are_told_by_kind_and_bound_by_the_links():
    sent = measured(
        TRAIN, devices=2, traffic={"all-reduce": (3, int(200e9))}
    )  # 2 · 200 / 2 GB at 200 GB/s
    made = plan(sent, measured(EVALUATION), sides=(1, 2))
    assert time_of(made, sent).seconds == pytest.approx(1.0)
    cells = {line[0]: line[1:] for line in rows(made)}
    assert cells["all-reduce, number: MB"] == ["3: 200000", "none"]
