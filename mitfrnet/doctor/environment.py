"""What this Python and this machine hold: packages, decoders, detector, GPU."""

from __future__ import annotations

import contextlib
import json
import operator
import os
import platform
import re
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mitfrnet.doctor.findings import ERROR, OK, REMARK, Finding, one_line
from mitfrnet.doctor.processes import run_process

if TYPE_CHECKING:
    from mitfrnet.media.decode import Frame

ROOT = Path(__file__).resolve().parents[2]  # in a checkout, the folder of pyproject.toml
INSTALL = (
    "run `make install`, or in an environment of your own: pip install -c constraints.txt -e ."
)

# Where the module is not called as its distribution.
_MODULES = {
    "opencv-python": "cv2",
    "pyyaml": "yaml",
    "ruamel.yaml.clib": "_ruamel_yaml",
    "scikit-learn": "sklearn",
}
_IMPORTS_S = 200.0  # for all of them; less than a check has
_IMPORT = """
import importlib, json, os, sys
output = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for module in sys.argv[1:]:
    error = ""
    try:
        importlib.import_module(module)
    except BaseException as e:
        error = f"{type(e).__name__}: {e}"
    print(json.dumps(error), file=output, flush=True)
"""

# What corpora of clips come in. Without another of them, clips in it lack picture or sound.
_DECODERS = {
    "picture": ("h264", "hevc", "vp8", "vp9", "libdav1d", "mpeg4", "mpeg2video", "mjpeg"),
    "sound": ("aac", "mp3", "opus", "vorbis", "flac", "ac3", "pcm_s16le"),
}
_WORKER_GIB = 0.5  # with librosa or MediaPipe loaded
_RATE_HZ, _FPS, _FRAMES = 16000, 10, 5
_OPERATORS = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
    "!=": operator.ne,
}


def python(root: Path = ROOT) -> Iterator[Finding]:
    """Check the version of Python, and what it was built for."""
    requires = _requires_python(root)
    machine, libc = platform.machine(), " ".join(platform.libc_ver())
    parts = (f"{platform.python_version()} of {sys.prefix}", machine, platform.system(), libc)
    found = ", ".join(part for part in parts if part.strip())
    if not _within(sys.version_info[:2], requires):
        found = f"{found} (expected {requires})"
        yield Finding("Python", ERROR, found, f"with such a Python: {INSTALL}")
    elif sys.maxsize < 2**32:
        advice = "install a 64-bit Python: PyTorch and MediaPipe have no others"
        yield Finding("Python", ERROR, f"{found}, 32-bit", advice)
    else:
        yield Finding("Python", OK, found)
    if platform.system() == "Linux" and (machine != "x86_64" or not libc.startswith("glibc")):
        yield Finding(
            "wheels",
            REMARK,
            f"on Linux, MediaPipe 0.10.21 has wheels for x86_64 with glibc; this is {machine}"
            f"{'' if libc.startswith('glibc') else ' without glibc'}",
            "if it does not install, use such a machine or container",
        )


def _requires_python(root: Path) -> str:
    project = root / "pyproject.toml"
    if project.is_file():
        text = project.read_text(encoding="utf-8")
        found = re.search(r'^requires-python = "([^"]*)"', text, re.MULTILINE)
        return found.group(1) if found else ""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.metadata("mitfrnet")["Requires-Python"] or ""
    return ""


def _within(version: Sequence[int], requires: str) -> bool:
    """Return whether a version fulfils clauses such as `>=3.10,<3.13`."""
    for sign, number in re.findall(r"(>=|<=|==|!=|<|>)\s*([\d.]+)", requires):
        bound = tuple(map(int, number.split(".")))
        if not _OPERATORS[sign](tuple(version), bound):
            return False
    return True


def packages(root: Path = ROOT, timeout_s: float = _IMPORTS_S) -> Iterator[Finding]:
    """Check that each declared package is there in a version that fits, and that it imports."""
    declared = _declared(root)
    versions = {name: _version(name) for name in declared}
    absent = [name for name in declared if versions[name] is None]
    if absent:
        found = f"{len(absent)} of {len(declared)} not installed: {', '.join(absent)}"
        yield Finding("packages", ERROR, found, INSTALL)
    there = {name: version for name, version in versions.items() if version is not None}
    unfit = set()
    for name, problem in _misfits(there, declared, root):
        if problem.level == ERROR:
            unfit.add(name)
        yield problem

    failed, untried = _import_errors(there, timeout_s)
    for error, names in failed.items():
        found = f"cannot be imported ({error})"
        yield Finding(", ".join(names), ERROR, found, _advice(error, *names))
    if untried:
        yield Finding("packages", REMARK, f"not tried, as time ran out: {', '.join(untried)}")
    unfit |= set(untried).union(*failed.values())
    good = [f"{name} {version}" for name, version in there.items() if name not in unfit]
    if good:
        yield Finding("packages", OK, ", ".join(good))


def _declared(root: Path) -> dict[str, str]:
    """Return what the project needs to run: requirements by name."""
    project = root / "pyproject.toml"
    requirements: list[str] = []
    if project.is_file():  # newer than what an editable install noted
        text = project.read_text(encoding="utf-8")
        block = re.search(r"^dependencies = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
        requirements = re.findall(r'^\s*"([^"]+)"', block.group(1) if block else "", re.MULTILINE)
    else:
        with contextlib.suppress(metadata.PackageNotFoundError):
            requirements = metadata.requires("mitfrnet") or []
    needed = [line for line in requirements if "extra ==" not in line]
    return {re.split(r"[^\w.-]", line, maxsplit=1)[0]: line for line in needed}


def _version(name: str) -> str | None:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return None


def _misfits(
    versions: dict[str, str], declared: dict[str, str], root: Path
) -> Iterator[tuple[str, Finding]]:
    """Yield versions that the project does not admit, and those that are not the pinned ones."""
    try:
        from packaging.requirements import Requirement
        from packaging.utils import canonicalize_name
    except ImportError:  # it is declared too, so that its absence is told
        return
    for name, version in versions.items():
        needed = Requirement(declared[name]).specifier
        if not needed.contains(version, prereleases=True):
            yield name, Finding(name, ERROR, f"{version} (expected {needed})", INSTALL)
    pins = root / "constraints.txt"
    if not pins.is_file():
        return
    lines = (line.partition("#")[0].strip() for line in pins.read_text("utf-8").splitlines())
    pinned = [Requirement(line) for line in lines if line]
    pinned = [pin for pin in pinned if pin.marker is None or pin.marker.evaluate()]
    by_name = {canonicalize_name(pin.name): pin.specifier for pin in pinned}
    others = [
        f"{name} {version} (pinned: {pin})"
        for name, version in versions.items()
        if (pin := by_name.get(canonicalize_name(name))) is not None
        and not pin.contains(version, prereleases=True)
    ]
    if others:
        found = f"not those that the project is tested with: {', '.join(others)}"
        yield "", Finding("versions", REMARK, found, f"where something fails: {INSTALL}")


def _import_errors(
    names: dict[str, str], timeout_s: float
) -> tuple[dict[str, list[str]], list[str]]:
    """Import packages one after the other, in a process that is replaced when it ends too soon.

    Returns:
        names by the error of their import, and those for which no time was left.
    """
    failed: dict[str, list[str]] = {}
    waiting = list(names)
    end = time.monotonic() + timeout_s
    while waiting and (left := end - time.monotonic()) > 0:
        modules = [_MODULES.get(name.lower(), name.lower().replace("-", "_")) for name in waiting]
        output, ending = run_process([sys.executable, "-c", _IMPORT, *modules], timeout_s=left)
        errors = [json.loads(line) for line in output.splitlines()]
        if len(errors) < len(waiting):
            errors.append(f"the import ends the process: {ending}")
        for i, error in enumerate(errors):
            if error:
                failed.setdefault(one_line(error), []).append(waiting[i])
        waiting = waiting[len(errors) :]
    return failed, waiting


def _advice(error: str, *names: str) -> str:
    """Return what to do about packages whose import gives an error."""
    library = re.search(r"(lib[\w+.-]+?\.so[.\d]*): cannot open shared object", error)
    if library is None:
        return _reinstall(*names)
    if re.match("lib(GL|glib|gthread)", library.group(1)):
        return "on Debian and Ubuntu: apt-get install libgl1 libglib2.0-0"
    return f"install the system package that holds {library.group(1)}"


def _reinstall(*names: str) -> str:
    return f"pip install --force-reinstall -c constraints.txt {' '.join(names)}"


def libgl() -> Iterator[Finding]:
    """Check that OpenCV finds the libraries of the system that its wheel lacks."""
    try:
        import cv2
    except ModuleNotFoundError:
        raise
    except ImportError as error:
        yield Finding(
            "libGL", ERROR, f"OpenCV does not load ({error})", _advice(str(error), "opencv-python")
        )
        return
    yield Finding("libGL", OK, f"OpenCV {cv2.__version__} loads")


def decoders() -> Iterator[Finding]:
    """Check which decoders PyAV carries, and that a clip it writes is read again."""
    import av
    import numpy as np

    from mitfrnet.media.decode import iter_frames, read_waveform

    known = set(av.codec.codecs_available)
    lacking = [name for names in _DECODERS.values() for name in names if name not in known]
    if lacking:
        yield Finding(
            "decoders",
            REMARK,
            f"none for {', '.join(lacking)}: clips in them lack picture or sound",
            f"take PyAV's wheel, which has them: {_reinstall('av --only-binary av')}",
        )
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mkv"
        _write_clip(clip, np.full((48, 64, 3), 200, np.uint8))
        frames = [frame for _, frame in iter_frames(clip, fps=_FPS, limits=_limits())]
        sound = read_waveform(clip, sample_rate_hz=_RATE_HZ, limits=_limits())
    level, brightness = float(np.abs(sound).max()), float(np.mean(frames))
    found = f"{len(frames)} frames of brightness {brightness:.0f}, sound up to {level:.2f}"
    if len(frames) != _FRAMES or abs(brightness - 200) > 10 or abs(level - 0.5) > 0.05:
        expected = f"{_FRAMES} frames of 200, sound up to 0.5"
        found = f"a clip is read as {found} (expected {expected})"
        yield Finding("decoders", ERROR, found, _reinstall("av"))
        return
    names = "; ".join(
        f"{kind}: {', '.join(name for name in names if name in known)}"
        for kind, names in _DECODERS.items()
    )
    yield Finding("decoders", OK, f"FFmpeg {av.ffmpeg_version_info} writes and reads; {names}")


def _limits() -> Any:
    from mitfrnet.media.decode import MediaLimits

    return MediaLimits(max_duration_s=10, max_pixels=10**6, max_bytes=10**7, max_streams=2)


def _write_clip(path: Path, picture: Frame) -> None:
    """Write half a second of one picture, (height, width, 3), with a tone."""
    import av
    import numpy as np

    with av.open(str(path), "w") as out:
        video: Any = out.add_stream("mpeg4", rate=_FPS, options={"qscale": "1"})
        video.height, video.width, video.pix_fmt = *picture.shape[:2], "yuv420p"
        audio: Any = out.add_stream("pcm_s16le", rate=_RATE_HZ, layout="mono")
        for _ in range(_FRAMES):
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        seconds = np.arange(_RATE_HZ * _FRAMES // _FPS) / _RATE_HZ
        tone = (0.5 * 32768 * np.sin(2 * np.pi * 440 * seconds)).astype(np.int16)
        sound = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        sound.sample_rate, sound.pts = _RATE_HZ, 0
        out.mux(audio.encode(sound))
        for stream in (video, audio):
            out.mux(stream.encode(None))


def face_detector() -> Iterator[Finding]:
    """Check that MediaPipe finds a face in a clip, as extraction would."""
    from mitfrnet.doctor.project import visual_backend
    from mitfrnet.features import visual
    from mitfrnet.features.extractor import Clip
    from mitfrnet.features.face_detection import model_path

    name = "face detector"
    backend = visual_backend()
    if backend is None:
        yield Finding(name, OK, "not needed: extract.visual names another extractor")
        return
    if backend == "face_landmarker" and not model_path().is_file():
        yield Finding(name, REMARK, f"{backend}: not tried, as its model is not here")
        return
    params = visual.VisualParams(
        fps=_FPS,
        backend=backend,
        groups=["head_pose"],
        min_detection_confidence=0.5,
        max_side=None,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "face.mkv"
        _write_clip(path, _drawn_face())
        extractor = visual.VisualExtractor(params, _limits())
        features = extractor.extract(Clip(utterance_id="face", path=path, transcript=""))
    found = f"MediaPipe {metadata.version('mediapipe')}, {backend}"
    if features.detected.all():
        yield Finding(name, OK, f"{found}: finds a drawn face")
    else:
        times = f"{int(features.detected.sum())} of {len(features.detected)}"
        found += f": finds a drawn face in {times} frames"
        yield Finding(name, ERROR, found, _reinstall("mediapipe"))


def _drawn_face() -> Frame:
    """Return a face that MediaPipe takes for one, (192, 192, 3) in RGB."""
    import cv2
    import numpy as np

    picture = np.full((192, 192, 3), (170, 190, 200), np.uint8)

    def ellipse(x: int, y: int, width: int, height: int, colour: tuple[int, int, int]) -> None:
        cv2.ellipse(picture, (x, y), (width, height), 0, 0, 360, colour, -1, cv2.LINE_AA)

    def arc(x: int, y: int, width: int, height: int, colour: tuple[int, int, int]) -> None:
        cv2.ellipse(picture, (x, y), (width, height), 0, 0, 180, colour, 3, cv2.LINE_AA)

    hair, skin, shade = (60, 45, 40), (224, 180, 150), (200, 155, 130)
    ellipse(96, 84, 52, 60, hair)
    ellipse(96, 100, 46, 58, skin)
    for x in (77, 115):
        ellipse(x, 88, 10, 5, (255, 255, 255))
        ellipse(x, 88, 5, 5, hair)
        arc(x, 76, 12, 4, hair)
    cv2.line(picture, (96, 92), (94, 108), shade, 2, cv2.LINE_AA)
    arc(96, 110, 8, 5, shade)
    ellipse(96, 132, 16, 5, (180, 80, 80))
    return picture


def gpu() -> Iterator[Finding]:
    """Check which GPU PyTorch can use; none is fine."""
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    if usable:
        torch.ones(8, device="cuda").sum().item()  # fails where PyTorch was built for other GPUs
        for i in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(i)
            found = f"{device.name}, {device.total_memory / 2**30:.0f} GiB, CUDA"
            yield Finding("GPU", OK, f"{found} {torch.version.cuda or torch.version.hip}")
        return
    found = f"PyTorch {torch.__version__} finds none: all runs on the CPU"
    reason = "; ".join(one_line(str(warning.message)) for warning in caught)
    if reason:
        found += f" ({reason})"
    advice = ""
    if shutil.which("nvidia-smi") and torch.version.cuda is None:
        advice = "a driver of NVIDIA is here: install PyTorch's CUDA build"
    elif shutil.which("nvidia-smi"):
        advice = "see whether `nvidia-smi` shows a GPU, and a driver as new as CUDA "
        advice += str(torch.version.cuda)
    yield Finding("GPU", REMARK, found, advice)


def machine() -> Iterator[Finding]:
    """Check cores and memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = _memory_gib()
    if memory is None:
        yield Finding("machine", OK, f"{cores} cores")
        return
    found = f"{cores} cores, {memory:.1f} GiB of memory"
    if memory < 1 + (cores or 1) * _WORKER_GIB:
        workers = max(1, int((memory - 1) / _WORKER_GIB))
        found += f", little for a worker of {_WORKER_GIB} GiB on each core"
        yield Finding("machine", REMARK, found, f"set run.workers in params.yaml to {workers}")
    else:
        yield Finding("machine", OK, found)


def _memory_gib() -> float | None:
    """Return the memory that this process may use, as far as the system says."""
    sizes = []
    with contextlib.suppress(AttributeError, ValueError, OSError):  # not on every system
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for limit in ("memory.max", "memory/memory.limit_in_bytes"):  # of a container
        with contextlib.suppress(ValueError, OSError):
            sizes.append(int((Path("/sys/fs/cgroup") / limit).read_text()))
    return min(sizes) / 2**30 if sizes else None
