"""3x3 depthwise convolution for runtime/depthwise_planes.c: strides 1 and 2, in place, nine bytes and two words a channel."""

from __future__ import annotations

import numpy as np

from firmware_export.graph import Array, Graph, Node
from firmware_export.operators import Constant, LayerCode
from firmware_export.operators._accumulator import OutputStage
from firmware_export.operators._window import Window
from firmware_export.packing import Unpackable
from firmware_export.packing.operands import depthwise_operands
from firmware_export.packing.planes import choose_layout
from firmware_export.packing.r256 import clamp_fields
from firmware_export.packing.requantize_forms import LinearForm, Stage, linear_form, reachable
from firmware_export.requantize import Int64

SHIFTS = (7, 10)
"""Shifts of the kernels' linear forms, in the order in which they are tried."""
SCRATCH_LIMIT = 8192
"""Bytes of scratch beyond which larger bands hardly save instructions."""
WIDE_PITCH = 256
_UNIT = 256
KEPT_FORMS = 32
_FORMS: dict[tuple[object, ...], LinearForm] = {}


def depthwise_code(
    window: Window,
    weights: Array,
    bias: Int64,
    zero_point: int,
    stage: OutputStage,
    *,
    scratch_limit: int = SCRATCH_LIMIT,
    in_place: bool = False,
    shifts: tuple[int, ...] = SHIFTS,
) -> LayerCode:
    """The call of a kernel of depthwise_planes.c.

    Args:
        weights: int8 [1, 3, 3, channels].
        bias: [channels], at the scale of the sums, without the zero point.
        zero_point: of the input, int8 [1, h, w, channels].
        scratch_limit: bytes that the kernel should not use more of, unless it cannot do with so few.
        in_place: whether the output will have the input's place; all of it, nothing else is safe.
        shifts: of the form, in the order in which they are tried.
    Raises:
        Unpackable: the window is not 3x3 with stride 1 or 2, channels are multiplied, the image is too wide, or half of the
            channels have no linear form. The fallback is depthwise_conv2d.c.
    """
    channels = weights.shape[3]
    if channels != window.channels:
        raise Unpackable(f"{channels // window.channels} outputs for each channel")
    layout = choose_layout(window, scratch_limit, in_place=in_place)
    matrix = weights[0].astype(np.int64).transpose((2, 1, 0) if layout.transposed else (2, 0, 1)).reshape(channels, -1)
    low, high = reachable(matrix, bias, zero_point)
    form = _linear(Stage.of(stage, low, high), shifts)
    general = form.factor == 0
    if 2 * np.count_nonzero(general) > channels:
        raise Unpackable(f"{np.count_nonzero(general)} of {channels} channels have no linear form")
    matrix = np.where(form.constant[:, None], 0, matrix)
    sums = np.where(form.constant, 0, bias) - zero_point * matrix.sum(1)
    constants = np.stack([np.where(general, sums, _UNIT * sums + form.start), form.factor], 1) & 0xFFFFFFFF
    values = layout.planes.fields(layout.band) | {"channels": channels, "group": layout.group, "fill": zero_point}
    values |= {"output_bytes": window.output[0] * window.output[1] * channels}
    fields = {"weights": "{weights}", "constants": "{constants}"} | {key: str(value) for key, value in values.items()}
    return LayerCode(
        function=f"nn_depthwise_planes_s{window.stride[0]}_{form.shift}{'_wide' if layout.planes.pitch == WIDE_PITCH else ''}",
        params_type="nn_depthwise_planes_params",
        fields=fields | clamp_fields(stage) | (stage.fields("stage") if general.any() else {}),
        constants=(
            Constant("weights", np.pad(matrix.reshape(-1), (0, 3)).astype(np.int8)),
            Constant("constants", constants.astype(np.uint32).view(np.int32)),
            *(stage.constants() if general.any() else ()),
        ),
        sources=("depthwise_planes.c", "step_depthwise.c"),
        scratch_bytes=layout.scratch_bytes,
        in_place=(layout.is_safe_in_place(),),
        summary=f"{window.summary()}, {'x'.join(map(str, (*window.size, channels)))} -> "
        f"{'x'.join(map(str, (*window.output, channels)))}, planes linear_{form.shift}",
    )


def _linear(stage: Stage, shifts: tuple[int, ...]) -> LinearForm:
    """The linear form with the fewest channels that have none; kept, because a node is packed in many layouts."""
    numbers = (stage.multiplier, stage.shift, stage.low, stage.high, *(() if stage.scale is None else (stage.scale,)))
    key = (shifts, stage.zero_point, *(values.tobytes() for values in numbers))
    if key not in _FORMS:
        forms = [linear_form(stage, shift, partial=True) for shift in shifts]
        if len(_FORMS) >= KEPT_FORMS:
            _FORMS.clear()
        _FORMS[key] = min(forms, key=lambda form: int(np.count_nonzero(form.factor == 0)))
    return _FORMS[key]


def depthwise_layer(
    graph: Graph,
    node: Node,
    *,
    scratch_limit: int = SCRATCH_LIMIT,
    in_place: bool = False,
    shifts: tuple[int, ...] = SHIFTS,
) -> LayerCode:
    """depthwise_code of a checked depthwise_conv2d node.

    Raises:
        Unpackable: see depthwise_code; the fallback is depthwise_conv2d.c.
    """
    return depthwise_code(*depthwise_operands(graph, node), scratch_limit=scratch_limit, in_place=in_place, shifts=shifts)
