import ctypes
import gc
import os
import pathlib
import shutil
import tempfile

import jax
import pytest

from stlm_jax.runtime.host_memory import keep_freed_memory

# Files that take half a minute or more, the longest first, so that two workers end together. The
# first two have no compiled program in common; the others use those of the first.
LONG_FILES = (
    "test_cli.py",
    "test_demo_teacher.py",
    "test_onnx.py",
    "test_resume.py",
    "test_golden_features.py",
    "test_detector.py",
    "test_description.py",
    "test_calibrated_run.py",
    "test_stablehlo.py",
    "test_partial_truth.py",
    "test_processes.py",
)

GOLDEN = pathlib.Path(__file__).resolve().parents[1].parent / "shared" / "golden"


def pytest_configure(config):
    """One cache of compiled programs for the whole session, its workers and their subprocesses."""
    keep_freed_memory()
    if hasattr(config, "workerinput") or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = tempfile.mkdtemp(prefix="stlm_jax_tests_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"
    # JAX has read the environment when it was imported, above: this is for this process.
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_collection_modifyitems(items):
    """Long files first; the tests of a file keep their order."""
    rank = {name: place for place, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.fixture(scope="module", autouse=True)
def memory_is_given_back():
    """A file's programs and arrays are not kept while others run: two workers share 5 GiB."""
    yield
    jax.clear_caches()
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc; `keep_freed_memory` has it keep what is freed
        trim(0)


@pytest.fixture(scope="session")
def golden():
    """The folder of golden vectors and its module `weights`."""
    if not GOLDEN.is_dir():
        pytest.skip(f"the golden vectors are not here ({GOLDEN})")
    from golden_vectors import weights_of

    return weights_of(GOLDEN)


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
def finished_run(tmp_path_factory):
    """A folder with the data set `data`, the configuration `tiny.py` and a finished run `run`."""
    from miniature import write_config, write_dataset

    from stlm_jax.main import main

    folder = tmp_path_factory.mktemp("finished")
    write_dataset(folder / "data")
    config = write_config(folder / "tiny.py", folder / "data")
    assert main(["main", f"--config={config}", f"--workdir={folder / 'run'}"]) == 0
    return folder
