"""What shows at some sizes, or for some integers, and not at those that come first to mind."""

import numpy as np
import pytest
from verification.helpers import Rewriting, assert_told_apart, parsed

from bnfold.verification import Verdict, verify

RANDOM = np.random.default_rng(0)
TABLE = RANDOM.standard_normal((3000, 4)).astype(np.float32)
TWICE = 1.7 * TABLE
SOME_ROWS, MOST_ROWS, TAIL = (TWICE.copy() for _ in range(3))
SOME_ROWS[[11, 1500, 2999]] *= 3
MOST_ROWS[4:] *= -1
TAIL[1000:] = 0
TABLES = {"table": TABLE, "twice": TWICE, "some": SOME_ROWS, "most": MOST_ROWS, "tail": TAIL}
KERNEL = RANDOM.standard_normal((2, 1, 5, 5)).astype(np.float32)
SCALED = KERNEL * np.array([1.1, 0.7], np.float32).reshape(2, 1, 1, 1)
RIM = SCALED.copy()
RIM[1, 0, 4, 0] *= 1.01
SHORT = RANDOM.standard_normal((4, 3, 2, 2)).astype(np.float32)
PADDED, LATER = (np.pad(SHORT, [(0, 0), (0, 0), at, at]) for at in ((0, 1), (1, 0)))
FAR = {"far": np.float32(200), "gain": np.float32(2), "other": np.float32(3), "none": np.float32(0)}
FAR |= {
    "zero": np.int64(0),
    "one": np.int64(1),
    "seven": np.int64(7),
    "hundred": np.int64(100),
    "place": np.float32(500),
    "start": np.array([0]),
    "cut": np.array([500]),
    "end": np.array([2**40]),
    "axis": np.array([1]),
}
BY_HEIGHT = """n (float[1, 3, 224, 224] x) => (float[1, 3, 224, 224] y)
    {~h = Shape <start = 2, end = 3> (x) ~f = Cast <to = 1> (~h) ~d = Sub (~f, far) @}"""
BY_BATCH = """n (float[N, 8] x) => (float[N, 8] y)
    {~h = Shape <start = 0, end = 1> (x) @ ~t = Cast <to = 1> (~c) ~e = Mul (~t, ~g) y = Add (x, ~e)}"""
BY_PLACE = """n (float[N, L] x) => (float[N, L] y)
    {~h = Shape (x) ~l = Gather (~h, one) ~r = Range (zero, ~l, one) ~f = Cast <to = 1> (~r)
     @ ~e = Mul (~k, ~g) y = Add (x, ~e)}"""
BY_CUT = "n (float[N, L] x) => (float[N, L] y) {@ ~c = Mul (~b, ~g) y = Concat <axis = 1> (~a, ~c)}"
KERNELS = {"kernel": KERNEL, "scaled": SCALED, "rim": RIM, "scale": np.array([[1.1], [0.7]], np.float32)[..., None]}

CASES = [
    Rewriting(
        "a tap of zeros at even sizes",
        "n (float[N, 3, H, W] x) => (float[N, 4, P, Q] y) {@}",
        "y = Conv <strides = [2, 2]> (x, short)",
        "y = Conv <strides = [2, 2]> (x, padded)",
        "y = Conv <strides = [2, 2], pads = [1, 1, 0, 0]> (x, later)",
        tensors={"short": SHORT, "padded": PADDED, "later": LATER},
    ),
    Rewriting(
        "rows that no usual image has",
        """n (float[N, 3, H, W] x) => (float[N, 3, P, W] y) <int64[1] rows = {2}>
           {a = Slice (x, start, cut, rows) b = Slice (x, cut, end, rows) @ y = Concat <axis = 2> (a, ~c)}""",
        *("~c = Mul (b, gain)", "~c = Mul (b, other)", "~c = Add (b, b)"),
        tensors=FAR,
    ),
    Rewriting(
        "a diagonal that is far away",
        "n (float[N, N] x) => (float[N, N] y) {e = EyeLike (x) @ y = MatMul (x, m)}",
        "m = Identity (e)",
        "~f = EyeLike <k = 500> (x) m = Add (e, ~f)",
        "~f = EyeLike <k = 500> (x) ~g = Sub (e, ~f) m = Add (~g, ~f)",
    ),
    *(
        Rewriting(
            f"{op} of a size",
            BY_HEIGHT.replace("@", f"{made} @ y = Add (x, ~e)"),
            *("~e = Mul (~r, gain)", "~e = Mul (~r, other)", "~e = Mul (gain, ~r)"),
            tensors=FAR,
        )
        for op, made in {
            "Relu": "~r = Relu (~d)",
            "Clip": "~r = Clip (~d, none)",
            "Max": "~r = Max (none, ~d)",
            "Sign": "~s = Sign (~d) ~r = Relu (~s)",
            "Floor": "~q = Div (~f, far) ~r = Floor (~q)",
        }.items()
    ),
    *(
        Rewriting(
            f"{what}, the same on both sides",
            model,
            *(f"{made} ~g = Identity ({gain})" for gain in ("gain", "other")),
            f"{made} ~w = Add (other, other) ~g = Div (~w, other)",
            tensors=FAR,
        )
        for what, model, made in (
            ("so many samples", BY_BATCH, "~c = Equal (~h, seven)"),
            ("so many more samples", BY_BATCH, "~d = Sub (~h, hundred) ~c = Equal (~d, zero)"),
            ("truth of a size", BY_BATCH, "~d = Sub (~h, seven) ~n = Cast <to = 9> (~d) ~c = Not (~n)"),
            ("places beyond one", BY_PLACE, "~b = Greater (~f, place) ~k = Cast <to = 1> (~b)"),
            ("end of a Slice", BY_CUT, "~a = Slice (x, start, cut, axis) ~b = Slice (x, cut, end, axis)"),
            ("ramp of places", BY_PLACE, "~d = Sub (~f, place) ~k = Relu (~d)"),
        )
    ),
    *(
        Rewriting(
            f"{what} of {size}, the same on both sides",
            model.replace("@", f"~k = Constant <value_int = {size}> () ~c = Equal (~h, ~k) @"),
            "~g = Identity (gain)",
            "~g = Identity (other)",
            "~w = Add (other, other) ~g = Div (~w, other)",
            tensors=FAR,
        )
        for size in (1, 2, 3)
        for what, model in (
            ("a batch", BY_BATCH),
            ("a length", BY_BATCH.replace("[N, 8]", "[2, N, 8]").replace("start = 0, end = 1", "start = 1, end = 2")),
        )
    ),
    Rewriting(
        "a batch of one is an axis that goes",
        "n (float[N, 1, 8] x) => (float[A, B] y) {@}",
        *("y = Squeeze (x, axis)", "y = Squeeze (x)", "~a = Identity (x) y = Squeeze (~a, axis)"),
        tensors=FAR,
    ),
    Rewriting(
        "batch cut at three",
        """n (float[N, 3] x) => (float[M, 3] y) <int64[1] o = {0}, int64[1] end = {@}>
           {t = Slice (x, o, end, o) y = Relu (t)}""",
        *("1099511627776", "3", "9223372036854775807"),
    ),
    Rewriting(
        "mean over a batch of two",
        "n (float[N, 4] x) => (float[N, 4] y) <int64[1] o = {0}, float h = {0.5}> {@ y = Add(x, m)}",
        "m = ReduceMean <axes = [0]> (x)",
        "s = ReduceSum (x, o) m = Mul (s, h)",
        "z = Sub (x, x) e = Exp (z) k = ReduceSum (e, o) s = ReduceSum (x, o) m = Div (s, k)",
    ),
    Rewriting(
        "branch for large images",
        """n (float[N, 3, H, W] x) => (float[N, 3, H, W] y) <int64 limit = {300}, float two = {2.0}> {
            k = Shape <start = 2, end = 3> (x) h = Squeeze (k) small = Less (h, limit)
            y = If (small) <then_branch = t () => (float[N, 3, H, W] a) {a = Neg (x)},
                            else_branch = e () => (float[N, 3, H, W] b) {@}>
        }""",
        *("b = Mul (x, two)", "b = Div (x, two)", "b = Add (x, x)"),
    ),
    Rewriting(
        "shapes folded to constants",
        """n (float[1, 3, 64, 64] x) => (float[1, 5, 256] y) <int64[1] o = {0}, int64[1] two = {2},
           int64[1] rest = {-1}, int64[3] all = {1, 5, -1}> {c = Conv <strides = [4, 4]> (x, w) @}""",
        "k = Shape (c) head = Slice (k, o, two) shape = Concat <axis = 0> (head, rest) y = Reshape (c, shape)",
        "t = Transpose <perm = [0, 1, 3, 2]> (c) y = Reshape (t, all)",
        "y = Reshape (c, all)",
        tensors={"w": RANDOM.standard_normal((5, 3, 4, 4)).astype(np.float32)},
    ),
    Rewriting(
        "some rows of a table",
        "n (int64[N, S] i) => (float[N, S, 4] y) <float k = {1.7}> {@}",
        *("~ = Gather (table, i) y = Mul (~, k)", "y = Gather (some, i)", "y = Gather (twice, i)"),
        tensors=TABLES,
    ),
    Rewriting(
        "rows behind arithmetic on the index",
        "n (int64[N, S] i) => (float[N, S, 4] y) <float k = {1.7}, int64 two = {2}> {j = Add (i, two) @}",
        *("~ = Gather (table, j) y = Mul (~, k)", "y = Gather (most, j)", "y = Gather (twice, j)"),
        tensors=TABLES,
    ),
    Rewriting(
        "integers confined to truths",
        """n (float[N, 4] x, int64[N, 1] i) => (float[N, 4] y) <int64 o = {0}, int64 l = {1}>
           {@ f = Cast <to = 1> (j) y = Mul (x, f)}""",
        *("j = Identity (i)", "j = Clip (i, o, l)", "j = Add (i, o)"),
    ),
    Rewriting(
        "negative indices",
        """n (int64[N] i) => (float[N] y) <float[4] w = {1, 2, 3, 4}, int64 o = {0}, int64 l = {3}>
           {@ y = Gather (w, j)}""",
        *("j = Identity (i)", "j = Clip (i, o, l)", "j = Add (i, o)"),
    ),
    Rewriting(
        "integers of 16 bits",
        "n (float[N, 4] x) => (float[N, 4] y) {j = Cast <to = @> (x) y = Cast <to = 1> (j)}",
        *("6", "5", "7"),
    ),
    Rewriting(
        "rim of a padded kernel, deep in a net of declared size",
        """n (float[1, 2, 224, 224] x) => (float[1, 2, 7, 7] y) {
            p = MaxPool <kernel_shape = [4, 4], strides = [4, 4]> (x)
            q = MaxPool <kernel_shape = [8, 8], strides = [8, 8]> (p) @
        }""",
        "c = Conv <group = 2, pads = [2, 2, 2, 2]> (q, kernel) y = Mul (c, scale)",
        "y = Conv <group = 2, pads = [2, 2, 2, 2]> (q, rim)",
        "y = Conv <group = 2, pads = [2, 2, 2, 2]> (q, scaled)",
        tensors=KERNELS,
    ),
    Rewriting(
        "padding at the declared size, which is even",
        "n (float[1, 1, 224, 224] x) => (float[1, 2, 112, 112] y) { y = Conv <strides = [2, 2], @> (x, kernel) }",
        *('auto_pad = "SAME_UPPER"', 'auto_pad = "SAME_LOWER"', "pads = [1, 1, 2, 2]"),
        tensors=KERNELS,
    ),
    Rewriting(
        "padding at odd sizes of a single sample",
        "n (float[1, 1, H, W] x) => (float[1, 2, h, v] y) { @ }",
        'y = Conv <strides = [2, 2], auto_pad = "SAME_UPPER"> (x, kernel)',
        "y = Conv <strides = [2, 2], pads = [1, 1, 2, 2]> (x, kernel)",
        '~c = Conv <strides = [2, 2], auto_pad = "SAME_UPPER"> (x, kernel) y = Identity (~c)',
        tensors=KERNELS,
    ),
    Rewriting(
        "the least integer of 8 bits",
        "n (int8[N, 4] x) => (float[N, 4] y) {@}",
        "~a = Cast <to = 1> (x) y = Neg (~a)",
        "~a = Neg (x) y = Cast <to = 1> (~a)",
        "~a = Cast <to = 1> (x) y = Sub (none, ~a)",
        tensors=FAR,
    ),
    Rewriting(
        "integers that are beyond a bound of several",
        "n (int64[N, 2] x) => (int64[N, 2] y) {@}",
        "~a = Sub (x, bounds) ~b = Relu (~a) y = Sub (x, ~b)",
        "~a = Sub (x, others) ~b = Relu (~a) y = Sub (x, ~b)",
        "y = Min (x, bounds)",
        tensors={"bounds": np.array([50, 60]), "others": np.array([50, 61])},
    ),
    Rewriting(
        "a key of an encoder",
        "n (int64[N] i) => (float[N] y) {@}",
        *(
            f"~a = ai.onnx.ml.LabelEncoder <keys_int64s = [7, {key}], values_floats = [1.0, 2.0]> (i) {twice}"
            for key, twice in ((300, "y = Mul (~a, gain)"), (301, "y = Add (~a, ~a)"), (300, "y = Add (~a, ~a)"))
        ),
        tensors=FAR,
    ),
    Rewriting(
        "a threshold of a tree",
        "n (float[N, 2] x) => (float[N, 1] y) {@}",
        *(
            f"""~a = ai.onnx.ml.TreeEnsembleRegressor <n_targets = 1, nodes_treeids = [0, 0, 0],
                nodes_nodeids = [0, 1, 2], nodes_featureids = [0, 0, 0], nodes_modes = ["BRANCH_LEQ", "LEAF", "LEAF"],
                nodes_values = [{at}, 0.0, 0.0], nodes_truenodeids = [1, 0, 0], nodes_falsenodeids = [2, 0, 0],
                target_treeids = [0, 0], target_nodeids = [1, 2], target_ids = [0, 0], target_weights = [1.0, 2.0]> (x)
                {twice}"""
            for at, twice in ((37.5, "y = Mul (~a, gain)"), (37.625, "y = Add (~a, ~a)"), (37.5, "y = Add (~a, ~a)"))
        ),
        tensors=FAR,
    ),
    Rewriting(
        "indices that are the same",
        "n (float[5, 3] x, int64[2, 1] i) => (float[5, 3] y) {@ y = Add (~s, x)}",
        '~z = Mul (x, none) ~s = ScatterND <reduction = "add"> (~z, i, rows)',
        "~z = Mul (x, none) ~s = ScatterND (~z, i, rows)",
        '~z = Mul (none, x) ~s = ScatterND <reduction = "add"> (~z, i, rows)',
        tensors={**FAR, "rows": TABLE[:2, :3]},
    ),
    Rewriting(
        "a last row that is cut before every second is taken",
        "n (float[N, L] x) => (float[N, M] y) {@}",
        "y = Slice (x, start, end, axis, two)",
        "~c = Slice (x, start, last, axis) y = Slice (~c, start, end, axis, two)",
        "~n = Neg (x) ~s = Slice (~n, start, end, axis, two) y = Neg (~s)",
        tensors={**FAR, "two": np.array([2]), "last": np.array([-1])},
    ),
    Rewriting(
        "half of a length, rounded up",
        """n (float[N, L] x) => (float[N, M] y) <float half = {0.5}> { ~h = Shape <start = 1> (x)
            ~f = Cast <to = 1> (~h) ~m = Mul (~f, half) @ ~k = Cast <to = 7> (~w) y = Slice (x, start, ~k, axis) }""",
        *("~w = Floor (~m)", "~w = Ceil (~m)", "~n = Neg (~m) ~c = Ceil (~n) ~w = Neg (~c)"),
        tensors=FAR,
    ),
    Rewriting(
        "padding at odd sizes behind two strides, where no usual size is odd",
        """n (float[N, 1, H, W] x) => (float[N, 2, h, v] y) {
            p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)
            q = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (p) @
        }""",
        'y = Conv <strides = [2, 2], auto_pad = "SAME_UPPER"> (q, kernel)',
        "y = Conv <strides = [2, 2], pads = [1, 1, 2, 2]> (q, kernel)",
        '~c = Conv <strides = [2, 2], auto_pad = "SAME_UPPER"> (q, kernel) y = Identity (~c)',
        tensors=KERNELS,
    ),
    Rewriting(
        "a window that is left over at every third height",
        "n (float[N, 1, H, W] x) => (float[N, 1, h, v] y) { @ }",
        "y = MaxPool <kernel_shape = [3, 1], strides = [3, 1], ceil_mode = 1> (x)",
        "y = MaxPool <kernel_shape = [3, 1], strides = [3, 1], pads = [0, 0, 1, 0]> (x)",
        "~n = Neg (x) ~p = Neg (~n) y = MaxPool <kernel_shape = [3, 1], strides = [3, 1], ceil_mode = 1> (~p)",
    ),
    Rewriting(
        "lengths that are odd, where nothing says any but even ones",
        "n (float[N, L] x) => (float[N, L] y) <int64 two = {2}> { ~h = Shape (x) ~l = Gather (~h, one) @ }",
        "~m = Mod (~l, two) ~f = Cast <to = 1> (~m) y = Mul (x, ~f)",
        "y = Mul (x, none)",
        "~d = Div (~l, two) ~e = Mul (~d, two) ~m = Sub (~l, ~e) ~f = Cast <to = 1> (~m) y = Mul (~f, x)",
        tensors=FAR,
    ),
    Rewriting(
        "every other line but the last one, behind two strides",
        """n (float[N, 1, H, W] x) => (float[N, 1, h, v] y) {
            p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)
            q = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (p) @ }""",
        "y = Slice (q, first, end, height, two)",
        "y = Slice (q, first, last, height, two)",
        "~n = Neg (q) ~s = Slice (~n, first, end, height, two) y = Neg (~s)",
        tensors={
            **{"first": np.array([0]), "end": np.array([2**62]), "last": np.array([-1])},
            **{"height": np.array([2]), "two": np.array([2])},
        },
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_difference_is_found(case):
    """And none in the correct twin."""
    assert_told_apart(case)


def test_far_rows_are_not_passed_over():
    """A table cut to the length of a sequence: it is compared at that of the table."""
    model = """n (float[N, S, 4] x) => (float[N, S, 4] y) <int64[1] o = {0}>
               {k = Shape <start = 1, end = 2> (x) t = Slice (@, o, k, o) y = Add (x, t)}"""
    case = Rewriting("tail", model, "twice", "tail", "twice", tensors=TABLES)
    assert_told_apart(case)


@pytest.mark.parametrize("sizes", ["1, 3, 224, 224", "N, 3, 224, W", "N, 3, H, W"])
@pytest.mark.parametrize(
    "choice",
    [
        "~r = Where (c, ~a, ~b)",
        """~r = If (c) <then_branch = t () => (float[P, Q, R, S] ~v) {~v = Identity (~a)},
                        else_branch = e () => (float[P, Q, R, S] ~w) {~w = Identity (~b)}>""",
    ],
    ids=["Where", "If"],
)
def test_what_is_done_at_large_sizes_alone(choice, sizes):
    """No small size is 200, which both sides know, so that they differ in nothing but the factor."""
    numbers = "<int64 two = {2}, int64 limit = {200}, float f = {-1}, float g = {-1.5}>"
    model = f"""n (float[{sizes}] x) => (float[O, P, Q, R] y) {numbers} {{
        s = Shape (x) k = Gather (s, two) c = Greater (k, limit) @ ~b = Mul (x, x) {choice} y = Relu (~r) }}"""
    assert_told_apart(Rewriting("", model, "~a = Mul (x, f)", "~a = Mul (x, g)", "~a = Neg (x)"))


def test_sizes_that_are_equal_as_declared_alone():
    """At small sizes, they are others on purpose."""
    model = """n (float[1, 3, 224, 224] x) => (float[O, P, Q, R] y) <int64 two = {2}, int64 last = {3}, float f = {-1},
        float g = {-1.5}> { s = Shape (x) h = Gather (s, two) w = Gather (s, last) c = Equal (h, w) @
        ~b = Mul (x, x) ~r = Where (c, ~a, ~b) y = Relu (~r) }"""
    assert_told_apart(Rewriting("", model, "~a = Mul (x, f)", "~a = Mul (x, g)", "~a = Neg (x)"))


def test_a_row_by_the_number_of_samples():
    """Two numbers of samples of the same shape tell enough, unless a constant that differs waits for another."""
    by_count = """n (float[N, 3, 200, 200] x) => (float[N, 3, 1, 1] y) <int64 zero = {0}> {
        g = GlobalAveragePool (x) s = Shape (g) n = Gather (s, zero) t = Gather (table, n)
        m = Mul (g, t) y = Softmax <axis = 1> (m) }"""
    rows = np.arange(1, 9, dtype=np.float32)
    others = np.where(np.arange(8) == 3, 9, rows)
    pair = (parsed(by_count, tensors={"table": table}) for table in (rows, others))
    assert verify(*pair, run=False).verdict is Verdict.DIFFERENT
