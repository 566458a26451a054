"""Weights behind DequantizeLinear: steps change, integers stay, and what cannot is refused by name."""

import numpy as np
import onnx
import pytest
from helpers import assert_close, feeds_of, folded, run
from onnx import TensorProto, helper, numpy_helper

from bnfold.folding import Outcome
from bnfold.reasons import Reason
from bnfold.verification import Verdict, verify

RANDOM = np.random.default_rng(5)
CHANNELS = 4
ANY = {}
UNSHIFTED = {"unshifted": True}


class Net:
    """A model from x to y, made node by node; constants are initializers."""

    def __init__(self, opset=19, shape=(2, CHANNELS, 5, 5)):
        self.opset, self.nodes, self.constants, self.last = opset, [], [], "x"
        self.input = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)

    def constant(self, name, values):
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def add(self, op_type, *inputs, out=None, **attributes):
        self.last = out or f"{op_type.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [self.last], self.last, **attributes))
        return self.last

    def weight(self, name, integers, steps, zero_point=None, axis=None, fake=False, **attributes):
        """A DequantizeLinear of integers; or, if fake, of a QuantizeLinear of a float weight that gives them."""
        parameters = [self.constant(f"{name}_step", np.asarray(steps, np.float32))]
        if zero_point is not None:
            parameters.append(self.constant(f"{name}_zero", np.asarray(zero_point, integers.dtype)))
        attributes |= {} if axis is None else {"axis": axis}
        stored = self.constant(f"{name}_stored", integers)
        if fake:
            shape = [-1 if k == axis else 1 for k in range(integers.ndim)] if np.ndim(steps) else ()
            moved = integers + RANDOM.uniform(-0.49, 0.49, integers.shape) - np.reshape(zero_point, shape)
            self.constants[-1] = numpy_helper.from_array((moved * np.reshape(steps, shape)).astype(np.float32), stored)
            stored = self.add("QuantizeLinear", stored, *parameters, out=f"{name}_integers", **attributes)
        return self.add("DequantizeLinear", stored, *parameters, out=name, **attributes)

    def norm(self, gamma=None, unshifted=False, channels=CHANNELS):
        gamma = RANDOM.uniform(0.5, 2, channels) if gamma is None else gamma
        beta, mean = (RANDOM.normal(size=channels) * (not unshifted) for _ in range(2))
        values = [gamma, beta, mean, RANDOM.uniform(0.5, 2, channels)]
        number = len(self.nodes)
        names = [self.constant(f"norm{number}_{part}", np.float32(value)) for part, value in enumerate(values)]
        return self.add("BatchNormalization", self.last, *names)

    def model(self):
        rank = len(self.input.type.tensor_type.shape.dim)
        output = helper.make_tensor_value_info(self.last, TensorProto.FLOAT, [None] * rank)
        graph = helper.make_graph(self.nodes, "g", [self.input], [output], self.constants)
        return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", self.opset)])


def integers(*shape, dtype=np.int8, low=-127, high=127):
    return RANDOM.integers(low, high, shape, endpoint=True).astype(dtype)


def steps(count):
    return RANDOM.uniform(0.01, 0.02, count)


def stored(model):
    """The integers of a model's weights: initializers, and those that QuantizeLinear makes."""
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    values = run(model, feeds_of(model)[0])
    chain = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    return [tensors.get(node.input[0], values.get(node.input[0])) for node in chain]


def assert_folds(model, relative=2e-6):
    """No BatchNormalization is left, the result computes the same, is valid, and folds no further."""
    planned, result = folded(model)
    assert [entry.outcome for entry in planned.entries] == [Outcome.FOLDED] * len(planned.entries)
    assert "BatchNormalization" not in [node.op_type for node in result.graph.node]
    onnx.checker.check_model(result, full_check=True)
    feeds = feeds_of(model)[0]
    name = model.graph.output[0].name
    assert_close(run(result, feeds)[name], run(model, feeds)[name], relative)
    assert not folded(result)[0].changes
    return result


def assert_refused(model, reason, detail=""):
    """Nothing changes, and one of the refusals is this."""
    planned, result = folded(model)
    assert not planned.changes
    assert result == model
    refusals = [refusal for entry in planned.entries for refusal in entry.refusals if refusal.reason is reason]
    assert any(detail in str(refusal) for refusal in refusals), [str(refusal) for refusal in refusals]


def conv(*grid, stored=None, opset=19, group=1, before=None, below=ANY, fake=False, **attributes):
    """(BN →) Conv of a quantized weight (→ BN); `before` and `below` are given to the BN above and below."""
    net = Net(opset)
    stored = integers(CHANNELS, CHANNELS // group, 3, 3) if stored is None else stored
    if before is not None:
        net.norm(**before)
    data = net.last
    weight = net.weight("w", stored, *grid, fake=fake, **attributes)
    net.add("Conv", data, weight, group=group)
    if below is not None:
        net.norm(**below)
    return net.model()


PER_TENSOR = (0.01, 0)
PER_CHANNEL = (steps(CHANNELS), np.zeros(CHANNELS))
NEGATIVE = np.array([-1.5, 0.5, 0, 2])


def other(op_type):
    net = Net(shape=(2, CHANNELS) if op_type == "Gemm" else (2, CHANNELS, CHANNELS))
    match op_type:
        case "ConvTranspose":
            net = Net()
            net.add("ConvTranspose", "x", net.weight("w", integers(CHANNELS, 2, 3, 3), 0.01, 3), group=1)
            return net.norm(channels=2) and net.model()
        case "Gemm":
            net.add("Gemm", "x", net.weight("w", integers(CHANNELS, CHANNELS), steps(CHANNELS), axis=0), transB=1)
        case "MatMul":
            net.add("MatMul", "x", net.weight("w", integers(CHANNELS, CHANNELS), 0.01, 0))
            net.add("Transpose", net.last, perm=[0, 2, 1])
        case "Transpose":
            weight = net.weight("w", integers(CHANNELS, CHANNELS), steps(CHANNELS), axis=0)
            net.add("MatMul", "x", net.add("Transpose", weight, perm=[1, 0]))
            net.add("Transpose", net.last, perm=[0, 2, 1])
    net.norm(unshifted=op_type != "Gemm")
    return net.model()


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(conv(*PER_TENSOR), id="per-tensor"),
        pytest.param(conv(0.01), id="no-zero-point"),
        pytest.param(conv([0.01], [7]), id="one-element"),
        pytest.param(conv(*PER_CHANNEL, axis=0), id="per-channel"),
        pytest.param(conv(*PER_CHANNEL, axis=-4), id="negative-axis"),
        pytest.param(conv(steps(CHANNELS), axis=0, opset=19), id="no-zero-points"),
        pytest.param(conv(0.01, 0, below={"gamma": np.ones(CHANNELS)}, opset=21), id="opset-21"),
        pytest.param(conv(steps(CHANNELS), np.arange(4), axis=0), id="zero-points"),
        pytest.param(conv(0.01, 128, stored=integers(4, 4, 3, 3, dtype=np.uint8, low=0, high=255)), id="uint8"),
        pytest.param(conv(0.01, 0, group=2), id="grouped"),
        pytest.param(conv(0.01, 0, group=CHANNELS, before=UNSHIFTED), id="depthwise-both-sides"),
        pytest.param(conv(0.01, 0, before=ANY, below=None), id="input"),
        pytest.param(conv(*PER_TENSOR, fake=True), id="fake-per-tensor"),
        pytest.param(conv(*PER_CHANNEL, axis=0, fake=True), id="fake-per-channel"),
        pytest.param(conv(steps(CHANNELS), np.arange(4), axis=0, fake=True), id="fake-zero-points"),
        pytest.param(conv(0.01, 0, before=ANY, below=None, fake=True), id="fake-input"),
        *(pytest.param(other(name), id=name) for name in ("ConvTranspose", "Gemm", "MatMul", "Transpose")),
    ],
)
def test_the_integers_stay(model):
    """The affine goes into the steps of the grid; not one integer of a weight changes."""
    result = assert_folds(model)
    for before, after in zip(stored(model), stored(result), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("fake", [False, True])
@pytest.mark.parametrize(("zero_point", "grid"), [(0, {}), (-3, {}), (np.arange(4), {"axis": 0})])
def test_negative_scales_mirror_integers(zero_point, grid, fake):
    """Where the scale is negative, integers are mirrored at the zero point; where it is 0, they become it."""
    step = steps(CHANNELS) if grid else 0.01
    model = conv(
        step, zero_point, stored=integers(4, 4, 3, 3, low=-100, high=100), below={"gamma": NEGATIVE}, fake=fake, **grid
    )
    result = assert_folds(model)
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in result.graph.initializer}
    last = result.graph.node[-2]
    assert last.op_type == "DequantizeLinear"
    assert (tensors[last.input[1]] > 0).all()
    before, after = (stored(each)[0].astype(int) for each in (model, result))
    points = np.broadcast_to(zero_point, CHANNELS)
    np.testing.assert_array_equal(after[0], 2 * points[0] - before[0])
    np.testing.assert_array_equal(after[1], before[1])
    np.testing.assert_array_equal(after[2], points[2])


def test_steps_of_two_affines_are_rounded_once():
    """An affine above and one below make one rounding of the steps."""
    model = conv(*PER_TENSOR, before={"gamma": np.full(CHANNELS, 1.1)}, below={"gamma": np.full(CHANNELS, 1.3)})
    for tensor in model.graph.initializer:
        if tensor.name.endswith("_3"):
            tensor.CopyFrom(numpy_helper.from_array(np.full(CHANNELS, 0.7, np.float32), tensor.name))
    result = assert_folds(model)
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in result.graph.initializer}
    deviation = float(np.float32(0.7)) + float(np.float32(1e-5))
    exact = float(np.float32(0.01)) * float(np.float32(1.1)) * float(np.float32(1.3)) / deviation
    assert tensors[result.graph.node[0].input[1]] == np.float32(exact)


# --- biases --------------------------------------------------------------------------------------------------

DATA_STEP = np.float32(0.05)


def with_bias(step, high=2000, quantized_data=True, gamma=None, axis=0, **grid):
    net = Net()
    if quantized_data:
        data = [net.constant("x_step", DATA_STEP), net.constant("x_zero", np.uint8(128))]
        net.add("DequantizeLinear", net.add("QuantizeLinear", "x", *data), *data)
    read = net.last
    grid = {"steps": PER_CHANNEL[0], "zero_point": PER_CHANNEL[1], "axis": 0} | grid
    weight = net.weight("w", integers(4, 4, 3, 3, low=-100, high=100), **grid)
    bias = net.weight(
        "b",
        integers(4, dtype=np.int32, low=-high, high=high),
        step,
        0 if np.ndim(step) == 0 else np.zeros(4),
        axis=axis,
    )
    net.add("Conv", read, weight, bias)
    net.norm(gamma)
    return net.model()


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(with_bias(DATA_STEP * np.float32(PER_CHANNEL[0])), id="per-channel"),
        pytest.param(with_bias(DATA_STEP * np.float32(0.01), steps=0.01, zero_point=0, axis=None), id="per-tensor"),
        pytest.param(with_bias(DATA_STEP * np.float32(PER_CHANNEL[0]), gamma=NEGATIVE), id="negative"),
    ],
)
def test_the_step_of_a_bias_stays_the_product(model):
    """A quantized bias keeps the step that runtimes take for granted, and moves by half of it at most."""
    result = assert_folds(model, relative=1e-3)
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in result.graph.initializer}
    conv_node = next(node for node in result.graph.node if node.op_type == "Conv")
    makers = {node.output[0]: node for node in result.graph.node}
    of_weight, of_bias = (tensors[makers[name].input[1]] for name in conv_node.input[1:3])
    np.testing.assert_allclose(of_bias, DATA_STEP * of_weight, rtol=1e-6)
    assert tensors[makers[conv_node.input[2]].input[0]].dtype == np.int32
    assert verify(model, result).verdict is Verdict.EQUIVALENT  # also where no rounding of data hides that


def test_a_bias_beside_data_that_is_not_quantized():
    """Its step is scaled like that of the weight."""
    assert_folds(with_bias(np.full(CHANNELS, 1e-4), quantized_data=False), relative=1e-4)


def test_a_shift_too_large_for_the_bias_stays_behind():
    """Where int32 cannot hold the new bias, the shift remains as an Add."""
    planned, result = folded(with_bias(DATA_STEP * np.float32(PER_CHANNEL[0]), gamma=np.full(CHANNELS, 1e-8)))
    assert [entry.outcome for entry in planned.entries] == [Outcome.REDUCED]
    assert result.graph.node[-1].op_type == "Add"


# --- refusals ------------------------------------------------------------------------------------------------


def smallest_integers():
    below = UNSHIFTED | {"gamma": NEGATIVE}
    return conv(0.01, 0, stored=integers(4, 4, 3, 3, low=-128, high=-128), below=below)


def shared():
    net = Net()
    weight = net.weight("w", integers(4, 4, 1, 1), 0.01)
    net.add("Conv", "x", weight, out="first")
    net.norm(unshifted=True)
    net.add("Conv", net.last, weight)
    return net.model()


def quantized_data(where):
    net = Net()
    data = [net.constant("x_step", DATA_STEP), net.constant("x_zero", np.uint8(128))]

    def rounded():
        net.add("DequantizeLinear", net.add("QuantizeLinear", net.last, *data), *data)

    if where == "input":
        rounded()
        net.norm(unshifted=True)
    net.add("Conv", net.last, net.weight("w", integers(4, 4, 1, 1), 0.01))
    if where == "output":
        rounded()
        net.norm(unshifted=True)
    return net.model()


def beside():
    net = Net()
    net.add("Conv", "x", net.weight("w", integers(4, 4, 1, 1), 0.01), out="conv")
    net.last = "x"
    net.norm()
    net.add("Add", "conv", net.last)
    return net.model()


@pytest.mark.parametrize(
    ("model", "reason", "detail"),
    [
        pytest.param(conv(0.01, 0, opset=10, below=UNSHIFTED), Reason.QUANTIZED, "opset 10", id="opset-10"),
        pytest.param(smallest_integers(), Reason.QUANTIZED, "no opposite", id="smallest-integer"),
        pytest.param(conv(*PER_CHANNEL, axis=0, before=UNSHIFTED, below=None), Reason.QUANTIZED, "pair of channels",
            id="input-of-per-channel"),
        pytest.param(conv(0.01, 0, group=2, before=UNSHIFTED, below=None), Reason.QUANTIZED, "pair of channels",
            id="input-of-groups"),
        pytest.param(conv(RANDOM.uniform(0.01, 0.02, (4, 2, 3, 3)), axis=1, block_size=2, opset=21, below=UNSHIFTED),
            Reason.QUANTIZED, "in blocks", id="blocks"),
        pytest.param(with_bias(np.full(CHANNELS, 1e-3)), Reason.QUANTIZED, "another grid", id="bias-on-another-grid"),
        pytest.param(shared(), Reason.BRANCHES, "w has 2 readers", id="shared"),
        pytest.param(quantized_data("output"), Reason.QUANTIZED, "off their grid", id="data-behind"),
        pytest.param(quantized_data("input"), Reason.QUANTIZED, "runtimes expect", id="input-beside-quantized-data"),
        pytest.param(beside(), Reason.QUANTIZED, "integers would have to change", id="beside"),
    ],
)  # fmt: skip
def test_is_refused(model, reason, detail):
    """Each case breaks one precondition of one that folds."""
    assert_refused(model, reason, detail)
