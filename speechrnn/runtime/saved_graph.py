"""What a SavedModel would do when loaded and called, looked at before it is: its operations.

A graph is a program: TensorFlow has operations that read and write any file, open sockets or call
back into Python, and loading a SavedModel runs some of its functions. What speechrnn exports needs
none of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from speechrnn.errors import ModelError

GRAPH = "saved_model.pb"
OTHER_FORMS = ("saved_model.pbtxt", "saved_model.cpb")  # which TensorFlow would read, too

# Computation, by TensorFlow's names: all that models of speechrnn's are made of, and the like.
COMPUTATION = """
    Abs Add AddN AddV2 All Any ArgMax Assert BatchMatMulV2 BiasAdd BroadcastArgs
    BroadcastGradientArgs BroadcastTo Case Cast Ceil ComplexAbs Concat ConcatOffset ConcatV2 Const
    Conj Conv2D Cumsum
    DepthwiseConv2dNative Einsum Enter Equal Exit Exp ExpandDims Fill Floor FloorDiv FloorMod Gather
    GatherNd GatherV2 Greater GreaterEqual Identity IdentityN If Imag InvertPermutation IsFinite
    IsNan LeakyRelu Less LessEqual LinSpace Log Log1p LogSoftmax LogicalAnd LogicalNot LogicalOr
    LoopCond MatMul Max Maximum Mean Merge Min Minimum Mul MulNoNan Neg NextIteration NoOp NotEqual
    OnesLike Pack Pad PadV2 PartitionedCall Placeholder Pow PreventGradient Prod RFFT RFFT2D
    RaggedGather RaggedRange RaggedTensorToTensor Range Rank ReadVariableOp Real RealDiv Reciprocal
    Relu ReluGrad Reshape ResourceGather ReverseSequence ReverseV2 Roll Round Rsqrt RsqrtGrad
    Select SelectV2 Shape ShapeN Sigmoid SigmoidGrad Sign Size Slice Softmax Softplus Split SplitV
    Sqrt SqrtGrad Square SquaredDifference Squeeze StatefulPartitionedCall StatelessCase StatelessIf
    StatelessWhile StaticRegexReplace StopGradient StridedSlice StridedSliceGrad StringJoin
    StringStrip Sub Sum Switch Tanh TanhGrad TensorListConcatV2 TensorListElementShape
    TensorListFromTensor TensorListGetItem TensorListLength TensorListPopBack TensorListPushBack
    TensorListReserve TensorListResize TensorListSetItem TensorListStack Tile TopKV2 Transpose
    TruncateDiv Unique Unpack UnsortedSegmentJoin UnsortedSegmentMax UnsortedSegmentMin
    UnsortedSegmentSum VarHandleOp Where While XlogY ZerosLike
"""
# With which TensorFlow's own loader and TensorFlow Serving restore variables. Of nothing that is
# called here.
SAVING = """
    AssignVariableOp DisableCopyOnRead MergeV2Checkpoints RestoreV2 SaveV2 ShardedFilename
    StaticRegexFullMatch
"""
KINDS = {
    *("user_object", "function", "variable", "bare_concrete_function", "constant"),
    "captured_tensor",  # of a function among the entries, which is looked at
}


def refuse_foreign_operations(folder: Path) -> None:
    """Raise ModelError, naming file and operation, where the SavedModel in ``folder`` holds an
    operation that no model of speechrnn's has, or a form of graph that could hide one.

    It is parsed and not loaded: nothing of it runs.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    path = folder / GRAPH
    hidden = [name for name in OTHER_FORMS if (folder / name).exists()]
    if hidden:
        raise ModelError(f"{folder / hidden[0]} is a graph beside {GRAPH}; export the model again")
    try:
        graphs = saved_model_pb2.SavedModel.FromString(path.read_bytes()).meta_graphs
    except (OSError, DecodeError) as error:
        raise ModelError(f"{path} is no SavedModel's graph ({error}); export it again") from error
    if len(graphs) != 1 or not graphs[0].HasField("object_graph_def"):
        raise ModelError(f"{path} is not a graph as speechrnn writes it; export the model again")
    functions = {f.signature.name: f.node_def for f in graphs[0].graph_def.library.function}
    objects = graphs[0].object_graph_def
    kinds = {node.WhichOneof("kind") for node in objects.nodes} - KINDS
    called = set(_reachable(functions, _entries(objects)))
    computation, saving = set(COMPUTATION.split()), set(SAVING.split())
    for name, nodes in [("", graphs[0].graph_def.node), *functions.items()]:
        allowed = computation if name in called else computation | saving
        found = sorted({node.op for node in nodes} - allowed)
        if found or kinds:
            raise ModelError(
                f"{path} holds {', '.join(found or map(str, kinds))}, which no model that "
                "speechrnn exports has: operations can read and write files and run programs, so "
                "it is not loaded. Export it again from the run that it was made of."
            )


def _entries(objects: Any) -> Iterator[str]:
    """The functions that loading may run or make callable."""
    yield from objects.concrete_functions
    for node in objects.nodes:
        yield from node.function.concrete_functions
        yield node.bare_concrete_function.concrete_function_name


def _reachable(functions: dict[str, Any], entries: Iterable[str]) -> Iterator[str]:
    """The entries and all that they call, however deep."""
    waiting, seen = list(entries), set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in functions:
            continue
        seen.add(name)
        yield name
        for node in functions[name]:
            for value in node.attr.values():
                waiting += [value.func.name, *(each.name for each in value.list.func)]
