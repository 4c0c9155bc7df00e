"""Compares what Galley and PyTorch learn with the same recipe from the same checkpoint and photos, as top-1 on test photos.

Needs torch, torchvision and pillow, and a release build of galley; run it from the project's folder:
  python tests/peers/learning.py --data photos/train --test photos/test --model squeezenet1_0-imagenet.pth --seeds 0,1,2
The recipe: SqueezeNet 1.0 with a new last layer; crops of 35 to 100 % of a photo resized to 256 on its shorter side,
mirrored half of the time; AdamW, weight decay 0.05 but for biases, cosine with warm-up of half an epoch down to a hundredth,
label smoothing 0.1, gradients clipped to length 1; the epoch that is best on the test photos counts, for both. Class folders
may lie at any depth.
"""

import argparse
import json
import math
import pathlib
import subprocess
import tempfile

import torch
import torchvision
from PIL import Image
from torchvision import transforms

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
KINDS = {".jpg", ".jpeg", ".png", ".webp"}


class Photos(torch.utils.data.Dataset):
    """Photos of class folders at any depth, resized once."""

    def __init__(self, folder, transform, classes=None):
        paths = sorted(path for path in pathlib.Path(folder).rglob("*") if path.suffix.lower() in KINDS)
        self.names = [str(path.parent.relative_to(folder)) for path in paths]
        self.classes = classes or sorted(set(self.names))
        resize = transforms.Resize(256)
        self.photos = [resize(Image.open(path).convert("RGB")) for path in paths]
        self.transform = transform

    def __len__(self):
        return len(self.photos)

    def __getitem__(self, index):
        return self.transform(self.photos[index]), self.classes.index(self.names[index])


def pytorch(arguments, seed):
    torch.manual_seed(seed)
    finish = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    crop = transforms.RandomResizedCrop(224, scale=(0.35, 1.0))
    train = Photos(arguments.data, transforms.Compose([crop, transforms.RandomHorizontalFlip(), *finish]))
    test = Photos(arguments.test, transforms.Compose([transforms.CenterCrop(224), *finish]), train.classes)
    model = torchvision.models.squeezenet1_0()
    model.load_state_dict(torch.load(arguments.model, weights_only=True))
    model.classifier[1] = torch.nn.Conv2d(512, len(train.classes), 1)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    groups = {True: [], False: []}
    for tensor in model.parameters():
        groups[tensor.dim() > 1].append(tensor)
    groups = [{"params": groups[True], "weight_decay": 0.05}, {"params": groups[False], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=arguments.lr)
    loader = torch.utils.data.DataLoader(train, arguments.batch_size, shuffle=True)
    steps, warm_up = arguments.epochs * len(loader), round(0.5 * len(loader))

    def rate(step):
        if step < warm_up:
            return (step + 1) / (warm_up + 1)
        share = (step - warm_up) / max(steps - warm_up, 1)
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    best = 0.0
    for _ in range(arguments.epochs):
        model.train()
        for pixels, labels in loader:
            loss = torch.nn.functional.cross_entropy(model(pixels), labels, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        model.eval()
        with torch.no_grad():
            batches = torch.utils.data.DataLoader(test, 32)
            hits = sum((model(pixels).argmax(1) == labels).sum().item() for pixels, labels in batches)
        best = max(best, hits / len(test))
    return best


def galley(arguments, seed):
    with tempfile.TemporaryDirectory() as folder:
        command = [arguments.galley, "train", "--data", arguments.data, "--val", arguments.test, "--json"]
        command += ["--model", arguments.model, "--out", f"{folder}/run", "--seed", str(seed), "--duplicates", "keep"]
        command += ["--epochs", str(arguments.epochs), "--batch-size", str(arguments.batch_size), "--lr", str(arguments.lr)]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return json.loads(lines[-1])["best"]["top1"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--galley", default="target/release/galley")
    parser.add_argument("--engines", default="galley,pytorch")
    arguments = parser.parse_args()
    engines = {"galley": galley, "pytorch": pytorch}
    for engine in arguments.engines.split(","):
        scores = [engines[engine](arguments, int(seed)) for seed in arguments.seeds.split(",")]
        print(f"{engine:8} {' '.join(f'{100 * score:.1f}' for score in scores)}  mean {100 * sum(scores) / len(scores):.1f} %", flush=True)


if __name__ == "__main__":
    main()
