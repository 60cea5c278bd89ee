"""The commands that look at one device: who it is, whether it is sound, and in which layer it goes wrong."""

from __future__ import annotations

from firmware_export.oracle import ORACLES
from firmware_export.simulate import simulate_trace
from host_tools.board import open_target
from host_tools.compare import MismatchError
from host_tools.firmware import check_answering_board, verify_stage
from host_tools.layers import find_difference, layer_verdicts, layers_table
from host_tools.link import Link
from host_tools.messages import Hello, TensorInfo
from host_tools.model import Model, load_model
from host_tools.run import Order, firmware_files, load_images
from recipes.artifacts import UsageError


def check_device(order: Order, link: Link) -> None:
    """Raises LinkError when what answers is not the board and the image of the order, ArtifactError without an image."""
    firmware_files(order)
    check_answering_board(link.hello, order.board, order.firmware, order.target)


def link_to(order: Order, model: Model) -> Link:
    """A link to the order's device that expects the model; enter it to connect.

    Raises:
        ArtifactError: an image that is to be emulated or run is not built, or one of its files is damaged.
    """
    if not order.target.startswith("serial:"):
        firmware_files(order)
        verify_stage(order.firmware)
    return Link(open_target(order.target, order.board, order.firmware), model.expected())


def connect(order: Order) -> Link:
    """As link_to, of the recipe's model."""
    return link_to(order, load_model(order.root, order.recipe, order.board.core))


def print_hello(order: Order) -> None:
    """Prints what the device says of itself, and its counts."""
    with connect(order) as link:
        print(hello_text(link.hello))
        stats = link.stats()
        print(f"since reset  {stats.runs:,} inferences, {stats.frames:,} frames, {stats.crc_errors:,} damaged, ", end="")
        print(f"{stats.overruns:,} bytes overrun, stack used {stats.stack_used:,} bytes", flush=True)
        check_device(order, link)  # last: who answers instead is what a person wants to see then


def hello_text(hello: Hello) -> str:
    """The handshake, a line for each fact."""
    clock = f"{hello.clock_hz / 1e6:g} MHz" if hello.clock_hz else "unknown"
    lines = [
        ("board", hello.board),
        ("core", hello.core),
        ("clock", clock),
        ("build", hello.build_id),
        ("model", hello.model_hash),
        ("arithmetic", hello.arithmetic),
        ("layers", str(hello.layer_count)),
        ("counts", hello.cycle_unit),
        ("stack", f"{hello.stack_reserved:,} bytes reserved"),
        ("protocol", f"{hello.protocol}, frames up to {hello.frame_max} bytes"),
        *((f"input {i}", _tensor_text(tensor)) for i, tensor in enumerate(hello.inputs)),
        *((f"output {i}", _tensor_text(tensor)) for i, tensor in enumerate(hello.outputs)),
    ]
    return "\n".join(f"{name:<13}{value}" for name, value in lines)


def _tensor_text(tensor: TensorInfo) -> str:
    shape = "x".join(map(str, tensor.shape))
    return f"{tensor.dtype} {shape}, {tensor.size:,} bytes, real = {tensor.scale:.9g} * (stored - {tensor.zero_point})"


def print_selftest(order: Order) -> None:
    """Lets the device check its known answers.

    Raises:
        MismatchError: it gets one wrong.
    """
    with connect(order) as link:
        check_device(order, link)
        passed, name, oracle = link.selftest(), link.hello.board, ORACLES[link.hello.arithmetic]
    if not passed:
        raise MismatchError(
            f"selftest: {name} on {order.target} gets a known answer wrong; find the layer with: "
            f"python -m host_tools layers {order.words}"
        )
    print(f"selftest: {name} on {order.target} gives the known answers of {oracle}", flush=True)


def inspect_layers(order: Order, image: int) -> None:
    """Compares every layer of one test image with the simulator.

    Raises:
        UsageError: there is no such image.
        MismatchError: a layer differs; names the first wrong element.
    """
    model = load_model(order.root, order.recipe, order.board.core)
    _, images, _, _ = load_images(order.recipe, model, None)
    if image >= len(images):
        raise UsageError(f"--image {image}: the test images are 0 to {len(images) - 1}")
    trace = simulate_trace(model.graph, images[image : image + 1])
    data = images[image].tobytes()
    with link_to(order, model) as link:
        check_device(order, link)
        verdicts = layer_verdicts(link, model.graph, trace, data)
        print(layers_table(verdicts), flush=True)
        found = find_difference(link, verdicts, trace, data)
    if found is not None:
        raise MismatchError(f"image {image} on {order.target}: {found.sentence()}")
    print(f"layers: all {len(verdicts)} layers of image {image} identical on {order.target}", flush=True)
