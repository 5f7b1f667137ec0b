"""Ways to run one trained model, for `benchmarks.inference`; each imports what it needs itself.

A way is a function of a folder with the files of `write_models` and the number of images, which
loads the model and returns a call: uint8 images (N, S, S, 3) to maps (N, S, S) and scores (N,).
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

Call = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
REFERENCE = "torch eager"
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


def write_models(folder: Path, size: int, encoder: str, teacher: str) -> None:
    """The files of one untrained student, whose numbers cost what a trained one's do."""
    import jax

    from conversion.exports.checks import drawn_images
    from conversion.onnx.export import export_onnx
    from conversion.to_torch import torch_tensors, write_state_dict
    from stlm_jax.config import default
    from stlm_jax.inference.trained_model import TrainedModel
    from stlm_jax.models.build import build_stlm
    from stlm_jax.models.initialization import random_variables
    from stlm_jax.weights.description import export_metadata

    config = default()
    config.image_size, config.student.encoder, config.teacher.name = size, encoder, teacher
    model = build_stlm(config)
    variables = random_variables(model, jax.random.key(0))
    # As published the first map saturates its sigmoid, and every way would give the same zeros.
    variables["params"]["segmentation"]["head_4"]["kernel"] *= 0.1
    trained = TrainedModel(model, variables, config)
    described = export_metadata(trained.description, variables, "float32")
    write_state_dict(folder / WEIGHTS, torch_tensors(variables), described)
    for precision in ("float32", "float16", "int8"):
        calibration = drawn_images(size) if precision == "int8" else None
        export_onnx(trained, folder / onnx_file(precision), precision, False, calibration)


def _cores() -> int:
    return len(os.sched_getaffinity(0))
