# SPDX-License-Identifier: Apache-2.0
"""Tiny models, one for each way in which channels are coupled, as ONNX text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir

from tests.passes_models import normal, proto_of, run

CHANNELS = 8

_HEAD = '< ir_version: 8, opset_import: ["" : 17] >\n'
_TAIL = "p = GlobalAveragePool(t) f = Flatten(p) y = Gemm(f, fc_w, fc_b) }"

TEXTS = {
    "plain": "c = Conv<pads=[1,1,1,1]>(x, w1, b1) t = Relu(c)",
    "batch_norm": """c = Conv(x, w1) n = BatchNormalization(c, gamma, beta, mean, var)
        t = Relu(n)""",
    "prelu": "c = Conv(x, w1, b1) t = PRelu(c, slope)",
    "residual": """a = Conv(x, w1, b1) r = Relu(a) c = Conv<pads=[1,1,1,1]>(r, w2, b2)
        s = Add(c, r) t = Relu(s)""",
    "depthwise": """c = Conv(x, w1, b1) lo = Constant<value = float {0.0}>()
        hi = Constant<value = float {6.0}>() r = Clip(c, lo, hi)
        t = Conv<group=8, pads=[1,1,1,1]>(r, dw, b2)""",
    "squeeze_excite": """c = Conv(x, w1, b1) r = Relu(c) m = GlobalAveragePool(r)
        q = Conv(m, se1, se1b) qr = Relu(q) e = Conv(qr, se2, b2) g = Sigmoid(e) t = Mul(r, g)""",
    "hard_swish": """c = Conv(x, w1, b1) three = Constant<value = float {3.0}>()
        six = Constant<value = float {6.0}>() zero = Constant<value = float {0.0}>()
        a = Add(c, three) k = Clip(a, zero, six) d = Div(k, six) t = Mul(c, d)""",
    "constants": "c = Conv(x, w1) s = Mul(c, scale3) a = Add(s, bias3) t = Relu(a)",
    "pooling": "c = Conv(x, w1, b1) m = MaxPool<kernel_shape=[2,2]>(c) t = Relu(m)",
    "transposed": "c = ConvTranspose(x, wt, b1) t = Relu(c)",
}
"""Bodies that make `t` with 8 channels from `x` float[N,4,6,6]."""

_TOKENS = """c = Conv(x, w1, b1) n = Transpose<perm=[0,2,3,1]>(c)
        flat = Constant<value = int64[3] {0, 16, 8}>() s = Reshape(n, flat) """
_HEADS = """heads = Constant<value = int64[4] {0, 0, 4, 2}>() qh = Reshape(q, heads)
        kh = Reshape(k, heads) vh = Reshape(v, heads) qt = Transpose<perm=[0,2,1,3]>(qh)
        kt = Transpose<perm=[0,2,3,1]>(kh) vt = Transpose<perm=[0,2,1,3]>(vh)"""
_ATTEND = """ z = MatMul(qt, kt) zs = Softmax<axis=-1>(z) o = MatMul(zs, vt)
        ot = Transpose<perm=[0,2,1,3]>(o) oj = Reshape(ot, flat) yo = MatMul(oj, fc_w)
        y = ReduceMean<axes=[1], keepdims=0>(yo)"""

WHOLE = {
    "flatten": """c = Conv(x, w1, b1) r = Relu(c) f = Flatten(r) y = Gemm(f, fc16_w, fc_b)""",
    "reshape": """c = Conv(x, w1, b1) r = Relu(c) size = Constant<value = int64[2] {0, 128}>()
        f = Reshape(r, size) y = MatMul(f, fc16_w)""",
    "reshape_computed": """c = Conv(x, w1, b1) r = Relu(c) sh = Shape(r)
        i = Constant<value = int64[1] {0}>() n = Gather(sh, i)
        k = Constant<value = int64[1] {128}>() size = Concat<axis=0>(n, k)
        f = Reshape(r, size) y = MatMul(f, fc16_w)""",
    "concat": """a = Conv(x, w1, b1) r = Relu(a) b = Conv(x, w2x, b2) s = Relu(b)
        t = Concat<axis=1>(r, x0, s) p = GlobalAveragePool(t) f = Flatten(p)
        y = Gemm(f, fc20_w, fc_b)""",
    "split": """a = Conv(x, w16, b16) r = Relu(a) u, v = Split<axis=1>(r) t = Mul(u, v)
        p = GlobalAveragePool(t) f = Flatten(p) y = Gemm(f, fc_w, fc_b)""",
    "shuffle": """a = Conv(x, w1, b1) five = Constant<value = int64[5] {0, 2, 4, 4, 4}>()
        four = Constant<value = int64[4] {0, 8, 4, 4}>() g = Reshape(a, five)
        h = Transpose<perm=[0,2,1,3,4]>(g) i = Reshape(h, four)
        t = Conv<group=2>(i, wg, b2) p = GlobalAveragePool(t) f = Flatten(p)
        y = Gemm(f, fc_w, fc_b)""",
    "dense": """p = GlobalAveragePool(x) f = Flatten(p) h = Gemm<transB=1>(f, d1, b1)
        r = Tanh(h) m = MatMul(r, d2) a = Add(m, b2) g = Relu(a) y = MatMul(g, fc_w)""",
    "nhwc": """c = Conv(x, w1, b1) n = Transpose<perm=[0,2,3,1]>(c) a = Add(n, b2)
        r = Relu(a) m = ReduceMean<axes=[1,2], keepdims=0>(r) y = MatMul(m, fc_w)""",
    "attention": _TOKENS
    + """q0 = MatMul(s, wq) q = Add(q0, b1q) k = MatMul(s, wk) v = MatMul(s, wv)
        """
    + _HEADS
    + _ATTEND,
    "fused_split": _TOKENS
    + """a0 = MatMul(s, wqkv) a = Add(a0, bqkv)
        q, k, v = Split<axis=-1>(a)
        """
    + _HEADS
    + _ATTEND,
    "fused_five_axes": _TOKENS
    + """a0 = MatMul(s, wqkv) a = Add(a0, bqkv)
        five = Constant<value = int64[5] {0, 0, 3, 4, 2}>() h = Reshape(a, five)
        t = Transpose<perm=[2,0,3,1,4]>(h) zero = Constant<value = int64 {0}>()
        one = Constant<value = int64 {1}>() two = Constant<value = int64 {2}>()
        qt = Gather<axis=0>(t, zero) kh = Gather<axis=0>(t, one) vt = Gather<axis=0>(t, two)
        kt = Transpose<perm=[0,1,3,2]>(kh)"""
    + _ATTEND,
    "fused_by_head": _TOKENS
    + """a0 = MatMul(s, wqkv) a = Add(a0, bqkv)
        four = Constant<value = int64[4] {0, 0, 4, 6}>() h = Reshape(a, four)
        t = Transpose<perm=[0,2,1,3]>(h) qt, kh, vt = Split<axis=-1>(t)
        kt = Transpose<perm=[0,1,3,2]>(kh)"""
    + _ATTEND,
    "fused_heads_first": _TOKENS
    + """a0 = MatMul(s, wqkv) a = Add(a0, bqkv)
        five = Constant<value = int64[5] {0, 0, 4, 3, 2}>() h = Reshape(a, five)
        t = Transpose<perm=[3,0,2,1,4]>(h) q1, k1, v1 = Split<axis=0>(t)
        first = Constant<value = int64[1] {0}>() qt = Squeeze(q1, first)
        kh = Squeeze(k1, first) vt = Squeeze(v1, first)
        kt = Transpose<perm=[0,1,3,2]>(kh)"""
    + _ATTEND,
    "grouped_heads": _TOKENS
    + """q = MatMul(s, wq) k = MatMul(s, wk4) v = MatMul(s, wv4)
        heads = Constant<value = int64[4] {0, 0, 4, 2}>()
        pairs = Constant<value = int64[4] {0, 0, 2, 2}>() qh = Reshape(q, heads)
        kh = Reshape(k, pairs) vh = Reshape(v, pairs) qt = Transpose<perm=[0,2,1,3]>(qh)
        k0 = Transpose<perm=[0,2,1,3]>(kh) v0 = Transpose<perm=[0,2,1,3]>(vh)
        at = Constant<value = int64[1] {2}>() k1 = Unsqueeze(k0, at) v1 = Unsqueeze(v0, at)
        more = Constant<value = int64[5] {1, 1, 2, 1, 1}>() k2 = Expand(k1, more)
        v2 = Expand(v1, more) every = Constant<value = int64[4] {0, 4, 16, 2}>()
        k3 = Reshape(k2, every) vt = Reshape(v2, every) kt = Transpose<perm=[0,1,3,2]>(k3)"""
    + _ATTEND,
}
"""Whole bodies from `x` to `y`."""

DEAD = {
    "shuffle": (1, 5), "attention": (2, 3), "fused_split": (2, 3, 10, 11, 18, 19),
    "fused_five_axes": (2, 3, 10, 11, 18, 19), "fused_heads_first": (6, 7, 8, 9, 10, 11),
    "fused_by_head": (6, 7, 8, 9, 10, 11),
    "grouped_heads": (0, 1, 2, 3),
}  # fmt: skip
"""Channels that go together: the same place in both groups of a shuffle, those of a head."""

COUPLINGS = (*TEXTS, *WHOLE)

SHAPES: dict[str, tuple[int, ...]] = {
    "w1": (8, 4, 3, 3), "w2": (8, 8, 3, 3), "w2x": (8, 4, 3, 3), "w16": (16, 4, 3, 3),
    "wt": (4, 8, 2, 2), "dw": (8, 1, 3, 3), "wg": (8, 4, 1, 1), "b1": (8,), "b2": (8,),
    "b16": (16,), "b1q": (8,), "gamma": (8,), "beta": (8,), "mean": (8,), "var": (8,),
    "slope": (8, 1, 1), "scale3": (8, 1, 1), "bias3": (1, 8, 1, 1), "se1": (4, 8, 1, 1),
    "se1b": (4,), "se2": (8, 4, 1, 1), "fc_w": (8, 5), "fc16_w": (128, 5), "fc20_w": (20, 5),
    "fc_b": (5,), "d1": (8, 4), "d2": (8, 8), "wq": (8, 8), "wk": (8, 8), "wv": (8, 8),
    "wqkv": (8, 24), "bqkv": (24,), "wk4": (8, 4), "wv4": (8, 4),
}  # fmt: skip


def coupled(name: str, dead: Sequence[int] = (), **given: np.ndarray) -> onnx.ModelProto:
    """The model of a coupling with random weights. Channels in `dead` of every layer give zero."""
    body = WHOLE[name] + " }" if name in WHOLE else TEXTS[name] + "\n" + _TAIL
    extra = ", float[N,4,4,4] x0" if "x0" in body else ""
    text = f"{_HEAD}net (float[N,4,6,6] x{extra}) => (float[N,5] y) {{ {body}"
    used = [word for word in SHAPES if word in text.replace("(", " ").replace(")", " ")
            .replace(",", " ").split()]  # fmt: skip
    tensors = {word: given.get(word, normal(*SHAPES[word], seed=i)) for i, word in enumerate(used)}
    if "var" in tensors:
        tensors["var"] = np.abs(tensors["var"]) + 0.5
    for word in set(tensors) - {"fc_w", "fc16_w", "fc20_w", "fc_b", "var", "se1", "se1b"}:
        columns = ("wt", "bias3", "d2", "wq", "wk", "wv", "wqkv", "wk4", "wv4")
        axis = 1 if word in columns else 0
        rows = np.moveaxis(tensors[word], axis, 0)
        rows[[channel for channel in dead if channel < len(rows)]] = 0
    return proto_of(text, tensors)


def feeds_of(proto: onnx.ModelProto, count: int = 4, samples: int = 8) -> list[dict]:
    """Random feeds for such a model."""
    sizes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
             for value in proto.graph.input}  # fmt: skip
    return [
        {name: normal(samples, *dims[1:], seed=100 + i) for name, dims in sizes.items()}
        for i in range(count)
    ]


class Captured:
    """The passes' protocol `Activations`, for tests of the passes alone."""

    def __init__(self, feeds: Sequence[Mapping[str, np.ndarray]]) -> None:
        self.feeds = feeds

    @property
    def num_feeds(self) -> int:
        return len(self.feeds)

    def __call__(self, model: ir.Model, names: Sequence[str]) -> Iterator[Mapping[str, np.ndarray]]:
        for feed in self.feeds:
            found = run(model, feed, list(names))
            yield {name: found[name] if name in found else feed[name] for name in names}
