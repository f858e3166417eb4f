"""Unpickle feature files safely: only arrays, strings, numbers and plain containers.

A pickle is a program: `pickle.load` calls the functions it names. Here `pickletools` lists its
opcodes without running them, and we follow only those that build such values. The few names that
NumPy needs stand for functions of this module; any other name is an error. Arrays stay in the
mapped file until they are used, so a large file needs little memory.
"""

import math
import mmap
import pickletools
import re
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from mitfrnet.errors import FeatureError

# Several times those of a file of MOSEI's size with word times. More could fill the memory with
# empty lists.
_MAX_OPCODES = 10_000_000
# A file may create at least so many bytes of new strings: one string could be encoded endlessly.
_MADE_BYTES = 64 * 2**20
_MAX_DIMENSIONS = 32  # of NumPy 1
_SHOWN = 80  # characters of a name; the allowed names are shorter
_COPIED_BYTES = 1 << 12  # longer reads return a view of the file

_NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
_STRINGS = ("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
_BYTES = ("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8")
_VALUES = frozenset({*_NUMBERS, *_STRINGS, *_BYTES})
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
_GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})
_PYTHON_2 = frozenset({"STRING", "BINSTRING", "SHORT_BINSTRING"})


class _RefusedError(ValueError):
    """The pickle holds something that no feature file needs."""


def load(path: Path) -> Any:
    """Return the value of a pickle, with every array as a `PickledArray`.

    Keys of dictionaries must be strings, since hashing a nested tuple could take for ever.

    Raises:
        FeatureError: the file is absent, is not a complete pickle, or holds anything but NumPy
            arrays and plain containers. None of its code has run.
    """
    if path.exists() and not path.is_file():
        raise FeatureError(f"{path}: not a file (expected a pickle of features)")
    try:
        with path.open("rb") as file:
            if not path.stat().st_size:
                raise FeatureError(f"{path}: empty file (expected a pickle of features)")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise FeatureError(f"{path}: cannot be opened ({error.strerror})") from error
    if mapped[:4] == b"PK\x03\x04":
        raise FeatureError(f"{path}: a zip archive, as torch.save writes (expected a pickle)")
    try:
        return _run(_MappedFile(mapped))
    except _RefusedError as error:
        raise FeatureError(f"{path}: {error}; none of its code was run") from error
    except _MALFORMED as error:
        cause = " ".join(f"{type(error).__name__} {error}".split())[:200]
        raise FeatureError(f"{path}: not a complete pickle of features ({cause})") from error


_MALFORMED = (
    ValueError,  # includes text that is not UTF-8
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
    RecursionError,
    struct.error,
)


class _MappedFile:
    """A mapped file with the methods that `pickletools` uses."""

    def __init__(self, mapped: mmap.mmap) -> None:
        self._mapped, self._view, self._position = mapped, memoryview(mapped), 0
        self.size = len(mapped)

    def tell(self) -> int:
        return self._position

    def read(self, size: int) -> bytes | memoryview:
        part = self._view[self._position : self._position + size]
        self._position += len(part)
        return part if size > _COPIED_BYTES else bytes(part)

    def readline(self) -> bytes:
        end = self._mapped.find(b"\n", self._position) + 1
        if not end:
            raise ValueError("a line without an end")
        line = self._mapped[self._position : end]
        self._position = end
        return line


class PickledArray:
    """An array of the file.

    Attributes:
        content: the array, read-only, with its bytes in the file; an array of objects is a list.
    """

    __slots__ = ("content",)

    def __init__(self) -> None:
        self.content: NDArray[Any] | list[Any] = []


class _PickledDtype:
    """A type of array elements; a later opcode sets its byte order."""

    __slots__ = ("_code", "_order")

    def __init__(self, code: str) -> None:
        if not re.fullmatch(r"[<>|=]?(b1|[iu][1248]|f[248]|U[1-9]\d{0,6}|O8?)", code):
            raise _RefusedError(f"has an array of type {code[:40]!r} (expected numbers or strings)")
        self._code = code.lstrip("<>|=")
        self._order = code[0] if code[0] in "<>|=" else "="

    def set_state(self, state: Any) -> None:
        order, fields = state[1], state[2:5]
        if order not in ("<", ">", "|", "=") or any(part is not None for part in fields):
            raise _RefusedError("has an array of records (expected numbers or strings)")
        self._order = order

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype("O" if self._code[0] == "O" else self._order + self._code)


def _array(shape: Any, kind: Any, order: str, data: Any) -> NDArray[Any] | list[Any]:
    if not isinstance(kind, _PickledDtype):
        raise TypeError("an array without a type")
    # Checked before they are multiplied: a file may hold numbers of a million digits.
    if not (
        isinstance(shape, tuple)
        and len(shape) <= _MAX_DIMENSIONS
        and all(type(n) is int and 0 <= n < 2**48 for n in shape)
    ):
        raise TypeError("an array without a valid shape")
    size = math.prod(shape)
    if kind.dtype == object:
        if not isinstance(data, list) or len(data) != size or len(shape) != 1:
            raise ValueError(f"an array of objects of shape {shape} (expected one dimension)")
        return data
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError("an array without bytes")
    if size * kind.dtype.itemsize != len(data):
        raise ValueError(f"an array of shape {shape} and {kind.dtype} with {len(data)} bytes")
    if not size:
        return np.empty(shape, kind.dtype)
    array = np.frombuffer(data, kind.dtype).reshape(shape, order="F" if order == "F" else "C")
    if array.dtype.kind == "U":
        points = np.frombuffer(data, array.dtype.byteorder.replace("|", "=") + "u4")
        if points.max() > sys.maxunicode:
            raise ValueError("a string with a character beyond Unicode")
    return array


def _set_array_state(array: PickledArray, state: Any) -> None:
    _, shape, kind, fortran, data = state
    array.content = _array(shape, kind, "F" if fortran else "C", data)


@dataclass(frozen=True)
class _Named:
    """A name that feature files may use.

    Attributes:
        name: module and name.
        make: the function to call in its place; None: it must not be called.
    """

    name: str
    make: Callable[..., Any] | None


def _reconstruct(kind: Any, *_: Any) -> PickledArray:
    if not (isinstance(kind, _Named) and kind.name == "numpy.ndarray"):
        raise TypeError("an array of another class than numpy.ndarray")
    return PickledArray()


def _frombuffer(data: Any, kind: Any, shape: Any, order: Any) -> PickledArray:
    array = PickledArray()
    array.content = _array(shape, kind, order, data)
    return array


def _scalar(kind: Any, data: Any) -> Any:
    value = _array((1,), kind, "C", data)
    return value[0].item() if isinstance(value, np.ndarray) else value[0]


def _encode(text: str, encoding: str) -> bytes:
    if not (isinstance(text, str) and encoding in ("latin1", "latin-1")):
        raise ValueError("bytes in another encoding than Latin-1")
    return text.encode("latin-1")


def _empty_bytes() -> bytes:
    return b""


_NUMPY = ("numpy.core", "numpy._core")  # as NumPy 1 and NumPy 2 call it
_NAMES: dict[str, Callable[..., Any] | None] = {
    "numpy.ndarray": None,
    "numpy.dtype": lambda code, *_: _PickledDtype(code),
    **{f"{core}.multiarray._reconstruct": _reconstruct for core in _NUMPY},
    **{f"{core}.multiarray.scalar": _scalar for core in _NUMPY},
    **{f"{core}.numeric._frombuffer": _frombuffer for core in _NUMPY},
    "_codecs.encode": _encode,
    "builtins.bytes": _empty_bytes,  # as protocols 0 to 2 write b""
    "__builtin__.bytes": _empty_bytes,
    "collections.OrderedDict": lambda: {},
}


def _named(module: Any, name: Any) -> _Named:
    if not (isinstance(module, str) and isinstance(name, str)):
        raise TypeError("a name that is not text")  # not shown: nested lists may be endless
    full = f"{module[:_SHOWN]}.{name[:_SHOWN]}"
    if full not in _NAMES:
        shown = full if full.isprintable() else ascii(full)
        raise _RefusedError(
            f"asks for {shown} (expected NumPy arrays, strings, numbers and plain containers)"
        )
    return _Named(full, _NAMES[full])


def _run(file: _MappedFile) -> Any:
    """Return the value that a pickle builds."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    left = max(file.size, _MADE_BYTES)

    def since_mark() -> list[Any]:
        start = marks.pop()
        values = stack[start:]
        del stack[start:]
        return values

    for count, (opcode, argument, _) in enumerate(pickletools.genops(cast(IO[bytes], file))):
        if count > _MAX_OPCODES:
            raise _RefusedError(
                f"has more than {_MAX_OPCODES} opcodes (expected arrays, not lists)"
            )
        name = opcode.name
        if name in _VALUES:
            stack.append(argument)
        elif name in _GETS:
            stack.append(memo[cast(int, argument)])
        elif name in _PUTS:
            memo[len(memo) if name == "MEMOIZE" else cast(int, argument)] = stack[-1]
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "APPEND":
            value = stack.pop()
            _extend(stack[-1], [value])
        elif name == "APPENDS":
            values = since_mark()
            _extend(stack[-1], values)
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            _update(stack[-1], [key, value])
        elif name == "SETITEMS":
            values = since_mark()
            _update(stack[-1], values)
        elif name == "LIST":
            stack.append(since_mark())
        elif name == "TUPLE":
            stack.append(tuple(since_mark()))
        elif name == "DICT":
            values = since_mark()
            stack.append({})
            _update(stack[-1], values)
        elif name in _TUPLES:
            size = _TUPLES[name]
            if len(stack) < size:
                raise IndexError("too few values")
            stack[-size:] = [tuple(stack[-size:])]
        elif name == "GLOBAL":
            stack.append(_named(*str(argument).split(" ", 1)))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(_named(module, attribute))
        elif name == "REDUCE":
            arguments, called = stack.pop(), stack.pop()
            if not isinstance(called, _Named) or called.make is None:
                raise _RefusedError(f"calls {getattr(called, 'name', type(called).__name__)}")
            value = called.make(*arguments)
            left -= len(value) if isinstance(value, bytes | str) else 0
            if left < 0:
                raise _RefusedError("makes more bytes than it has")
            stack.append(value)
        elif name == "BUILD":
            state = stack.pop()
            _set_state(stack[-1], state)
        elif name == "STOP":
            (value,) = stack
            return value
        elif name == "INST":
            _named(*str(argument).split(" ", 1))
            raise _RefusedError("makes an object of a class (opcode INST)")
        elif name in _PYTHON_2:
            raise _RefusedError("was written by Python 2 (write it again with Python 3)")
        elif name not in ("PROTO", "FRAME"):
            raise _RefusedError(f"has opcode {name}, which no feature file needs")
    raise ValueError("no STOP opcode")


def _extend(target: Any, values: list[Any]) -> None:
    if type(target) is not list:
        raise TypeError(f"appends to {type(target).__name__}")
    target.extend(values)


def _update(target: Any, values: list[Any]) -> None:
    if type(target) is not dict or len(values) % 2:
        raise TypeError(f"sets items of {type(target).__name__}")
    for key, value in zip(values[::2], values[1::2], strict=True):
        if type(key) is not str:
            raise _RefusedError(f"has a dictionary with a key of type {type(key).__name__}")
        target[key] = value


def _set_state(target: Any, state: Any) -> None:
    if isinstance(target, PickledArray):
        _set_array_state(target, state)
    elif isinstance(target, _PickledDtype):
        target.set_state(state)
    else:
        raise _RefusedError(f"sets the state of {type(target).__name__.lstrip('_')}")
