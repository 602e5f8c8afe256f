"""Nothing of a person is left in any folder that the kit writes, once a store has forgotten them.

The data come from a folder of images, which the kit has to decode, and the whole way is gone: a backbone trained here,
shadow models, a store, a request. Then every file below the data's folder, the store and the temporary folder is
searched for pixels, names, hashes, features and models.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

PROGRAM = """
import json, shutil, sys
import numpy as np
from pathlib import Path
from lmeraser_kit import HashClusters, LMEraser, Recipe, Store, load_dataset
from lmeraser_kit.backbones import backbone_for
from lmeraser_kit.baselines.shadows import halves, shadow_logits
from test_residue import found_in

root, desk = Path(sys.argv[1]), Path(sys.argv[2])
split = load_dataset("people", seed=0, root=root)
backbone = backbone_for("small-vit", split.public, epochs=0, root=root)
private = split.private.sorted()

kept, pool = root / "shadows" / "one", private[:12]
inside = halves(4, len(pool), seed=0)
shadow_logits(backbone, pool, inside, pool, Recipe(prompt="none", epochs=1), folder=kept)
shutil.rmtree(kept)  # as 08_attacks does when it has its answer

eraser = LMEraser(backbone, HashClusters(3), Recipe(epochs=1), n_jobs=2, verbose=False)
who = private[[len(private) // 2]]
with Store.create(desk / "store", eraser, private, split.public) as store:
    k = store.eraser.state_.clusters_of(who.uids)[who.uids[0]]
    model = store.eraser.state_.models[k]
    image = np.asarray(who.images)[0]
    traces = {"uid": who.uids[0].encode(), "key": who.keys.tobytes(), "digest": who.digests.tobytes()}
    traces |= {"digest in hex": who.digests.tobytes().hex().encode(), "address": model.address.encode()}
    traces |= {"row of pixels": image[0, 100].tobytes(), "pixels by position": image.transpose(1, 2, 0)[100].tobytes()}
    traces |= {"head": model.arrays["weight"].tobytes(), "prompt": model.arrays["prompt"][0].tobytes()}
    traces |= {"feature": backbone.features(np.asarray(who.images)).tobytes()}
    other = next(part for j, part in store.eraser.state_.members.items() if j != k)[[0]]
    traces |= {"of somebody else": np.asarray(other.images)[0, 0, 100].tobytes()}
    held = found_in(traces, root, desk)
    certificate = store.forget(who.uids)
    traces |= {"salt": certificate.salts[who.uids[0]].encode()}
    assert store._ledger.last.salts == {}, "the ledger in memory keeps a salt that was shredded on disk"
    store.verify()
found = {"name": str(who.uids[0]), "held": held, "traces": {name: trace.hex() for name, trace in traces.items()}}
Path(sys.argv[3]).write_text(json.dumps(found))
"""


def photographs(root):
    """Photographs of noise, whose pixels occur nowhere else, in class folders."""
    rng = np.random.default_rng(0)
    for i in range(60):
        path = root / "people" / f"class-{i % 3}" / f"person-{i:03d}-{rng.integers(10**12)}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (224, 224, 3), dtype=np.uint8)).save(path)


def found_in(traces, *folders):
    """Which traces are in the files below folders: name -> the files."""
    files = {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}
    return {
        name: hits for name, t in traces.items() if (hits := [str(p) for p, content in files.items() if t in content])
    }


def test_nothing_of_a_person_is_left_in_any_folder_after_deletion_from_a_folder_of_images(tmp_path):
    root, desk, temporary, told = (tmp_path / name for name in ("data", "desk", "tmp", "told.json"))
    for path in (root, desk, temporary):
        path.mkdir()
    photographs(root)
    places = {"TMPDIR": str(temporary), "JOBLIB_TEMP_FOLDER": str(temporary), "LMERASER_DATA": str(root)}
    environment = os.environ | places | {"PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", PROGRAM, root, desk, told]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(told.read_text())
    traces = {name: bytes.fromhex(value) for name, value in found["traces"].items()}
    # the control: while they were held all of it was there, but for the feature, which nobody keeps
    assert traces.keys() - found["held"].keys() <= {"feature", "pixels by position", "digest in hex", "salt"}
    assert any("store" in path for path in found["held"]["row of pixels"])
    (root / "people" / found["name"].removeprefix("people-")).unlink()  # the operator's own copy goes, too
    left = found_in(traces, root, desk, temporary)
    assert left.keys() == {"of somebody else"}, left
    written = {path.relative_to(root).parts[0] for path in root.rglob("*") if path.is_file()}
    assert written == {"people", "backbones"}  # no copy of the folder, and no shadow model
    assert not [path for path in temporary.rglob("*") if path.is_file()]
