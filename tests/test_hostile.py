"""Files from a stranger run no code, and are refused by name."""

import io
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from lmeraser_kit import Backbone, LMEraser, PublishedModel, RidgeEraser
from lmeraser_kit.backbones.weights import write_weights
from lmeraser_kit.data import load_dataset
from lmeraser_kit.experiments import profiles


class Evil:
    """What a pickle of it does is seen in a file."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def with_header(header, content=b""):
    return struct.pack("<Q", len(header)) + header + content


LIE = json.dumps({"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}).encode()
BOMB = "a: &a [1, 1]\n"  # of nine to the eighth values
BOMB += "".join(
    "{}: &{} [{}]\n".format(b, b, ", ".join([f"*{a}"] * 9)) for a, b in zip("abcdefg", "bcdefgh", strict=True)
)
FILES = {
    "a pickle": None,
    "a header of an exabyte": struct.pack("<Q", 2**60) + b"{}",
    "a header of minus one": b"\xff" * 16,
    "nothing": b"",
    "four terabytes that are not there": with_header(LIE, b"\0" * 8),
}


@pytest.mark.parametrize("reader", [Backbone, LMEraser, RidgeEraser, PublishedModel], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_files_of_weights_that_lie_are_refused(reader, content, tmp_path):
    file = tmp_path / "x.safetensors"
    file.write_bytes(pickle.dumps(Evil(tmp_path / "ran")) if content is None else content)
    with pytest.raises(ValueError, match=r"x\.safetensors is no readable safetensors file"):
        reader.load(file)
    assert not (tmp_path / "ran").exists()


def test_arrays_hold_no_pickles(tmp_path):
    evil = np.array([Evil(tmp_path / "ran")], dtype=object)
    np.savez(tmp_path / "a.npz", images=evil, labels=np.array([1]))
    np.save(tmp_path / "b-images.npy", evil)
    np.save(tmp_path / "b-labels.npy", np.array([1]))
    for name in ("a", "b"):
        with pytest.raises(ValueError, match=r"not a readable|cannot be loaded"):
            load_dataset(name, root=tmp_path)
    assert not (tmp_path / "ran").exists()


def test_an_archive_takes_no_more_memory_than_there_is(tmp_path, monkeypatch):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**13, 1, 8, 8)})
    with zipfile.ZipFile(tmp_path / "lie.npz", "w") as archive:  # an exabyte of pixels that are not there
        archive.writestr("images.npy", header.getvalue() + b"0")
        archive.writestr("labels.npy", header.getvalue())
    np.savez_compressed(tmp_path / "bomb.npz", images=np.zeros((10**5, 1, 8, 8), np.uint8), labels=np.zeros(10**5, int))
    assert (tmp_path / "bomb.npz").stat().st_size < 2e5
    with pytest.raises(ValueError, match=r"lie.npz (does not fit|is not a readable)"):
        load_dataset("lie", root=tmp_path)
    there = os.sysconf
    monkeypatch.setattr(os, "sysconf", lambda name: 10**6 // 4096 if name == "SC_PHYS_PAGES" else there(name))
    with pytest.raises(ValueError, match=r"bomb.npz does not fit: unpacked it takes 0.0 GB.*memory map"):
        load_dataset("bomb", root=tmp_path)


@pytest.mark.parametrize(
    "architecture, arguments, message",
    [
        ("hf-hub:evil/model", {}, "unknown timm model"),
        ("local-dir:/tmp", {}, "unknown timm model"),
        (None, {"checkpoint_path": "/etc/passwd"}, "name something to read or to download: checkpoint_path"),
        (None, {"pretrained": True}, "name something to read or to download: pretrained"),
        (None, {"embed_dim": 10**6}, "embed_dim is 1000000, far more than any size in the weights"),
        (None, {"depth": 10**7}, "depth is 10000000, far more than any size in the weights"),
        (None, {"img_size": [16, 10**6]}, "img_size is .* far more than any size in the weights"),
        (None, {"embed_dim": 480, "depth": 100}, "is missing, or has another shape"),  # 1.1 GB
        (None, {"embed_dim": "wide"}, "timm makes no"),
    ],
)
def test_a_file_of_weights_leads_to_no_other(architecture, arguments, message, backbone, tmp_path):
    backbone.save(tmp_path / "b.safetensors")
    content = (tmp_path / "b.safetensors").read_bytes()
    n = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + n])
    name, *rest = json.loads(header["__metadata__"]["lmeraser_kit.backbone"])
    made_of = [architecture or name, rest[0] | arguments, *rest[1:]]
    header["__metadata__"]["lmeraser_kit.backbone"] = json.dumps(made_of)
    (tmp_path / "c.safetensors").write_bytes(with_header(json.dumps(header).encode(), content[8 + n :]))
    with pytest.raises(ValueError, match=message):
        Backbone.load(tmp_path / "c.safetensors")


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "names no notebooks"),
        ("[1, 2]", "names no notebooks"),
        ("notebooks: [01_backbone]", "names no notebooks: .*expected notebooks: {NAME"),
        ("notebooks: {01_backbone: }", "01_backbone has None, expected a grid"),
        ("notebooks: {01_backbon: {seed: [0]}}", "there is no notebook '01_backbon'; did you mean '01_backbone'"),
        ("[" * 20_000, "too deep"),
        (f"notebooks: {{01_backbone: {{seed: {[*range(3000)]}, epochs: {[*range(3000)]}}}}}", "9,000,000 times"),
        (
            BOMB + "notebooks: {01_backbone: {seed: *h}}",
            "more than 100,000 values",
        ),
    ],
)
def test_a_profile_that_is_none_or_explodes_is_refused_at_once(content, message, tmp_path, monkeypatch):
    (tmp_path / "evil.yaml").write_text(content)
    monkeypatch.setattr(profiles, "profile_file", lambda name: tmp_path / "evil.yaml")
    with pytest.raises(ValueError, match=f"evil: .*{message}"):
        profiles.planned_runs("evil")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"input_size": [3, 12000, 12000]}, "a side of the input in pixels is 12000"),
        ({"input_size": 5}, "lacks .*expected what timm calls one"),
        ({"mean": ["a", 0, 0]}, "mean, std and crop_pct is 'a'"),
        ({"beside": [10**6]}, "a side of the input in pixels is 1000000"),
        ("null", "the description of a backbone is damaged"),
        ("[" * 10_000, "the description of a backbone is damaged"),
        ('[1, {}, {}, "float32"]', "the name in a backbone's description is 1"),
    ],
)
def test_a_description_that_is_none_is_refused(changes, message, backbone, tmp_path):
    description = json.loads(backbone.description())
    if isinstance(changes, dict):
        description[2].update(changes)
    text = changes if isinstance(changes, str) else json.dumps(description)
    write_weights(tmp_path / "b.safetensors", backbone.state_dict(), {"lmeraser_kit.backbone": text})
    with pytest.raises(ValueError, match=message):
        Backbone.load(tmp_path / "b.safetensors")


def test_a_folder_of_images_with_a_pipe_or_a_circle_is_refused(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "pets" / name / "1.png")
    (tmp_path / "pets" / "cat" / "loop").symlink_to(tmp_path / "pets")
    with pytest.raises(ValueError, match="loop is a link to a folder that it lies in"):
        load_dataset("pets", root=tmp_path)
    (tmp_path / "pets" / "cat" / "loop").unlink()
    os.mkfifo(tmp_path / "pets" / "cat" / "2.png")
    with pytest.raises(ValueError, match=r"2.png is no file, but a pipe"):
        load_dataset("pets", root=tmp_path)


def test_a_profile_runs_no_code(tmp_path, monkeypatch):
    tag = f"!!python/object/apply:os.mkdir ['{tmp_path}/ran']"
    (tmp_path / "evil.yaml").write_text(f"notebooks: {tag}\n")
    with pytest.raises(ValueError, match=r"SET is (.|\n)*could not determine a constructor"):
        profiles.planned_runs("tiny", tag)
    monkeypatch.setattr(profiles, "profile_file", lambda name: tmp_path / "evil.yaml")
    with pytest.raises(ValueError, match="could not determine a constructor"):
        profiles.planned_runs("evil")
    assert not (tmp_path / "ran").exists()
