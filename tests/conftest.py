import contextlib
import ctypes
import gc
import mmap
import os
import pathlib
import shutil
import tempfile

import filelock
import hypothesis
import jax
import pytest

from stlm_jax.runtime.host_memory import keep_freed_memory

# Files that take longest, in an order that has two workers end together: the first two have no
# compiled program in common, the others use those of the first. `--fast` leaves all out but one.
LONG_FILES = (
    "test_cli.py",
    "test_kills.py",
    "test_resume.py",
    "test_ensemble.py",
    "test_census.py",
    "test_endings.py",
    "test_alone.py",
    "test_random_kills.py",
    "test_disks.py",
    "test_saving.py",
    "test_feature_store.py",
    "test_plan.py",
    "test_onnx.py",
    "test_description.py",
    "test_detector.py",
    "test_golden_features.py",
    "test_search_trains.py",
    "test_web.py",
    "test_calibrated_run.py",
    "test_openvino.py",
    "test_documented_commands.py",
    "test_stablehlo.py",
    "test_checkpoints_in_config.py",
    "test_train.py",
    "test_pseudo_anomaly.py",
    "test_any_size.py",
    "test_identity.py",
    "test_bad_input.py",
    "test_partial_truth.py",
    "test_torch_stlm.py",
    "test_demo_student.py",
    "test_processes.py",
    "test_previews.py",
    "test_teacher_store.py",
    "test_teacher.py",
    "test_dtype_policy.py",
    "test_damage.py",
    "test_not_finite.py",
    "test_accumulator.py",
    "test_search_command.py",
    "test_bucket.py",
)
OF_FAST = "test_cli.py"

# Rooms and files whose programs are compiled as a user's are: their numbers are compared with those
# of other code, or the programs are looked at. The others' take 40 % of the time to compile, since
# XLA does little to make them fast, and nobody waits for them.
OPTIMISED = ("models", "runtime", "test_pseudo_anomaly.py", "test_onnx.py", "test_stablehlo.py",
             "test_torch_stlm.py", "test_golden_by_command.py", "test_golden_training.py",
             "test_program_memory.py")  # fmt: skip
EMITTERS = "--xla_cpu_use_fusion_emitters=false"
FEW = "jax_disable_most_optimizations"
MUCH = 2**30  # bytes; giving them back takes half a second
kept = [0]  # of this process, after the last time

GOLDEN = pathlib.Path(__file__).resolve().parents[1].parent / "shared" / "golden"


def pytest_configure(config):
    """One cache of compiled programs for the whole session, its workers and their subprocesses."""
    if jax.__version__.startswith("0.10."):  # a flag that XLA does not know would end the process
        # The older emitters, which users' programs had until lately, compile sooner.
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {EMITTERS}"
    keep_freed_memory()
    gc.set_threshold(10_000)  # tracing makes many objects that stay: looking at them takes a fifth
    hypothesis.settings.register_profile("seeded", derandomize=True, database=None)
    hypothesis.settings.register_profile("long", database=None, print_blob=True)
    hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "seeded"))
    if hasattr(config, "workerinput") or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = tempfile.mkdtemp(prefix="stlm_jax_tests_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    # JAX has read the environment when it was imported, above: this is for this process.
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_addoption(parser):
    parser.addoption("--fast", action="store_true", help="leave out the files that take longest")


def pytest_collection_modifyitems(config, items):
    """Long files first; the tests of a file keep their order."""
    if config.getoption("--fast"):
        left_out = set(LONG_FILES) - {OF_FAST}
        config.hook.pytest_deselected(items=[i for i in items if i.path.name in left_out])
        items[:] = [item for item in items if item.path.name not in left_out]
    rank = {name: place for place, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.fixture(scope="module", autouse=True)
def memory_is_given_back():
    """A file's programs and arrays are not kept while others run: two workers share 5 GiB."""
    yield
    jax.clear_caches()
    give_back()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown():
    """Nor is what one test of a file took, if it was much, while the next ones run."""
    if resident() > kept[0] + MUCH:
        give_back()


def resident():
    """Bytes of this process's memory; 0 where that cannot be read."""
    file = pathlib.Path("/proc/self/statm")
    return int(file.read_text().split()[1]) * mmap.PAGESIZE if file.exists() else 0


def give_back():
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc; `keep_freed_memory` has it keep what is freed
        trim(0)
    kept[0] = resident()


@pytest.fixture(scope="module", autouse=True)
def optimisations(request):
    """Many in files of `OPTIMISED` and for slow tests, which run for minutes; few elsewhere."""
    many = {request.path.name, request.path.parent.name} & set(OPTIMISED)
    few = not many and "not slow" in request.config.option.markexpr
    with compiled_soon(few):
        yield


@contextlib.contextmanager
def compiled_soon(few):
    """Says how this process and those that it starts compile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FEW.upper(), str(int(few)))
        before = jax.config.read(FEW)
        jax.config.update(FEW, few)
        yield
        jax.config.update(FEW, before)


@pytest.fixture(scope="session")
def golden():
    """The folder of golden vectors and its module `weights`."""
    if not GOLDEN.is_dir():
        pytest.skip(f"the golden vectors are not here ({GOLDEN})")
    from golden_vectors import weights_of

    return weights_of(GOLDEN)


@pytest.fixture
def highest_precision():
    """Products of float32 in float32 on every device, which parity needs."""
    with jax.default_matmul_precision("highest"):
        yield


def relative_error(actual, expected):
    """‖actual − expected‖ / ‖expected‖."""
    import numpy as np

    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


@pytest.fixture(name="relative_error", scope="session")
def relative_error_fixture():
    return relative_error


@pytest.fixture(scope="session")
def once(tmp_path_factory, worker_id):
    """Has one worker call a function with a folder of this name, which it gives to all of them.

    The others wait. What lies in it is for all: do not change it.
    """
    base = tmp_path_factory.getbasetemp()
    base = base if worker_id == "master" else base.parent

    def made(name, make):
        folder = base / name
        with filelock.FileLock(f"{folder}.lock"):
            if not (folder / "made").exists():
                folder.mkdir(exist_ok=True)
                with compiled_soon(few=True):  # whoever comes first
                    make(folder)
                (folder / "made").touch()
        return folder

    return made


@pytest.fixture(scope="session")
def trained_once(once):
    """A folder with the data set `data`, the configuration `tiny.py` and a finished run `run`."""
    from miniature import write_set

    from stlm_jax.main import main

    def train(folder):
        config = write_set(folder)
        assert main(["main", f"--config={config}", f"--workdir={folder / 'run'}"]) == 0

    return once("trained_once", train)


@pytest.fixture(scope="module")
def finished_run(trained_once, tmp_path_factory):
    """A copy of `trained_once`, which a file of tests may add to."""
    from miniature import write_config

    folder = tmp_path_factory.mktemp("finished") / "copy"
    shutil.copytree(trained_once, folder)
    write_config(folder / "tiny.py", folder / "data")
    return folder


@pytest.fixture(scope="session")
def onnx_of_run(trained_once, once):
    """`disc` of `trained_once` as an .onnx, by the command; do not change it."""
    pytest.importorskip("jax2onnx")
    pytest.importorskip("onnxruntime")
    from conversion.to_onnx import main

    def export(folder):
        assert main([str(trained_once / "run" / "disc"), str(folder / "disc.onnx")]) == 0

    return once("exported_once", export) / "disc.onnx"
