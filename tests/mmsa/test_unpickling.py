"""Feature files are read, and no code in any other pickle runs."""

import builtins
import collections
import os
import pickle
import resource
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from mitfrnet.errors import FeatureError
from mitfrnet.mmsa import unpickling
from mitfrnet.mmsa.unpickling import PickledArray, load

VALUES = {
    "doubles": np.arange(24.0).reshape(2, 3, 4),
    "columns first": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "every second": np.arange(10)[::2],
    "big endian": np.arange(5, dtype=">i4"),
    "booleans": np.array([True, False]),
    "empty": np.zeros((0, 3), np.float32),
    "strings": np.array(["x", "yé"]),
    "scalar": np.float32(0.5),
    "string scalar": np.str_("hé"),
    "plain": [1, -3, 2**70, 0.5, True, None, "é😀\n", (), (1, 2, 3, 4), b"", b"abc" * 2000],
    "ordered": collections.OrderedDict(a=1),
}


def plain(value):
    """Return the value with arrays instead of `PickledArray`s."""
    if isinstance(value, PickledArray):
        return plain(value.content)
    return [plain(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_plain_containers_are_read_from_every_protocol(tmp_path, protocol):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(VALUES, protocol))
    content = load(path)
    assert list(content) == list(VALUES)
    for key, value in VALUES.items():
        assert (
            np.array_equal(plain(content[key]), value)
            if isinstance(value, np.ndarray)
            else (plain(content[key]) == value)
        ), key


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_objects_are_lists(tmp_path, protocol):
    path = tmp_path / "x.pkl"
    ragged = np.empty(2, object)
    ragged[:] = [np.ones(2), np.ones(3)]
    value = {"texts": np.array(["a", "bb", None], object), "ragged": ragged}
    path.write_bytes(pickle.dumps(value, protocol))
    content = load(path)
    assert plain(content["texts"]) == ["a", "bb", None]
    assert [a.tolist() for a in plain(content["ragged"])] == [[1, 1], [1, 1, 1]]


@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_numpy_1_and_2_name_their_modules_differently(tmp_path, core):
    data = pickle.dumps(np.arange(3.0), 2)
    ours = np.zeros(0).__reduce__()[0].__module__.removesuffix(".multiarray")
    path = tmp_path / "x.pkl"
    path.write_bytes(data.replace(ours.encode(), core.encode()))
    assert load(path).content.tolist() == [0, 1, 2]


def test_an_array_stays_in_the_file_until_it_is_used(tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(np.zeros(10**6), 4))
    array = load(path).content
    assert not array.flags.owndata
    assert not array.flags.writeable


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def short(text):
    return b"\x8c" + bytes([len(text)]) + text.encode()


def hostile(marker):
    """Return pickles that write `marker` when CPython loads them, with the name they call."""
    command = f"touch {marker}"
    python = f"open({str(marker)!r}, 'w').close()"
    text = b"V" + command.encode() + b"\n"
    return {
        "reduce os.system": (pickle.dumps(Call(os.system, command), 2), f"{os.name}.system"),
        "subprocess": (
            pickle.dumps(Call(subprocess.call, ["touch", str(marker)]), 4),
            "subprocess.call",
        ),
        "eval": (pickle.dumps(Call(builtins.eval, python), 4), "builtins.eval"),
        "exec": (
            pickle.dumps(Call(builtins.exec, python), 0),
            "__builtin__.eval".replace("eval", "exec"),
        ),
        "GLOBAL": (b"cos\nsystem\n(" + text + b"tR.", "os.system"),
        "STACK_GLOBAL": (
            b"\x80\x04" + short("os") + short("system") + b"\x93(" + text + b"tR.",
            "os.system",
        ),
        "STACK_GLOBAL of remembered names": (
            b"\x80\x04" + short("system") + b"\x94" + short("os") + b"h\x00\x93(" + text + b"tR.",
            "os.system",
        ),
        "a dotted name": (
            b"\x80\x04" + short("shutil") + short("os.system") + b"\x93(" + text + b"tR.",
            "shutil.os.system",
        ),
        "INST": (b"(" + text + b"ios\nsystem\n.", "os.system"),
        "OBJ": (b"(cos\nsystem\n" + text + b"o.", "os.system"),
        "NEWOBJ": (b"\x80\x02csubprocess\nPopen\n(" + text + b"t\x81.", "subprocess.Popen"),
        "inside an array": (
            pickle.dumps(np.array([Call(os.system, command)], object), 4),
            f"{os.name}.system",
        ),
        "as the state of an object": (
            pickle.dumps({"train": WithState(Call(os.system, command))}, 4),
            "WithState",
        ),
    }


class WithState:
    def __init__(self, state):
        self.state = state


def names_of_attacks():
    return list(hostile("x"))


@pytest.mark.parametrize("name", names_of_attacks())
def test_a_hostile_pickle_is_refused_by_name_and_does_nothing(tmp_path, name):
    marker = tmp_path / "acted"
    data, named = hostile(marker)[name]
    path = tmp_path / "x.pkl"
    path.write_bytes(data)
    with pytest.raises(FeatureError) as error:
        load(path)
    assert not marker.exists()
    assert str(error.value).startswith(f"{path}: asks for ")
    assert named in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [n for n in names_of_attacks() if n not in ("NEWOBJ", "OBJ")])
def test_hostile_pickles_do_act_in_cpython(tmp_path, name):
    """Otherwise the test above would prove nothing. Each runs in its own process."""
    marker = tmp_path / "acted"
    path = tmp_path / "x.pkl"
    path.write_bytes(hostile(marker)[name][0])
    code = f"""
import pickle, sys, types
class WithState: pass
module = sys.modules[{WithState.__module__!r}] = types.ModuleType("made")
module.WithState = WithState
try:
    pickle.load(open(sys.argv[1], "rb"))
except Exception:
    pass
"""
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=60)
    assert marker.exists()


BINARY = b"\x80\x04"
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01bt"
DOUBLE = b"cnumpy\ndtype\n(V<f8\nI00\nI01\ntR"


def array_of_shape(shape, data=b""):
    """Return the pickle of an array of doubles with any shape, a pickled tuple."""
    return ARRAY + b"R(K\x01" + shape + DOUBLE + b"I00\nC" + bytes([len(data)]) + data + b"tb."


MALFORMED = {
    "an extension code": (BINARY + b"\x82\x01.", "opcode EXT1"),
    "a persistent id": (b"Pos.system\n.", "opcode PERSID"),
    "an out-of-band buffer": (b"\x80\x05\x97.", "opcode NEXT_BUFFER"),
    "an object of a class": (BINARY + b")\x8f.", "opcode EMPTY_SET"),
    "a name of control characters": (b"cos\x1b[2J\nsystem\n.", r"os\x1b[2J.system"),
    "a call of an array": (ARRAY + b"R)R.", "calls PickledArray"),
    "a call of numpy.ndarray": (
        b"cnumpy\nndarray\n((L1000000000000L\nttR.",
        "calls numpy.ndarray",
    ),
    "a state for a list": (b"(l}b.", "sets the state of list"),
    "a state for a name": (b"cnumpy\ndtype\n}b.", "sets the state of Named"),
    "another class of arrays": (ARRAY.replace(b"ndarray", b"dtype") + b"R.", "another class"),
    "records": (b"cnumpy\ndtype\n(VV8\nI00\nI01\ntR.", "has an array of type 'V8'"),
    "a giant shape": (array_of_shape(b"L1000000000000L\n\x85"), "an array of shape"),
    "a negative shape": (array_of_shape(b"I-1\n\x85"), "without a valid shape"),
    "a memo index of 2**31": (BINARY + b"]r\xff\xff\xff\xff(j\xff\xff\xff\x7ft.", "KeyError"),
    "a giant string": (BINARY + b"\x8d" + struct.pack("<Q", 2**40) + b"x.", "bytes"),
    "a giant number of bytes": (BINARY + b"\x8e" + struct.pack("<Q", 2**62) + b"x.", "bytes"),
    "a nested key": (BINARY + b"}))\x86)s.", "key of type tuple"),
    "no stack": (BINARY + b"0.", "POP"),
    "no mark": (BINARY + b"t.", "IndexError"),
    "no end": (BINARY + b"]", "pickle exhausted before seeing STOP"),
    "text": (b"video_id,clip_id,text\n", "not a complete pickle"),
    "Python 2": (b"S'x'\n.", "written by Python 2"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_pickle_is_one_line(tmp_path, name):
    data, said = MALFORMED[name]
    path = tmp_path / "x.pkl"
    path.write_bytes(data)
    with pytest.raises(FeatureError) as error:
        load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)


def test_every_truncation_is_one_line(tmp_path):
    data = pickle.dumps({"a": np.arange(3), "b": ["x", 1.5]}, 4)
    path = tmp_path / "x.pkl"
    for end in range(1, len(data)):
        path.write_bytes(data[:end])
        with pytest.raises(FeatureError, match=r"not a complete pickle"):
            load(path)


def test_nested_lists_cost_no_more_than_the_file(tmp_path):
    """Each list holds the previous one ten times: 10**60 values if written out."""
    nested = []
    for _ in range(60):
        nested = [nested] * 10
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(nested, 4))
    assert len(load(path)) == 10


def test_a_pickle_with_too_many_opcodes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(unpickling, "_MAX_OPCODES", 1000)
    path = tmp_path / "x.pkl"
    path.write_bytes(BINARY + b"]" * 2000 + b".")
    with pytest.raises(FeatureError, match="more than 1000 opcodes"):
        load(path)


def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("start", [b"", BINARY, b"I", BINARY + b"\x8e" + struct.pack("<Q", 2**40)])
def test_a_sparse_file_of_a_gigabyte_is_refused_without_reading_it(tmp_path, start):
    path = tmp_path / "x.pkl"
    with path.open("wb") as file:
        file.write(start)
        file.truncate(1 << 30)
    before = peak_bytes()
    with pytest.raises(FeatureError, match="not a complete pickle"):
        load(path)
    if start != b"I":  # searches the mapped file for an end of line
        assert peak_bytes() - before < 100 << 20


def test_errors_say_what_is_not_a_pickle(tmp_path):
    (tmp_path / "empty.pkl").touch()
    with zipfile.ZipFile(tmp_path / "torch.pkl", "w") as archive:
        archive.writestr("data.pkl", b"x")
    for name, said in {
        "none.pkl": "cannot be opened",
        "empty.pkl": "empty file",
        ".": "not a file",
        "torch.pkl": "a zip archive",
    }.items():
        with pytest.raises(FeatureError, match=said):
            load(tmp_path / name)


def doubled(levels):
    """Return opcodes that leave [x, x] of [x, x] of ... on the stack, memoized at each level."""
    code = b"]q\x00"
    for i in range(levels):
        code += b"]q" + bytes([i + 1]) + b"(h" + bytes([i]) + b"h" + bytes([i]) + b"e"
    return code


HUGE = b"\x8b" + struct.pack("<i", 100_000) + b"\x7f" * 100_000  # LONG4
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"
BOMBS = {
    "a name that is a list of lists": b"\x80\x04" + doubled(40) + b"\x8c\x01x\x93.",
    "a name that is a nested tuple": b"\x80\x04)" + b"\x85" * 5000 + b"\x8c\x01x\x93.",
    "a shape of huge numbers": (
        b"\x80\x04" + ARRAY + b"(K\x01(" + HUGE + b"\x94" + b"h\x00" * 50
        + b"tcnumpy\ndtype\n(\x8c\x02f8tR\x89C\x08" + b"0" * 8 + b"tb."
    ),
    "a string made many times": (
        b"\x80\x04X" + struct.pack("<i", 2**20) + b"x" * 2**20 + b"\x94("
        + b"c_codecs\nencode\nh\x00\x8c\x06latin1\x86R" * 400 + b"t."
    ),
    "a character beyond Unicode": (
        b"\x80\x04" + ARRAY + b"(K\x01(K\x01tcnumpy\ndtype\n(\x8c\x02U1tR\x89C\x04"
        + b"\xff" * 4 + b"tb."
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_costs_neither_time_nor_memory(tmp_path, name):
    """Runs in its own process, with limited memory and time."""
    path = tmp_path / "bomb.pkl"
    path.write_bytes(BOMBS[name])
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from mitfrnet.errors import FeatureError\n"
        "from mitfrnet.mmsa.unpickling import load\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    load(Path(sys.argv[1]))\n"
        "except FeatureError as error:\n    assert len(str(error).splitlines()) == 1\n"
        "else:\n    sys.exit('taken')\n"
        "grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before\n"
        "sys.exit('memory' if grown > 200_000 else 0)\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 0, process.stderr[-500:]
