"""Functions are counted before they are written out: a few lines can stand for more nodes than any machine holds."""

import onnx
import pytest
from onnx import helper

from bnfold.folding import plan
from bnfold.graph import are_bounded, inlined
from bnfold.model_io import load
from bnfold.reasons import Reason, Refused
from bnfold.verification import Verdict, verify
from tests.helpers import model_of

MODEL = """<ir_version: 8, opset_import: ["" : 17, "d": 1]>
f (T[1, 3, 8, 8] x) => (T[1, 3, 8, 8] z) {
  r = LRN <size = 3> (x)
  y = BatchNormalization (r, {bn: 3})
  z = d.F0 (y)
}"""


def calling(*calls: tuple[str, ...], last: str = "Relu") -> onnx.ModelProto:
    """A model of functions F0, F1, …; each calls the operators of its row in turn."""
    model = model_of(MODEL)
    opsets = [helper.make_opsetid("d", 1), helper.make_opsetid("", 17)]
    for number, row in enumerate([*calls, (last,)]):
        values = ["a", *(f"t{k}" for k in range(len(row) - 1)), "b"]
        nodes = [
            helper.make_node(op, [values[k]], [values[k + 1]], domain="d" if op[0] == "F" else "")
            for k, op in enumerate(row)
        ]
        model.functions.append(helper.make_function("d", f"F{number}", ["a"], ["b"], nodes, opsets))
    return model


def doubling(depth: int, last: str = "Relu") -> onnx.ModelProto:
    """Functions that each call the next one twice: two to that power of nodes."""
    return calling(*((f"F{number + 1}",) * 2 for number in range(depth)), last=last)


@pytest.mark.parametrize(
    ("model", "detail"),
    [
        pytest.param(doubling(40), "more than 10", id="2**40-nodes"),
        pytest.param(doubling(3000), "more than 16", id="2**3000-nodes"),
        pytest.param(calling(("F0",)), "F0 calls itself", id="recursive"),
        pytest.param(calling(("F1",), ("F0",)), "calls itself", id="recursive-by-way-of-another"),
    ],
)
def test_a_bomb_is_refused_by_name_and_the_rest_is_dealt_with(model, detail):
    """Nothing is written out, inference does without the functions, and the reason is in the report."""
    with pytest.raises(Refused) as refused:
        inlined(load(model))
    assert refused.value.reason is Reason.NOT_INLINED
    assert detail in str(refused.value.facts["detail"])
    assert not are_bounded(model)
    assert plan(load(model)).entries[0].refusals[-1].reason is Reason.NOT_INLINED


def test_what_is_within_the_bound_is_written_out():
    """Two to the tenth nodes are no bomb."""
    model = inlined(load(doubling(10))).proto
    assert not model.functions
    assert sum(node.op_type == "Relu" for node in model.graph.node) == 2**10


def test_defaults_of_attributes_are_heeded():
    """Of a function that is called in another one, too; what a call says goes before."""
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17, "own": 1]>
        g (float[3] x) => (float[3] y, float[3] z) { y = own.F (x) z = own.F <slope = 0.5> (x) }
        <domain: "own", opset_import: ["": 17, "own": 1]> F (a) => (b) { c = own.G (a) b = own.G <slope = 0.25> (c) }
        <domain: "own", opset_import: ["": 17]> G <slope: float = 0.2> (a) => (b) {
            b = LeakyRelu <alpha: float = @slope> (a) }""")
    assert [round(node.attribute[0].f, 6) for node in inlined(load(model)).proto.graph.node] == [0.2, 0.25, 0.2, 0.25]
    kept = inlined(load(model), but=[("own", "G")]).proto.graph.node
    assert [(node.op_type, len(node.attribute)) for node in kept] == [("G", 0), ("G", 1), ("G", 0), ("G", 1)]


@pytest.mark.parametrize(("given", "slopes"), [("", None), ("<part = 0.5>", [0.5])])
def test_a_default_behind_an_attribute(given, slopes):
    """Where that is not given the default would be lost, so the function stays."""
    model = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["": 17, "own": 1]>
        g (float[3] x) => (float[3] y) {{ y = own.F {given} (x) }}
        <domain: "own", opset_import: ["": 17, "own": 1]> F <part> (a) => (b) {{
            b = own.G <slope: float = @part> (a) }}
        <domain: "own", opset_import: ["": 17]> G <slope: float = 0.2> (a) => (b) {{
            b = LeakyRelu <alpha: float = @slope> (a) }}""")
    if slopes is None:
        with pytest.raises(Refused):
            inlined(load(model))
    else:
        assert [node.attribute[0].f for node in inlined(load(model)).proto.graph.node] == slopes


def test_a_large_default_of_many_calls():
    """Copied to each call it would take gigabytes: that is tried where memory is bounded."""
    table = helper.make_attribute("table", [1 << 60] * 100_000)
    body = [helper.make_node("Relu", ["a"], ["b"])]
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    function = helper.make_function("own", "F", ["a"], ["b"], body, imports[:1], attribute_protos=[table])
    calls = [helper.make_node("F", [f"x{k}"], [f"x{k + 1}"], domain="own") for k in range(20_000)]
    ports = [helper.make_tensor_value_info(name, 1, [3]) for name in ("x0", "x20000")]
    graph = helper.make_graph(calls, "g", ports[:1], ports[1:])
    with pytest.raises(Refused):
        inlined(load(helper.make_model(graph, opset_imports=imports, functions=[function], ir_version=8)))


def test_a_function_that_ends_its_process():
    """It stays: ONNX's converter of versions follows shapes, and reads memory that is not there at a GatherND."""
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 21, "own": 1]>
        g (float[3,2,8,1] x, int64[1,1] i) => (float[a] y) { y = own.F (x, i) }
        <domain: "own", opset_import: ["": 13]> F (x, i) => (y) { y = GatherND <batch_dims = -5> (x, i) }""")
    with pytest.raises(Refused) as refused:
        inlined(load(model), convert_version=True)
    assert refused.value.reason is Reason.NOT_INLINED
    assert verify(model, model, run=False).verdict is Verdict.EQUIVALENT


def test_calls_of_functions_that_stay_are_equal_only_if_the_functions_are():
    """By name alone, Relu in the place of Neg would not be seen."""
    same = verify(doubling(40), doubling(40), run=False)
    assert same.verdict is Verdict.EQUIVALENT
    other = verify(doubling(40), doubling(40, last="Neg"), run=False)
    assert other.verdict is Verdict.NOT_VERIFIED
