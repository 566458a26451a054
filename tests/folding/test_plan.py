"""The plan as a whole: pure, the same every time, with what a report needs; and nothing makes it fall over."""

import numpy as np
import onnx
import pytest
from helpers import feeds_of, folded, model_of, run, told
from networks import MODELS
from onnx import numpy_helper

from bnfold.folding import plan
from bnfold.folding.record import Entry, Outcome, Plan, Remnant
from bnfold.model_io import load, to_proto
from bnfold.reasons import Reason

HEADER = '<ir_version: 8, opset_import: ["": 17]>\n'
CONV_BN = """
    [conv] c = Conv (x, {w: 4, 3, 3, 3})
    [bn] b = BatchNormalization (c, {bn: 4})
    [relu] r = Relu (b)
    [pool] p = GlobalAveragePool (r)
    [scale] y = Mul (p, {s: 4, 1, 1 positive})
"""


def model(body: str = CONV_BN, inputs: str = "float[2, 3, 5, 5] x", outputs: str = "float[2, 4, P, Q] y"):
    return model_of(f"{HEADER} g ({inputs}) => ({outputs}) {{ {body} }}")


def test_planning_does_not_touch_the_model():
    """Not even its protobuf in memory; a second plan comes to the same."""
    loaded = load(model())
    before = loaded.proto.SerializeToString(deterministic=True)
    first, second = plan(loaded), plan(loaded)
    assert loaded.proto.SerializeToString(deterministic=True) == before
    assert [told(entry) for entry in first.entries] == [told(entry) for entry in second.entries]
    assert to_proto(first.model) == to_proto(second.model)


def test_the_same_input_gives_the_same_bytes():
    """From loading on."""
    one, other = (to_proto(plan(load(model())).model).SerializeToString() for _ in range(2))
    assert one == other


def test_names_follow_meanings():
    """What an affine passed through is renamed, and the plan says how; what means the same has its old name."""
    before = model()
    planned, after = folded(before)
    renamed = {old: new for entry in planned.entries for old, new in entry.renamed.items()}
    assert renamed == {"b": "b_folded", "r": "r_folded"}
    assert [list(node.output) for node in after.graph.node] == [["b_folded"], ["r_folded"], ["y"]]
    assert [node.name for node in after.graph.node] == ["conv", "relu", "pool"]


def test_operators_are_called_what_they_were():
    """Without names by their outputs, as they were before a fold gave them others; what is left, by what it is now."""
    before = model(
        """c = Conv (x, {w: 4, 3, 3, 3})
        b = BatchNormalization (c, {bn: 4})
        r = Relu (b)
        n = BatchNormalization (r, {bn2: 4 positive})
        q = Relu (n)
        y = Conv <pads = [1, 1, 1, 1]> (q, {w2: 4, 4, 3, 3})"""
    )
    planned, after = folded(before)
    assert [told(entry) for entry in planned.entries] == ["b folded into c", "n reduced into c through r"]
    assert [[answer.op_type for answer in entry.answers] for entry in planned.entries] == [
        ["BatchNormalization", "Conv"],
        ["BatchNormalization", "Relu", "Conv"],
    ]
    assert [(node.op_type, *node.output) for node in after.graph.node][2] == ("Add", "n")
    assert planned.entries[1].left == (Remnant("n", "Add"),)


def test_a_reduced_node_says_why_it_is_not_gone():
    """All reasons against a fold that leaves nothing, also that one would leave as many nodes."""
    before = model(
        """[bn] b = BatchNormalization (x, {bn: 3})
        [conv] y = Conv <pads = [1, 1, 1, 1]> (b, {w: 4, 3, 3, 3})"""
    )
    (entry,) = folded(before)[0].entries
    assert told(entry) == "bn reduced into conv"
    assert [refusal.reason for refusal in entry.refusals] == [Reason.GRAPH_INPUT, Reason.SHIFT_MEETS_PADDING]
    assert entry.left == (Remnant("bn", "Add"),)


def test_value_info_follows_its_value():
    """The stated type of a renamed value goes with it, and those of values that are gone go."""
    before = model(CONV_BN)
    inferred = onnx.shape_inference.infer_shapes(before)
    assert {info.name for info in inferred.graph.value_info} == {"c", "b", "r", "p"}
    _, after = folded(inferred)
    assert {info.name for info in after.graph.value_info} == {"b_folded", "r_folded"}
    onnx.checker.check_model(after, full_check=True)


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        ([], []),
        (["bn"], ["bn"]),
        (["b*"], ["bn"]),
        (["scale", "bn"], ["bn", "scale"]),
        (["*"], ["bn", "scale"]),
        (["[bs]*"], ["bn", "scale"]),
    ],
)
def test_keep_names_nodes(keep, kept):
    """A node whose name matches a glob stays, and says that it was asked to."""
    planned, _ = folded(model(), keep=keep)
    stay = [entry for entry in planned.entries if entry.outcome is Outcome.KEPT]
    by_name = [entry.node for entry in stay if [r.reason for r in entry.refusals] == [Reason.KEPT_BY_NAME]]
    assert by_name == kept


def test_a_node_that_is_kept_does_not_change():
    """Another affine does not go into it, either: it stays as it is."""
    before = model(
        """[bn] b = BatchNormalization (x, {bn: 3})
        [bn_2] y = BatchNormalization (b, {bn2: 3})""",
        outputs="float[2, 3, 5, 5] y",
    )
    for name in ("bn", "bn_2"):
        _, after = folded(before, keep=[name])
        original = next(node for node in before.graph.node if node.name == name)
        (node,) = (node for node in after.graph.node if node.name == name)
        assert list(node.input[1:]) == list(original.input[1:])


def test_counts():
    """BatchNormalizations and other affines are counted apart."""
    planned, _ = folded(model())
    assert planned.count(Outcome.FOLDED) == 1
    assert planned.count(Outcome.FOLDED, batchnorms=False) == 1
    assert planned.count(Outcome.KEPT) == 0
    assert (planned.nodes_before, planned.nodes_after) == (5, 3)
    assert planned.changes


def test_shared_weights_are_reported_with_their_size():
    """What a fold had to copy stands in its entry; what nobody else read does not."""
    body = """
        [conv] c = Conv (x, {w: 4, 3, 3, 3})
        [bn] y = BatchNormalization (c, {bn: 4})
        [conv_2] z = Conv (x, w)
    """
    (entry,) = folded(model(body, outputs="float[2, 4, 3, 3] y, float[2, 4, 3, 3] z"))[0].entries
    assert entry.copied == {"w": 4 * 3 * 3 * 3 * 4}
    (entry,) = folded(model(body.partition("[conv_2]")[0], outputs="float[2, 4, 3, 3] y"))[0].entries
    assert entry.copied == {}


def test_assume_constant_folds_what_could_be_overridden():
    """And takes the entry out of the graph's inputs, as nothing reads it any more."""
    before = model(
        "c = Conv (x, {w: 4, 3, 3, 3}) y = BatchNormalization (c, {bn: 4 unshifted})",
        inputs="float[2, 3, 5, 5] x, float[4, 3, 3, 3] w",
        outputs="float[2, 4, 3, 3] y",
    )
    assert not folded(before)[0].changes
    planned, after = folded(before, assume_constant=True)
    assert planned.changes
    assert [entry.name for entry in after.graph.input] == ["x"]


def test_below_ir_4_every_initializer_stays_an_input():
    """New weights are listed as inputs, and those that nothing reads any more are not; dead ones from before stay."""
    body = "c = Conv (x, {w: 4, 3, 3, 3}) y = BatchNormalization (c, {bn: 4})"
    before = model(body, outputs="float[2, 4, 3, 3] y")
    before.ir_version = 3
    before.opset_import[0].version = 8
    before.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float32), "unread"))
    for tensor in before.graph.initializer:
        entry = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        before.graph.input.append(entry)
    onnx.checker.check_model(before, full_check=True)
    _, after = folded(before)
    onnx.checker.check_model(after, full_check=True)
    names = {tensor.name for tensor in after.graph.initializer}
    assert {entry.name for entry in after.graph.input} == names | {"x"}
    assert "unread" in names
    assert len(names) == 3


def test_quantization_annotations_go_with_their_values():
    """An annotation of a value that is gone would name nothing."""
    before = model()
    for name in ("c", "x"):
        before.graph.quantization_annotation.add(tensor_name=name)
    _, after = folded(before)
    assert [note.tensor_name for note in after.graph.quantization_annotation] == ["x"]


def test_what_is_not_ours_stays():
    """Metadata, doc strings, training information and fields of other nodes come through."""
    before = model()
    before.metadata_props.add(key="author", value="me")
    before.doc_string = "a model"
    before.graph.doc_string = "a graph"
    before.graph.node[2].doc_string = "a relu"
    before.training_info.add().initialization.name = "init"
    _, after = folded(before)
    assert after.metadata_props == before.metadata_props
    assert (after.doc_string, after.graph.doc_string) == ("a model", "a graph")
    assert next(node for node in after.graph.node if node.name == "relu").doc_string == "a relu"
    assert after.training_info == before.training_info


def _annotated(model: onnx.ModelProto) -> onnx.ModelProto:
    for tensor in model.graph.initializer:
        tensor.doc_string = f"about {tensor.name}"
        tensor.metadata_props.add(key="layer", value=tensor.name)
    return model


def _annotations(model: onnx.ModelProto) -> dict[str, tuple[str, str]]:
    return {
        tensor.name: (tensor.doc_string, "".join(entry.value for entry in tensor.metadata_props))
        for tensor in model.graph.initializer
    }


def test_annotations_of_a_weight_follow_to_its_successor():
    """What a user noted of a weight is found at the folded one, which is what that layer has now."""
    before = _annotated(model("c = Conv (x, {w: 4, 3, 3, 3}, {v: 4}) y = BatchNormalization (c, {bn: 4})"))
    weight, bias = before.graph.node[0].input[1:]
    _, after = folded(before)
    assert _annotations(after) == {
        f"{weight}_folded": (f"about {weight}", weight),
        f"{bias}_folded": (f"about {bias}", bias),
    }


def test_annotations_of_a_shared_weight_stay_and_follow():
    """The copy is that layer's weight, and the original the other's; a bias that is new has none."""
    before = model(
        "c = Conv (x, {w: 4, 3, 3, 3}) y = BatchNormalization (c, {bn: 4}) z = Conv (x, {v: 4, 3, 3, 3})",
        outputs="float[2, 4, P, Q] y, float[2, 4, P, Q] z",
    )
    before.graph.node[2].input[1] = shared = before.graph.node[0].input[1]
    _, after = folded(_annotated(before))
    bias = after.graph.node[0].input[2]
    note = f"about {shared}", shared
    found = _annotations(after)
    assert (found[shared], found[f"{shared}_folded"], found[bias]) == (note, note, ("", ""))


def test_where_there_are_no_annotations_none_are_written():
    """An empty one is a field, too."""
    _, after = folded(model())
    assert after.graph.initializer
    assert not any(tensor.HasField("doc_string") for tensor in after.graph.initializer)


# --- what is wrong with a model stops no plan --------------------------------------------------------------

MALFORMED = {
    "groups do not divide": "c = Conv <group = 2> (x, {w: 3, 3, 1, 1}) y = BatchNormalization (c, {bn: 3})",
    "groups do not divide, down": "b = BatchNormalization (x, {bn: 3}) y = Conv <group = 2> (b, {w: 3, 3, 1, 1})",
    "groups do not divide, transposed": "c = ConvTranspose <group = 2> (x, {w: 3, 3, 1, 1}) "
    "y = BatchNormalization (c, {bn: 6})",
    "weight of wrong rank": "c = Conv (x, {w: 3, 3, 1}) y = BatchNormalization (c, {bn: 3})",
    "scalar weight": "c = Conv (x, {w: }) y = BatchNormalization (c, {bn: 3})",
    "bias of wrong size": "c = Conv (x, {w: 4, 3, 1, 1}, {b: 3}) y = BatchNormalization (c, {bn: 4})",
    "bias of wrong rank": "c = Conv (x, {w: 4, 3, 1, 1}, {b: 4, 1}) y = BatchNormalization (c, {bn: 4})",
    "addend of wrong size": "g = Gemm (x, {w: 5, 4}, {c: 3}) y = BatchNormalization (g, {bn: 4})",
    "matrices that do not fit": "g = Gemm (x, {w: 7, 4}) y = BatchNormalization (g, {bn: 5})",
    "matrix of rank 3": "g = Gemm (x, {w: 1, 5, 4}) y = BatchNormalization (g, {bn: 4})",
    "perm of wrong rank": "c = Conv (x, {w: 3, 3, 1, 1}) t = Transpose <perm = [0, 2, 1]> (c) "
    "y = BatchNormalization (t, {bn: 3})",
    "perm that is none": "b = BatchNormalization (x, {bn: 3}) t = Transpose <perm = [0, 1, 1, 9]> (b) "
    "y = Conv (t, {w: 3, 3, 1, 1})",
    "axes beyond the rank": "b = BatchNormalization (x, {bn: 3}) t = Squeeze (b, {a: 1 int64}) y = Relu (t)",
    "unsqueeze without axes": "b = BatchNormalization (x, {bn: 3}) t = Unsqueeze (b) y = Conv (t, {w: 3, 3, 1, 1})",
    "scalar axes": "b = BatchNormalization (x, {bn: 3}) t = Unsqueeze (b, {a: int64}) y = Conv (t, {w: 3, 3, 1, 1, 1})",
    "no repeats": "b = BatchNormalization (x, {bn: 3}) t = Tile (b) y = Conv (t, {w: 3, 3, 1, 1})",
    "repeats of wrong size": "b = BatchNormalization (x, {bn: 3}) t = Tile (b, {a: 1 int64}) "
    "y = Conv (t, {w: 3, 3, 1, 1})",
    "no blocksize": "b = BatchNormalization (x, {bn: 3}) t = DepthToSpace (b) y = Conv (t, {w: 3, 3, 1, 1})",
    "blocks that do not fit": "b = BatchNormalization (x, {bn: 3}) t = DepthToSpace <blocksize = 2> (b) "
    "y = Conv (t, {w: 3, 3, 1, 1})",
    "reshape to something else": "b = BatchNormalization (x, {bn: 3}) t = Reshape (b, {a: 2 int64}) "
    "y = Gemm (t, {w: 3, 3})",
    "no inputs": "y = BatchNormalization ()",
    "two inputs": "y = BatchNormalization (x, {g: 3})",
    "no output": '"" = BatchNormalization (x, {bn: 3}) y = Relu (x)',
    "mul of one input": "b = BatchNormalization (x, {bn: 3}) y = Mul (b)",
    "mul of three inputs": "b = BatchNormalization (x, {bn: 3}) y = Mul (b, {s: 3, 1, 1}, {t: 3, 1, 1})",
    "string attribute": 'b = BatchNormalization (x, {bn: 3}) y = Conv <group = "two"> (b, {w: 3, 3, 1, 1})',
    "pads of wrong size": "b = BatchNormalization (x, {bn: 3}) y = Conv <pads = [0]> (b, {w: 3, 3, 1, 1})",
    "epsilon is text": 'y = BatchNormalization <epsilon = "small"> (x, {bn: 3})',
    "integer parameters": "y = BatchNormalization (x, {g: 3 int64}, {h: 3}, {m: 3}, {v: 3 positive})",
    "clip with a vector": "c = Conv (x, {w: 3, 3, 1, 1}) d = Clip (c, {low: 3 zero}) "
    "y = Mul (d, {s: 3, 1, 1 positive})",
    "reduce beyond the rank": "c = Conv (x, {w: 3, 3, 1, 1}) d = ReduceMean <axes = [7]> (c) "
    "y = BatchNormalization (d, {bn: 3})",
    "concat without axis": "c = Conv (x, {w: 3, 3, 1, 1}) d = Concat (c, c) y = BatchNormalization (d, {bn: 6})",
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_node_stops_no_plan(body):
    """Whatever a file holds, the plan ends, and every BatchNormalization that is left has a reason."""
    rank = "float[3, 5] x" if "Gemm (x" in body else "float[2, 3, 5, 5] x"
    before = model(body, inputs=rank)
    planned = plan(load(before))
    for entry in planned.entries:
        assert entry.outcome is not Outcome.KEPT or entry.refusals
        assert all(str(refusal) for refusal in entry.refusals)


@pytest.mark.parametrize("opset", [1, 2, 5, 22, 99, 2**31 - 1])
def test_an_opset_that_nobody_knows(opset):
    """A model of an opset before or after ours is planned, or says why not; it raises nothing."""
    before = model()
    before.opset_import[0].version = opset
    plan(load(before))


def test_a_domain_that_is_not_imported():
    """Shape inference cannot do without; the plan can."""
    before = model("c = my.Thing (x) d = Conv (c, {w: 4, 3, 3, 3}) y = BatchNormalization (d, {bn: 4})")
    planned = plan(load(before))
    assert planned.entries


def test_without_any_opset():
    """A model that imports nothing has no operator that is known."""
    before = model()
    del before.opset_import[:]
    plan(load(before))


def test_two_folds_into_one_bias():
    """A fold from below sees the bias that the fold from above has made, in either order."""
    body = """
        [down] b = BatchNormalization (x, {bn: 3})
        [conv] c = Conv (b, {w: 4, 3, 3, 3}, {bias: 4})
        [up] y = BatchNormalization (c, {bn2: 4})
    """
    before = model_of(f"{HEADER} g (double[2, 3, 5, 5] x) => (double[2, 4, 3, 3] y) {{ {body} }}", "double")
    for keep in ([], ["up"], ["down"]):
        _, after = folded(before, keep=keep)
        for feeds in feeds_of(before):
            np.testing.assert_allclose(run(after, feeds)["y"], run(before, feeds)["y"], rtol=1e-9, atol=1e-9)
        _, last = folded(after)
        assert [node.op_type for node in last.graph.node] == ["Conv"]
        for feeds in feeds_of(before):
            np.testing.assert_allclose(run(last, feeds)["y"], run(before, feeds)["y"], rtol=1e-9, atol=1e-9)


def test_names_are_those_of_both_files():
    """A value that several folds rename has its last name, and no name that was there only meanwhile is told."""
    planned = plan(load(MODELS / "digits_preact.onnx"))
    before, after = ({o for node in m.proto.graph.node for o in node.output} for m in (planned.original, planned.model))
    told = [pair for entry in planned.entries for pair in planned.renamed(entry).items()]
    assert told
    assert all(old in before and new in after for old, new in told)


def test_a_name_is_followed_to_its_end():
    """Through the entries of other nodes, and not for ever."""
    names = {"x": "x_1"}, {"x_1": "x_2"}, {"y": "y_1", "y_1": "y"}
    entries = tuple(Entry("n", "Mul", Outcome.FOLDED, renamed=each) for each in names)
    model = load(model_of(HEADER + "g (float[2] a) => (float[2] y) { x_2 = Relu (a) y = Relu (x_2) }"))
    original = load(model_of(HEADER + "g (float[2] a) => (float[2] y) { x = Relu (a) x_1 = Relu (x) y = Relu (x_1) }"))
    planned = Plan(entries, 3, 2, model, original)
    assert [planned.renamed(entry) for entry in entries] == [{"x": "x_2"}, {"x_1": "x_2"}, {"y": "y"}]
