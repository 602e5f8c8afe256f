"""Files from a stranger run no code, and are refused by name."""

import io
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from lmeraser_kit import Backbone, LMEraser, PublishedModel, RidgeEraser
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


def test_a_profile_runs_no_code(tmp_path, monkeypatch):
    tag = f"!!python/object/apply:os.mkdir ['{tmp_path}/ran']"
    (tmp_path / "evil.yaml").write_text(f"notebooks: {tag}\n")
    with pytest.raises(ValueError, match=r"SET is (.|\n)*could not determine a constructor"):
        profiles.planned_runs("tiny", tag)
    monkeypatch.setattr(profiles, "profile_file", lambda name: tmp_path / "evil.yaml")
    with pytest.raises(ValueError, match="could not determine a constructor"):
        profiles.planned_runs("evil")
    assert not (tmp_path / "ran").exists()
