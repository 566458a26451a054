"""bnfold among the passes of onnx_ir, with the real package; where it is not installed, there is nothing to test."""

import numpy as np
import onnx
import pytest
from networks import MODELS

import bnfold

ir = pytest.importorskip("onnx_ir")
common = pytest.importorskip("onnx_ir.passes.common")

MODEL = MODELS / "digits_resnet.onnx"


def batchnorms(model):
    return sum(node.op_type == "BatchNormalization" for node in model.graph)


def fold(**options):
    from bnfold.passes import FoldBatchNorm  # noqa: PLC0415 -- needs onnx_ir

    return FoldBatchNorm(**options)


def test_it_folds_and_leaves_the_model_alone():
    """A new model comes out, and is verified."""
    model = ir.load(MODEL)
    before = ir.to_proto(model)
    result = fold(verify="require")(model)
    assert result.modified
    assert batchnorms(result.model) == 0
    assert ir.to_proto(model) == before


def test_it_composes():
    """Before and behind passes of theirs, until nothing changes."""
    passes = [common.LiftConstantsToInitializersPass(), fold(), common.RemoveUnusedNodesPass()]
    result = ir.passes.PassManager(passes, steps=3)(ir.load(MODEL))
    assert result.modified
    assert not fold()(result.model).modified
    assert bnfold.verify(MODEL, result.model)


def test_it_takes_the_options_of_optimize():
    """But none that writes: what a pass makes is a model in memory."""
    assert batchnorms(fold(keep=["*"])(ir.load(MODEL)).model) == batchnorms(ir.load(MODEL))
    with pytest.raises(TypeError, match="in_place"):
        fold(in_place=True)
    with pytest.raises(TypeError, match="nonsense"):
        fold(nonsense=1)(ir.load(MODEL))


@pytest.mark.parametrize("verb", [bnfold.fold, lambda model: bnfold.optimize(model).proto()])
def test_a_model_with_data_files(verb, tmp_path):
    """onnx_ir knows the folder; its model still has its data outside afterwards."""
    path = tmp_path / "external.onnx"
    onnx.save(onnx.load(MODEL), path, save_as_external_data=True, location="external.data", size_threshold=0)
    model = ir.load(path)
    assert list(verb(model).graph.initializer) == list(bnfold.fold(MODEL).graph.initializer)
    tensors = [value.const_value for value in model.graph.initializers.values()]
    assert all(isinstance(tensor, ir.ExternalTensor) for tensor in tensors)


def test_results_become_their_models():
    """As they were, to the bit."""
    model = bnfold.optimize(MODEL.read_bytes()).to_ir()
    folded = bnfold.fold(MODEL)
    for tensor in folded.graph.initializer:
        np.testing.assert_array_equal(
            model.graph.initializers[tensor.name].const_value.numpy(), onnx.numpy_helper.to_array(tensor)
        )


@pytest.mark.filterwarnings("ignore")  # torch's own
def test_what_torch_exports():
    """An ONNXProgram is a model; checked where torch is."""
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.PReLU(), torch.nn.BatchNorm2d(4)
    )
    image = torch.rand(1, 3, 8, 8)
    program = torch.onnx.export(net.eval(), (image,), dynamo=True, verbose=False)
    result = bnfold.optimize(program)
    assert result.verification
    assert batchnorms(result.to_ir()) == 0
