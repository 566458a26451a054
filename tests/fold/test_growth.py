"""A model becomes no larger than it may: by default a tenth, and never less than a small tensor."""

import numpy as np
import onnx
import pytest
from helpers import assert_same_meaning, feeds_of, folded, model_of, run

from bnfold.fold import FoldOptions, Outcome, plan
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
