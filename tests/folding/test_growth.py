"""A model becomes no larger than it may: by default a tenth, and never less than a small tensor."""

import numpy as np
import onnx
import pytest
from helpers import assert_same_meaning, feeds_of, folded, model_of, run

from bnfold.folding import FoldOptions, Outcome, plan
from bnfold.model_io import load, to_proto
from bnfold.ops.weights import Given, Scaled
from bnfold.reasons import Reason

SIZE = 64 * 64 * 9 * 4  # of a weight in bytes


def shared(*, convs=2, norms=1, others=0):
    """Convs that share one weight, some of them normalised; and weights that nothing else reads."""
    lines = [f"c{i} = Conv (x, {{w: 64, 64, 3, 3}})" if not i else f"c{i} = Conv (x, w)" for i in range(convs)]
    lines += [f"y{i} = BatchNormalization (c{i}, {{bn{i}: 64 unshifted}})" for i in range(norms)]
    lines += [f"y{i} = Relu (c{i})" for i in range(norms, convs)]
    lines += [f"y{convs + i} = Conv (x, {{other{i}: 64, 64, 3, 3}})" for i in range(others)]
    outputs = ", ".join(f"float[2, 64, 4, 4] y{i}" for i in range(convs + others))
    header = f'<ir_version: 8, opset_import: ["" : 17]> g (float[2, 64, 6, 6] x) => ({outputs})'
    return model_of(header + " { " + " ".join(lines) + " }")


def assert_computes_the_same(before, after):
    (feeds,) = feeds_of(before)
    assert_same_meaning(run(before, feeds), run(after, feeds), 1e-5)


def refused(planned):
    return [refusal for entry in planned.entries for refusal in entry.refusals if refusal.reason is Reason.GROWTH]


@pytest.mark.parametrize(("growth", "folds"), [(SIZE, 1), (SIZE - 1, 0), (0, 0), (None, 1), ("101%", 1), ("90%", 0)])
def test_growth_is_limited(growth, folds):
    """To the byte, or to a part of the model's size."""
    planned = plan(load(shared()), FoldOptions(max_growth=growth))
    assert planned.count(Outcome.FOLDED) == folds
    assert bool(refused(planned)) is not bool(folds)


def test_a_refusal_says_how_much_it_would_have_cost():
    """And what was allowed."""
    (refusal,) = refused(plan(load(shared()), FoldOptions(max_growth=1000)))
    assert refusal.facts == {"size": SIZE, "together": SIZE, "left": 1000}


def test_by_default_a_tenth():
    """A copy that is more stays out; beside twelve other weights it is less."""
    assert refused(plan(load(shared())))
    assert not refused(plan(load(shared(others=12))))


def test_copies_fit_together_or_none_is_made():
    """So that a second fold, which may grow the model by another tenth, finds nothing."""
    before = shared(convs=3, norms=2, others=14)
    planned = plan(load(before))
    assert planned.count(Outcome.FOLDED) == 0
    assert [refusal.facts["together"] for refusal in refused(planned)] == [2 * SIZE] * 2
    assert not plan(planned.model).changes
    assert plan(load(before), FoldOptions(max_growth="20%")).count(Outcome.FOLDED) == 2


def test_a_small_tensor_is_always_allowed():
    """A tenth of a tiny model would allow nothing."""
    small = model_of(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2, 4, 6, 6] x) => (float[2, 4, 4, 4] y, float[2, 4, 4, 4] z) {
            c = Conv (x, {w: 4, 4, 3, 3}) y = BatchNormalization (c, {bn: 4}) z = Conv (x, w)
        }"""
    )
    assert folded(small)[0].count(Outcome.FOLDED) == 1


def unrolled(steps, factor="s"):
    """A recurrent layer written out: one weight for all steps, and a scale before each."""
    lines = [f"m{i} = Mul (x{i}, {factor}{i if factor != 's' else ''})" for i in range(steps)]
    lines += [f"y{i} = Gemm (m{i}, w)" for i in range(steps)]
    inputs = ", ".join(f"float[3, 64] x{i}" for i in range(steps))
    outputs = ", ".join(f"float[3, 64] y{i}" for i in range(steps))
    body = " ".join(lines).replace("w)", "{w: 64, 64})", 1)
    for i in range(steps):
        body = body.replace(f"r{i})", f"{{r{i}: 64 positive}})")
    body = body.replace("s)", "{s: 64 positive})", 1)
    return model_of(f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => ({outputs}) {{ {body} }}')


def test_copies_of_equal_content_are_one():
    """Where a weight changes alike for all of its readers, nothing grows."""
    before = unrolled(8)
    planned, after = folded(before, max_growth=64 * 64 * 4)
    assert planned.count(Outcome.FOLDED, batchnorms=False) == 8
    assert [tuple(tensor.dims) for tensor in after.graph.initializer] == [(64, 64)]
    assert_computes_the_same(before, after)


def test_copies_of_other_content_are_not():
    """Each of eight factors needs a weight of its own."""
    before = unrolled(8, factor="r")
    planned, after = folded(before, max_growth=None)
    assert planned.count(Outcome.FOLDED, batchnorms=False) == 8
    assert len(after.graph.initializer) == 8
    assert_computes_the_same(before, after)
    assert not folded(before, max_growth=0)[0].changes


def in_a_row(steps, factor):
    """Values that are multiplied by a number and then by a vector, the same in each step, again and again."""
    line = f"h@ = Mul (x#, {{{factor}: }}) v@ = Mul (h@, {{v: 1, 2000, 1, 1}}) x@ = Sigmoid (v@)"
    lines = " ".join(line.replace("#", str(step)).replace("@", str(step + 1)) for step in range(steps))
    return model_of(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[1, 2000, 1, 1] x0) => (float[1, 2000, 1, 1] x{steps}) {{ {lines} }}"""
    )


def test_vectors_of_equal_content_are_one():
    """The products with one number are one vector again."""
    before = in_a_row(9, "n")
    planned, after = folded(before)
    assert planned.count(Outcome.FOLDED, batchnorms=False) == 9
    assert after.ByteSize() < before.ByteSize()
    assert_computes_the_same(before, after)


def test_many_vectors_are_not_nothing():
    """A number of its own before each step would make as many vectors of one."""
    before = in_a_row(9, "n@")
    planned = plan(load(before))
    assert not planned.changes
    (first, *_) = refused(planned)
    assert first.facts["size"] == 2000 * 4 - 4
    assert folded(before, max_growth=None)[0].count(Outcome.FOLDED, batchnorms=False) == 9


def test_a_vector_that_takes_the_place_of_one_is_nothing():
    """Also where each vector counts: what a BatchNormalization leaves is less than what it had."""
    tail = model_of(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[1, 2000, 1, 1] x) => (float[1, 3, 1, 1] y) {
            c = Conv (x, {w: 3, 2000, 1, 1}) y = BatchNormalization (c, {bn: 3})
        }"""
    )
    before = onnx.compose.merge_models(in_a_row(9, "n@"), tail, [("x9", "x")])
    planned, after = folded(before)
    assert planned.count(Outcome.FOLDED) == 1
    assert planned.count(Outcome.FOLDED, batchnorms=False) == 0
    assert_computes_the_same(before, after)


def test_a_model_that_has_grown_may_not_grow_by_more():
    """A second fold would be allowed a tenth of what the first has made."""
    before = model_of(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2, 8] x, float[2, 8] x2) => (float[2, 97] y, float[2, 97] y2, float[2, 103] z, float[2, 103] z2) {
            m = Mul (x, {s: 8}) y = Gemm (m, {a: 8, 970}) y2 = Gemm (x2, a)
            n = Mul (x, s) z = Gemm (n, {b: 8, 1030}) z2 = Gemm (x2, b)
            unread = Gemm (x, {c: 8, 8000})
        }"""
    )
    for output, size in zip(before.graph.output, [970, 970, 1030, 1030], strict=True):
        output.type.tensor_type.shape.dim[1].dim_value = size
    planned = plan(load(before))
    assert not planned.changes
    assert {refusal.facts["size"] for refusal in refused(planned)} == {8 * 970 * 4, 8 * 1030 * 4}
    assert plan(load(before), FoldOptions(max_growth=8 * 1000 * 4)).changes


def test_what_a_function_holds_counts_for_each_call():
    """Functions are not written out where that makes the model larger than it may be."""
    parameters = ", ".join(f"{part}{step}" for step in range(4) for part in "sbmv")
    calls = " ".join(f"x{step + 1} = my.f (x{step}, s{step}, b{step}, m{step}, v{step})" for step in range(4))
    before = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17, "my" : 1]> g (float[1, 16, 5, 5] x0) => (float[1, 16, N, M] x4)
        <{parameters.replace(", ", ", float[16] ").replace("s0", "float[16] s0", 1)}> {{ {calls} }}
        <domain: "my", opset_import: ["" : 17]> f (x, s, b, m, v) => (y) {{
            c = Conv <pads = [1, 1, 1, 1]> (x, w) n = BatchNormalization (c, s, b, m, v) y = Relu (n)
        }}"""
    )
    random = np.random.default_rng(0)
    for step in range(4):
        for part in "sbmv":
            values = random.uniform(0.5, 1, 16).astype(np.float32)
            before.graph.initializer.append(onnx.numpy_helper.from_array(values, f"{part}{step}"))
    weight = onnx.numpy_helper.from_array(random.normal(size=(16, 16, 3, 3)).astype(np.float32))
    before.functions[0].node.insert(0, onnx.helper.make_node("Constant", [], ["w"], value=weight))
    planned = plan(load(before))
    assert not planned.changes
    assert refused(planned)
    assert folded(before, max_growth=None)[0].count(Outcome.FOLDED) == 4


def test_a_copy_that_changes_again_is_parted_from_the_others():
    """Two affines before one of the Gemms, one before the other."""
    before = unrolled(2)
    node = onnx.helper.make_node("Mul", ["m0", "s"], ["m0_"])
    before.graph.node.insert(1, node)
    gemm = next(node for node in before.graph.node if node.output[0] == "y0")
    gemm.input[0] = "m0_"
    planned, after = folded(before, max_growth=None)
    assert planned.count(Outcome.FOLDED, batchnorms=False) == 3
    assert_computes_the_same(before, after)


def test_what_leaves_a_node_is_not_worth_a_copy():
    """A BatchNormalization behind a MatMul of rank 3 could leave an Add, for a weight that another MatMul reads."""
    before = model_of(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[2, 64, 64] x) => (float[2, 64, 64] y, float[2, 64, 64] z) {
            m = MatMul (x, {w: 64, 64}) t = Transpose <perm = [0, 2, 1]> (m) y = BatchNormalization (t, {bn: 64})
            z = MatMul (x, w)
        }"""
    )
    planned, _ = folded(before, max_growth=None)
    assert planned.count(Outcome.KEPT) == 1
    assert Reason.NO_GAIN in {refusal.reason for entry in planned.entries for refusal in entry.refusals}


def test_branches_are_not_merged_for_a_copy():
    """Two Convs that are added become one, but not where that has to be a third weight."""
    before = model_of(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2, 64, 6, 6] x) => (float[2, 64, 4, 4] y, float[2, 64, 4, 4] z) {
            c = Conv (x, {w: 64, 64, 3, 3}) d = Conv (x, {v: 64, 64, 3, 3}) y = Add (c, d)
            e = Conv (x, w) f = Conv (x, v) g = Relu (e) h = Relu (f) z = Add (g, h)
        }"""
    )
    assert not folded(before)[0].changes
    assert folded(before, max_growth=None)[0].count(Outcome.MERGED, batchnorms=False) == 1


def test_a_weight_is_released_with_what_looks_at_it():
    """As torch writes a missing bias: zeros, as many as the weight has filters. They go, and the weight too."""
    before = model_of("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2, 64, 6, 6] x) => (float[2, 64, 4, 4] y) <int64[1] start = {0}, int64[1] end = {1}> {
            shape = Shape (w)
            filters = Slice (shape, start, end)
            zeros = ConstantOfShape (filters)
            c = Conv (x, {w: 64, 64, 3, 3}, zeros)
            y = BatchNormalization (c, {bn: 64})
        }
    """)
    planned, after = folded(before, max_growth=0)
    assert planned.count(Outcome.FOLDED) == 1
    assert after.ByteSize() < before.ByteSize()
    assert_computes_the_same(before, after)


@pytest.mark.parametrize("growth", ["ten", "10", "-1%", -1, "%"])
def test_what_is_no_growth(growth):
    """Neither bytes nor a percentage."""
    with pytest.raises(ValueError, match="bytes or a percentage"):
        FoldOptions(max_growth=growth)


def test_a_second_fold_of_a_model_with_copies_finds_nothing():
    """Whatever it may cost."""
    for growth in (None, "10%", 0):
        planned = plan(load(unrolled(4)), FoldOptions(max_growth=growth))
        assert not plan(load(to_proto(planned.model)), FoldOptions(max_growth=growth)).changes


def test_equal_factors_of_float64_weights_are_seen_as_equal():
    """Long doubles are equal if their digits are; the bytes that fill them up mean nothing."""
    base = Given(np.ones((3, 3)))
    factor = np.array([np.longdouble(1) / 3])
    for filling in (b"\0", b"\xff"):
        other = np.frombuffer(factor.tobytes()[:10] + 6 * filling, np.longdouble) if factor.itemsize == 16 else factor
        assert Scaled(base, other).key() == Scaled(base, factor).key()
    assert Scaled(base, np.nextafter(factor, 1)).key() != Scaled(base, factor).key()
