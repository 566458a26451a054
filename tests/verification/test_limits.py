"""Time and memory are bounded, and that they ran out is no verdict."""

import errno
import itertools
import os
import subprocess
import time
from collections.abc import Sequence
from typing import NoReturn

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from verification.helpers import KINDS, Net

from bnfold.confined import Exhausted, confined
from bnfold.folding import plan
from bnfold.graph import Graph
from bnfold.limits import Deadline, Limits
from bnfold.model_io import load, to_proto
from bnfold.optimization import optimize
from bnfold.verification import Outcome, Verdict, Verification, verify
from bnfold.verification.conclusion import conclusion
from bnfold.verification.float64.kept import Kept
from bnfold.verification.regions.alignment import Comparison, compare_regions
from bnfold.verification.regions.judge import Judge
from bnfold.verification.regions.scenes import scenes
from bnfold.verification.result import OutputFigures
from bnfold.verification.running import child
from bnfold.verification.running.endtoend import run_both
from bnfold.verification.running.inputs import Generator
from bnfold.verification.running.outputs import Run, Tolerance
from bnfold.verification.running.runner import Job, Outputs

GIGABYTE = 1 << 30
_TYPE = "float[1, 4, 9, 9]"


def silent(what: str, done: int, total: int) -> None:
    """Tells nobody."""


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    return to_proto(plan(load(model)).model)


class Unportable(Exception):
    """Cannot be pickled."""

    def __reduce__(self) -> NoReturn:
        raise TypeError(self)


def stuck(_: object) -> None:
    raise Unportable("it is stuck")


# --- work that is counted, or held ---------------------------------------------------------------------------


def nested(depth: int) -> onnx.ModelProto:
    """Loops of 64 steps in each other behind a Conv, and a Conv with a BatchNormalization behind them."""
    net = Net("float32", 0, 1.0)
    first = net.add("Conv", "x", net.weight(4, 3, 3, 3), pads=[1] * 4)
    weight = net.weight(4, 4, 3, 3)
    last = net.bn(net.add("Conv", f"l{depth}", weight), 4)
    model = net.model((1, 3, 9, 9), last)
    ports = f"(float[1] {first}, int64 trips, bool true) => (float[1] l{depth})"
    loop = onnx.parser.parse_graph(f"g {ports} {{ {_loop(depth, first)} }}")
    model.graph.node.insert(1, loop.node[0])
    constants = {"trips": np.array(64), "true": np.array(True)}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    return model


def _loop(depth: int, start: str) -> str:
    return f"l{depth} = Loop (trips, true, {start}) <body = {_body(depth - 1)}>"


def _body(depth: int) -> str:
    step = _loop(depth, f"s{depth}") if depth else "l0 = Relu (s0)"
    inputs, outputs = f"int64 i{depth}, bool c{depth}, {_TYPE} s{depth}", f"bool k{depth}, {_TYPE} l{depth}"
    return f"b{depth} ({inputs}) => ({outputs}) {{ k{depth} = Identity (c{depth}) {step} }}"


def test_iterations_are_counted_over_a_nest():
    """Each of five Loops has 64 steps only; together that is a thousand million."""
    model = nested(5)
    before = onnx.ModelProto()
    before.CopyFrom(model)
    tensor = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(2), tensor.name))
    del before.graph.node[0].output[:], model.graph.node[0].output[:]
    before.graph.node[0].output.append("before")
    model.graph.node[0].output.append("after")
    for each, name in ((before, "before"), (model, "after")):
        each.graph.node[1].input[2] = name
    result = verify(before, model, run=False)
    assert result.verdict is Verdict.NOT_VERIFIED
    assert any("more than 2048 iterations" in region.detail for region in result.regions)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("k = Expand (c, s)", id="Expand"),
        pytest.param("k = ConstantOfShape <value = float[1] {2.0}> (s)", id="ConstantOfShape"),
        pytest.param("k = Tile (c, s)", id="Tile"),
    ],
)
def test_a_huge_value_is_not_evaluated(line):
    """What does not fit into memory leaves its region open, and the models are not different for it."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        net (float[1, 3, 8, 8] x) => (float[1, 4, 1, 1] y)
        <float[1, 1, 1, 1] c = {{2.0}}, int64[4] s = {{1, 4, 64000, 64000}}> {{
          z = Conv (x, w)
          {line}
          m = Mul (z, k)
          b = InstanceNormalization (m, p, p)
          y = GlobalAveragePool (b)
        }}"""
    )
    arrays = {"w": np.ones((4, 3, 8, 8), np.float32), "p": np.ones(4, np.float32)}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    after = onnx.ModelProto()
    after.CopyFrom(model)
    after.graph.node[3].attribute.append(onnx.helper.make_attribute("epsilon", 1.00001e-5))
    result = verify(model, after, memory=GIGABYTE)
    assert result.verdict is Verdict.NOT_VERIFIED
    assert [region.outcome for region in result.regions] == [Outcome.NOT_EVALUATED]


def test_huge_inputs_are_not_made_up():
    """The regions are compared at small sizes, and the run is refused."""
    model = onnx.ModelProto()
    model.CopyFrom(KINDS["conv"](Net("float32", 0, 1.0)))
    for axis, size in enumerate((1, None, 30000, 30000)):
        if size:
            model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = size
    model.graph.output[0].type.tensor_type.ClearField("shape")
    result = verify(model, folded(model), memory=GIGABYTE)
    assert result.verdict is Verdict.EQUIVALENT
    assert result.complete
    assert any("more than time and memory allow" in reason for reason in result.reasons)


def test_work_that_is_held_to_limits():
    """It is ended from outside, its own errors are told, and so is its progress."""
    done: list[tuple[str, int, int]] = []

    def told(progress):
        progress("working", 1, 2)
        return sum(range(4))

    assert confined(told, Limits(), lambda *step: done.append(step)) == 6
    assert done == [("working", 1, 2)]
    with pytest.raises(ZeroDivisionError):
        confined(lambda _: 1 / 0, Limits(), silent)
    with pytest.raises(RuntimeError, match="Unportable: it is stuck"):
        confined(stuck, Limits(), silent)
    with pytest.raises(Exhausted, match="more than"):
        confined(lambda _: time.sleep(600), Limits(seconds=0.01), silent)
    with pytest.raises(Exhausted, match="memory"):
        confined(lambda _: np.ones(1 << 36), Limits(memory=GIGABYTE), silent)


def test_a_copy_that_memory_does_not_suffice_for(monkeypatch):
    """Is an error of Python's, and not the end of the process, as protobuf's own copy is."""
    monkeypatch.setattr("bnfold.limits._LEAST", 0)
    model = nested(1)
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("a", bytes(1 << 27)))  # more than lies free
    held = load(model)
    with pytest.raises(Exhausted, match="not enough memory"):
        confined(lambda _: bool(held.copy()), Limits(memory=1 << 20), silent)


# --- that they ran out is no verdict -------------------------------------------------------------------------


def plain() -> onnx.ModelProto:
    """A Conv with a BatchNormalization behind it."""
    net = Net("float32", 0, 1.0)
    return net.model((1, 4, 9, 9), net.bn(net.add("Conv", "x", net.weight(4, 4, 3, 3), pads=[1] * 4), 4))


def unstartable(*_: object, **__: object) -> NoReturn:
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def test_where_no_process_can_be_started(tmp_path, monkeypatch):
    """Nothing is verified, which is said with why, and what was folded is written."""
    monkeypatch.setattr(os, "fork", unstartable)
    monkeypatch.setattr(subprocess, "Popen", unstartable)
    path = tmp_path / "folded.onnx"
    found = optimize(plain(), path).verification
    assert found is not None
    assert found.verdict is Verdict.NOT_VERIFIED
    assert [reason for reason in found.reasons if "does not let a process start: Resource temporarily" in reason]
    assert path.exists()


@pytest.mark.parametrize(
    ("said", "is_exhausted"),
    [
        ("pthread_create failed, error code: 11", True),
        ("state.so: failed to map segment from shared object", True),
        ("[Errno 12] Cannot allocate memory", True),
        ("no kernel", False),
    ],
)
def test_a_session_for_which_there_is_too_little(said, is_exhausted):
    """Says nothing of the model."""
    assert child._failed(RuntimeError(said))["is_exhausted"] == is_exhausted


class Countdown(Deadline):
    """Over when it has been looked at so many times."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        object.__setattr__(self, "_looks", itertools.count(-looks))

    @property
    def is_over(self) -> bool:
        return next(self._looks) >= 0


def moved_factor() -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Equivalent, though a value between means something else: a factor moved from one Conv into the next."""
    before = KINDS["depthwise"](Net("float32", 0, 1.0))
    del before.graph.node[1]
    before.graph.node[1].input[0] = before.graph.node[0].output[0]
    after = onnx.ModelProto()
    after.CopyFrom(before)
    tensors = {tensor.name: tensor for tensor in after.graph.initializer}
    convs = [node for node in after.graph.node if node.op_type == "Conv"]
    for node, factor in zip(convs, (4.0, 0.25), strict=False):
        scaled = numpy_helper.to_array(tensors[node.input[1]]) * np.float32(factor)
        tensors[node.input[1]].CopyFrom(numpy_helper.from_array(scaled, node.input[1]))
    return before, after


def compared(left: Graph, right: Graph, looks: int) -> Comparison:
    """Region by region, where time runs out at some operator."""
    deadline = Countdown(looks)
    candidates = Generator(left, {}, {}, 0).candidates()
    judge = Judge(left, right, scenes(left, candidates), 0, deadline, Kept())
    names = {entry.name: entry.name for entry in left.model.proto.graph.output}
    return compare_regions(left, right, names, judge, silent)


def test_whenever_time_runs_out_equal_models_are_not_different():
    """Not even where the value that a region ends at means something else, and the next would have made up for it."""
    left, right = (Graph(load(model)) for model in moved_factor())
    outcomes = set()
    for looks in [*range(40), *range(40, 400, 9), 10**6]:
        found = compared(left, right, looks)
        assert not found.having(Outcome.DIFFERENT), looks
        outcomes |= {region.outcome for region in found.regions}
    assert outcomes == {Outcome.NOT_EVALUATED, Outcome.REDEFINED, Outcome.EQUAL}


class Scripted:
    """In the place of a runner: the outputs of BEFORE, then those of AFTER."""

    def __init__(self, *outputs: Outputs) -> None:
        self._outputs = outputs

    def run(self, jobs: Sequence[Job]) -> list[list[Outputs]]:
        return [[each] * len(job.feeds) for each, job in zip(self._outputs, jobs, strict=False)]


@pytest.mark.parametrize("is_exhausted", [True, False])
def test_an_after_without_time_has_not_failed(is_exhausted):
    """A crash is a failure; that there was no time left for it is none."""
    graph = Graph(load(KINDS["conv"](Net("float32", 0, 1.0))))
    after = Outputs(error="it ended", is_exhausted=is_exhausted)
    ran = run_both(
        Scripted(Outputs({"y": np.ones(3)}), after),
        *(graph.model.path, graph.model.path),
        lambda: graph.model.path,
        {"y": "y"},
        Generator(graph, {}, {}, 0),
        data=(),
        distributions=["normal"],
        providers=(),
        tolerance=Tolerance(),
    )
    assert ran.was_run != is_exhausted
    assert bool(ran.failure) != is_exhausted


def figures(max_rel: float) -> OutputFigures:
    """An output that is beyond its tolerance."""
    return OutputFigures(
        name="y", scale=1, max_abs=max_rel, max_rel=max_rel, max_elementwise=max_rel, rms=max_rel, snr_db=1, ulps=1,
        cosine=1, argmax_agreement=None, misplaced=0, compared=9, floor=0, tolerance=1e-6, inputs="normal", index=(0,),
        passed=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("apart", "late", "verdict"),
    [
        pytest.param(1e-4, "no time", Verdict.NOT_VERIFIED, id="rounding-perhaps"),
        pytest.param(0.5, "no time", Verdict.DIFFERENT, id="gross"),
        pytest.param(1e-4, "", Verdict.DIFFERENT, id="float64-cannot"),
    ],
)
def test_a_referee_without_time_leaves_it_open(apart, late, verdict):
    """Whether it is rounding is not known then, unless it is too much for that."""
    found = Comparison(problem="there was no time")
    ran = Run(outputs=(figures(apart),), how="somehow")
    result: Verification = conclusion(found, ran, None, [], 0, late)
    assert result.verdict is verdict
