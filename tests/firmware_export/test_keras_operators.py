"""Which of TensorFlow's operators a SavedModel may hold: what reads, writes or sends is refused, wherever it stands."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from firmware_export import keras_convert as child
from firmware_export.keras_convert import Refused

WRITES = (
    "SaveDataset", "SaveDatasetV2", "DatasetToTFRecord", "ExperimentalDatasetToTFRecord", "CacheDatasetV2", "SnapshotDatasetV2",
    "CreateSummaryFileWriter", "CreateSummaryDbWriter", "WriteSummary", "WriteGraphSummary", "DebugIdentity", "DebugIdentityV3",
    "DistributedSave", "WriteFile",
)  # fmt: skip
READS = (
    "TextLineDataset", "TFRecordDatasetV2", "FixedLengthRecordReaderV2", "WholeFileReaderV2", "ReaderReadV2", "LMDBReader",
    "SqlDataset", "InitializeTableFromTextFileV2", "LoadAndRemapMatrix", "DecodeProtoV2", "MatchingFilesDataset", "ReadFile",
    "FileSystemSetConfiguration", "IteratorFromStringHandleV2", "DeleteOldCheckpoints", "RpcCall",
)  # fmt: skip
COMPUTES = (
    "Conv2D", "DepthwiseConv2dNative", "MatMul", "BiasAdd", "FusedBatchNormV3", "Relu6", "Softmax", "MaxPool", "AvgPool",
    "Mean", "Reshape", "Transpose", "Pad", "ConcatV2", "Split", "StridedSlice", "ResizeBilinear", "Placeholder", "Const",
    "Identity", "VarHandleOp", "ReadVariableOp", "AssignVariableOp", "VarIsInitializedOp", "DisableCopyOnRead", "NoOp",
    "RestoreV2", "StatefulPartitionedCall", "PartitionedCall", "While", "StatelessWhile", "TensorListReserve",
    "TensorListGetItem", "StringJoin", "ShardedFilename", "StaticRegexFullMatch",
    "Select", "Pack", "Unpack", "LeakyRelu", "Tanh", "Sigmoid",
)  # fmt: skip


def graph_of(op: str, function: str = "") -> SimpleNamespace:
    """As much of TensorFlow's graph message as the check reads: one operator, in the graph or in a function."""
    node = SimpleNamespace(op=op, name="the node", attr={})
    made = [SimpleNamespace(signature=SimpleNamespace(name=function), node_def=[node])] if function else []
    return SimpleNamespace(node=[] if function else [node], library=SimpleNamespace(function=made))


@pytest.mark.parametrize("function", ["", "__inference_call_3", "__inference__traced_restore_5", "__inference__initializer_7"])
@pytest.mark.parametrize("op", [*WRITES, *READS])
def test_what_touches_files_is_refused(op: str, function: str) -> None:
    """TensorFlow runs initializers while it loads a model, and whatever depends on constants while it converts one."""
    with pytest.raises(Refused, match=rf"^the SavedModel's operator 'the node' \({op}\) touches files or runs code; supported"):
        child._refuse_file_operators(graph_of(op, function))


@pytest.mark.parametrize("function", ["", "__inference_call_3"])
@pytest.mark.parametrize("op", COMPUTES)
def test_what_computes_passes(op: str, function: str) -> None:
    child._refuse_file_operators(graph_of(op, function))


@pytest.mark.parametrize("op", child.SAVING_OPERATORS)
def test_what_saves_stands_only_where_nothing_runs_it(op: str) -> None:
    child._refuse_file_operators(graph_of(op))
    child._refuse_file_operators(graph_of(op, f"{child.SAVING_FUNCTION}_4"))
    with pytest.raises(Refused, match=op):
        child._refuse_file_operators(graph_of(op, "__inference_call_3"))


def test_a_message_is_one_line_whatever_the_names_hold() -> None:
    graph = graph_of("SaveDatasetV2\n\x1b[2J")
    with pytest.raises(Refused) as refused:
        child._refuse_file_operators(graph)
    assert str(refused.value).isprintable()
