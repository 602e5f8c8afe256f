"""Near copies of images: which pixels are equal, perceptual hashes, what was probably changed, and changes for tests.

A near copy is another image made from the same picture: under another uid, saved as JPEG again, mirrored, cropped or
brightened. The perceptual hash is pHash (64 signs of a picture's lowest frequencies; Zauner 2010), by ImageHash.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from lmeraser_kit import checks
from lmeraser_kit.ground.determinism import progress
from lmeraser_kit.ground.hashing import keyed_uniform
from lmeraser_kit.ground.samples import Samples

Draws = np.ndarray  # three keyed uniform numbers of a sample
SIDES = (0.8, 0.95)  # a cropped copy keeps such a share of each side
QUALITIES = (50, 90)  # of a JPEG file
FACTORS = (1.2, 1.5)  # a brightened copy's pixels are so many times as large, or as small
ALIKE, CERTAIN = 0.9, 0.98  # correlations of pixels from which a kind is guessed, and crops are not tried
SMALL = 32  # pixels: the side at which that is done
SAME, SIMILAR = "same pixels", "similar"
PLACES, LOOKED_FOR = (0.0, 0.5, 1.0), 0.875  # crops that are compared: nine, of one size
N_VIEWS = 2 + len(PLACES) ** 2


def pixel_keys(images: np.ndarray) -> np.ndarray:
    """128 bits of each image's shape and pixels, as text, (N,): equal for equal images, uint8 (N, C, H, W)."""
    images = _checked(images)
    shape = str(images.shape[1:]).encode()
    hashed = [hashlib.blake2b(np.ascontiguousarray(one), digest_size=16, key=shape).hexdigest() for one in images]
    return np.array(hashed, dtype="U32")


def public_twins(private: Samples, public: Samples) -> list[str]:
    """The uids of private samples whose pixels are those of a public one, to the bit; in their order."""
    checks.instance("private", private, Samples), checks.instance("public", public, Samples)
    if private.images.shape[1:] != public.images.shape[1:]:
        return []
    there = set(pixel_keys(np.asarray(public.images)).tolist())
    mine = pixel_keys(np.asarray(private.images)).tolist() if there else []
    return [uid for uid, key in zip(private.uids.tolist(), mine, strict=bool(there)) if key in there]


def perceptual_hashes(images: np.ndarray, verbose: bool = False) -> np.ndarray:
    """The pHash of each image, uint64 (N,).

    Args:
        images: Pixels, uint8 (N, C, H, W), C = 1 or 3.
        verbose: Show a bar.

    Raises:
        ValueError: If the images are not as above.
    """
    import imagehash  # only who looks for copies waits for it

    images, verbose = _checked(images), checks.flag("verbose", verbose)
    bits = np.zeros((len(images), 64), dtype=bool)
    for i in progress(range(len(images)), desc="perceptual hashes", unit="image", disable=not verbose):
        bits[i] = imagehash.phash(_picture(images[i])).hash.ravel()
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def views(images: np.ndarray) -> np.ndarray:
    """What a near copy of each image may show: itself, its mirror image, and nine parts scaled to its size.

    Args:
        images: Pixels, uint8 (N, C, H, W), C = 1 or 3.

    Returns:
        Pixels, uint8 (N, N_VIEWS, C, H, W).

    Raises:
        ValueError: If the images are not as above.
    """
    images = _checked(images)
    made = np.empty((len(images), N_VIEWS, *images.shape[1:]), np.uint8)
    for shown, image in zip(made, images, strict=True):
        parts = [_crop(image, LOOKED_FOR, down, right) for down in PLACES for right in PLACES]
        shown[:] = [image, image[..., ::-1], *parts]
    return made


def guessed_kind(image: np.ndarray, other: np.ndarray) -> str:
    """What was probably done to an image to make the other one: one of KINDS, or SIMILAR.

    Pixels are compared by their correlation: as they are, mirrored, and for crops of several sides and places.

    Args:
        image: Pixels, uint8 (C, H, W), C = 1 or 3.
        other: The same.

    Raises:
        ValueError: If they are no images, or of different shapes.
    """
    image, other = _checked(np.asarray(image)[None])[0], _checked(np.asarray(other)[None])[0]
    if image.shape != other.shape:
        raise ValueError(f"image is {image.shape}, and other is {other.shape}: expected one shape")
    if np.array_equal(image, other):
        return SAME
    means = image.mean(dtype=float) + 1, other.mean(dtype=float) + 1  # black is no division by 0
    one, two = _small(image), _small(other)
    plain, found = _correlation(one, two), {"mirrored": _correlation(one[..., ::-1], two)}
    if max(plain, found["mirrored"]) < CERTAIN:
        pairs = [(part, two) for part in _crops(one)] + [(part, one) for part in _crops(two)]
        found["cropped"] = max(_correlation(*pair) for pair in pairs)
    best = max(found, key=lambda kind: found[kind])
    if max(plain, found[best]) < ALIKE:
        return SIMILAR
    if plain + 0.01 < found[best]:
        return best
    return "brightened" if max(means) > 1.1 * min(means) else "re-encoded"


def altered(samples: Samples, kind: str, seed: int = 0) -> Samples:
    """Near copies of samples, one each, under the uids `UID+KIND`: to try what finds them.

    What is drawn (quality, part, factor) is keyed by the kind, the seed and the sample's own uid.

    Args:
        samples: The originals.
        kind: One of KINDS.
        seed: Keys the draws.

    Raises:
        ValueError: If an argument is none of these.
    """
    change = KINDS[checks.choice("kind", kind, KINDS)]
    draws = keyed_uniform(f"altered {kind}", seed, checks.instance("samples", samples, Samples).keys, columns=3)
    images = [change(image, drawn) for image, drawn in zip(np.asarray(samples.images), draws, strict=True)]
    uids = [f"{uid}+{kind}" for uid in samples.uids.tolist()]
    pixels = np.stack(images) if images else np.asarray(samples.images)
    return Samples(pixels, samples.labels, uids, samples.n_classes)


def _same(image: np.ndarray, drawn: Draws) -> np.ndarray:
    return image.copy()


def _reencoded(image: np.ndarray, drawn: Draws) -> np.ndarray:
    file = io.BytesIO()
    _picture(image).save(file, "jpeg", quality=round(QUALITIES[0] + drawn[0] * (QUALITIES[1] - QUALITIES[0])))
    return _pixels(Image.open(file))


def _mirrored(image: np.ndarray, drawn: Draws) -> np.ndarray:
    return np.ascontiguousarray(image[..., ::-1])


def _cropped(image: np.ndarray, drawn: Draws) -> np.ndarray:
    share = SIDES[0] + drawn[0] * (SIDES[1] - SIDES[0])
    return _crop(image, share, drawn[1], drawn[2])


def _brightened(image: np.ndarray, drawn: Draws) -> np.ndarray:
    factor = FACTORS[0] + drawn[0] * (FACTORS[1] - FACTORS[0])
    return np.clip(np.rint(image * (factor if drawn[1] < 0.5 else 1 / factor)), 0, 255).astype(np.uint8)


KINDS: dict[str, Callable[[np.ndarray, Draws], np.ndarray]] = {
    SAME: _same,
    "re-encoded": _reencoded,
    "mirrored": _mirrored,
    "cropped": _cropped,
    "brightened": _brightened,
}


def _checked(images: np.ndarray) -> np.ndarray:
    right = getattr(images, "ndim", 0) == 4 and images.dtype == np.uint8 and images.shape[1] in (1, 3)
    if not right or 0 in images.shape[2:]:
        given = f"{getattr(images, 'dtype', type(images).__name__)} {getattr(images, 'shape', '')}"
        raise ValueError(f"images are {given}, expected uint8 pixels of shape (N, C, H, W) with C = 1 or 3")
    return images


def _picture(image: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)))


def _pixels(picture: Image.Image) -> np.ndarray:
    pixels = np.asarray(picture)
    return pixels[None].copy() if pixels.ndim == 2 else np.ascontiguousarray(np.moveaxis(pixels, -1, 0))


def _small(image: np.ndarray) -> np.ndarray:
    """An image in grey, uint8 (1, h, w), with sides of SMALL at most."""
    picture = _picture(image).convert("L")
    picture.thumbnail((SMALL, SMALL))
    return _pixels(picture)


def _crop(image: np.ndarray, share: float, down: float, right: float) -> np.ndarray:
    """A part with such a share of each side, scaled to the old size; where it lies, from 0 to 1 each way."""
    _, height, width = image.shape
    h, w = (max(1, min(side - 1, round(share * side))) for side in (height, width))
    top, left = round(down * (height - h)), round(right * (width - w))
    box = (left, top, left + w, top + h)
    return _pixels(_picture(image).resize((width, height), Image.Resampling.BICUBIC, box=box))


def _crops(image: np.ndarray) -> list[np.ndarray]:
    places, shares = (0.0, 0.25, 0.5, 0.75, 1.0), np.linspace(*SIDES, 4)
    return [_crop(image, share, down, right) for share in shares for down in places for right in places]


def _correlation(image: np.ndarray, other: np.ndarray) -> float:
    """Pearson's, of all values of two images; 0 if one of them is flat."""
    one, two = (x.astype(float).ravel() - x.mean(dtype=float) for x in (image, other))
    length = np.sqrt((one @ one) * (two @ two))
    return float(one @ two / length) if length > 0 else 0.0
