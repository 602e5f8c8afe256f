"""Datasets in their published formats, and image files of every kind: read rightly, or refused by name."""

import hashlib
import os
import struct
import subprocess
import sys
import tempfile
import warnings
import zlib

import joblib
import numpy as np
import pytest
import stand_ins
from PIL import Image

from lmeraser_kit import load_dataset
from lmeraser_kit.data import image_files
from lmeraser_kit.data.datasets import Split
from lmeraser_kit.data.image_files import read_image, read_images
from lmeraser_kit.data.inputs import EXPECTED, data_files
from lmeraser_kit.data.readers import N_CLASSES, read_source


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Nothing may be downloaded, and stand-ins are not what the checksums say."""
    monkeypatch.setenv("LMERASER_STAND_INS", "1")

    def refuse(*arguments, **options):
        raise OSError("no network in tests")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.mark.parametrize("name", stand_ins.WRITERS)
def test_published_formats_are_read_and_split(name, tmp_path):
    stand_ins.WRITERS[name](tmp_path)
    source, split = read_source(name, tmp_path), load_dataset(name, root=tmp_path)
    assert len(split.classes) == (N_CLASSES[name] if name != "gtsrb" else 0)  # whose signs have numbers only
    assert source.train.n_classes == source.test.n_classes == split.private.n_classes == N_CLASSES[name]
    assert source.train.images.dtype == np.uint8 and source.train.images.shape[1] == (1 if "mnist" in name else 3)
    for c in range(10):  # the class decides the colour: labels and channels are where they belong
        means = source.test.images[source.test.labels == c].mean(axis=(0, 2, 3))
        expected = np.random.default_rng(0).integers(30, 226, (N_CLASSES[name], len(means)))[c]
        if (source.test.labels == c).any():
            assert np.abs(means - expected).max() < 8, c
    uids = [set(part.uids.tolist()) for part in (split.public, split.private, split.test)]
    assert not uids[0] & uids[1] and uids[0] | uids[1] == set(source.train.uids.tolist())
    assert split.test.uids.tolist() == source.test.uids.tolist()


@pytest.mark.parametrize("name", stand_ins.WRITERS)
def test_the_published_split_is_the_first_80_per_cent(name, tmp_path):
    stand_ins.WRITERS[name](tmp_path)
    source, split = read_source(name, tmp_path), load_dataset(f"{name}/paper", root=tmp_path)
    if name == "gtsrb":  # no track on both sides
        tracks = [{uid.rsplit("_", 1)[0] for uid in part.uids.tolist()} for part in (split.public, split.private)]
        assert not tracks[0] & tracks[1] and 0.6 < len(split.private) / len(source.train) < 0.95
    else:
        n = round(0.8 * len(source.train))
        assert split.private.uids.tolist() == source.train.uids[:n].tolist()
        assert split.public.uids.tolist() == source.train.uids[n:].tolist()


def test_tracks_of_one_sign_stay_together(tmp_path):
    stand_ins.gtsrb(tmp_path)
    split = load_dataset("gtsrb", seed=3, root=tmp_path)
    tracks = [{uid.rsplit("_", 1)[0] for uid in part.uids.tolist()} for part in (split.public, split.private)]
    assert not tracks[0] & tracks[1] and min(map(len, tracks)) > 10


@pytest.mark.parametrize("name", EXPECTED)
def test_missing_files_are_refused_with_where_they_belong(name, tmp_path):
    with pytest.raises(ValueError, match=f"{name} is missing or damaged under .*could not") as error:
        load_dataset(name, root=tmp_path)
    assert all(place in str(error.value) for place in EXPECTED[name])


def test_damaged_files_are_refused(tmp_path, monkeypatch):
    stand_ins.cifar10(tmp_path)
    monkeypatch.delenv("LMERASER_STAND_INS")  # now the checksums count
    with pytest.raises(ValueError, match=r"cifar10 is missing or damaged .* Damaged: .*data_batch_1"):
        load_dataset("cifar10", root=tmp_path)
    stand_ins.mnist(tmp_path)
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="mnist is missing or damaged"):
        load_dataset("mnist", root=tmp_path)


def test_labels_that_do_not_fit_are_refused(tmp_path):
    stand_ins.mnist(tmp_path)
    stand_ins.idx(tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte", np.full(stand_ins.TEST, 11))
    with pytest.raises(ValueError, match=r"label 11 .* outside the range 0 to 9"):
        load_dataset("mnist", root=tmp_path)


def test_published_files_without_checksums_of_torchvision_are_checked(tmp_path, monkeypatch):
    stand_ins.mnist(tmp_path)
    stand_ins.gtsrb(tmp_path)
    (tmp_path / "MNIST" / "processed").mkdir()
    for file in ("training.pt", "test.pt"):  # an old torchvision's: would be read instead
        (tmp_path / "MNIST" / "processed" / file).write_bytes(b"stale")
    assert len(read_source("mnist", tmp_path).train) == stand_ins.TRAIN
    monkeypatch.delenv("LMERASER_STAND_INS")
    with pytest.raises(ValueError, match=r"mnist is missing or damaged .* Damaged: .*train-images-idx3-ubyte"):
        read_source("mnist", tmp_path)  # Fashion-MNIST's files have the same names
    with pytest.raises(ValueError, match=r"gtsrb has 172 train images .*expected 26640"):
        read_source("gtsrb", tmp_path)


def test_folders_of_images(tmp_path):
    stand_ins.folders(tmp_path)
    samples = read_source("shapes", tmp_path).train
    assert samples.images.shape == (30, 3, 224, 224) and samples.n_classes == 3
    assert samples.uids[0] == "shapes-class-0/" + sorted(p.name for p in (tmp_path / "shapes" / "class-0").iterdir())[0]
    split = load_dataset("shapes", root=tmp_path)
    assert len(split.private) > 0 and split.take(test=1).classes == ("class-0", "class-1", "class-2")
    names = [uid.removeprefix("shapes-") for uid in split.test.uids[:2].tolist()]
    assert np.array_equal(read_images([tmp_path / "shapes" / name for name in names]), split.test.images[:2])
    assert read_images(str(tmp_path / "shapes" / names[0]), side=8).shape == (1, 3, 8, 8)
    with pytest.raises(ValueError, match=r"there is no file .*missing.png"):
        read_images(tmp_path / "missing.png")
    with pytest.raises(ValueError, match=r"is a path: give the dataset's name .* and as root the folder it lies in"):
        load_dataset(f"{tmp_path.name}/shapes", root=tmp_path)
    (tmp_path / "shapes" / "class-1" / "torn.png").write_bytes(b"\x89PNG, and then nothing")
    with pytest.raises(ValueError, match=r"torn.png is no readable image"):
        read_source("shapes", tmp_path)


def test_a_folder_is_decoded_once_and_again_if_a_file_is_replaced(tmp_path):
    stand_ins.folders(tmp_path)
    before = read_source("shapes", tmp_path).train
    assert np.shares_memory(before.images, read_source("shapes", tmp_path).train.images)
    assert not before.images.flags.writeable
    path = next(file for file in data_files("shapes", tmp_path) if str(file).endswith(before.uids[7][7:]))
    stat, other = path.stat(), tmp_path / "other"
    Image.fromarray(255 - np.asarray(Image.open(path))).save(other, format="PNG")
    other.write_bytes(other.read_bytes().ljust(stat.st_size, b"\0"))
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    os.replace(other, path)  # as large and as old as the one before
    after = read_source("shapes", tmp_path).train
    changed = [uid for uid, a, b in zip(before.uids, before.images, after.images, strict=True) if (a != b).any()]
    assert changed == [before.uids[7]]


def test_no_pixels_outlive_a_process_that_is_killed(tmp_path):
    stand_ins.folders(tmp_path / "data")
    (tmp_path / "tmp").mkdir()
    before = sorted(tmp_path.rglob("*"))
    code = (
        "import os, sys, pathlib; from lmeraser_kit.data.readers import read_source; root = pathlib.Path(sys.argv[1]);"
        "assert read_source('shapes', root).train.images.any(); print('read', flush=True); os.kill(os.getpid(), 9)"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path / "tmp"), "JOBLIB_TEMP_FOLDER": str(tmp_path / "tmp")}
    command = [sys.executable, "-c", code, str(tmp_path / "data")]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.stdout == "read\n" and run.returncode == -9, run.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_decoded_copies_of_earlier_versions_are_deleted(tmp_path):
    stand_ins.folders(tmp_path)
    decoded = tmp_path / "decoded"
    decoded.mkdir()
    for name in ("0123456789abcdef01234567.npy", "0123456789abcdef01234567.4711.partial", "mine.npy"):
        (decoded / name).write_bytes(b"pixels")
    read_source("shapes", tmp_path)
    assert [path.name for path in decoded.iterdir()] == ["mine.npy"]
    (decoded / "mine.npy").rename(decoded / "ffffffffffffffffffffffff.npy")
    read_source("shapes", tmp_path)
    assert not decoded.exists()


def test_decoded_images_go_to_other_processes(tmp_path):
    stand_ins.folders(tmp_path)
    samples = read_source("shapes", tmp_path).train

    def checksum(part):
        return hashlib.sha256(np.ascontiguousarray(part.images).tobytes()).hexdigest(), part.uids.tolist()

    parts = [samples[5:25], samples[np.arange(28, 2, -1)], samples[::2], samples[3:5]]  # plain arrays, copies, strides
    assert parts[0].images.nbytes > 1e6 and parts[1].images.nbytes > 1e6
    assert joblib.Parallel(n_jobs=2)(joblib.delayed(checksum)(part) for part in parts) == list(map(checksum, parts))


def test_where_decoded_images_go_if_the_data_folder_takes_none(tmp_path, monkeypatch):
    pixels = image_files._nameless((2, 3), tmp_path / "gone")  # in TMPDIR
    assert pixels.shape == (2, 3) and not pixels.any()
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / "gone as well"))
    with pytest.raises(ValueError, match=r"no room for 0.0 GB of decoded images in .*set TMPDIR"):
        image_files._nameless((2, 3), tmp_path / "gone")


def test_folders_with_a_test_part_and_wrong_folders(tmp_path):
    stand_ins.folders(tmp_path, "both/train")
    stand_ins.folders(tmp_path, "both/test")
    source = read_source("both", tmp_path)
    assert len(source.train) == len(source.test) == 30
    (tmp_path / "both" / "test" / "class-9").mkdir()
    with pytest.raises(ValueError, match="different class folders, such as 'class-9'"):
        read_source("both", tmp_path)
    (tmp_path / "nothing" / "here").mkdir(parents=True)
    with pytest.raises(ValueError, match="1 class folders with 0 images: expected files CLASS/IMAGE"):
        load_dataset("nothing", root=tmp_path)


def test_what_is_left_out_of_a_folder_is_counted_in_one_warning(tmp_path):
    stand_ins.folders(tmp_path)
    folder = tmp_path / "shapes"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in (".DS_Store", "class-0/.hidden.png", "class-1/.thumbnails/a.png", "README.txt"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(b"no image")
        assert len(read_source("shapes", tmp_path).train) == 30
    for name in ("class-0/IMG_1.HEIC", "class-1/raw.cr2", "stray.png"):
        (folder / name).write_bytes(b"no image that is read")
    with pytest.warns(
        UserWarning, match=r"^3 files under .* such as class-0/IMG_1.HEIC; read are \.jpg, .*\.webp"
    ) as all_:
        assert len(read_source("shapes", tmp_path).train) == 30
    assert len(all_) == 1


def test_images_of_a_part_that_is_not_read_are_counted(tmp_path):
    for part in ("train", "test", "val"):
        stand_ins.folders(tmp_path, f"parts/{part}")
    with pytest.warns(UserWarning, match=r"30 files under .* such as val/class-0"):
        read_source("parts", tmp_path)


def test_class_folders_that_must_be_a_mistake(tmp_path):
    stand_ins.folders(tmp_path)
    (tmp_path / "shapes" / "class-9").mkdir()
    with pytest.raises(ValueError, match=r"class folder .*class-9 holds no image \(\.jpg, .*fill it, or remove it"):
        read_source("shapes", tmp_path)
    for part in ("Train", "Test"):
        stand_ins.folders(tmp_path, f"capitals/{part}")
    with pytest.raises(ValueError, match="capitals has the class folders Test, Train: name its parts train and test"):
        read_source("capitals", tmp_path)


def test_links_in_a_folder_are_followed(tmp_path):
    stand_ins.folders(tmp_path)
    (tmp_path / "shapes" / "class-2").rename(tmp_path / "elsewhere")
    (tmp_path / "shapes" / "class-2").symlink_to(tmp_path / "elsewhere")
    stand_ins.folders(tmp_path, "more")
    (tmp_path / "shapes" / "class-1" / "more").symlink_to(tmp_path / "more" / "class-1")
    assert len(read_source("shapes", tmp_path).train) == len(data_files("shapes", tmp_path)) == 40
    (tmp_path / "shapes" / "class-0" / "lost.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(ValueError, match=r"lost.png cannot be read"):
        read_source("shapes", tmp_path)


def test_files_of_a_dataset(tmp_path):
    assert data_files("digits", tmp_path) == data_files("nothing/paper", tmp_path) == data_files("svhn", tmp_path) == []
    stand_ins.folders(tmp_path, "zoo")
    for write in (stand_ins.cifar10, stand_ins.svhn, stand_ins.gtsrb, stand_ins.mnist):
        write(tmp_path)
    for name in ("one.npz", "two-images.npy", "two-labels.npy", "two-uids.npy", "zoo/class-0/.hidden.png"):
        (tmp_path / name).touch()
    expected = {
        "cifar10": 7,
        "cifar10/paper": 7,
        "svhn": 2,
        "gtsrb": 172 + 60 + 1,
        "mnist": 4,
        "cifar100": 0,
        "zoo": 30,
    }
    assert {name: len(data_files(name, tmp_path)) for name in expected} == expected
    assert [path.name for path in data_files("svhn", tmp_path)] == ["test_32x32.mat", "train_32x32.mat"]
    assert data_files("one", tmp_path) == [tmp_path / "one.npz"]
    assert data_files("two", tmp_path) == [tmp_path / f"two-{key}.npy" for key in ("images", "labels", "uids")]
    assert data_files("zoo", tmp_path) == sorted((tmp_path / "zoo").glob("*/[!.]*"))


def test_prepared_arrays_that_say_something_else_than_they_seem_to(tmp_path):
    images, labels = stand_ins.blobs(60, 4, 12, 3, 0)
    arrays = {"images": images.transpose(0, 3, 1, 2), "labels": labels}
    for n_classes in (4.7, [4, 5], "4"):
        np.savez(tmp_path / "odd.npz", **arrays, n_classes=n_classes)
        with pytest.raises(ValueError, match=r"n_classes is .*, expected a whole number"):
            read_source("odd", tmp_path)
    np.savez(tmp_path / "odd.npz", **arrays, uid=np.arange(60))
    with pytest.warns(
        UserWarning, match=r"uid of .*odd.npz not read: read are images, labels, uids, owners, n_classes"
    ):
        read_source("odd", tmp_path)
    np.savez(tmp_path / "odd.npz", **arrays | {"images": arrays["images"] / 255})
    with pytest.raises(ValueError, match="images are float64, expected uint8"):
        read_source("odd", tmp_path)
    np.savez(tmp_path / "odd.npz", **arrays | {"labels": labels.astype(object)})
    with pytest.raises(ValueError, match=r"odd.npz is not a readable .npz archive"):
        read_source("odd", tmp_path)
    stand_ins.folders(tmp_path, "odd")
    with pytest.raises(ValueError, match=r"odd.npz and .*odd have one name; rename all but one"):
        read_source("odd", tmp_path)


def test_a_pair_of_arrays_is_memory_mapped(tmp_path):
    images, labels = stand_ins.blobs(60, 4, 12, 3, 0)
    np.save(tmp_path / "pair-images.npy", images.transpose(0, 3, 1, 2))
    with pytest.raises(ValueError, match=r"expected images .*, labels"):
        load_dataset("pair", root=tmp_path)
    np.save(tmp_path / "pair-labels.npy", labels)
    assert isinstance(read_source("pair", tmp_path).train.images, np.memmap)
    split = load_dataset("pair", root=tmp_path)
    assert len(split.public) + len(split.private) + len(split.test) == 60


def test_limits_take_the_same_samples_whoever_else_is_there(tmp_path):
    stand_ins.svhn(tmp_path)
    split = load_dataset("svhn", root=tmp_path, limits=[20, 30, 0])
    assert (len(split.public), len(split.private), len(split.test)) == (20, 30, stand_ins.TEST)
    gone = split.private.uids[0]
    whole = load_dataset("svhn", root=tmp_path)
    less = Split(whole.public, whole.private.without([gone]), whole.test, "svhn").take(private=30)
    assert len(set(less.private.uids) & set(split.private.uids)) == 29  # one takes the empty place
    with pytest.raises(ValueError, match="5000 private samples of 'svhn' were asked for, and there are"):
        load_dataset("svhn", root=tmp_path, limits=[0, 5000, 0])
    with pytest.raises(ValueError, match="expected three numbers"):
        load_dataset("svhn", root=tmp_path, limits=[5])
    with pytest.raises(ValueError, match="unknown split 'papers'"):
        load_dataset("svhn/papers", root=tmp_path)


GREY = np.array([[0, 17, 34, 51], [68, 85, 102, 119], [136, 153, 170, 255]], np.uint8)  # what 8 bits should be
COLOUR = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], -1)
WIDE, WIDE_COLOUR = GREY.astype(np.uint16) * 257, COLOUR.astype(np.uint16) * 257  # 255 becomes 65535


def png(path, bits, colour_type, rows, *chunks):
    """A PNG that Pillow cannot write: 16-bit colours, other transparency (Portable Network Graphics, 3rd edition)."""
    rows = [np.atleast_2d(row.T).T for row in rows]
    packed = b"".join(b"\0" + row.astype(">u2" if bits == 16 else np.uint8).tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), bits, colour_type, 0, 0, 0)
    all_chunks = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(packed)), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in all_chunks
        )
    )


def tiff(path, data, bits, channels=1, **tags):
    """A TIFF of 4 x 3 pixels that Pillow cannot write, uncompressed in one strip (TIFF 6.0)."""
    tags = {int(tag[1:]): value for tag, value in tags.items()}
    planes = channels if tags.get(284) == 2 else 1
    every = {256: [4], 257: [3], 258: [bits] * channels, 259: [1], 262: [1 if channels < 3 else 2], 277: [channels]}
    every |= {278: [3], 279: [len(data) // planes] * planes} | {tag: [value] for tag, value in tags.items()}
    every[339] = every.get(339, [1]) * channels
    every[273] = [512 + i * len(data) // planes for i in range(planes)]
    entries, beyond, at = b"", b"", 8 + 2 + 12 * len(every) + 4
    for tag, values in sorted(every.items()):
        value = struct.pack(f"<{len(values)}H", *values)
        if len(value) > 4:
            value, beyond = struct.pack("<I", at + len(beyond)), beyond + value
        entries += struct.pack("<HHI", tag, 3, len(values)) + value.ljust(4, b"\0")
    head = b"II*\0" + struct.pack("<IH", 8, len(every)) + entries + bytes(4) + beyond
    path.write_bytes(head.ljust(512, b"\0") + data)


def pgm(path, most, plain=False):
    values = np.round(GREY / 255 * most).astype(">u2")
    pixels = " ".join(map(str, values.ravel())).encode() if plain else values.tobytes()
    path.write_bytes(b"P%d 4 3 %d\n" % (2 if plain else 5, most) + pixels)


def packed_12_bits():
    values = np.round(GREY.ravel() / 255 * 4095).astype(int).tolist()
    return b"".join((a << 12 | b).to_bytes(3, "big") for a, b in zip(values[::2], values[1::2], strict=True))


def big_endian():
    return Image.frombytes("I;16B", (4, 3), WIDE.astype(">u2").tobytes())


GREY_FILES = {
    "png": lambda path: Image.fromarray(WIDE).save(path, "PNG"),
    "tiff": lambda path: Image.fromarray(WIDE).save(path, "TIFF"),
    "tiff-lzw": lambda path: Image.fromarray(WIDE).save(path, "TIFF", compression="tiff_lzw"),
    "tiff-big-endian": lambda path: big_endian().save(path, "TIFF"),
    "tiff-big-endian-lzw": lambda path: big_endian().save(path, "TIFF", compression="tiff_lzw"),
    "tiff-12-bits": lambda path: tiff(path, packed_12_bits(), 12),
    "tiff-white-is-zero": lambda path: tiff(path, (65535 - WIDE).tobytes(), 16, t262=0),
    "tiff-8-bits-white-is-zero": lambda path: tiff(path, (255 - GREY).tobytes(), 8, t262=0),
    "pgm-65535": lambda path: pgm(path, 65535),
    "pgm-4095": lambda path: pgm(path, 4095),
    "pgm-1000": lambda path: pgm(path, 1000),
    "pgm-plain-4095": lambda path: pgm(path, 4095, plain=True),
    "png-with-alpha": lambda path: png(path, 16, 4, np.dstack([WIDE, WIDE * 0 + 65535])),
}


@pytest.mark.parametrize("kind", GREY_FILES)
def test_more_than_8_bits_of_grey_are_scaled(kind, tmp_path):
    GREY_FILES[kind](tmp_path / "image")
    pixels = np.asarray(read_image(tmp_path / "image")).astype(int)
    assert pixels.shape == (3, 4, 3) and np.abs(pixels - GREY[..., None]).max() <= 1
    assert pixels[0, 0, 0] == 0 and pixels[-1, -1, 0] == 255


COLOUR_FILES = {
    "png": lambda path: png(path, 16, 2, WIDE_COLOUR),
    "png-with-alpha": lambda path: png(path, 16, 6, np.dstack([WIDE_COLOUR, WIDE * 0 + 65535])),
    "tiff": lambda path: tiff(path, WIDE_COLOUR.tobytes(), 16, 3),
    "ppm": lambda path: path.write_bytes(b"P6 4 3 65535\n" + WIDE_COLOUR.astype(">u2").tobytes()),
}


@pytest.mark.parametrize("kind", COLOUR_FILES)
def test_16_bits_of_colour_are_scaled(kind, tmp_path):
    COLOUR_FILES[kind](tmp_path / "image")
    assert (np.asarray(read_image(tmp_path / "image")) == COLOUR).all()


def test_a_16_bit_image_in_a_folder(tmp_path):
    stand_ins.folders(tmp_path)
    ramp = np.linspace(0, 65535, 224).astype(np.uint16)
    Image.fromarray(np.tile(ramp, (224, 1))).save(tmp_path / "shapes" / "class-0" / "ramp.png")
    samples = read_source("shapes", tmp_path).train
    image = samples.images[samples.positions(["shapes-class-0/ramp.png"])[0]]
    assert (image == (ramp >> 8).astype(np.uint8)).all()


MODES = {
    "tif": ["1", "L", "P", "RGB", "CMYK", "YCbCr"],
    "jpg": ["1", "L", "RGB", "CMYK", "YCbCr"],
    "png": ["1", "L", "P", "RGB"],
    "bmp": ["1", "L", "P", "RGB"],
    "gif": ["1", "L", "P", "RGB"],
    "webp": ["L", "RGB"],
}


@pytest.mark.parametrize(("extension", "mode"), [(extension, mode) for extension in MODES for mode in MODES[extension]])
def test_modes_of_image_files(extension, mode, tmp_path):
    image = Image.fromarray(COLOUR).resize((64, 48), Image.Resampling.NEAREST)
    image = image.quantize(8) if mode == "P" else image.convert(mode)
    image.save(tmp_path / f"image.{extension}", quality=100)
    (tmp_path / f"image.{extension}").rename(tmp_path / "image.jpg")  # the content counts
    pixels, expected = np.asarray(read_image(tmp_path / "image.jpg")).astype(int), np.asarray(image.convert("RGB"))
    assert np.abs(pixels - expected).mean() < (6 if extension in ("jpg", "webp", "gif") else 1)


HALF = np.full((3, 4), 128, np.uint8)
HALF[0, 0], HALF[-1, -1] = 0, 255
OVER_WHITE = COLOUR * (HALF / 255)[..., None] + 255 - HALF[..., None]
GREY_OVER_WHITE = GREY * (HALF / 255) + 255 - HALF


def colours_with_alpha():
    return Image.fromarray(np.dstack([COLOUR, HALF]))


def greys_with_alpha():
    return Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(HALF)])


TRANSPARENT_FILES = {
    "png": (lambda path: colours_with_alpha().save(path, "PNG"), OVER_WHITE),
    "tiff": (lambda path: colours_with_alpha().save(path, "TIFF"), OVER_WHITE),
    "webp": (lambda path: colours_with_alpha().save(path, "WEBP", lossless=True), OVER_WHITE),
    "grey-png": (lambda path: greys_with_alpha().save(path, "PNG"), GREY_OVER_WHITE[..., None]),
    "grey-tiff": (lambda path: greys_with_alpha().save(path, "TIFF"), GREY_OVER_WHITE[..., None]),
    "grey-tiff-multiplied": (
        lambda path: tiff(path, np.dstack([GREY * (HALF / 255.0), HALF]).astype(np.uint8).tobytes(), 8, 2, t338=1),
        GREY_OVER_WHITE[..., None],
    ),
    "palette-tiff": (lambda path: colours_with_alpha().convert("PA").save(path, "TIFF"), OVER_WHITE),
    "palette-png": (
        lambda path: Image.fromarray(COLOUR).quantize(12).save(path, "PNG", transparency=bytes([128] * 12)),
        COLOUR * (128 / 255) + 127,
    ),
    "one-colour-png": (
        lambda path: png(path, 8, 2, COLOUR, (b"tRNS", COLOUR[0, 0].astype(">u2").tobytes())),
        np.where((COLOUR[0, 0] == COLOUR).all(-1, keepdims=True), 255, COLOUR),
    ),
    "one-grey-png": (lambda path: png(path, 8, 0, GREY, (b"tRNS", b"\0\0")), np.where(GREY, GREY, 255)[..., None]),
}


@pytest.mark.parametrize("kind", TRANSPARENT_FILES)
def test_transparent_pixels_are_over_white(kind, tmp_path):
    write, expected = TRANSPARENT_FILES[kind]
    write(tmp_path / "image")
    assert np.abs(np.asarray(read_image(tmp_path / "image")) - expected.astype(float)).max() < 4


@pytest.mark.parametrize("extension", ["jpg", "png", "tif", "webp"])
def test_images_are_upright(extension, tmp_path):
    scene = np.zeros((48, 64, 3), np.uint8)
    scene[:16, :16], scene[:16, 48:] = 250, 120  # bright upper left, grey upper right
    stored = {  # EXIF's orientation: how the scene lies in the file
        1: scene,
        2: scene[:, ::-1],
        3: scene[::-1, ::-1],
        4: scene[::-1],
        5: scene.transpose(1, 0, 2),
        6: scene.transpose(1, 0, 2)[::-1],
        7: scene.transpose(1, 0, 2)[::-1, ::-1],
        8: scene.transpose(1, 0, 2)[:, ::-1],
    }
    for orientation, pixels in stored.items():
        exif, path = Image.Exif(), tmp_path / f"{orientation}.{extension}"
        exif[0x112] = orientation
        Image.fromarray(pixels).save(path, exif=exif, quality=95)
        image = read_image(path)
        assert image.size == (64, 48), orientation
        assert np.abs(np.asarray(image).astype(int) - scene).mean() < 3, orientation


def test_of_a_jpeg_with_a_preview_the_first_picture_is_read(tmp_path):
    first, preview = Image.new("RGB", (64, 48), (200, 30, 30)), Image.new("RGB", (16, 12))
    first.save(tmp_path / "camera.jpg", "MPO", save_all=True, append_images=[preview])
    with Image.open(tmp_path / "camera.jpg") as image:
        assert image.format == "MPO" and image.n_frames == 2
    assert np.abs(np.asarray(read_image(tmp_path / "camera.jpg")).astype(int) - (200, 30, 30)).max() < 6


def two_frames(path, kind):
    Image.fromarray(COLOUR).save(path, kind, save_all=True, append_images=[Image.fromarray(255 - COLOUR)])


def cmyk_without_adobe(path):
    Image.fromarray(COLOUR).convert("CMYK").save(path, "JPEG")
    content = path.read_bytes()
    at = content.index(b"\xff\xee")
    path.write_bytes(content[:at] + content[at + 2 + int.from_bytes(content[at + 2 : at + 4], "big") :])


SMALL_GREYS = np.array([[0x0F, 0xF0]], np.uint8)  # 4 bits a pixel
REFUSED = {
    "animated-webp": (lambda path: two_frames(path, "WEBP"), "holds 2 frames or pages"),
    "animated-png": (lambda path: two_frames(path, "PNG"), "holds 2 frames or pages"),
    "animated-gif": (lambda path: two_frames(path, "GIF"), "holds 2 frames or pages"),
    "tiff-of-two-pages": (lambda path: two_frames(path, "TIFF"), "holds 2 frames or pages"),
    "float-tiff": (lambda path: Image.fromarray(GREY / np.float32(255)).save(path, "TIFF"), "floating-point values"),
    "float-ppm": (lambda path: path.write_bytes(b"Pf 4 3 -1\n" + GREY.astype("<f4").tobytes()), "floating-point"),
    "32-bit-tiff": (lambda path: Image.fromarray(WIDE.astype(np.int32)).save(path, "TIFF"), "32-bit values"),
    "unsigned-32-bit-tiff": (lambda path: tiff(path, WIDE.astype("<u4").tobytes(), 32), "32-bit values"),
    "signed-16-bit-tiff": (lambda path: tiff(path, (WIDE // 2).tobytes(), 16, t339=2), "signed or 32-bit values"),
    "signed-8-bit-tiff": (lambda path: tiff(path, (GREY // 2).tobytes(), 8, t339=2), "signed values"),
    "16-bit-planes-tiff": (
        lambda path: tiff(path, WIDE_COLOUR.transpose(2, 0, 1).tobytes(), 16, 3, t284=2),
        "16-bit channels in separate planes",
    ),
    "lab-tiff": (lambda path: tiff(path, COLOUR.tobytes(), 8, 3, t262=8), "pixels of mode LAB"),
    "cmyk-jpeg": (cmyk_without_adobe, "CMYK JPEG without Adobe's marker"),
    "one-colour-of-16-bits": (
        lambda path: png(path, 16, 2, WIDE_COLOUR, (b"tRNS", WIDE_COLOUR[0, 0].astype(">u2").tobytes())),
        "a transparent colour in other than 8 bits",
    ),
    "one-grey-of-4-bits": (
        lambda path: png(path, 4, 0, SMALL_GREYS, (b"tRNS", b"\0\x0f")),
        "a transparent colour in other than 8 bits",
    ),
    "nothing-to-see": (
        lambda path: Image.fromarray(np.dstack([COLOUR, 0 * GREY])).save(path, "PNG"),
        "every pixel is transparent",
    ),
    "no-image": (lambda path: path.write_text("404 Not Found"), "cannot identify image file"),
    "postscript": (lambda path: Image.fromarray(COLOUR).save(path, "EPS"), "cannot identify image file"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_rightly_is_refused_by_name(kind, tmp_path):
    write, reason = REFUSED[kind]
    write(tmp_path / "image.png")
    with pytest.raises(ValueError, match=f"image.png .*{reason}.*(save|scale|fetch)"):
        read_image(tmp_path / "image.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "PPM", "TIFF", "WEBP", "GIF"])
def test_truncated_files_are_refused(kind, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole", kind)
    content = (tmp_path / "whole").read_bytes()
    assert read_image(tmp_path / "whole").size == (64, 64)
    for length in (0, 20, len(content) // 2, len(content) * 9 // 10):
        (tmp_path / "torn").write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"torn is no readable image .*fetch it again"):
            read_image(tmp_path / "torn")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [40, 90])  # Pillow warns of the first, and refuses the second
def test_decompression_bombs_are_refused(side, tmp_path, monkeypatch):
    Image.new("RGB", (side, side)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match=r"bomb.png .*decompression bomb"):
        read_image(tmp_path / "bomb.png")


def test_data_of_ones_own_with_the_name_of_a_known_dataset_are_refused(tmp_path):
    """They would be passed over for the known one, without a word."""
    stand_ins.folders(tmp_path, "digits")
    stand_ins.mnist(tmp_path)
    np.savez(tmp_path / "mnist.npz", images=np.zeros((3, 1, 4, 4), np.uint8), labels=[0, 1, 0])
    for name in ("digits", "mnist"):
        with pytest.raises(ValueError, match=f"has the name of a known dataset, '{name}': rename it"):
            load_dataset(name, root=tmp_path)


def test_labels_that_count_from_1_are_noticed(tmp_path):
    images, labels = stand_ins.blobs(90, 3, 12, 3, 0)
    np.savez(tmp_path / "one.npz", images=images.transpose(0, 3, 1, 2), labels=labels + 1)
    with pytest.warns(UserWarning, match="'one' has 4 classes .* no public sample of class 0: labels count from 0"):
        load_dataset("one", root=tmp_path)
    with pytest.raises(ValueError, match=r"one\.npz' is a path: give the dataset's name"):
        load_dataset(str(tmp_path / "one.npz"), root=tmp_path)
