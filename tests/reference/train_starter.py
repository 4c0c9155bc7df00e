"""Trains the starter model and records what PyTorch answers with it.

    cargo run --release --example generate-sample-data -- --per-class 600 --seed 77 --out /tmp/dishes
    python tests/reference/train_starter.py /tmp/dishes --epochs 14

Needs torch, torchvision, safetensors and Pillow; a few minutes on two cores. Writes `resources/starter.safetensors`
(torchvision's mobilenet_v3_small in float16, labels and input transform in the metadata) and
`tests/reference/starter.reference.json`. The photos under `sample-data/photos/test` are never trained on.
"""

import argparse
import hashlib
import json
import time
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
PHOTOS = ROOT / "sample-data" / "photos"
MODEL = ROOT / "resources" / "starter.safetensors"
REFERENCE = ROOT / "tests" / "reference" / "starter.reference.json"
LABELS = sorted(folder.name for folder in (PHOTOS / "train").iterdir())
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
RESIZE, CROP = 108, 96
# As `Transform` in src/images/transform.rs is written by serde.
TRANSFORM = {
    "resize": {"short-side": RESIZE},
    "crop": CROP,
    "interpolation": "bilinear",
    "mean": MEAN,
    "std": STD,
}


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
    return ((scaled - torch.tensor(MEAN)) / torch.tensor(STD)).permute(2, 0, 1).contiguous()


def varied(pixels, random):
    """A random part of the photo, sometimes mirrored, in a random light. `pixels` is a resized photo in uint8."""
    height, width, _ = pixels.shape
    side = int(min(height, width) * random.uniform(0.72, 1.0))
    top, left = random.integers(0, height - side + 1), random.integers(0, width - side + 1)
    part = Image.fromarray(pixels[top : top + side, left : left + side]).resize((CROP, CROP), Image.BILINEAR)
    part = np.asarray(part).astype(np.float32)
    if random.random() < 0.5:
        part = part[:, ::-1]
    part = (part - 118) * random.uniform(0.75, 1.3) + 118 * random.uniform(0.75, 1.25)
    part = part * random.uniform(0.85, 1.15, 3)
    return normalized(np.clip(part, 0, 255))


def train(model, photos, epochs, batch_size, learning_rate, seed):
    random = np.random.default_rng(seed)
    pixels = [np.asarray(resized(path)) for path, _ in photos]
    targets = torch.tensor([label for _, label in photos])
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups)
    steps = epochs * (len(photos) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=learning_rate, total_steps=steps, pct_start=0.15)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.05)
    # The average of the last hundred steps or so is as good as a longer training.
    average = torch.optim.swa_utils.AveragedModel(
        model, avg_fn=lambda kept, new, steps: kept + (new - kept) * max(0.01, 1 / (steps + 1)), use_buffers=True
    )
    started = time.time()
    for epoch in range(epochs):
        model.train()
        order = random.permutation(len(photos))
        total = 0.0
        for start in range(0, len(order) - batch_size + 1, batch_size):
            chosen = order[start : start + batch_size]
            inputs = torch.stack([varied(pixels[index], random) for index in chosen])
            loss = criterion(model(inputs.contiguous(memory_format=torch.channels_last)), targets[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            average.update_parameters(model)
            total += loss.item() * len(chosen)
        print(f"epoch {epoch + 1}: loss {total / len(order):.4f}, {time.time() - started:.0f} s", flush=True)
        # Saved after every epoch, so that a training cut short leaves a model too.
        settle_norms(average.module, pixels, random)
        save(average.module, f"{len(photos)} generated pictures of eight dishes, {epoch + 1} epochs")


def settle_norms(model, pixels, random, batches=16, batch_size=128):
    """Measures the batch norms' statistics anew: those of a training with small momentum lag behind the weights."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over the batches
    model.train()
    with torch.no_grad():
        for _ in range(batches):
            chosen = random.integers(0, len(pixels), batch_size)
            inputs = torch.stack([varied(pixels[index], random) for index in chosen])
            model(inputs.contiguous(memory_format=torch.channels_last))
    for norm, momentum in zip(norms, kept):
        norm.momentum = momentum
    model.eval()


def network():
    return torchvision.models.mobilenet_v3_small(num_classes=len(LABELS))


def save(model, trained_on):
    """Rounds the weights to float16; counters stay whole numbers."""
    rounded = {
        name: tensor.half().contiguous() if tensor.is_floating_point() else tensor.contiguous()
        for name, tensor in model.state_dict().items()
    }
    metadata = {
        "architecture": "mobilenet_v3_small",
        "labels": json.dumps(LABELS),
        "transform": json.dumps(TRANSFORM),
        "title": "Starter: eight dishes",
        "trained_on": trained_on,
    }
    save_file(rounded, MODEL, metadata=metadata)


def logits_of(model, paths):
    with torch.no_grad():
        return torch.cat([model(cropped(resized(path))[None]) for path in paths])


def record():
    """What the saved file answers, computed in float32 from its float16 weights."""
    model = network()
    model.load_state_dict({name: tensor.float() for name, tensor in load_file(MODEL).items()})
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


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path, help="generated photos in one folder per dish")
    options.add_argument("--epochs", type=int, default=14)
    options.add_argument("--batch-size", type=int, default=64)
    options.add_argument("--learning-rate", type=float, default=3e-3)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--start-from", type=Path, help="a starter file to go on from")
    chosen = options.parse_args()
    torch.manual_seed(chosen.seed)
    photos = photos_in(chosen.folder) + photos_in(PHOTOS / "train")
    model = network().to(memory_format=torch.channels_last)
    if chosen.start_from:
        model.load_state_dict({name: tensor.float() for name, tensor in load_file(chosen.start_from).items()})
    train(model, photos, chosen.epochs, chosen.batch_size, chosen.learning_rate, chosen.seed)
    record()


if __name__ == "__main__":
    main()
