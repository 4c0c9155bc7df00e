"""Makes the network references beside this script: what timm and torchvision answer with weights made by a formula.

Needs torch, torchvision and timm; run it from anywhere: python networks.py
Every weight is a function of its tensor's name, shape and index (see `fill`), which tests/it/networks.rs repeats, so
that a reference holds names, shapes and logits only. The input is x[n] = sin(0.013 n), n = 0 .. 3*H*W-1 in NCHW order.
"""

import json
import math
import pathlib
import re

import numpy as np
import timm
import torch
import torchvision

OUT = pathlib.Path(__file__).parent / "networks"
CLASSES = 12


def fnv1a(text):
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def uniform(name, count):
    """splitmix64 of the name's hash plus the index, as 24 bits in [-1, 1)."""
    z = np.uint64(fnv1a(name)) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return ((z >> np.uint64(40)).astype(np.float64) / 2**23 - 1.0).astype(np.float32)


def fill(name, shape):
    count = math.prod(shape)
    u = uniform(name, count)
    f = np.float32
    long = [n for n in shape if n != 1]
    if name.endswith("running_var"):
        values = f(1) + f(0.5) * u
    elif name.endswith("running_mean"):
        values = f(0.1) * u
    elif "grn" in name:
        values = f(0.5) * u
    elif name.endswith("bias"):
        values = f(0.1) * u
    elif re.search("gamma$|layer_scale$", name):
        values = f(0.5) + f(0.2) * u
    elif len(long) <= 1 and name.endswith("weight") and len(shape) == 1:
        values = f(1) + f(0.2) * u
    elif re.search("token|pos_embed", name):
        values = f(0.5) * u
    else:  # keeps the variance of what goes through
        fan_in = math.prod(shape[1:])
        values = f(math.sqrt(3.0 / fan_in)) * u
    return torch.from_numpy(values.reshape(shape))


def compact(state):
    """Names and shapes; names share their beginning with the one before: [letters kept, rest, shape]."""
    rows, before = [], ""
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        kept = 0
        while kept < min(len(name), len(before)) and name[kept] == before[kept]:
            kept += 1
        rows.append([kept, name[kept:], list(tensor.shape)])
        before = name
    return rows


def original_names(state):
    """timm's ConvNeXt names as the papers' repository has them."""
    renamed = {}
    for name, tensor in state.items():
        name = re.sub(r"^stem\.", "downsample_layers.0.", name)
        name = re.sub(r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1.", name)
        name = re.sub(r"^stages\.(\d)\.blocks\.", r"stages.\1.", name)
        for timm_name, name_there in [
            ("conv_dw", "dwconv"), ("mlp.fc1", "pwconv1"), ("mlp.fc2", "pwconv2"), ("mlp.grn.weight", "grn.gamma"),
            ("mlp.grn.bias", "grn.beta"), ("head.norm", "norm"), ("head.fc", "head"),
        ]:
            name = name.replace(timm_name, name_there)
        if "pwconv" in name and name.endswith("weight"):
            tensor = tensor.reshape(tensor.shape[:2])
        if "grn" in name:
            tensor = tensor.reshape(1, 1, 1, -1)
        renamed[name] = tensor
    return renamed


def logits(model, shaped, side):
    """Fills the model, its tensors named and shaped as in `shaped`, and runs it."""
    state = model.state_dict()
    for own, (name, tensor) in zip(list(state), shaped.items()):
        if not own.endswith("num_batches_tracked"):
            state[own] = fill(name, list(tensor.shape)).reshape(state[own].shape)
    model.load_state_dict(state)
    model.eval()
    x = torch.from_numpy(np.sin(0.013 * np.arange(3 * side * side)).astype(np.float32)).reshape(1, 3, side, side)
    with torch.no_grad():
        return [round(v, 6) for v in model(x)[0].double().tolist()]


def head(*layers):
    return torch.nn.Sequential(*layers)


def replaced(kind):
    nn = torch.nn
    if kind == "mobilenet-linear":
        model = torchvision.models.mobilenet_v2()
        model.classifier = head(nn.Dropout(0.2), nn.Linear(1280, 48), nn.ReLU(), nn.Dropout(0.3), nn.Linear(48, CLASSES))
    elif kind == "mobilenet-v3-last":
        model = torchvision.models.mobilenet_v3_small()
        model.classifier[3] = head(nn.Dropout(0.2), nn.Linear(1024, 32), nn.ReLU(), nn.Linear(32, CLASSES))
    elif kind == "resnet-norms":
        model = torchvision.models.resnet18()
        model.fc = head(
            nn.BatchNorm1d(512), nn.Dropout(0.2), nn.Linear(512, 40), nn.ReLU(), nn.BatchNorm1d(40), nn.Dropout(0.5),
            nn.Linear(40, CLASSES, bias=False),
        )
    elif kind == "convnext-sequential":
        model = timm.create_model("convnext_atto", num_classes=CLASSES)
        model.head.fc = head(nn.Linear(320, 64), nn.LayerNorm(64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, CLASSES))
    return model


def save(name, expected, model, side, run, rename=dict):
    shaped = rename(model.state_dict())
    reference = {"name": name, "expected": expected, "side": side, "tensors": compact(shaped)}
    reference["parameters"] = sum(p.numel() for p in model.parameters())
    if run:
        reference["logits"] = logits(model, shaped, side)
    (OUT / f"{name}.json").write_text(json.dumps(reference, separators=(",", ":")) + "\n")
    print(name, len(shaped), reference.get("logits", "")[:3], flush=True)


def make(library, expected, side=64, run=True, file=None, rename=dict):
    """`run=False` for the large ones: names and shapes only."""
    create = timm.create_model if library == "timm" else torchvision.models.get_model
    with torch.device("cpu" if run else "meta"):
        model = create(expected, num_classes=CLASSES)
    save(file or f"{library}-{expected}", expected, model, side, run, rename)


def main():
    OUT.mkdir(exist_ok=True)
    for size in ["atto", "femto", "pico", "nano", "tiny"]:
        make("timm", f"convnext_{size}")
        make("timm", f"convnextv2_{size}")
    for name in ["convnext_atto_ols", "convnext_nano_ols", "convnext_tiny_hnf"]:
        make("timm", name)
    for name in ["convnext_small", "convnext_base", "convnext_large", "convnext_xlarge", "convnextv2_base",
                 "convnextv2_large", "convnextv2_huge"]:
        make("timm", name, run=False)
    make("torchvision", "convnext_tiny")
    for name in ["convnext_small", "convnext_base", "convnext_large"]:
        make("torchvision", name, run=False)
    make("timm", "convnext_tiny", file="original-convnext_tiny", rename=original_names)
    make("timm", "convnextv2_atto", file="original-convnextv2_atto", rename=original_names)
    for name in ["mobilenetv2_100", "mobilenetv2_050", "mobilenetv2_140", "mobilenetv3_small_100",
                 "mobilenetv3_large_100", "mobilenetv3_small_050", "mobilenetv3_small_075", "mobilenetv3_large_075",
                 "tf_mobilenetv3_small_100", "tf_efficientnet_b0"]:
        make("timm", name, side=75 if name.startswith("tf_") else 64)
    for name in ["mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"]:
        make("torchvision", name)
    for number in range(8):
        run = number <= 4 or number == 5
        make("timm", f"efficientnet_b{number}", run=run)
        make("torchvision", f"efficientnet_b{number}", run=run)
    for name in ["resnet18", "resnet34", "resnet50"]:
        make("torchvision", name)
    for name in ["resnet101", "resnet152", "wide_resnet50_2", "wide_resnet101_2"]:
        make("torchvision", name, run=False)
    make("timm", "resnet50")
    make("torchvision", "squeezenet1_0", side=97)
    make("torchvision", "squeezenet1_1", side=97)
    make("timm", "vit_tiny_patch16_224", side=224)
    make("timm", "vit_small_patch16_224", side=224)
    make("timm", "vit_base_patch16_224", side=224, run=False)
    make("timm", "vit_tiny_patch16_384", side=384, run=False)
    make("torchvision", "vit_b_16", side=224)
    for kind, expected in [("mobilenet-linear", "mobilenet_v2"), ("mobilenet-v3-last", "mobilenet_v3_small"),
                           ("resnet-norms", "resnet18"), ("convnext-sequential", "convnext_atto")]:
        model = replaced(kind)
        save(f"head-{kind}", expected, model, 64, True)


if __name__ == "__main__":
    main()
