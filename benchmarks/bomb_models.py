"""The bombs of bombs.py, as ONNX text: `a` is the value behind the first BatchNormalization, `z` goes to the second."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
from onnx import numpy_helper

_OPSET = 20
_HUGE = 1 << 40
_DEEP = 30  # as a body in a body; each takes three messages of protobuf, which reads a hundred


@dataclass(frozen=True)
class Bomb:
    """A model that asks for much.

    Attributes:
        body: Nodes that make `z` of `a`.
        shape: Of the input `x`.
        integers: Constants, by name.
        functions: In ONNX text, of the domain `own`.
        edit: What text cannot say.
    """

    body: str
    shape: tuple[int, ...] = (1, 3, 8, 8)
    integers: Mapping[str, object] = field(default_factory=dict)
    functions: str = ""
    edit: Callable[[onnx.ModelProto], None] = lambda model: None


def write(bomb: Bomb, path: Path) -> None:
    """Writes a bomb, and as much data as its input says, which takes no place on the disk."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 9, opset_import: ["" : {_OPSET}, "own" : 1]>
        bomb (float{list(bomb.shape)} x) => (float y) {{
          c = Conv <pads = [1, 1, 1, 1]> (x, first)
          g = BatchNormalization (c, scale, shift, shift, scale)
          a = Relu (g)
          {bomb.body}
          d = Conv <pads = [1, 1, 1, 1]> (z, second)
          e = BatchNormalization (d, scale, shift, shift, scale)
          y = GlobalAveragePool (e)
        }}
        {bomb.functions}"""
    )
    random = np.random.default_rng(0)
    tensors: dict[str, npt.NDArray[np.float32] | npt.NDArray[np.int64]] = {
        "first": random.normal(size=(4, bomb.shape[1], 3, 3)).astype(np.float32),
        "second": random.normal(size=(4, 4, 3, 3)).astype(np.float32),
        "scale": random.uniform(0.5, 2, 4).astype(np.float32),
        "shift": random.normal(size=4).astype(np.float32),
        "one": np.ones((1, 4, 1, 1), np.float32),
        **{name: np.array(value, np.int64) for name, value in bomb.integers.items()},
    }
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in tensors.items())
    model.graph.node[1].name = "good"
    bomb.edit(model)
    path.with_suffix(".onnx").write_bytes(model.SerializeToString())
    np.lib.format.open_memmap(path.with_suffix(".npy"), "w+", np.float32, (max(bomb.shape[0], 8), *bomb.shape[1:]))


# --- bodies in bodies ----------------------------------------------------------------------------------------


def _nest(depth: int, step: Callable[[int, str], str], inner: str) -> str:
    """Steps in each other: one has a body that ends with ``end``, which has the next."""
    text = inner
    for level in range(depth):
        text = step(level, text)
    return text


def _loop(level: int, inner: str) -> str:
    """A Loop of ``trips`` around nodes that make ``o`` of the last level out of ``s``."""
    ports = f"int64 i{level}, bool k{level}, float[1,4,8,8] s{level}) => (bool l{level}, float[1,4,8,8] o{level}"
    start = f"s{level + 1}"
    nodes = f"l{level} = Identity (k{level}) {inner}"
    return f"o{level + 1} = Loop (trips, , {start}) <body = b{level} ({ports}) {{ {nodes} }}>"


def _loops(depth: int, inner: str) -> str:
    """Makes z of a, through Loops in each other."""
    return f"s{depth} = Identity (a) {_nest(depth, _loop, inner)} z = Identity (o{depth})"


def _if(level: int, inner: str) -> str:
    branches = f"then_branch = t{level} () => (float o{level}) {{ {inner} }}, "
    branches += f"else_branch = e{level} () => (float n{level}) {{ n{level} = Identity (a) }}"
    return f"o{level + 1} = If (ask) <{branches}>"


_ASK = "m = ReduceMean <keepdims = 0> (x) h = CastLike (trips, m) ask = Greater (m, h)"
_BN = """p0 = Conv <pads = [1, 1, 1, 1]> (s0, second) q0 = BatchNormalization (p0, scale, shift, shift, scale)
         o0 = Tanh (q0)"""
_GROWING = """s = Loop (trips, , a) <body = b (int64 i, bool k, float[1,4,8,n] v) => (bool l, float[1,4,8,n] w)
              { l = Identity (k) w = Concat <axis = 3> (v, v) }> z = Identity (s)"""


def _doubled(times: int, op: str, start: str) -> str:
    """A value put together with itself, again and again."""
    steps = [f"v{k + 1} = {op} (v{k}, v{k})" for k in range(times)]
    return f"v0 = Identity ({start}) {' '.join(steps)}"


def _laughs(depth: int) -> str:
    """Functions that each call the next twice."""
    calls = [f"t = F{k + 1} (v) w = F{k + 1} (t)".replace("F", "own.F") for k in range(depth - 1)]
    bodies = [*calls, "w = Relu (v)"]
    opsets = f'<domain: "own", opset_import: ["" : {_OPSET}, "own" : 1]>'
    return "\n".join(f"{opsets} F{k} (v) => (w) {{ {body} }}" for k, body in enumerate(bodies))


# --- what text cannot say ------------------------------------------------------------------------------------


def _relu(model: onnx.ModelProto) -> onnx.NodeProto:
    node: onnx.NodeProto = model.graph.node[2]
    return node


def _attributes(model: onnx.ModelProto) -> None:
    _relu(model).attribute.extend(onnx.helper.make_attribute(f"attribute{k}", k) for k in range(10**6))


def _strings(model: onnx.ModelProto) -> None:
    words: Any = ["a" * 60] * 10**6
    model.graph.initializer.append(onnx.helper.make_tensor("words", onnx.TensorProto.STRING, [10**6], words))


def _name(model: onnx.ModelProto) -> None:
    _relu(model).name = "n" * 10**8


def _outputs(model: onnx.ModelProto) -> None:
    _relu(model).output.extend(f"o{k}" for k in range(10**6))


def _sparse(model: onnx.ModelProto) -> None:
    values = numpy_helper.from_array(np.ones(1, np.float32), "sparse")
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "indices")
    model.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, indices, [1, 4, 1 << 20, 1 << 20]))


def _huge_dims(model: onnx.ModelProto) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "one")
    del tensor.dims[:]
    tensor.dims.extend([1, 4, 1 << 31, 1 << 31])


# --- the bombs -----------------------------------------------------------------------------------------------

_MADE = "p = GlobalAveragePool (a) k = ConstantOfShape <value = float[1] {2.0}> (n) z = Mul (p, k)"

BOMBS: dict[str, Bomb] = {
    "nothing": Bomb("z = Identity (a)"),
    "input-12000": Bomb("z = Identity (a)", (1, 3, 12000, 12000)),
    "input-30000": Bomb("z = Identity (a)", (1, 3, 30000, 30000)),
    "input-batch": Bomb("z = Identity (a)", (1 << 30, 3, 8, 8)),
    "input-channels": Bomb("z = Identity (a)", (1, 1 << 20, 1, 1)),
    "loop": Bomb(_loops(1, "o0 = Relu (s0)"), integers={"trips": 10**9}),
    "loop-bn": Bomb(_loops(1, _BN), integers={"trips": 10**9}),
    "loops": Bomb(_loops(5, "o0 = Relu (s0)"), integers={"trips": 64}),
    "loops-bn": Bomb(_loops(5, _BN), integers={"trips": 64}),
    "loops-deep": Bomb(_loops(_DEEP, _BN), integers={"trips": 2}),
    "loop-growing": Bomb(_GROWING, integers={"trips": 60}),
    "scan": Bomb(
        """k = ConstantOfShape <value = float[1] {2.0}> (n)
           f, r = Scan <num_scan_inputs = 1, body = b (float[1,4,8,8] s, float v) => (float[1,4,8,8] t, float w)
             { t = Relu (s) w = Identity (v) }> (a, k) z = Identity (f)""",
        integers={"n": [10**7]},
    ),
    "ifs": Bomb(f"{_ASK} {_nest(_DEEP, _if, 'o0 = Relu (a)')} z = Identity (o{_DEEP})", integers={"trips": 0}),
    "ifs-many": Bomb(
        f"{_ASK} v0 = Identity (a) "
        + " ".join(
            f"v{k + 1} = If (ask) <then_branch = t () => (float[1,4,8,8] p{k}) "
            f"{{ p{k} = BatchNormalization (v{k}, scale, shift, shift, scale) }}, "
            f"else_branch = e () => (float[1,4,8,8] q{k}) {{ q{k} = Relu (v{k}) }}>"
            for k in range(200)
        )
        + " z = Identity (v200)",
        integers={"trips": 0},
    ),
    "functions": Bomb("z = own.F0 (a)", functions=_laughs(40)),
    "functions-some": Bomb("z = own.F0 (a)", functions=_laughs(14)),
    "functions-recursive": Bomb(
        "z = own.F (a)", functions='<domain: "own", opset_import: ["" : 20, "own" : 1]> F (v) => (w) { w = own.F (v) }'
    ),
    "resize-1500": Bomb('k = Constant <value = float[4] {1, 1, 1500, 1500}> () z = Resize <mode = "nearest"> (a, , k)'),
    "resize-10000": Bomb(
        'k = Constant <value = float[4] {1, 1, 10000, 10000}> () z = Resize <mode = "cubic"> (a, , k)'
    ),
    "expand-16000": Bomb(
        "k = Expand (one, n) p = GlobalAveragePool (a) z = Mul (p, k)", integers={"n": [1, 4, 16000, 16000]}
    ),
    "expand-flat": Bomb(
        "k = Expand (one, n) v = Reshape (k, flat) s = Mul (v, v) m = ReduceMean (s) z = Mul (a, m)",
        integers={"n": [1, 4, 1 << 20, 1 << 20], "flat": [-1]},
    ),
    "reshape-flat": Bomb(
        "v = Reshape (a, flat) s = Mul (v, v) m = ReduceMean (s) z = Mul (a, m)", (1, 3, 12000, 12000), {"flat": [-1]}
    ),
    "expand-of-data": Bomb("p = GlobalAveragePool (a) z = Expand (p, n)", integers={"n": [1, 4, 1 << 20, 1 << 20]}),
    "constant-27": Bomb(_MADE, integers={"n": [1, 4, 1 << 12, 1 << 13]}),
    "constant-33": Bomb(_MADE, integers={"n": [1, 4, 1 << 15, 1 << 16]}),
    "constant-40": Bomb(_MADE, integers={"n": [1, 4, 1 << 19, 1 << 19]}),
    "constant-62": Bomb(_MADE, integers={"n": [1, 4, 1 << 30, 1 << 30]}),
    "constant-kernel": Bomb(
        "k = ConstantOfShape <value = float[1] {0.5}> (n) z = Conv <pads = [2048, 2048, 2048, 2048]> (a, k)",
        integers={"n": [4, 4, 4096, 4096]},
    ),
    "range": Bomb(
        "r = Range (low, high, step) f = CastLike (r, a) k = ReduceMean (f) z = Mul (a, k)",
        integers={"low": 0, "high": _HUGE, "step": 1},
    ),
    "range-sizes": Bomb(
        "r = Range (low, high, step) s = Shape (r) f = CastLike (s, a) z = Mul (a, f)",
        integers={"low": 0, "high": 1 << 30, "step": 1},
    ),
    "range-data": Bomb(
        "s = Shape (a) t = ReduceProd <keepdims = 0> (s) h = Mul (t, high) r = Range (low, h, step) "
        "f = CastLike (r, a) k = ReduceMean (f) z = Mul (a, k)",
        integers={"low": 0, "high": 1 << 34, "step": 1},
    ),
    "tile": Bomb("z = Tile (a, n)", integers={"n": [1, 1, 20000, 20000]}),
    "tile-sizes": Bomb("k = Tile (n, m) z = Reshape (a, k)", integers={"n": [1, 4, 8, 8], "m": [1 << 28]}),
    "pad": Bomb("z = Pad (a, n)", integers={"n": [0, 0, 40000, 40000, 0, 0, 40000, 40000]}),
    "pad-huge": Bomb("z = Pad (a, n)", integers={"n": [0, 0, _HUGE, 0, 0, 0, 0, 0]}),
    "eyelike": Bomb(
        "e1 = ConstantOfShape (n) e2 = EyeLike <dtype = 1> (e1) k = ReduceMean (e2) z = Mul (a, k)",
        integers={"n": [100_000, 100_000]},
    ),
    "onehot": Bomb(
        "v = Constant <value = float[2] {0, 1}> () o = OneHot (n, depth, v) k = ReduceMean (o) z = Mul (a, k)",
        integers={"n": [1, 2, 3, 4], "depth": 10**9},
    ),
    "concat-lists": Bomb(
        f"{_doubled(40, 'Concat <axis = 0>', 'n')} k = Slice (v40, low, high) z = Reshape (a, k)",
        integers={"n": [1, 4, 8, 8], "low": [0], "high": [4]},
    ),
    "concat-data": Bomb(f"{_doubled(40, 'Concat <axis = 3>', 'a')} z = Identity (v40)"),
    "concat-sizes": Bomb(
        f"s = Shape (a) {_doubled(32, 'Concat <axis = 0>', 's')} k = Slice (v32, low, high) z = Reshape (a, k)",
        integers={"low": [0], "high": [4]},
    ),
    "outer": Bomb(
        "k = ConstantOfShape <value = float[1] {2.0}> (n) l = ConstantOfShape <value = float[1] {2.0}> (m) "
        "p = GlobalAveragePool (a) q = Mul (p, k) z = Mul (q, l)",
        integers={"n": [1, 4, 60000, 1], "m": [1, 1, 1, 60000]},
    ),
    "matmul": Bomb(
        "k = ConstantOfShape <value = float[1] {2.0}> (n) l = ConstantOfShape <value = float[1] {2.0}> (m) "
        "q = MatMul (k, l) p = GlobalAveragePool (a) z = Mul (p, q)",
        integers={"n": [1, 4, 60000, 1], "m": [1, 4, 1, 60000]},
    ),
    "einsum": Bomb(
        'p = ReduceMean (a, n) q = Einsum <equation = "abcd,abef,abgh,abij->abcdefghij"> (a, a, a, a) '
        'r = Einsum <equation = "abcdefghij,abklmn->abcehjm"> (q, q) s = ReduceMean (r) z = Mul (p, s)',
        integers={"n": [2, 3]},
    ),
    "einsum-outer": Bomb(
        "q = Einsum <equation = "
        '"abcd,abef,abgh,abij,abkl,abmn->abcefh"> (a, a, a, a, a, a) r = ReduceMean (q) z = Mul (a, r)'
    ),
    "averagepool": Bomb(
        "z = AveragePool <kernel_shape = [20000, 20000], pads = "
        "[19999, 19999, 19999, 19999], count_include_pad = 1> (a)"
    ),
    "maxpool-dilated": Bomb(
        "z = MaxPool <kernel_shape = [9, 9], dilations = [100000, "
        '100000], pads = [8, 8, 8, 8], auto_pad = "SAME_UPPER"> (a)'
    ),
    "conv-padded": Bomb("z = Conv <pads = [40000, 40000, 40000, 40000]> (a, second)"),
    "convtranspose": Bomb("z = ConvTranspose <strides = [10000, 10000]> (a, second)"),
    "lrn": Bomb("z = LRN <size = 1000000001> (a)"),
    "gridsample": Bomb(
        "t = Constant <value = float[1,2,3] {1, 0, 0, 0, 1, 0}> () g1 = AffineGrid (t, n) z = GridSample (a, g1)",
        integers={"n": [1, 4, 40000, 40000]},
    ),
    "window": Bomb("w = HannWindow (n) k = ReduceMean (w) z = Mul (a, k)", integers={"n": 1 << 36}),
    "dft": Bomb(
        "u = Unsqueeze (a, n) f = DFT (u, m) k = ReduceMean (f) z = Mul (a, k)", integers={"n": [4], "m": 1 << 31}
    ),
    "random": Bomb("r = RandomNormal <shape = [1, 4, 100000, 100000]> () z = Mul (a, r)"),
    "gru": Bomb(
        "k = ConstantOfShape (n) r = ConstantOfShape (m) s = Reshape (a, t) "
        "q, p = GRU <hidden_size = 20000> (s, k, r) v = ReduceMean (p) z = Mul (a, v)",
        integers={"n": [1, 60000, 8], "m": [1, 60000, 20000], "t": [32, 1, 8]},
    ),
    "nonzero": Bomb(
        "k = ConstantOfShape <value = int64[1] {1}> (n) v = NonZero (k) "
        "s = Shape (v) f = CastLike (s, a) m = ReduceMean (f) z = Mul (a, m)",
        integers={"n": [1 << 14, 1 << 15]},
    ),
    "sequence": Bomb(
        """e0 = SequenceEmpty <dtype = 1> ()
           s = Loop (trips, , e0) <body = b (int64 i, bool k, seq(float) v) => (bool l, seq(float) w)
             { l = Identity (k) w = SequenceInsert (v, a) }>
           z = ConcatFromSequence <axis = 3> (s)""",
        integers={"trips": 1 << 26},
    ),
    "reshape": Bomb("z = Reshape (a, n)", integers={"n": [1, 4, 1 << 31, 1 << 31]}),
    "split": Bomb("v, w = Split <num_outputs = 1000000000> (a) z = Identity (v)"),
    "topk": Bomb("v, w = TopK <axis = 3> (a, n) z = Identity (v)", integers={"n": [_HUGE]}),
    "upsample": Bomb('z = Resize <mode = "linear"> (a, , , n)', integers={"n": [1, 4, 1 << 30, 1 << 30]}),
    "regex": Bomb(
        'u = Constant <value = string[1] {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!"}> () '
        'v = RegexFullMatch <pattern = "(a+)+"> (u) f = CastLike (v, a) z = Mul (a, f)'
    ),
    "strings": Bomb(
        "u = Gather (words, n) v = Constant <value = string[1] "
        '{"b"}> () q = Equal (u, v) f = CastLike (q, a) z = Mul (a, f)',
        integers={"n": [0]},
        edit=_strings,
    ),
    "string-concat": Bomb(
        'w = Constant <value = string[1] {"ab"}> () '
        f"{_doubled(40, 'StringConcat', 'w')} q = Equal (v40, w) f = CastLike (q, a) z = Mul (a, f)"
    ),
    "attributes": Bomb("z = Identity (a)", edit=_attributes),
    "name": Bomb("z = Identity (a)", edit=_name),
    "outputs": Bomb("z = Identity (a)", edit=_outputs),
    "sparse": Bomb("p = GlobalAveragePool (a) z = Mul (p, sparse)", edit=_sparse),
    "dims": Bomb("z = Mul (a, one)", edit=_huge_dims),
}
