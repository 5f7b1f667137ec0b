"""Training from a store: its features are the teacher's, and a store of anything else is named."""

import functools
import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from miniature import write_set

from stlm_jax.commands.teacher_store import main as write_store
from stlm_jax.data import dataset
from stlm_jax.data.cache import ImageCache
from stlm_jax.data.textures import read_texture_bank
from stlm_jax.main import main
from stlm_jax.models.build import build_stlm
from stlm_jax.runtime.errors import UserError
from stlm_jax.settings import parse
from stlm_jax.training.feature_store import FeatureStore
from stlm_jax.training.start import load_teacher
from stlm_jax.training.state import abstract_train_state, hyperparameters
from stlm_jax.training.step import draw_samples
from stlm_jax.training.stored_features import StoredFeatures, abstract_stored
from stlm_jax.training.train import Trainer
from stlm_jax.weights.checkpoint import Checkpoints

VARIANTS = 3


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored")
    write_set(folder)
    options = [f"--config={folder / 'tiny.py'}", f"--config.teacher.store={folder / 'store'}"]
    assert write_store(["x", *options, f"--config.teacher.store_variants={VARIANTS}"]) == 0
    return folder


@pytest.fixture(scope="module", autouse=True)
def one_trainer():
    """One Trainer of a kind; runs end without the evaluation."""
    made = {}

    def trainer_of(config, template):
        key = config.teacher.store
        made[key] = made.get(key) or Trainer(config, template)
        made[key].config = config
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stlm_jax.training.train.Trainer", trainer_of)
        patch.setattr("stlm_jax.main.evaluate_and_report", lambda config, workdir: None)
        patch.setattr("stlm_jax.evaluation.calibrate.calibrate_untested", lambda *_: None)
        yield


def command(place, workdir, *options, store="store", file="tiny.py"):
    return [
        "main",
        f"--config={place / file}",
        f"--workdir={place / workdir}",
        f"--config.teacher.store={place / store}",
        "--config.log.images_every_steps=0",
        *options,
    ]


def opened(place, category, *options):
    config = parse(command(place, "unused", *options)).config
    records = dataset.split_of(config, category, "train")
    images = ImageCache([r.image for r in records], dataset.image_reader(config), 2**30)
    return (
        config,
        images,
        StoredFeatures(config, category, images, FeatureStore.open(place / "store")),
    )


@pytest.mark.parametrize("category", ["disc", "ring"])
def test_stored_targets_are_what_the_teacher_gives_live(place, category, relative_error):
    """The ring turns: its clean images are those of the variants. One pass over all is compared."""
    config, images, features = opened(place, category)
    data = config.data
    bank = read_texture_bank(data.texture_root, data.texture_count, 64, config.seed)
    teacher, variables = load_teacher(config)
    hyper = hyperparameters(config, category)
    draw = jax.jit(functools.partial(draw_samples, None))
    apply = jax.jit(teacher.apply)
    seen, errors = [], []
    for number in range(8):
        index = np.random.default_rng(number).permutation(5)[:2]
        part = features.of(number, index)
        pixels = np.stack([images[i] for i in index])
        batch = {"image": jnp.asarray(pixels), "textures": jnp.asarray(bank), **part}
        clean, sample = draw(batch, hyper)
        of_pseudo, of_clean = part["stored"]["targets"]
        for image, found in ((sample.image, of_pseudo), (clean, of_clean)):
            for ours, theirs in zip(found, apply(variables, image), strict=True):
                errors += [relative_error(ours[i], theirs[i]) for i in range(2)]
        changed = np.asarray((sample.image != clean).any((1, 2, 3)))
        assert not (changed & np.asarray(part["stored"]["clean"])).any()
        assert (np.asarray(sample.mask).any((1, 2)) == changed).all()
        turned = np.asarray((clean != pixels).any((1, 2, 3)))
        assert turned.all() if category == "ring" else not turned.any()
        seen += changed.tolist()
    assert 3 < sum(seen) < 13
    assert 1e-4 < max(errors) < 1e-2


def test_what_is_drawn_depends_on_seed_and_batch_alone(place):
    config, _, features = opened(place, "disc", "--config.pseudo.clean_probability=0.3")
    _, _, again = opened(place, "disc", "--config.pseudo.clean_probability=0.3")
    index = np.arange(4)
    parts = [features.of(number, index)["stored"] for number in range(200)]
    last = again.of(199, index)["stored"]
    for ours, theirs in zip(jax.tree.leaves(last), jax.tree.leaves(parts[-1]), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    clean = np.concatenate([part["clean"] for part in parts])
    variants = np.bincount(np.concatenate([part["number"] for part in parts]), minlength=VARIANTS)
    assert abs(clean.mean() - 0.3) < 0.07  # 800 draws: three deviations are 0.05
    assert (variants > 200).all()
    described = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), parts[0])
    levels = [jax.ShapeDtypeStruct((4, 4, 4, 32), jnp.float32)] * 2
    assert described == abstract_stored(levels)


def restored(place, workdir, category="disc"):
    config = parse(command(place, workdir)).config
    state = abstract_train_state(config, build_stlm(config))
    with Checkpoints(place / workdir / category / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.restore(state.student(), state.training())


@pytest.mark.slow
def test_a_run_from_the_store_makes_no_pass_and_resumes_bit_by_bit(place):
    steps = "--config.train.steps={}".format
    assert main(command(place, "whole", steps(7))) == 0
    assert main(command(place, "parts", steps(3))) == 0
    assert main(command(place, "parts", steps(7))) == 0
    for category in ("disc", "ring"):
        lines = (place / "whole" / category / "metrics.jsonl").read_text().splitlines()
        assert {json.loads(line)["teacher_passes"] for line in lines} == {0.0}
        assert min(json.loads(line)["cosine"] for line in lines) > 0
        ours, theirs = restored(place, "parts", category), restored(place, "whole", category)
        assert ours.step == 7 and ours.data == theirs.data and "store" in ours.data
        for leaf, expected in zip(
            jax.tree.leaves((ours.student, ours.training)),
            jax.tree.leaves((theirs.student, theirs.training)),
            strict=True,
        ):
            assert leaf.tobytes() == expected.tobytes()


@pytest.mark.slow
def test_a_run_of_another_seed_takes_the_store_at_its_word(place):
    """An untrained teacher's weights follow the seed; without a checkpoint nobody asks for them."""
    options = ["--config.seed=5", "--config.train.steps=2", "--config.data.categories=disc"]
    assert main(command(place, "seed", *options, "--config.teacher.checkpoint=")) == 0
    assert restored(place, "seed").step == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            ["--config.seed=1"],
            r"store: holds features of weights of the teacher of SHA-256 \w{12}…",
        ),
        (["--config.image_size=96"], r"config\.image_size 64, the run's is 96"),
        (["--config.dtype=bfloat16"], r"config\.dtype float32, the run's is bfloat16"),
        (
            ["--config.teacher.name=vit_b", "--config.teacher.checkpoint="],
            r"teacher\.name vit_tiny",
        ),
        (["--config.pseudo.perlin_max_exponent=4"], r"perlin_max_exponent 5, the run's is 4"),
        (["--config.data.texture_count=5"], r"textures of SHA-256"),
        (
            ["--config.data.geometry=pad"],
            r"disc: holds no features of \S*000\.png and 4 more images",
        ),
        (["--config.teacher.checkpoint=none"], r"features are for a teacher"),
    ],
)
def test_a_store_of_something_else_is_named(place, options, says, capsys, monkeypatch):
    monkeypatch.setattr("stlm_jax.training.train.Trainer", Trainer)
    assert main(command(place, "refused", *options)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ") and re.search(says, lines[-1])
    assert not list((place / "refused").glob("*/checkpoints/*"))


def spoilt(place, name, edit):
    shutil.rmtree(place / name, ignore_errors=True)
    shutil.copytree(place / "store", place / name)
    path = place / name / "store.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def other_draws(content):
    content["probe"][3][0] += 0.01


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (other_draws, "another generator of pseudo-anomalies"),
        (lambda c: c.pop("probe"), "another generator of pseudo-anomalies"),
        (lambda c: c.update(format=9), r"a store of format 9, this stlm_jax reads 1"),
        (lambda c: c.pop("variants"), r"store\.json: damaged"),
    ],
)
def test_a_store_of_another_generator_or_format_is_named(place, edit, says, capsys, monkeypatch):
    monkeypatch.setattr("stlm_jax.training.train.Trainer", Trainer)
    spoilt(place, "spoilt", edit)
    assert main(command(place, "refused", store="spoilt")) == 2
    assert re.search(says, capsys.readouterr().err.strip().splitlines()[-1])
    shutil.rmtree(place / "spoilt")
    assert main(command(place, "refused", store="spoilt")) == 2
    assert "holds no features, store.json is missing" in capsys.readouterr().err


def test_images_that_turn_otherwise_are_named(place, capsys):
    other = place / "turned.py"
    other.write_text(
        (place / "tiny.py").read_text().replace("disc", "disc").replace('"small"', '"none"')
    )
    options = ["--config.data.categories=ring"]
    assert main(command(place, "refused", *options, file="turned.py")) == 2
    assert re.search(r"ring: .*data\.rotation small, the run's is none", capsys.readouterr().err)


def test_a_damaged_file_is_named_when_it_is_read(place, tmp_path):
    store = FeatureStore.open(place / "store")
    shutil.copytree(place / "store", tmp_path / "copy")
    copy = FeatureStore(tmp_path / "copy", store.description)
    digest = sorted(copy.digests("disc"))[0]
    path = copy.path("disc", digest)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{digest}.* damaged .* delete it and run"):
        for slot in range(1 + VARIANTS):
            copy.read("disc", digest, [slot])
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=f"{digest}.* damaged"):
        copy.read("disc", digest, [0])
    path.unlink()
    with pytest.raises(UserError, match=f"{digest}.* is gone"):
        copy.read("disc", digest, [0])


def test_another_store_or_none_is_another_training(place, capsys):
    steps = ["--config.train.steps=2", "--config.data.categories=disc"]
    assert main(command(place, "settled", *steps)) == 0
    assert main(command(place, "settled", *steps, store="")[:3] + steps) == 2
    assert "was trained with config.teacher.store=" in capsys.readouterr().err
