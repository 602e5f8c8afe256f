"""Image files as pixels: what a camera or a scanner writes is read rightly, or refused by name.

Which modes an image can have follows from Pillow's readers. Pixels are decoded once in a process, into a memory-mapped
file that has no name. The system may page it out, and it is gone when the process ends, however it ends: reading leaves
no copy of a private image on disk.
"""

from __future__ import annotations

import contextlib
import functools
import math
import mmap
import os
import re
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path

import joblib
import numpy as np
from PIL import Image, ImageOps
from torchvision.datasets.folder import IMG_EXTENSIONS

from lmeraser_kit import checks
from lmeraser_kit.data.inputs import files_below
from lmeraser_kit.ground.determinism import progress

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")  # by content: a GIF is often named .jpg
PART_NAMES = {"train", "training", "test", "testing", "val", "valid", "validation"}  # no names of classes
BITS_PER_SAMPLE, PHOTOMETRIC, PLANES, SAMPLE_FORMAT = 258, 262, 284, 339  # TIFF's tags
WHITE_IS_ZERO, SEPARATE_PLANES, UNSIGNED = 0, 2, 1
READ_MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I;16B"}
RANGE_UNKNOWN = "values whose range is unknown; scale them to 0 to 255 and save them as 8 bits"
FOLDER_SIDE = 224  # pixels: images in folders have many sizes
KEPT = 4  # arrays of decoded images in a process: training and test part of two datasets


def class_folders(path: Path) -> tuple[dict[Path, list[tuple[Path, int]]], list[str]]:
    """The image files of a dataset's class folders, path/CLASS/*, or path/train/CLASS/* and path/test/CLASS/*.

    One warning counts what is left out: other files in class folders, and images elsewhere.

    Returns:
        For each part's folder (`path` itself, or its train and test) the image files with their class's number; and
        the classes' names.

    Raises:
        ValueError: If there are fewer than two classes, one without images, or others in test than in train.
    """
    in_parts = (path / "train").is_dir()
    folders = [path / part for part in ("train", "test") if (path / part).is_dir()] if in_parts else [path]
    classes = [_class_names(folder) for folder in folders]
    if classes[0] != classes[-1]:
        odd = sorted(set(classes[0]) ^ set(classes[-1]))[0]
        raise ValueError(f"{path}: train and test have different class folders, such as {odd!r}")
    parts = {folder: _labelled(folder, classes[0]) for folder in folders}
    read, depth = {file for images in parts.values() for file, _ in images}, 2 if in_parts else 1
    left_out = [
        file
        for file in files_below(path)
        if file not in read and (_is_image(file) or len(file.relative_to(path).parts) > depth)
    ]
    if left_out:
        warnings.warn(
            f"{len(left_out)} files under {path} are not read, such as {left_out[0].relative_to(path)}; read are "
            f"{', '.join(IMG_EXTENSIONS)} in class folders (of train and test, where these are): convert or move them",
            stacklevel=2,
        )
    return parts, classes[0]


def owner_folders(folder: Path, files: list[Path], uids: list[str]) -> list[str]:
    """Whom the images of CLASS/OWNER/* belong to; those of CLASS/* are their own owners.

    One warning counts the latter if there are both.

    Args:
        folder: Where the class folders lie.
        files: Images in them.
        uids: Their uids.
    """
    inside = [file.relative_to(folder).parts[1:-1] for file in files]
    alone = [file for file, folders in zip(files, inside, strict=True) if not folders]
    if 0 < len(alone) < len(files):
        warnings.warn(
            f"{len(alone)} of {len(files)} images under {folder} lie in no owner's folder, such as "
            f"{alone[0].relative_to(folder)}: each is its own owner, while CLASS/OWNER/IMAGE is the owner's",
            stacklevel=2,
        )
    return [folders[0] if folders else uid for folders, uid in zip(inside, uids, strict=True)]


def _class_names(folder: Path) -> list[str]:
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if names and {name.casefold() for name in names} <= PART_NAMES:
        raise ValueError(f"{folder} has the class folders {', '.join(names)}: name its parts train and test")
    return names


def _labelled(folder: Path, classes: list[str]) -> list[tuple[Path, int]]:
    images = [[file for file in files_below(folder / name) if _is_image(file)] for name in classes]
    if len(classes) < 2 or not any(images):
        n_images = sum(map(len, images))
        raise ValueError(
            f"{folder} holds {len(classes)} class folders with {n_images} images: expected files CLASS/IMAGE, of two "
            "classes at least"
        )
    if empty := [name for name, files in zip(classes, images, strict=True) if not files]:
        raise ValueError(
            f"class folder {folder / empty[0]} holds no image ({', '.join(IMG_EXTENSIONS)}): fill it, or remove it"
        )
    return [(file, label) for label, files in enumerate(images) for file in files]


def _is_image(path: Path) -> bool:
    return path.name.lower().endswith(IMG_EXTENSIONS)


def read_image(path: Path) -> Image.Image:
    """An image file as it should be seen: upright, RGB, 8 bits a channel, what is transparent over white.

    16-bit values are taken to fill 0 to 65535, and their upper 8 bits are kept. Of a camera's JPEG with a preview (MPO)
    the first picture is read. Colour profiles are ignored, as torchvision does.

    Raises:
        ValueError: If the file is damaged, or one cannot say what it shows: several frames, numbers of unknown range.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            reason = _refusal(image)
            if reason is None:
                return _as_seen(image)
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except Exception as error:
        raise ValueError(f"{path} is no readable image ({error}): fetch it again, convert it, or remove it") from error
    raise ValueError(f"{path} {reason}")


def _refusal(image: Image.Image) -> str | None:
    """Why an image that Pillow opens is not read, and what to do; None if it is."""
    (width, height), most = image.size, Image.MAX_IMAGE_PIXELS
    if most is not None and width * height > most:  # Pillow warns, and only refuses twice as many
        return f"has {width} x {height} pixels, and more than {most:,} may be a decompression bomb; scale it down"
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        return f"holds {frames} frames or pages, expected one; save the one that is meant as a file of its own"
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        return f"has {'floating-point' if image.mode == 'F' else 'signed or 32-bit'} {RANGE_UNKNOWN}"
    if image.mode != "I" and image.mode not in READ_MODES:
        return f"has pixels of mode {image.mode}; save it as RGB"
    if image.format == "JPEG" and image.mode == "CMYK" and "adobe" not in image.info:
        return "is a CMYK JPEG without Adobe's marker, which says whether 0 is full ink or none; save it as RGB"
    if image.format == "PNG" and image.mode != "P" and "transparency" in image.info:
        raw = image.tile[0].args  # Pillow compares 8-bit values with a colour that has the file's number of bits
        if raw not in ("1", "L", "RGB"):
            return "names a transparent colour in other than 8 bits; save it with an alpha channel"
    if image.format == "TIFF":
        tags = image.tag_v2
        if set(tags.get(SAMPLE_FORMAT, (UNSIGNED,))) != {UNSIGNED}:
            return f"has signed {RANGE_UNKNOWN}"
        apart = tags.get(PLANES) == SEPARATE_PLANES and max(tags.get(BITS_PER_SAMPLE, (1,))) > 8
        if apart and image.info["compression"] == "raw":
            return "has 16-bit channels in separate planes, which Pillow misreads; save it with interleaved channels"
    return None


def _as_seen(image: Image.Image) -> Image.Image:
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):
        upright = Image.fromarray(_eight_bits(np.asarray(upright), getattr(image, "tag_v2", {})))
    if not upright.has_transparency_data:
        return upright.convert("RGB")
    upright = (upright.convert("LA") if upright.mode == "La" else upright).convert("RGBA")
    if upright.getchannel("A").getextrema()[1] == 0:
        raise ValueError("every pixel is transparent")
    white = Image.new("RGBA", upright.size, "white")
    return Image.alpha_composite(white, upright).convert("RGB")


def _eight_bits(values: np.ndarray, tags: dict[int, object]) -> np.ndarray:
    """The upper 8 of 16 bits, as Pillow does for colours; of TIFF's 12-bit values the upper 8 of 12."""
    grey = (values >> (4 if tags.get(BITS_PER_SAMPLE) == (12,) else 8)).astype(np.uint8)
    return 255 - grey if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else grey


def decode(paths: list[Path], side: int, crop: bool, root: Path) -> np.ndarray:
    """Image files as one array, uint8 (N, 3, side, side), read-only; decoded again if a file was replaced.

    Args:
        paths: Image files.
        side: Side of the result, in pixels.
        crop: Scale the shorter side and cut out the middle; otherwise both sides are scaled.
        root: The data folder. Its file system holds the pixels while the process lives, or TMPDIR's if it cannot.

    Raises:
        ValueError: If a file is no readable image, or there is no room.
    """
    _remove_old_copies(root / "decoded")
    try:
        stats = [path.stat() for path in paths]
    except OSError as error:
        raise ValueError(f"{error.filename} cannot be read ({error.strerror}): fetch it again, or remove it") from error
    versions = tuple((stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for stat in stats)
    return _decoded(tuple(paths), versions, side, crop, root)


@functools.lru_cache(KEPT)
def _decoded(paths: tuple[Path, ...], versions: tuple, side: int, crop: bool, root: Path) -> np.ndarray:
    """See `decode`; `versions` are here so that a file that was replaced is not taken from memory."""
    images = _nameless((len(paths), 3, side, side), root)

    def one(i: int) -> None:
        image = read_image(paths[i])
        image = ImageOps.fit(image, (side, side)) if crop else image.resize((side, side))
        images[i] = np.asarray(image).transpose(2, 0, 1)

    jobs = joblib.Parallel(-1, prefer="threads", return_as="generator")(map(joblib.delayed(one), range(len(paths))))
    for _ in progress(jobs, total=len(paths), desc="decoding images", unit="image"):
        pass
    images.flags.writeable = False
    return images


def _nameless(shape: tuple[int, ...], folder: Path) -> np.ndarray:
    """Memory of uint8 in a file without a name, in a folder or in TMPDIR.

    It is a plain array and no numpy.memmap: joblib sends those to other processes by their file's name.
    """
    size, places = max(1, math.prod(shape)), (folder, Path(tempfile.gettempdir()))
    for place in places:
        try:
            with tempfile.TemporaryFile(dir=place) as file:
                file.truncate(size)
                if hasattr(os, "posix_fallocate"):  # on a full disk an error now, and not a crash while pages fill
                    os.posix_fallocate(file.fileno(), 0, size)
                return np.ndarray(shape, np.uint8, mmap.mmap(file.fileno(), size))
        except OSError as error:
            reason = error
    raise ValueError(
        f"no room for {size / 1e9:.1f} GB of decoded images in {places[0]} or {places[1]} ({reason}); "
        "set TMPDIR to a folder on a larger disk"
    )


def read_images(paths: Iterable[Path | str], side: int = FOLDER_SIDE) -> np.ndarray:
    """Image files as `load_dataset` reads those of a folder: to ask a fitted eraser about pictures that it never saw.

    Args:
        paths: Image files; a single one will do.
        side: Side of the squares that are cut out of their middles, in pixels.

    Returns:
        uint8, (N, 3, side, side).

    Raises:
        ValueError: If a file is missing or no readable image.
    """
    paths = [paths] if isinstance(paths, (str, Path)) else list(checks.instance("paths", paths, Iterable))
    images = np.empty((len(paths), 3, checks.whole("side", side), side), np.uint8)
    for i, path in enumerate(checks.path("one of paths", path) for path in paths):
        images[i] = np.asarray(ImageOps.fit(read_image(path), (side, side))).transpose(2, 0, 1)
    return images


def _remove_old_copies(folder: Path) -> None:
    """Delete what earlier versions kept: pixels of private images, also of those who have left."""
    names = re.compile(r"[0-9a-f]{24}\.npy|.*\.partial")
    try:
        for file in [file for file in folder.glob("*") if names.fullmatch(file.name)]:
            file.unlink(missing_ok=True)
    except OSError as error:
        warnings.warn(f"{folder} holds decoded images of an earlier version ({error}): delete it", stacklevel=2)
    with contextlib.suppress(OSError):  # not there, or it holds something else
        folder.rmdir()
