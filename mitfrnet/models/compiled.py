"""Loops that numba compiles for a CPU: dropout, attention with dropout, and the steps of a GRU.

PyTorch's fused attention has no dropout on a CPU, and its plain one writes the weights of all
clips to memory in every operation. Here the weights of four queries stay in the fastest cache,
and are computed again for the gradient, as in FlashAttention (Dao et al., 2022).

Nothing of what dropout keeps is stored either: whether an element stays is a hash of a seed, its
row and its column, which is computed again for the gradient.

Results do not depend on how many threads share the work. Arrays are in float32. NaN and infinity
spread as they do in PyTorch. All is in one file, since numba compiles again what it has kept when
the file changes, but not when another one does.
"""

import functools
import itertools
import math
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import torch
from numba import float32, int32, int64, uint32, uint64, void
from torch import Tensor

LANES = 16  # rows are filled up to whole vectors of the processor
TOGETHER = 4  # queries, or clips, so that what is read for one serves all
BLOCK = 4096  # elements of a row of dropout

# Numbers may be added up in another order, without which nothing would fit into vectors. That NaN
# and infinity never occur is not promised.
_njit: Callable[..., Any] = functools.partial(
    numba.njit,
    nogil=True,
    error_model="numpy",
    fastmath={"reassoc", "contract", "arcp", "nsz"},
)
_inlined = _njit()


def _compiled(signature: Any, name: str) -> Callable[[Callable], Callable]:
    """Return a decorator that compiles a function, once for all processes where that can be kept.

    Numba keeps it beside this file or in the user's cache, if it may write to one of them. Of one
    name there may be one kind only: numba's files are not safe from processes that write two.
    """

    def compile_kept(function: Callable) -> Callable:
        function.__qualname__ = name
        try:
            return _njit(signature, cache=True)(function)
        except Exception:  # nowhere to keep it, or what is kept is damaged
            return _njit(signature)(function)

    return compile_kept


def over_threads(function: Callable, count: int, *arguments: Any) -> None:
    """Call `function(start, stop, *arguments)` for ranges that cover `count`, one per thread."""
    threads = max(min(torch.get_num_threads(), count), 1)
    cuts = [count * i // threads for i in range(threads + 1)]
    ranges = list(itertools.pairwise(cuts))
    others: list[Future] = [
        _pool().submit(function, start, stop, *arguments) for start, stop in ranges[1:]
    ]
    function(*ranges[0], *arguments)
    for other in others:
        other.result()


def arrays(*tensors: Tensor) -> list[np.ndarray]:
    """Return tensors on a CPU as arrays of the same memory."""
    return [tensor.detach().numpy() for tensor in tensors]


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count())


def threshold(dropout: float) -> np.uint32:
    """Return the number below which a hash of 32 bits loses its element."""
    return np.uint32(min(round(dropout * 2**32), 2**32 - 1))


@_inlined
def _row_key(seed, row):
    """Return two numbers of 32 bits for a row; the mixing of SplitMix64 (Steele et al., 2014)."""
    x = uint64(seed + uint64(row) * uint64(0x9E3779B97F4A7C15))
    x = uint64((x ^ (x >> uint64(30))) * uint64(0xBF58476D1CE4E5B9))
    x = uint64((x ^ (x >> uint64(27))) * uint64(0x94D049BB133111EB))
    x = uint64(x ^ (x >> uint64(31)))
    return uint32(x), uint32(x >> uint64(32))


@_inlined
def _hash(column, key):
    """Return a number of 32 bits for a column of a row with this key.

    The multipliers are those of Wellons' `lowbias32`, whose bits all depend on all of the input.
    """
    x = uint32(uint32(uint32(column) * uint32(0x9E3779B9)) + key[0])
    x = uint32(uint32(x ^ (x >> uint32(16))) * uint32(0x7FEB352D))
    x = uint32(x + key[1])
    x = uint32(uint32(x ^ (x >> uint32(15))) * uint32(0x846CA68B))
    return uint32(x ^ (x >> uint32(16)))


@functools.cache
def dropout_kernel() -> Callable:
    """Return `drop(x, out, seed, threshold)`.

    It writes `x` with elements lost, and the others scaled up, to `out`, (elements,) both. It is
    over before a second thread would wake up.
    """

    @_compiled(void(float32[::1], float32[::1], uint64, uint32), "drop")
    def drop(x, out, seed, threshold):
        scale = float32(1 / (1 - threshold / 2**32))
        for block in range(_filled(len(x), BLOCK) // BLOCK):
            key = _row_key(seed, block)
            given = x[block * BLOCK : (block + 1) * BLOCK]
            left = out[block * BLOCK : (block + 1) * BLOCK]
            for i in range(len(given)):
                left[i] = given[i] * (scale if _hash(i, key) >= threshold else float32(0))

    return drop


_LOG2_E = np.float32(1 / math.log(2))
# The series of 2^x, exact to 2e-7 within half a unit of zero.
_P1, _P2, _P3, _P4, _P5, _P6 = (
    np.float32(math.log(2) ** power / math.factorial(power)) for power in range(1, 7)
)

# The series of tanh.
_T3, _T5, _T7, _T9 = (np.float32(x) for x in (-1 / 3, 2 / 15, -17 / 315, 62 / 2835))


@_inlined
def _filled(count, unit):
    """Return `count`, filled up to whole units."""
    return (count + unit - 1) // unit * unit


@_inlined
def _zeros(rows, columns):
    return np.zeros((rows, columns), np.float32)


@_inlined
def _products(out, row, x, rows, start, seen, keys, dim):
    """Put `start` plus row `row` of `x` times `rows`, (dim, keys), in that row of `out`.

    What is not seen gets -infinity.
    """
    for j in range(keys):
        total = start
        for d in range(dim):  # known where this is compiled, and so unrolled
            total += x[row, d] * rows[d, j]
        out[row, j] = total if j < seen else float32(-np.inf)


@_inlined
def _order(bits):
    """Turn the bits of a number into an integer that is ordered as the numbers are, and back.

    Compilers turn the maximum of integers into vectors, that of floating-point numbers not.
    """
    return int32(bits ^ int32(int32(bits >> int32(31)) & int32(0x7FFFFFFF)))


@_inlined
def _subtract_largest(x, tops, keys):
    """Subtract from each row its largest number, and put that in `tops`."""
    for row in range(TOGETHER):
        largest = int32(-(2**31))
        for j in range(keys):
            largest = max(largest, _order(np.float32(x[row, j]).view(np.int32)))
        tops[row] = np.int32(_order(largest)).view(np.float32)
        for j in range(keys):
            x[row, j] -= tops[row]


@_inlined
def _power_of_two(x):
    """Return 2^x, zero below 2^-126, and no more than 2^126."""
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
def _turn(out, x, clip, first):
    """Put the features of a head, which begin at `first`, in rows: (dim, keys)."""
    for j in range(x.shape[1]):
        for d in range(out.shape[0]):
            out[d, j] = x[clip, j, first + d]


@_inlined
def _turn_back(out, x, clip, first, scale):
    for j in range(out.shape[1]):
        for d in range(x.shape[0]):
            out[clip, j, first + d] = x[d, j] * scale


@functools.cache
def attention_kernels(dim: int) -> tuple[Callable, Callable]:
    r"""Return attention and its gradient, compiled for heads of `dim` features.

    With a the softmax of the scores, m what is kept with probability p, and o the result,

    .. math::
        o = (a \odot m) v / p, \qquad
        \partial s = a \odot (\partial o \, v^T \odot m / p - \partial o \cdot o)

    `forward(start, stop, q, k, v, reach, heads, seed, threshold, out, norm)` handles the clips
    from `start` to `stop`. Query i of clip b sees the first `reach[b, i]` keys. It writes `out`,
    and the logarithm of the softmax's denominator, `norm`, which
    `backward(..., out, norm, d_out, d_q, d_k, d_v)` reads to write the gradients.

    Queries and all that is like them are (batch, query time, heads x dim), keys and values
    (batch, key time, heads x dim), `reach` (batch, query time) of int64, and `norm` (batch, heads,
    query time). Scores are to the base of two.
    """
    to_base_two = np.float32(1 / (math.log(2) * math.sqrt(dim)))
    natural = np.float32(1 / math.sqrt(dim))
    to_natural = np.float32(math.log(2))

    three, reaches = float32[:, :, :], int64[:, :]
    given = (int64, int64, three, three, three, reaches, int64, uint64, uint32, three, three)

    @_compiled(void(*given), f"attention_{dim}")
    def forward(start, stop, q, k, v, reach, heads, seed, threshold, out, norm):
        time, wide = q.shape[1], _filled(k.shape[1], LANES)
        keys_t, values_t = _zeros(dim, wide), _zeros(dim, wide)
        weights = _zeros(TOGETHER, wide)
        kept = _zeros(TOGETHER, wide) if threshold > uint32(0) else weights
        queries, tops = _zeros(TOGETHER, dim), np.zeros(TOGETHER, np.float32)
        seen, share = np.zeros(TOGETHER, np.int64), np.zeros(TOGETHER, np.float32)
        probability = float32(1 - threshold / 2**32)
        for b in range(start, stop):
            for h in range(heads):
                head = h * dim
                _turn(keys_t, k, b, head)
                _turn(values_t, v, b, head)
                for first in range(0, time, TOGETHER):
                    count = min(TOGETHER, time - first)
                    for row in range(count):
                        seen[row] = min(reach[b, first + row], k.shape[1])
                        for d in range(dim):
                            queries[row, d] = q[b, first + row, head + d] * to_base_two
                    keys = _filled(seen.max(), LANES)
                    for row in range(TOGETHER):
                        _products(weights, row, queries, keys_t, float32(0), seen[row], keys, dim)
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

    @_compiled(void(*given, three, three, three, three), f"attention_{dim}_backward")
    def backward(
        start, stop, q, k, v, reach, heads, seed, threshold, out, norm, d_out, d_q, d_k, d_v
    ):
        time, wide = q.shape[1], _filled(k.shape[1], LANES)
        keys_t, values_t = _zeros(dim, wide), _zeros(dim, wide)
        d_keys_t, d_values_t = _zeros(dim, wide), _zeros(dim, wide)
        weights = _zeros(TOGETHER, wide)
        kept = _zeros(TOGETHER, wide) if threshold > uint32(0) else weights
        d_scores = _zeros(TOGETHER, wide)
        queries, d_outs = _zeros(TOGETHER, dim), _zeros(TOGETHER, dim)
        seen, along = np.zeros(TOGETHER, np.int64), np.zeros(TOGETHER, np.float32)
        norms = np.zeros(TOGETHER, np.float32)
        share = float32(1 / (1 - threshold / 2**32))
        for b in range(start, stop):
            for h in range(heads):
                head = h * dim
                _turn(keys_t, k, b, head)
                _turn(values_t, v, b, head)
                d_keys_t[:] = 0
                d_values_t[:] = 0
                for first in range(0, time, TOGETHER):
                    count = min(TOGETHER, time - first)
                    for row in range(count):
                        i = first + row
                        seen[row], along[row] = min(reach[b, i], k.shape[1]), 0
                        norms[row] = norm[b, h, i]
                        for d in range(dim):
                            queries[row, d] = q[b, i, head + d] * to_base_two
                            d_outs[row, d] = d_out[b, i, head + d] * share
                            along[row] += d_out[b, i, head + d] * out[b, i, head + d]
                    for row in range(count, TOGETHER):  # the last queries may be fewer
                        queries[row] = 0
                        d_outs[row] = 0
                        along[row] = 0
                    keys = _filled(seen.max(), LANES)
                    for row in range(TOGETHER):
                        _products(weights, row, queries, keys_t, -norms[row], seen[row], keys, dim)
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
                # Queries carry 1 / sqrt(dim), and 1 / log(2) that the gradient has not.
                _turn_back(d_k, d_keys_t, b, head, to_natural)
                _turn_back(d_v, d_values_t, b, head, float32(1))

    return forward, backward


@_inlined
def _sigmoid(x):
    return float32(1) / (float32(1) + _power_of_two(x * -_LOG2_E))


@_inlined
def _tanh(x):
    """Return tanh(x), exact to 1e-6 of itself; near zero by its series, which does not cancel."""
    square = x * x
    series = (_T7 + square * _T9) * square + _T5
    series = float32(1) + square * (_T3 + square * series)
    near = square < float32(0.0625)
    return x * series if near else float32(2) * _sigmoid(float32(2) * x) - float32(1)


@_inlined
def _add_products(out, x, matrix, inner, columns):
    """Add `x`, (4, inner), times `matrix`, (inner, columns), to `out`; inner in whole fours."""
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

    `forward(start, stop, gates, weight_t, bias, lengths, out, rz, n, n_h)` handles groups of four
    clips in one direction, first those of the forward one. It reads W_i x + b_i of r, z and n,
    (batch, time, 2, 3 hidden), W_h turned, (2, hidden, 3 hidden), b_h, (2, 3 hidden), and how many
    steps each clip has, (batch,) of int64. It writes the states, (batch, time, 2, hidden), and
    what `backward(start, stop, d_out, weight_t, lengths, out, rz, n, n_h, d_gates, d_recurrent)`
    reads: r and z, (batch, time, 2, 2 hidden), n, and W_hn h + b_hn, (batch, time, 2, hidden).
    That writes the gradients of W_i x + b_i and of W_h h + b_h. Nothing is written on padding.
    """
    four, three, two, one = float32[:, :, :, ::1], float32[:, :, :], float32[:, :], int64[:]

    @_compiled(void(int64, int64, four, three, two, one, four, four, four, four), "gru")
    def forward(start, stop, gates, weight_t, bias, lengths, out, rz, n, n_h):
        batch, _, _, columns = gates.shape
        hidden = columns // 3
        groups = _filled(batch, TOGETHER) // TOGETHER
        inner, wide = _filled(hidden, 4), _filled(columns, LANES)
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
                    given, both = gates[b, t, side], rz[b, t, side]
                    new, new_h = n[b, t, side], n_h[b, t, side]
                    for j in range(2 * hidden):
                        both[j] = _sigmoid(given[j] + recurrent[row, j])
                    for j in range(hidden):
                        new_h[j] = recurrent[row, 2 * hidden + j]
                        x = given[2 * hidden + j] + both[j] * new_h[j]
                        new[j] = _tanh(x)
                        h[row, j] = new[j] + both[hidden + j] * (h[row, j] - new[j])
                    out[b, t, side] = h[row, :hidden]

    nine = four, three, one, four, four, four, four, four, four

    @_compiled(void(int64, int64, *nine), "gru_backward")
    def backward(start, stop, d_out, weight_t, lengths, out, rz, n, n_h, d_gates, d_recurrent):
        batch, _, _, hidden = d_out.shape
        columns = 3 * hidden
        groups = _filled(batch, TOGETHER) // TOGETHER
        wide = _filled(columns, LANES)
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
                    both, new, new_h = rz[b, t, side], n[b, t, side], n_h[b, t, side]
                    d_state, given = d_out[b, t, side], d_gates[b, t, side]
                    for j in range(hidden):
                        d = d_state[j] + carried[row, j]
                        r, z, x = both[j], both[hidden + j], new[j]
                        d_n = d * (float32(1) - z) * (float32(1) - x * x)
                        d_all[row, j] = d_n * new_h[j] * r * (float32(1) - r)
                        d_all[row, hidden + j] = d * (before[j] - x) * z * (float32(1) - z)
                        d_all[row, 2 * hidden + j] = d_n * r
                        carried[row, j] = d * z
                        given[2 * hidden + j] = d_n
                    given[: 2 * hidden] = d_all[row, : 2 * hidden]
                    d_recurrent[b, t, side] = d_all[row, :columns]
                for j in range(hidden):
                    sums = _sums(d_all, matrix, j, wide)
                    for row in range(TOGETHER):
                        carried[row, j] += sums[row]

    return forward, backward
