"""In which order changes are tried, and what is compiled again; the compiler is a table here."""

import pytest

from launch import plan
from launch.changes import changes, pasted
from launch.chips import parse_topology
from launch.compiling import Answer, environment
from launch.measured import EVALUATION, FROM_STORE, GIB, PROGRAMS, STORE, TRAIN, Measured
from launch.options import parse
from stlm_jax.config import default
from stlm_jax.runtime import libtpu

LIMIT = 10.0


def options(*arguments):
    return parse(["plan", "--config=configs/mvtec.py", *arguments])


def test_devices_that_share_a_batch_are_the_run_s():
    """`--data` has each keep its images and is pasted; `config.mesh.data` splits the batch."""
    asked = options("--topology=v5e:4x4", "--data=4")
    assert asked.data == asked.config.mesh.data == 4 and asked.config.train.batch_size == 8
    assert asked.changed == {"mesh.data": 4, "train.batch_size": 8}
    told = options("--topology=v5e:4x4", "--config.mesh.data=2")
    assert told.data == 2 and told.config.train.batch_size == 2 and not told.changed
    assert (
        options("--topology=v5e:4x4", "--config.mesh.data=-1", "--config.mesh.member=2").data == 8
    )
    told = options("--topology=v5e:4x4", "--config.mesh.data=2", "--batch_per_device=3")
    assert told.changed == {"train.batch_size": 6}
    assert options("--topology=cpu", "--data=4").topology.chips == 4
    assert options("--topology=cpu").topology.chips == 1


@pytest.fixture
def tried(monkeypatch):
    """A compiler that knows what each program needs, in GiB; what it was asked for is kept."""
    requests = []

    def use(needs):
        def compile_programs(request, topology, deadline):
            requests.append(request)
            measured = {}
            for name in request["programs"]:
                peak = needs(name, request)
                measured[name] = Measured(name, 2, 1, {}, peak=peak * GIB)
                if peak > LIMIT:
                    break
            return Answer(measured, {}, "chip", LIMIT * GIB, 0, "")

        monkeypatch.setattr(plan, "compile_programs", compile_programs)
        return requests

    return use


def search(*arguments):
    options = parse(["plan", "--config=configs/mvtec.py", "--topology=v5e:4x4", *arguments])
    found = plan.Search(options)
    found.run()
    return found


def test_what_fits_is_compiled_once(tried):
    requests = tried(lambda name, request: 9.0)
    found = search()
    assert found.fits and not found.overrides
    assert [request["programs"] for request in requests] == [list(PROGRAMS)]
    assert list(found.measured) == list(PROGRAMS)


def test_the_dtype_is_tried_first_and_all_are_compiled_with_it(tried):
    needs = {"float32": 18.0, "bfloat16": 9.0}
    requests = tried(lambda name, request: needs[request["config"]["dtype"]])
    found = search()
    assert found.fits and found.overrides == {"dtype": "bfloat16"}
    assert [request["config"]["dtype"] for request in requests] == ["float32", "bfloat16"]
    assert all(found.measured[name].peak == 9 * GIB for name in PROGRAMS)


def test_an_evaluation_that_does_not_fit_takes_smaller_batches(tried):
    def needs(name, request):
        return 6.0 * request["config"]["evaluate"]["batch_size"] if name == EVALUATION else 5.0

    tried(needs)
    found = search("--config.dtype=bfloat16")
    assert found.fits and found.overrides == {"evaluate.batch_size": 1}
    assert found.measured[EVALUATION].peak == 6 * GIB


def split(request):
    return request["config"]["teacher"]["sharding"] == "fsdp"


def test_the_teacher_is_split_last_and_over_devices_only(tried):
    def needs(name, request):
        return 9.0 if split(request) or name in (FROM_STORE, EVALUATION) else 12.0

    tried(needs)
    assert not search("--config.dtype=bfloat16").fits
    found = search("--config.dtype=bfloat16", "--data=4")
    assert found.fits and found.overrides["teacher.sharding"] == "fsdp"


def test_programs_that_want_different_changes_get_them(tried):
    """The store wants a split teacher, which is tried last, and then the evaluation its own."""

    def needs(name, request):
        if name == EVALUATION:
            return 6.0 * request["config"]["evaluate"]["batch_size"]
        return 12.0 if name == STORE and not split(request) else 5.0

    tried(needs)
    found = search("--config.dtype=bfloat16", "--data=4")
    assert found.fits and found.measured[STORE].peak == 5 * GIB
    assert found.overrides == {"teacher.sharding": "fsdp", "evaluate.batch_size": 1}


def test_where_nothing_helps_all_that_was_tried_is_known(tried):
    requests = tried(lambda name, request: 99.0)
    found = search()
    assert not found.fits and found.overrides["dtype"] == "bfloat16"
    assert found.measured[TRAIN].peak == 99 * GIB and len(requests) >= 2
    assert STORE not in found.measured  # nothing is compiled for a run that cannot be


def test_keys_are_tried_where_this_release_has_them():
    config = default()
    with config.unlocked():
        config.remat, config.train.accumulate = "none", 1
    config.ensemble.groups = 2
    config.train.batch_size = 4
    assert [pasted(change.overrides) for change in changes(config, 2)] == [
        "--config.dtype=bfloat16",
        "--config.remat=blocks",
        "--config.ensemble.groups=1",
        "--config.train.accumulate=2",
        "--config.evaluate.batch_size=2",
        "--config.evaluate.batch_size=1",
        "--config.teacher.sharding=fsdp",
    ]
    config.dtype, config.remat, config.train.accumulate = "bfloat16", "blocks", 2
    config.ensemble.groups = 1
    config.evaluate.batch_size, config.teacher.sharding = 1, "fsdp"
    assert not list(changes(config, 2))


def test_nothing_of_a_machine_with_a_tpu_leaks():
    around = {"TPU_NAME": "local", "TPU_WORKER_ID": "3", "JAX_PLATFORMS": "tpu", "PATH": "/bin",
              "LIBTPU_INIT_ARGS": "--x", "MEGASCALE_NUM_SLICES": "2", "JAX_PLATFORM_NAME": "gpu",
              "TPU_LIBRARY_PATH": "/lib/libtpu.so"}  # fmt: skip
    made = environment(parse_topology("v5e:4x4"), around)
    assert made == {
        "PATH": "/bin",
        "JAX_PLATFORMS": "cpu",
        "TPU_LIBRARY_PATH": "/lib/libtpu.so",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-16",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_WORKER_ID": "0",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "LIBTPU_INIT_ARGS": libtpu.arguments(),
    }
    made = environment(parse_topology("cpu:4"), around)
    assert made["JAX_PLATFORMS"] == "cpu" and made["XLA_FLAGS"].endswith("device_count=4")
    assert "JAX_PLATFORMS" not in environment(parse_topology("gpu:h100x8"), around)
