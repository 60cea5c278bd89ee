"""int8 quantization: batch norms are folded, ranges calibrated, and with `qat` the network is trained on as it will run.

`qat`: quantization-aware training (Jacob et al. 2018). `ptq`: post-training quantization, calibration only.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import fx

from compress.distill import FineTuning, fine_tune
from compress.fake_quantize import ActivationQuantizer, Mode, set_mode
from compress.fold import fold_batch_norm
from compress.insert_quantizers import insert_quantizers
from compress.method import Candidate, Context, Method
from train.data import Uint8, to_float_nchw

BATCH = 64


class QuantizeSettings(FineTuning):
    """Settings of the step; epochs, learning_rate, temperature, teacher_weight and range_momentum are for qat only."""

    method: Literal["qat", "ptq"] = Field("qat", description="with training, or calibration alone")
    epochs: int = Field(5, ge=1, le=10000, description="this and the next three: qat only")
    learning_rate: float = Field(5e-4, gt=0)
    calibration_images: int = Field(512, ge=1, description="training images on which ranges are calibrated")
    percentile: float = Field(99.99, gt=50, le=100, description="of each range that is kept when calibrating; 100: all of it")
    range_momentum: float = Field(0.02, gt=0, le=1, description="weight of the newest batch in ranges while training")


def calibrate(quantized: fx.GraphModule, images: Uint8, percentile: float) -> None:
    """Sets every activation range from images [n, h, w, c] that run through the network in float."""
    set_mode(quantized, Mode.CALIBRATE)
    for module in quantized.modules():
        if isinstance(module, ActivationQuantizer):
            module.percentile = percentile
    quantized.eval()
    with torch.no_grad():
        for start in range(0, len(images), BATCH):
            quantized(torch.from_numpy(to_float_nchw(images[start : start + BATCH])))
    set_mode(quantized, Mode.FIXED)


def quantize(candidate: Candidate, settings: QuantizeSettings, context: Context) -> Candidate:
    """Makes the network int8, by training on (qat) or by calibration alone (ptq); the float one stays as it is."""
    quantized = insert_quantizers(fold_batch_norm(candidate.model), settings.range_momentum)
    images = context.dataset.train.images
    chosen = np.random.default_rng(context.seed).permutation(len(images))[: settings.calibration_images]
    calibrate(quantized, images[chosen], settings.percentile)
    if settings.method == "qat":
        set_mode(quantized, Mode.ADAPT)
        fine_tune(quantized, settings, context, "quantize (qat)")
        set_mode(quantized, Mode.FIXED)
    return replace(candidate, quantized=quantized.eval())


METHOD = Method(QuantizeSettings, quantize, last=True)
