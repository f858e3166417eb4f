"""Loops that numba compiles for a CPU: dropout, attention with dropout, and the steps of a GRU.

Only `mitfrnet.models.cpu` calls them, with NumPy arrays in float32.

PyTorch's fused attention has no dropout on a CPU, and its plain one writes the weights of all
clips to memory in every operation. These loops keep the weights of four queries in the fastest
cache and compute them again for the gradient, as FlashAttention does (Dao et al., 2022).

Dropout stores no mask either. A hash of a seed, the row and the column decides whether an element
stays, and is computed again for the gradient.

NaN and infinity spread as they do in PyTorch. Everything is in one file because numba compiles a
cached function again when its own file changes, but not when a file that it imports from does.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import float32, int32, int64, uint32, uint64, void

LANES = 16  # rows are padded to whole vectors of the processor
TOGETHER = 4  # queries or clips handled at once, so that each key or weight is read once for all
BLOCK = 4096  # elements of a row of dropout

# Sums may be reordered, or no loop would be vectorised. NaN and infinity may occur, so the flags
# that exclude them are left out.
_njit: Callable[..., Any] = functools.partial(
    numba.njit,
    nogil=True,
    error_model="numpy",
    fastmath={"reassoc", "contract", "arcp", "nsz"},
)
_inlined = _njit()


def _compiled(signature: Any, name: str) -> Callable[[Callable], Callable]:
    """Return a decorator that compiles a function and caches the result for other processes.

    Numba caches it beside this file or in the user's cache folder, if it can write to either. Each
    variant needs its own `name`: processes that write two variants under one name would damage
    each other's files.
    """

    def compile_cached(function: Callable) -> Callable:
        function.__qualname__ = name
        try:
            return _njit(signature, cache=True)(function)
        except Exception:  # no folder can be written to, or a cached file is damaged
            return _njit(signature)(function)

    return compile_cached


def threshold(dropout: float) -> np.uint32:
    """Return the number below which a 32-bit hash drops its element."""
    return np.uint32(min(round(dropout * 2**32), 2**32 - 1))


@_inlined
def _row_key(seed, row):
    """Return two 32-bit numbers for a row, mixed as in SplitMix64 (Steele et al., 2014)."""
    x = uint64(seed + uint64(row) * uint64(0x9E3779B97F4A7C15))
    x = uint64((x ^ (x >> uint64(30))) * uint64(0xBF58476D1CE4E5B9))
    x = uint64((x ^ (x >> uint64(27))) * uint64(0x94D049BB133111EB))
    x = uint64(x ^ (x >> uint64(31)))
    return uint32(x), uint32(x >> uint64(32))


@_inlined
def _hash(column, key):
    """Return a 32-bit number for a column of the row that has this key.

    The multipliers are those of Wellons' `lowbias32`, in which every output bit depends on every
    input bit.
    """
    x = uint32(uint32(uint32(column) * uint32(0x9E3779B9)) + key[0])
    x = uint32(uint32(x ^ (x >> uint32(16))) * uint32(0x7FEB352D))
    x = uint32(x + key[1])
    x = uint32(uint32(x ^ (x >> uint32(15))) * uint32(0x846CA68B))
    return uint32(x ^ (x >> uint32(16)))


@functools.cache
def dropout_kernel() -> Callable:
    """Return `drop(x, out, seed, threshold)`.

    It writes `x` to `out`, both (elements,), with some elements dropped and the others scaled up.
    One thread runs it, since a second would not wake up before it ends.
    """

    @_compiled(void(float32[::1], float32[::1], uint64, uint32), "drop")
    def drop(x, out, seed, threshold):
        scale = float32(1 / (1 - threshold / 2**32))
        for block in range(_rounded_up(len(x), BLOCK) // BLOCK):
            key = _row_key(seed, block)
            x_block = x[block * BLOCK : (block + 1) * BLOCK]
            out_block = out[block * BLOCK : (block + 1) * BLOCK]
            for i in range(len(x_block)):
                out_block[i] = x_block[i] * (scale if _hash(i, key) >= threshold else float32(0))

    return drop


_LOG2_E = np.float32(1 / math.log(2))
# The series of 2^x, exact to 2e-7 within half a unit of zero.
_P1, _P2, _P3, _P4, _P5, _P6 = (
    np.float32(math.log(2) ** power / math.factorial(power)) for power in range(1, 7)
)

# The series of tanh.
_T3, _T5, _T7, _T9 = (np.float32(x) for x in (-1 / 3, 2 / 15, -17 / 315, 62 / 2835))


@_inlined
def _rounded_up(count, unit):
    """Return `count` rounded up to a multiple of `unit`."""
    return (count + unit - 1) // unit * unit


@_inlined
def _zeros(rows, columns):
    return np.zeros((rows, columns), np.float32)


@_inlined
def _products(out, row, x, rows, start, limit, keys, dim):
    """Write `start` plus row `row` of `x` times `rows`, (dim, keys), to that row of `out`.

    Keys from number `limit` on get -infinity.
    """
    for j in range(keys):
        total = start
        for d in range(dim):  # a constant when this is compiled, and so unrolled
            total += x[row, d] * rows[d, j]
        out[row, j] = total if j < limit else float32(-np.inf)


@_inlined
def _order(bits):
    """Turn the bits of a float into an integer that sorts like the float, and back.

    Compilers vectorise the maximum of integers, but not that of floats.
    """
    return int32(bits ^ int32(int32(bits >> int32(31)) & int32(0x7FFFFFFF)))


@_inlined
def _subtract_largest(x, tops, keys):
    """Subtract its largest number from each row, and write that number to `tops`."""
    for row in range(TOGETHER):
        largest = int32(-(2**31))
        for j in range(keys):
            largest = max(largest, _order(np.float32(x[row, j]).view(np.int32)))
        tops[row] = np.int32(_order(largest)).view(np.float32)
        for j in range(keys):
            x[row, j] -= tops[row]


@_inlined
def _power_of_two(x):
    """Return 2^x; zero for x below -126, and at most 2^126."""
    within = float32(-126) if x < float32(-126) else x
    within = float32(126) if within > float32(126) else within
    whole = np.floor(within + float32(0.5))
    rest = within - whole
    exponent = np.int32((int32(whole) + int32(127)) << int32(23)).view(np.float32)
    series = (((_P6 * rest + _P5) * rest + _P4) * rest + _P3) * rest + _P2
    power = ((series * rest + _P1) * rest + float32(1)) * exponent
    return float32(0) if x < float32(-126) else power


@_inlined
def _powers(x, keys):
    for j in range(keys):
        for row in range(TOGETHER):
            x[row, j] = _power_of_two(x[row, j])


@_inlined
def _drop_rows(x, out, keys, key, threshold):
    for j in range(keys):
        for row in range(TOGETHER):
            kept = _hash(row * keys + j, key) >= threshold
            out[row, j] = x[row, j] * (float32(1) if kept else float32(0))


@_inlined
def _sums(rows, x, d, keys):
    """Return the products of four rows with row `d` of `x`."""
    a, b, c, e = float32(0), float32(0), float32(0), float32(0)
    for j in range(keys):
        a += rows[0, j] * x[d, j]
        b += rows[1, j] * x[d, j]
        c += rows[2, j] * x[d, j]
        e += rows[3, j] * x[d, j]
    return a, b, c, e


@_inlined
def _add_rows(out, d, rows, factors, keys):
    """Add four rows, each times its factor in column `d`, to row `d` of `out`."""
    a, b, c, e = factors[0, d], factors[1, d], factors[2, d], factors[3, d]
    for j in range(keys):
        out[d, j] += a * rows[0, j] + b * rows[1, j] + c * rows[2, j] + e * rows[3, j]


@_inlined
def _transpose(out, x, clip, first):
    """Write the features of a head, from number `first` on, to the rows of `out`, (dim, keys)."""
    for j in range(x.shape[1]):
        for d in range(out.shape[0]):
            out[d, j] = x[clip, j, first + d]


@_inlined
def _transpose_back(out, x, clip, first, scale):
    for j in range(out.shape[1]):
        for d in range(x.shape[0]):
            out[clip, j, first + d] = x[d, j] * scale


@functools.cache
def attention_kernels(dim: int) -> tuple[Callable, Callable]:
    r"""Return attention and its gradient, compiled for heads of `dim` features.

    a is the softmax of the scores, m the dropout mask, p the probability of keeping a weight, and
    o the result:

    .. math::
        o = (a \odot m) v / p, \qquad
        \partial s = a \odot (\partial o \, v^T \odot m / p - \partial o \cdot o)

    `forward(start, stop, q, k, v, reach, heads, seed, threshold, out, norm)` handles the clips
    from `start` to `stop`. Query i of clip b sees the first `reach[b, i]` keys. It writes `out`,
    and the logarithm of the softmax's denominator, `norm`, which
    `backward(..., out, norm, d_out, d_q, d_k, d_v)` reads to write the gradients.

    Queries, results and their gradients are (batch, query time, heads x dim); keys, values and
    theirs (batch, key time, heads x dim); `reach` is (batch, query time) of int64, and `norm`
    (batch, heads, query time). Exponentials and logarithms are to base two.
    """
    to_base_two = np.float32(1 / (math.log(2) * math.sqrt(dim)))
    natural = np.float32(1 / math.sqrt(dim))
    to_natural = np.float32(math.log(2))

    three, reaches = float32[:, :, :], int64[:, :]
    inputs = (int64, int64, three, three, three, reaches, int64, uint64, uint32, three, three)

    @_compiled(void(*inputs), f"attention_{dim}")
    def forward(start, stop, q, k, v, reach, heads, seed, threshold, out, norm):
        time, wide = q.shape[1], _rounded_up(k.shape[1], LANES)
        keys_t, values_t = _zeros(dim, wide), _zeros(dim, wide)
        weights = _zeros(TOGETHER, wide)
        kept = _zeros(TOGETHER, wide) if threshold > uint32(0) else weights
        queries, tops = _zeros(TOGETHER, dim), np.zeros(TOGETHER, np.float32)
        limits, share = np.zeros(TOGETHER, np.int64), np.zeros(TOGETHER, np.float32)
        probability = float32(1 - threshold / 2**32)
        for b in range(start, stop):
            for h in range(heads):
                head = h * dim
                _transpose(keys_t, k, b, head)
                _transpose(values_t, v, b, head)
                for first in range(0, time, TOGETHER):
                    count = min(TOGETHER, time - first)
                    for row in range(count):
                        limits[row] = min(reach[b, first + row], k.shape[1])
                        for d in range(dim):
                            queries[row, d] = q[b, first + row, head + d] * to_base_two
                    keys = _rounded_up(limits.max(), LANES)
                    for row in range(TOGETHER):
                        _products(weights, row, queries, keys_t, float32(0), limits[row], keys, dim)
                    _subtract_largest(weights, tops, keys)
                    _powers(weights, keys)
                    for row in range(TOGETHER):
                        total = float32(0)
                        for j in range(keys):
                            total += weights[row, j]
                        share[row] = float32(1) / (total * probability)
                        if row < count:
                            norm[b, h, first + row] = tops[row] + np.log2(total)
                    if threshold > uint32(0):
                        key = _row_key(seed, (b * heads + h) * time + first)
                        _drop_rows(weights, kept, keys, key, threshold)
                    for d in range(dim):
                        sums = _sums(kept, values_t, d, keys)
                        for row in range(count):
                            out[b, first + row, head + d] = sums[row] * share[row]

    @_compiled(void(*inputs, three, three, three, three), f"attention_{dim}_backward")
    def backward(
        start, stop, q, k, v, reach, heads, seed, threshold, out, norm, d_out, d_q, d_k, d_v
    ):
        time, wide = q.shape[1], _rounded_up(k.shape[1], LANES)
        keys_t, values_t = _zeros(dim, wide), _zeros(dim, wide)
        d_keys_t, d_values_t = _zeros(dim, wide), _zeros(dim, wide)
        weights = _zeros(TOGETHER, wide)
        kept = _zeros(TOGETHER, wide) if threshold > uint32(0) else weights
        d_scores = _zeros(TOGETHER, wide)
        queries, d_outs = _zeros(TOGETHER, dim), _zeros(TOGETHER, dim)
        limits, along = np.zeros(TOGETHER, np.int64), np.zeros(TOGETHER, np.float32)
        norms = np.zeros(TOGETHER, np.float32)
        share = float32(1 / (1 - threshold / 2**32))
        for b in range(start, stop):
            for h in range(heads):
                head = h * dim
                _transpose(keys_t, k, b, head)
                _transpose(values_t, v, b, head)
                d_keys_t[:] = 0
                d_values_t[:] = 0
                for first in range(0, time, TOGETHER):
                    count = min(TOGETHER, time - first)
                    for row in range(count):
                        i = first + row
                        limits[row], along[row] = min(reach[b, i], k.shape[1]), 0
                        norms[row] = norm[b, h, i]
                        for d in range(dim):
                            queries[row, d] = q[b, i, head + d] * to_base_two
                            d_outs[row, d] = d_out[b, i, head + d] * share
                            along[row] += d_out[b, i, head + d] * out[b, i, head + d]
                    for row in range(count, TOGETHER):  # the last group may have fewer queries
                        queries[row] = 0
                        d_outs[row] = 0
                        along[row] = 0
                    keys = _rounded_up(limits.max(), LANES)
                    for row in range(TOGETHER):
                        _products(
                            weights, row, queries, keys_t, -norms[row], limits[row], keys, dim
                        )
                        _products(d_scores, row, d_outs, values_t, float32(0), keys, keys, dim)
                    _powers(weights, keys)
                    if threshold > uint32(0):
                        key = _row_key(seed, (b * heads + h) * time + first)
                        _drop_rows(weights, kept, keys, key, threshold)
                    for row in range(TOGETHER):
                        for j in range(keys):
                            d_weight = kept[row, j] * d_scores[row, j]
                            d_scores[row, j] = d_weight - weights[row, j] * along[row]
                    for d in range(dim):
                        sums = _sums(d_scores, keys_t, d, keys)
                        for row in range(count):
                            d_q[b, first + row, head + d] = sums[row] * natural
                        _add_rows(d_keys_t, d, d_scores, queries, keys)
                        _add_rows(d_values_t, d, kept, d_outs, keys)
                # `queries` hold a factor 1 / log(2) that the gradient does not have.
                _transpose_back(d_k, d_keys_t, b, head, to_natural)
                _transpose_back(d_v, d_values_t, b, head, float32(1))

    return forward, backward


@_inlined
def _sigmoid(x):
    return float32(1) / (float32(1) + _power_of_two(x * -_LOG2_E))


@_inlined
def _tanh(x):
    """Return tanh(x) to a relative 1e-6; near zero by its series, which does not cancel."""
    square = x * x
    series = (_T7 + square * _T9) * square + _T5
    series = float32(1) + square * (_T3 + square * series)
    near = square < float32(0.0625)
    return x * series if near else float32(2) * _sigmoid(float32(2) * x) - float32(1)


@_inlined
def _add_products(out, x, matrix, inner, columns):
    """Add `x`, (4, inner), times `matrix`, (inner, columns), to `out`; 4 divides `inner`."""
    for k in range(0, inner, 4):
        for row in range(TOGETHER):
            a, b, c, d = x[row, k], x[row, k + 1], x[row, k + 2], x[row, k + 3]
            for j in range(columns):
                out[row, j] += (
                    a * matrix[k, j] + b * matrix[k + 1, j]
                    + c * matrix[k + 2, j] + d * matrix[k + 3, j]
                )  # fmt: skip


@functools.cache
def recurrence_kernels() -> tuple[Callable, Callable]:
    r"""Return the steps of a bidirectional GRU with projected inputs, and their gradient.

    `forward(start, stop, gates, weight_t, bias, lengths, out, rz, n, n_h)` handles the groups from
    `start` to `stop`; a group is four clips in one direction, and the groups of the forward
    direction come first. It reads

    - `gates`: W_i x + b_i of r, z and n, (batch, time, 2, 3 hidden);
    - `weight_t`: W_h transposed, (2, hidden, 3 hidden);
    - `bias`: b_h, (2, 3 hidden);
    - `lengths`: the steps of each clip, (batch,) of int64;

    and writes, except on padding,

    - `out`: the states, (batch, time, 2, hidden);
    - `rz`: r and z, (batch, time, 2, 2 hidden);
    - `n`, and `n_h` = W_hn h + b_hn, (batch, time, 2, hidden) each.

    `backward(start, stop, d_out, weight_t, lengths, out, rz, n, n_h, d_gates, d_recurrent)` reads
    these and writes the gradients of W_i x + b_i and of W_h h + b_h.
    """
    four, three, two, one = float32[:, :, :, ::1], float32[:, :, :], float32[:, :], int64[:]

    @_compiled(void(int64, int64, four, three, two, one, four, four, four, four), "gru")
    def forward(start, stop, gates, weight_t, bias, lengths, out, rz, n, n_h):
        batch, _, _, columns = gates.shape
        hidden = columns // 3
        groups = _rounded_up(batch, TOGETHER) // TOGETHER
        inner, wide = _rounded_up(hidden, 4), _rounded_up(columns, LANES)
        matrix, recurrent, h = _zeros(inner, wide), _zeros(TOGETHER, wide), _zeros(TOGETHER, inner)
        for group in range(start, stop):
            side, first = group // groups, group % groups * TOGETHER
            clips = lengths[first : first + TOGETHER]
            matrix[:hidden, :columns] = weight_t[side]
            h[:] = 0
            for step in range(clips.max()):
                for row in range(TOGETHER):
                    recurrent[row, :columns] = bias[side]
                _add_products(recurrent, h, matrix, inner, wide)
                for row in range(len(clips)):
                    if step >= clips[row]:
                        continue
                    b, t = first + row, clips[row] - 1 - step if side else step
                    gate, rz_now = gates[b, t, side], rz[b, t, side]
                    n_now, n_h_now = n[b, t, side], n_h[b, t, side]
                    for j in range(2 * hidden):
                        rz_now[j] = _sigmoid(gate[j] + recurrent[row, j])
                    for j in range(hidden):
                        n_h_now[j] = recurrent[row, 2 * hidden + j]
                        x = gate[2 * hidden + j] + rz_now[j] * n_h_now[j]
                        n_now[j] = _tanh(x)
                        h[row, j] = n_now[j] + rz_now[hidden + j] * (h[row, j] - n_now[j])
                    out[b, t, side] = h[row, :hidden]

    nine = four, three, one, four, four, four, four, four, four

    @_compiled(void(int64, int64, *nine), "gru_backward")
    def backward(start, stop, d_out, weight_t, lengths, out, rz, n, n_h, d_gates, d_recurrent):
        batch, _, _, hidden = d_out.shape
        columns = 3 * hidden
        groups = _rounded_up(batch, TOGETHER) // TOGETHER
        wide = _rounded_up(columns, LANES)
        matrix, d_all = _zeros(hidden, wide), _zeros(TOGETHER, wide)
        carried, before = _zeros(TOGETHER, hidden), np.zeros(hidden, np.float32)
        for group in range(start, stop):
            side, first = group // groups, group % groups * TOGETHER
            clips = lengths[first : first + TOGETHER]
            matrix[:, :columns] = weight_t[side]
            carried[:] = 0
            d_all[:] = 0
            for step in range(clips.max() - 1, -1, -1):
                for row in range(len(clips)):
                    if step >= clips[row]:
                        continue
                    b, t = first + row, clips[row] - 1 - step if side else step
                    before[:] = 0
                    if step > 0:
                        before[:] = out[b, t + 1 if side else t - 1, side]
                    rz_now, n_now, n_h_now = rz[b, t, side], n[b, t, side], n_h[b, t, side]
                    d_state, d_gate = d_out[b, t, side], d_gates[b, t, side]
                    for j in range(hidden):
                        d = d_state[j] + carried[row, j]
                        r, z, x = rz_now[j], rz_now[hidden + j], n_now[j]
                        d_n = d * (float32(1) - z) * (float32(1) - x * x)
                        d_all[row, j] = d_n * n_h_now[j] * r * (float32(1) - r)
                        d_all[row, hidden + j] = d * (before[j] - x) * z * (float32(1) - z)
                        d_all[row, 2 * hidden + j] = d_n * r
                        carried[row, j] = d * z
                        d_gate[2 * hidden + j] = d_n
                    d_gate[: 2 * hidden] = d_all[row, : 2 * hidden]
                    d_recurrent[b, t, side] = d_all[row, :columns]
                for j in range(hidden):
                    sums = _sums(d_all, matrix, j, wide)
                    for row in range(TOGETHER):
                        carried[row, j] += sums[row]

    return forward, backward
