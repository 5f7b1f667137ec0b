"""Ways to run one trained model, for `benchmarks.inference`; each imports what it needs itself.

A way is a function of a folder with the files of `write_models` and the number of images, which
loads the model and returns a call: uint8 images (N, S, S, 3) to maps (N, S, S) and scores (N,).
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Call = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
REFERENCE, PUBLISHED = "torch eager", "published code"
REFERENCE_FOLDER = "STLM_REFERENCE"  # the environment's
WEIGHTS = "stlm.pt"  # the published names, as every way can read them


def onnx_file(precision: str) -> str:
    """The file of a graph."""
    return f"stlm_{precision}.onnx"


def torch_eager(folder: Path, count: int) -> Call:
    """Our PyTorch model, as a user of the exported file runs it."""
    return _torch(folder, lambda model: model)


def torch_compiled(folder: Path, count: int) -> Call:
    """The same through `torch.compile`."""
    import torch

    return _torch(folder, torch.compile)


def _torch(folder: Path, through: Callable) -> Call:
    import torch

    from conversion.torch_stlm import TorchStlm

    torch.set_num_threads(_cores())
    model = through(TorchStlm.load(folder / WEIGHTS).eval())

    def call(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            found = model(torch.from_numpy(images))
        return found["anomaly_map"].numpy(), found["anomaly_score"].numpy()

    return call


def published(folder: Path, count: int) -> Call:
    """The published code, from the folder that the environment names.

    Its modules are called as its evaluation calls them; that evaluation itself wants a GPU.
    """
    import sys

    import torch
    from torch.nn import functional as F

    sys.path.insert(0, os.environ[REFERENCE_FOLDER])
    from mob_sam import Batch_SamE, SegmentationNet
    from model.model_utils import l2_norm

    torch.set_num_threads(_cores())
    tensors = torch.load(folder / WEIGHTS, weights_only=True)
    of_fa = "segmentation."
    two_streams = Batch_SamE(None, "vit_t", "eval", "cpu")
    two_streams.load_state_dict({k: v for k, v in tensors.items() if not k.startswith(of_fa)})
    fa = SegmentationNet(512)
    fa.load_state_dict({k[len(of_fa) :]: v for k, v in tensors.items() if k.startswith(of_fa)})
    fa.eval()  # the other is already

    def call(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.no_grad():
            pairs = zip(*two_streams(torch.from_numpy(images).float()), strict=True)
            products = torch.cat([-l2_norm(plain) * l2_norm(other) for plain, other in pairs], 1)
            found = F.interpolate(fa(products), images.shape[1:3], mode="bilinear")
            score = found.flatten(1).sort(1, descending=True)[0][:, :100].mean(1)
        return found[:, 0].numpy(), score.numpy()

    return call


def flax(folder: Path, count: int) -> Call:
    """Evaluation's function, jitted, on the default device."""
    import jax

    from stlm_jax.inference.predict_fn import make_predict_fn
    from stlm_jax.inference.trained_model import load_trained
    from stlm_jax.runtime.compilation import jit

    trained = load_trained(folder / WEIGHTS)
    size = (trained.config.image_size,) * 2
    predict = jit(make_predict_fn(trained.config, trained.model), static_argnums=2)
    variables = jax.device_put(trained.variables)

    def call(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = predict(variables, images, size)
        return np.asarray(found["map"]), np.asarray(found["score"])

    return call


def onnxruntime(precision: str) -> Callable[[Path, int], Call]:
    """ONNX Runtime on the CPU."""

    def load(folder: Path, count: int) -> Call:
        from stlm_jax.inference.onnx_model import open_session, run

        session = open_session(str(folder / onnx_file(precision)))

        def call(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            found = run(session, images)
            return found["map"], found["score"]

        return call

    return load


def openvino(precision: str) -> Callable[[Path, int], Call]:
    """OpenVINO on the CPU, of the ONNX file; float32 arithmetic is kept where that is asked."""

    def load(folder: Path, count: int) -> Call:
        import openvino

        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": _cores()}
        if precision == "float32":
            options["INFERENCE_PRECISION_HINT"] = "f32"
        core = openvino.Core()
        model = core.read_model(folder / onnx_file(precision))
        model.reshape({0: [count, *model.inputs[0].partial_shape.get_min_shape()[1:]]})
        compiled = core.compile_model(model, "CPU", options)

        def call(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            found = compiled([images])
            return found[0], found[1]

        return call

    return load


KINDS: dict[str, Callable[[Path, int], Call]] = {
    REFERENCE: torch_eager,
    "torch.compile": torch_compiled,
    PUBLISHED: published,
    "Flax jitted": flax,
    "ONNX Runtime float32": onnxruntime("float32"),
    "ONNX Runtime float16": onnxruntime("float16"),
    "ONNX Runtime int8": onnxruntime("int8"),
    "OpenVINO float32": openvino("float32"),
    "OpenVINO int8": openvino("int8"),
}
# How far maps may be from the reference's, relatively; int8 is told, its loss is AUROC's to say.
TOLERANCES = {"ONNX Runtime float16": 1e-2, "ONNX Runtime int8": np.inf, "OpenVINO int8": np.inf}
TOLERANCE = 1e-3


def untrained(config) -> tuple[Any, Any]:
    """A student of a configuration and random variables, of whose maps not all are zeros."""
    import jax

    from stlm_jax.models.build import build_stlm
    from stlm_jax.models.initialization import random_variables

    model = build_stlm(config)
    variables = random_variables(model, jax.random.key(0))
    # As published the first map saturates its sigmoid, and every way would give the same zeros.
    variables["params"]["segmentation"]["head_4"]["kernel"] *= 0.1
    return model, variables


def write_models(
    folder: Path,
    size: int,
    encoder: str,
    teacher: str,
    precisions: Sequence[str] = ("float32", "float16", "int8"),
) -> None:
    """The files of one untrained student, whose numbers cost what a trained one's do.

    Args:
        folder: where they go.
        size: the side of its images, pixels.
        encoder: of the student, one of `ENCODERS`.
        teacher: whose width the student has, one of `SAM_VARIANTS`.
        precisions: of the graphs beside the torch file.
    """
    from conversion.exports.checks import drawn_images
    from conversion.onnx.export import export_onnx
    from conversion.to_torch import torch_tensors, write_state_dict
    from stlm_jax.config import default
    from stlm_jax.inference.trained_model import TrainedModel
    from stlm_jax.weights.description import export_metadata

    config = default()
    config.image_size, config.student.encoder, config.teacher.name = size, encoder, teacher
    model, variables = untrained(config)
    trained = TrainedModel(model, variables, config)
    described = export_metadata(trained.description, variables, "float32")
    write_state_dict(folder / WEIGHTS, torch_tensors(variables), described)
    for precision in precisions:
        calibration = drawn_images(size) if precision == "int8" else None
        export_onnx(trained, folder / onnx_file(precision), precision, False, calibration)


def _cores() -> int:
    return len(os.sched_getaffinity(0))
