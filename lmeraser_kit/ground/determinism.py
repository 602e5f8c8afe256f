"""Where and how numbers are computed: the device, arithmetic whose bits are the same from run to run, progress bars.

Bits are comparable only on one platform, one torch and one number of intra-op threads. `exact_arithmetic` fixes what
can be fixed, `environment` names the rest, and every address and receipt carries it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import threading
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
import torch
import torch.nn.functional as F
import torch.utils.deterministic
from threadpoolctl import ThreadpoolController, threadpool_info
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm as plain_tqdm
from tqdm.auto import tqdm as lab_tqdm

from lmeraser_kit import checks
from lmeraser_kit.ground.hashing import digest

FOR_DEBUGGING: Any = torch.utils.deterministic
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts; without it cuBLAS is not exact


def keep_freed_memory(keep: bool = True) -> None:
    """Whether memory that tensors leave is kept for the next ones (up to 1 GiB), or given back to the system at once.

    PyTorch leaves that to the C library. GNU's gives blocks of more than 32 MiB back whenever they are freed, and the
    system clears each page when it is touched again: of a backward pass on a CPU that can be a third. Other
    systems' libraries are left alone. The kit switches this on when it is imported; bits are the same either way.
    """
    with contextlib.suppress(AttributeError):  # no mallopt: not GNU's
        mallopt = ctypes.CDLL(None).mallopt
        trim_threshold, mmap_threshold, mmap_max = -1, -3, -4  # malloc.h: M_TRIM_THRESHOLD, ...
        for name, value in ((trim_threshold, 2**30 if keep else 2**26), (mmap_threshold, 2**25)):
            mallopt(name, value)
        mallopt(mmap_max, 0 if keep else 2**16)


keep_freed_memory()


def progress(steps, **options):
    """A progress bar, for what takes more than a second: a widget in JupyterLab, text in a terminal, else nothing.

    A batch run would store the bar each time that it moves. Only Jupyter's server sets JPY_SESSION_NAME.
    """
    if "JPY_SESSION_NAME" in os.environ:
        return lab_tqdm(steps, delay=1.0, mininterval=1.0, **options)
    hidden = options.pop("disable", False) or None  # tqdm's None: only a terminal shows it
    return plain_tqdm(steps, delay=1.0, mininterval=1.0, disable=hidden, **options)


_settings = threading.RLock()


@contextlib.contextmanager
def exact_arithmetic(threads: int) -> Iterator[None]:
    """Deterministic kernels, no TF32, a fixed number of intra-op threads; what was set before is put back after.

    These are settings of the process: another thread that wants them waits until they have been put back.

    Raises:
        ValueError: If `threads` is no whole number from 1.
    """
    threads = checks.whole("threads", threads)
    with _settings:
        yield from _exact_arithmetic(threads)


def _exact_arithmetic(threads: int) -> Iterator[None]:
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.allow_tf32,
        torch.get_float32_matmul_precision(),
        torch.get_num_threads(),
        FOR_DEBUGGING.fill_uninitialized_memory,
    )
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    torch.set_num_threads(threads)
    FOR_DEBUGGING.fill_uninitialized_memory = False  # for finding bugs; it costs time and changes no result
    try:
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):  # memory-efficient attention is not exact
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = before[2:4]
        torch.set_float32_matmul_precision(before[4])
        torch.set_num_threads(before[5])
        FOR_DEBUGGING.fill_uninitialized_memory = before[6]


@contextlib.contextmanager
def memory_errors(what: str, advice: str) -> Iterator[None]:
    """Says what did not fit and what to do. Smaller batches are not tried by themselves: they round differently.

    Raises:
        MemoryError: If the device runs out of memory.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(f"the device has not enough memory for {what}: {advice}") from error


@functools.cache
def versions() -> dict[str, str]:
    """Versions of the packages that compute bits; looked up once, because it takes milliseconds."""
    return {name: metadata.version(name) for name in ("torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn")}


PACKAGE = Path(__file__).parents[1]
NO_BITS = ("store", "evaluation", "figures", "experiments", "testing", "lab")  # they compute no bit of a model


def computing_files(package: Path = PACKAGE) -> list[Path]:
    """The kit's own files that may compute bits of a backbone, a state or a shadow model, in order."""
    return [p for p in sorted(package.rglob("*.py")) if p.relative_to(package).with_suffix("").parts[0] not in NO_BITS]


@functools.cache
def code_digest(package: Path = PACKAGE) -> str:
    """A hash of the kit's own code that computes bits, in hex: what other code has made is made anew."""
    files = computing_files(package)
    return digest(*(part for p in files for part in (str(p.relative_to(package)), p.read_bytes())))[:16]


class OneThread:
    """NumPy's and SciPy's products on one thread, because bits may depend on their number.

    `threadpool_limits` looks for all libraries of the process each time, which takes milliseconds. Here they are looked
    for once: those of NumPy, SciPy and PyTorch are loaded when this module is.
    """

    def __init__(self) -> None:
        self._here = threading.local()

    def __enter__(self) -> None:
        self._here.depth = getattr(self._here, "depth", 0) + 1
        if self._here.depth == 1:
            self._here.limits = _libraries().limit(limits=1)

    def __exit__(self, *error: object) -> None:
        self._here.depth -= 1
        if not self._here.depth:
            self._here.limits.restore_original_limits()


one_thread = OneThread()


@functools.cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


@functools.cache
def blas() -> str:
    """The matrix libraries that NumPy and SciPy compute with: name, version, and the kernels chosen for this chip.

    One version has many kernels, which round differently, and a variable such as OPENBLAS_CORETYPE chooses another one.
    """
    loaded = {lib["filepath"]: lib for lib in threadpool_info() if lib["user_api"] == "blas"}
    homes = ("numpy.libs", "scipy.libs", "numpy", "scipy")  # of wheels; conda has one library for both
    own = [lib for path, lib in loaded.items() if set(homes) & set(Path(path).parts[-3:])] or list(loaded.values())
    parts = {" ".join(str(lib.get(k, "")) for k in ("internal_api", "version", "architecture")).strip() for lib in own}
    return "; ".join(sorted(parts)) or "unknown"


@functools.cache
def probe_numpy() -> str:
    """A hash of what NumPy and SciPy compute here, in hex: products, a solution, sums and functions, on one thread."""
    with one_thread:
        wave = np.sin(np.arange(300 * 90, dtype=np.float64) * 0.37).reshape(300, 90)
        gram = wave.T @ wave
        square, single = gram + np.eye(90), wave.astype(np.float32)
        parts = [gram, wave @ wave.T, single.T @ single, np.linalg.solve(square, wave[:90])]
        parts += [scipy.linalg.cho_factor(square)[0], np.exp(wave), np.log1p(wave**2), wave.std(axis=0)]
    return digest(*(np.ascontiguousarray(part).tobytes() for part in parts))[:16]


@functools.cache
def probe(device: str, threads: int) -> str:
    """A hash of what this machine computes for a few small layers, forward and backward, in hex.

    A chip's name does not say which kernels are chosen, nor how they round: another maker's chip, or a setting of a
    library, may change bits. This does not find every difference, but the common ones.
    """
    with exact_arithmetic(threads):
        hashed = hashlib.sha256()
        for rows, width in ((32, 64), (17, 192), (64, 384)):
            wave = torch.arange(rows * width, dtype=torch.float32).mul_(0.37).sin_().view(1, rows, width)
            x = wave.to(device).requires_grad_(True)
            heads = F.linear(F.layer_norm(x, (width,)), x[0, :16].detach()).view(1, rows, 2, 8).transpose(1, 2)
            y = F.scaled_dot_product_attention(heads, heads, F.gelu(heads))
            z = F.conv2d(x[:, None], x[:, None, :5, :5].detach(), stride=2).softmax(-1)
            (y.sum() + z.square().sum()).backward()
            for tensor in (y, z, x.grad):
                assert tensor is not None
                hashed.update(tensor.detach().cpu().numpy().tobytes())
    return hashed.hexdigest()[:16]


OF_NUMPY = ("numpy", "scipy", "scikit-learn", "blas", "probe_numpy")


def environment(device: torch.device | str, threads: int, numpy: bool = True) -> dict[str, str | int]:
    """What the bits of a result depend on besides its inputs: they can be compared only where this is the same.

    Args:
        device: Where the backbone is.
        threads: Intra-op threads.
        numpy: Whether what rounds in NumPy and SciPy counts. Sums of whole numbers do not round.
    """
    device, threads = torch.device(device), checks.whole("threads", threads)
    chip, libraries = torch.backends.cpu.get_cpu_capability(), {}
    if device.type == "cuda":
        chip = torch.cuda.get_device_name(device)
        libraries["cuda"] = f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
        libraries["cublas_workspace"] = os.environ.get("CUBLAS_WORKSPACE_CONFIG", "")
    everything: dict[str, str | int] = {
        **versions(),
        "kit": code_digest(),
        "machine": platform.machine(),
        "device": device.type,
        "chip": chip,
        "probe": probe(str(device), threads),
        "blas": blas(),
        "probe_numpy": probe_numpy(),
        "threads": threads,
        **libraries,
    }
    return {name: value for name, value in everything.items() if numpy or name not in OF_NUMPY}


def environment_in_words(device: torch.device | str, threads: int) -> str:
    """`environment` on a line, for a reader: `torch 2.14.1, ..., device cpu, threads 1`."""
    return ", ".join(f"{name} {value}" for name, value in environment(device, threads).items())


def pick_device(device: str = "auto") -> torch.device:
    """`auto` is CUDA where there is one, then MPS, then the CPU; any other name is torch's.

    Raises:
        ValueError: If the name is none, or there is no such device here.
    """
    if device != "auto":
        try:
            chosen = torch.device(device)
            torch.empty(0, device=chosen)
        except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:  # a build without CUDA asserts
            first = str(error).splitlines()[0]
            raise ValueError(f"device is {device!r}, expected auto, cpu, cuda, cuda:0, mps, ...: {first}") from error
        return chosen
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def native_precisions(device: str = "auto") -> list[str]:
    """The precisions that a device computes in by itself: float32, and bfloat16 where it is not emulated, slowly."""
    if pick_device(device).type == "cpu":
        native = any(has for name, has in torch.cpu.get_capabilities().items() if "bf16" in name)
    else:
        native = pick_device(device).type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return ["float32", "bfloat16"] if native else ["float32"]
