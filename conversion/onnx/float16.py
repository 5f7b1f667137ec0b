"""Float16 where a graph bears it: half the file, half the memory traffic.

The converters that come with ONNX round the result of every operator to float16, of those that
they leave in float32 too; here float32 parts are float32 throughout.
"""

from collections.abc import Callable, Iterable

import onnx_ir as ir
from onnx_ir.passes import common as passes

_FLOAT32, _FLOAT16 = ir.DataType.FLOAT, ir.DataType.FLOAT16
_REDUCTIONS = ("ReduceSum", "ReduceSumSquare", "ReduceMean", "ReduceL2")


def to_float16(model: ir.Model) -> None:
    """Converts weights and activations, in place; inputs and outputs keep their types.

    Float32 remain the normalisation of the pixels, the softmaxes, sums over channels or pixels
    with what is computed from them alone (a norm and its epsilon), and all after the last
    convolution. ONNX's LayerNormalization computes in float32 by itself.
    """
    passes.ShapeInferencePass()(model)
    graph = model.graph
    exact = _float32_nodes(graph)
    casts: dict[tuple[str | None, ir.DataType], ir.Value] = {}
    for node in list(graph):
        dtype, other = (_FLOAT32, _FLOAT16) if node in exact else (_FLOAT16, _FLOAT32)
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype == other:
                key = (value.name, dtype)
                if key not in casts:
                    casts[key] = _cast(graph, value, dtype, node)
                node.replace_input_with(index, casts[key])
        for value in node.outputs:
            if value.dtype == _FLOAT32:
                value.dtype = dtype
    passes.RemoveUnusedNodesPass()(model)


def _cast(graph: ir.Graph, value: ir.Value, dtype: ir.DataType, before: ir.Node) -> ir.Value:
    """`value` as `dtype`: another initialiser of a constant, a Cast node of what is computed."""
    name = f"{value.name}_{dtype.name.lower()}"
    if value.const_value is not None:
        array = value.const_value.numpy().astype(dtype.numpy())
        constant = ir.Value(
            name=name,
            type=ir.TensorType(dtype),
            shape=ir.Shape(array.shape),
            const_value=ir.tensor(array, name=name),
        )
        graph.register_initializer(constant)
        return constant
    output = ir.Value(name=name, type=ir.TensorType(dtype), shape=value.shape)
    node = ir.node("Cast", [value], {"to": dtype}, outputs=[output], name=f"cast_{name}")
    graph.insert_before(before, node)
    return output


def _float32_nodes(graph: ir.Graph) -> set[ir.Node]:
    def after(node: ir.Node) -> list[ir.Node]:
        return [consumer for value in node.outputs for consumer in value.consumers()]

    def before(node: ir.Node) -> list[ir.Node]:
        producers = [value.producer() for value in node.inputs if value is not None]
        return [producer for producer in producers if producer is not None]

    def is_no_conv(node: ir.Node) -> bool:
        return node.op_type != "Conv"

    def is_of_a_statistic(node: ir.Node) -> bool:
        return is_no_conv(node) and sum(value.dtype == _FLOAT32 for value in computed(node)) == 1

    def computed(node: ir.Node) -> list[ir.Value]:
        return [value for value in node.inputs if value is not None and value.const_value is None]

    first = [node for value in graph.inputs for node in value.consumers()]
    last = [value.producer() for value in graph.outputs]
    reductions = [node for node in graph if node.op_type in _REDUCTIONS]
    return {
        *(node for node in graph if node.op_type == "Softmax"),
        *_reach(first, after, is_no_conv),
        *_reach(last, before, is_no_conv),
        *_reach(reductions, after, is_of_a_statistic),
    }


def _reach(
    start: Iterable[ir.Node | None],
    neighbours: Callable[[ir.Node], list[ir.Node]],
    follow: Callable[[ir.Node], bool],
) -> set[ir.Node]:
    """`start` and the nodes linked to it that give floats and that `follow` accepts."""
    reached: set[ir.Node] = set()
    waiting = [node for node in start if node is not None]
    while waiting:
        node = waiting.pop()
        if node not in reached and node.outputs[0].dtype == _FLOAT32:
            reached.add(node)
            waiting += [neighbour for neighbour in neighbours(node) if follow(neighbour)]
    return reached
