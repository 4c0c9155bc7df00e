"""Records what PyTorch answers with the starter model.

    python tests/reference/starter.py

Needs torch, torchvision, safetensors and Pillow. Writes `tests/reference/starter.reference.json` for
`resources/starter.safetensors` (torchvision's mobilenet_v3_small in float16, labels and input transform in the metadata),
which `cargo run --release --example train-starter` makes. Run it after that.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
PHOTOS = ROOT / "sample-data" / "photos"
MODEL = ROOT / "resources" / "starter.safetensors"
REFERENCE = ROOT / "tests" / "reference" / "starter.reference.json"
with safe_open(MODEL, "pt") as file:
    LABELS = json.loads(file.metadata()["labels"])
    TRANSFORM = json.loads(file.metadata()["transform"])
RESIZE, CROP = TRANSFORM["resize"]["short-side"], TRANSFORM["crop"]


def photos_in(folder):
    return [(path, LABELS.index(path.parent.name)) for path in sorted(Path(folder).glob("*/*.jpg"))]


def resized(path):
    """The photo with its shorter side RESIZE long, as torchvision's Resize makes it."""
    picture = Image.open(path).convert("RGB")
    short, long = sorted(picture.size)
    other = int(RESIZE * long / short)
    size = (RESIZE, other) if picture.width <= picture.height else (other, RESIZE)
    return picture.resize(size, Image.BILINEAR)


def cropped(picture):
    """The middle square, normalized, of shape (3, CROP, CROP)."""
    left, top = round((picture.width - CROP) / 2), round((picture.height - CROP) / 2)
    return normalized(np.asarray(picture.crop((left, top, left + CROP, top + CROP))))


def normalized(pixels):
    scaled = torch.from_numpy(pixels.astype(np.float32) / 255.0)
    return ((scaled - torch.tensor(TRANSFORM["mean"])) / torch.tensor(TRANSFORM["std"])).permute(2, 0, 1).contiguous()


def logits_of(model, paths):
    with torch.no_grad():
        return torch.cat([model(cropped(resized(path))[None]) for path in paths])


def record():
    """What the saved file answers, computed in float32 from its float16 weights."""
    model = torchvision.models.mobilenet_v3_small(num_classes=len(LABELS))
    # Galley's files have no counters of batches.
    counters = {name: tensor for name, tensor in model.state_dict().items() if name.endswith("num_batches_tracked")}
    model.load_state_dict(counters | {name: tensor.float() for name, tensor in load_file(MODEL).items()})
    model.eval()
    photos = photos_in(PHOTOS / "test")
    logits = logits_of(model, [path for path, _ in photos])
    right = (logits.argmax(1) == torch.tensor([label for _, label in photos])).tolist()
    synthetic = np.sin(0.013 * np.arange(3 * CROP * CROP)).astype(np.float32).reshape(1, 3, CROP, CROP)
    with torch.no_grad():
        answer = model(torch.from_numpy(synthetic))[0]
    reference = {
        "model": "resources/starter.safetensors",
        "sha256": hashlib.sha256(MODEL.read_bytes()).hexdigest(),
        "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__, "pillow": Image.__version__},
        "labels": LABELS,
        "transform": TRANSFORM,
        "synthetic_input": {
            "formula": "x[n] = float32(sin(0.013*n)) in float64, row-major [1,3,H,W], fed without preprocessing",
            "shape": [1, 3, CROP, CROP],
            "logits": [round(value, 6) for value in answer.tolist()],
        },
        "test_photos": [
            {
                "path": path.relative_to(ROOT).as_posix(),
                "top1": LABELS[row.argmax()],
                "logits": [round(value, 5) for value in row.tolist()],
            }
            for (path, _), row in zip(photos, logits)
        ],
        "accuracy": {"photos": len(photos), "right": sum(right)},
    }
    REFERENCE.write_text(json.dumps(reference, indent=1) + "\n")
    wrong = [path.relative_to(PHOTOS).as_posix() for (path, _), ok in zip(photos, right) if not ok]
    print(f"{sum(right)} of {len(photos)} test photos right; wrong: {wrong}")


if __name__ == "__main__":
    record()
