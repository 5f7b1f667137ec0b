"""What JAX, TensorBoard's writer and the lock leave in a bucket."""

import json
import os
import socket

import jax
import pytest
from bucket_server import BUCKET, served_bucket
from jax.experimental.compilation_cache import compilation_cache

from stlm_jax.runtime.compilation import jit, use_compilation_cache
from stlm_jax.runtime.lock import only_here
from stlm_jax.runtime.metric_writer import MetricWriter
from stlm_jax.runtime.paths import path_of
from stlm_jax.runtime.profiler import Profiler


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    with served_bucket(tmp_path_factory.mktemp("emulator") / "log"):
        yield path_of(BUCKET)


@pytest.fixture
def no_cache():
    """JAX without a cache of compiled programs, until the end of the test."""
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_enable_xla_caches",
    )
    before = {name: jax.config.values[name] for name in names}
    jax.config.update(names[0], None)
    jax.config.update(names[1], 0.0)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_compiled_programs(bucket, no_cache, monkeypatch):
    def cube(x):
        return x * x * x

    use_compilation_cache(bucket / "run/compilation_cache")
    assert jit(cube)(3.0) == 27.0
    kept = [path.name for path in (bucket / "run/compilation_cache").iterdir()]
    assert any(name.startswith("jit_cube-") for name in kept)
    jax.clear_caches()
    compilation_cache.reset_cache()

    def refuse(*_, **__):
        raise AssertionError("compiled again")

    monkeypatch.setattr("jax._src.compiler.backend_compile_and_load", refuse)
    assert jit(cube)(3.0) == 27.0


def test_metrics_are_there_when_sent_and_go_on(bucket):
    path = bucket / "disc/metrics.jsonl"
    with MetricWriter(path) as writer:
        writer.write(1, {"loss": 3.0})
        writer.write(2, {"loss": 2.0})
        writer.send()
        assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]
        assert not list(path.parent.glob("events.out.*"))
    assert len(list(path.parent.glob("events.out.*"))) == 1
    with MetricWriter(path, start=1) as writer:
        writer.write(2, {"loss": 1.0})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1, "loss": 3.0},
        {"step": 2, "loss": 1.0},
    ]


def test_metrics_are_sent_in_time(bucket, monkeypatch):
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    path = bucket / "ring/metrics.jsonl"
    with MetricWriter(path) as writer:
        writer.write(1, {"loss": 3.0})
        assert not path.exists()
        now = 61.0
        writer.write(2, {"loss": 2.0})
        assert len(path.read_text().splitlines()) == 2
        assert len(list(path.parent.glob("events.out.*"))) == 1


def test_a_profile(bucket, capsys):
    with Profiler(bucket / "disc/profile", start=1, steps=1) as profiler:
        for number in range(3):
            profiler.step(number, jax.jit(lambda x: x + 1), 1.0)
    files = [path.name for path in (bucket / "disc/profile").rglob("*.xplane.pb")]
    assert len(files) == 1 and "gs://bucket/disc/profile" in capsys.readouterr().err


def test_a_mark_in_the_place_of_a_lock(bucket, capsys):
    path = bucket / "run/lock"
    with only_here(path):
        assert path.read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"
        assert capsys.readouterr().err == ""
        with only_here(path):
            pass
        said = capsys.readouterr().err
        assert said.startswith(f"warning: gs://bucket/run: process {os.getpid()} on ")
    assert not path.exists()
    with pytest.raises(ZeroDivisionError), only_here(path):
        raise ZeroDivisionError
    assert not path.exists()
