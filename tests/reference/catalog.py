"""Makes resources/catalog.json and resources/labels: which published weights Galley offers, and their class names.

Needs torch, torchvision and timm, and no network; run it from anywhere: python catalog.py
Addresses, licences and input transforms are timm's and torchvision's own. torchvision's file names carry the first
digits of the SHA-256; of timm's files Hugging Face tells it with each answer. Sizes are those torchvision states, rounded
by it, or the bytes of the tensors without the file's header: approximate, and called so.

Top-1 of timm's weights is what its results/results-imagenet.csv states (commit 0173a139a2c66db3a41ebfe1d8ac4fb02483642e)
with the side of the images it was measured at, and None where that table was not at hand.
"""

import json
import math
import pathlib

import timm
import torchvision
from torchvision.models import get_model, get_model_weights

RESOURCES = pathlib.Path(__file__).parents[2] / "resources"

TIMM = {
    "convnext_atto.d2_in1k": ("ConvNeXt Atto", 77.008, 288),
    "convnext_femto.d1_in1k": ("ConvNeXt Femto", 78.716, 288),
    "convnext_pico.d1_in1k": ("ConvNeXt Pico", 80.414, 288),
    "convnext_nano.in12k_ft_in1k": ("ConvNeXt Nano", 82.862, 288),
    "convnext_tiny.fb_in1k": ("ConvNeXt Tiny", 82.698, 288),
    "convnext_tiny.in12k_ft_in1k": ("ConvNeXt Tiny", None, None),
    "convnext_small.fb_in22k_ft_in1k": ("ConvNeXt Small", 85.262, 288),
    "convnext_base.fb_in22k_ft_in1k": ("ConvNeXt Base", 86.274, 288),
    "convnextv2_atto.fcmae_ft_in1k": ("ConvNeXt V2 Atto", 77.760, 288),
    "convnextv2_nano.fcmae_ft_in22k_in1k": ("ConvNeXt V2 Nano", 82.664, 288),
    "mobilenetv3_small_100.lamb_in1k": ("MobileNetV3 Small", 67.656, 224),
    "mobilenetv3_large_100.ra_in1k": ("MobileNetV3 Large", 75.766, 224),
    "efficientnet_b0.ra_in1k": ("EfficientNet B0", 77.694, 224),
    "efficientnet_b1.ft_in1k": ("EfficientNet B1", 78.800, 256),
    "efficientnet_b2.ra_in1k": ("EfficientNet B2", 80.610, 288),
    "efficientnet_b3.ra2_in1k": ("EfficientNet B3", 82.242, 320),
    "efficientnet_b4.ra2_in1k": ("EfficientNet B4", 83.414, 384),
    "resnet18.a1_in1k": ("ResNet-18", 73.158, 288),
    "resnet34.a1_in1k": ("ResNet-34", 77.918, 288),
    "resnet50.a1_in1k": ("ResNet-50", 81.214, 288),
    "resnet101.a1h_in1k": ("ResNet-101", 82.778, 288),
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k": ("ViT Tiny", 75.454, 224),
    "vit_small_patch16_224.augreg_in21k_ft_in1k": ("ViT Small", 81.384, 224),
    "vit_base_patch16_224.augreg_in21k_ft_in1k": ("ViT Base", None, None),
}

TORCHVISION = {
    "squeezenet1_1": ("SqueezeNet 1.1", "IMAGENET1K_V1"),
    "mobilenet_v2": ("MobileNetV2", "IMAGENET1K_V2"),
    "mobilenet_v3_small": ("MobileNetV3 Small", "IMAGENET1K_V1"),
    "mobilenet_v3_large": ("MobileNetV3 Large", "IMAGENET1K_V2"),
    "resnet18": ("ResNet-18", "IMAGENET1K_V1"),
    "resnet34": ("ResNet-34", "IMAGENET1K_V1"),
    "resnet50": ("ResNet-50", "IMAGENET1K_V2"),
    "resnet101": ("ResNet-101", "IMAGENET1K_V2"),
    "wide_resnet50_2": ("Wide ResNet-50", "IMAGENET1K_V2"),
    "convnext_tiny": ("ConvNeXt Tiny", "IMAGENET1K_V1"),
    "vit_b_16": ("ViT Base", "IMAGENET1K_V1"),
}

LICENCES = {"apache-2.0": "Apache-2.0", "cc-by-nc-4.0": "CC-BY-NC-4.0"}


def counted(model):
    state = model.state_dict().values()
    return sum(p.numel() for p in model.parameters()), sum(t.numel() * t.element_size() for t in state)


def from_timm(name, title, top1, side):
    config = timm.get_pretrained_cfg(name)
    assert config.crop_mode == "center" and config.num_classes == 1000
    parameters, size = counted(timm.create_model(name, pretrained=False))
    return {
        "name": name,
        "title": title,
        "architecture": name.split(".")[0],
        "published_by": "timm",
        "address": f"https://huggingface.co/{config.hf_hub_id}/resolve/main/model.safetensors",
        "sha256": None,
        "approximate_bytes": size,
        "parameters": parameters,
        "licence": LICENCES[config.license],
        "top1": top1,
        "top1_side": side,
        "input": {
            "input_size": list(config.input_size),
            "crop_pct": config.crop_pct,
            "interpolation": config.interpolation,
            "mean": list(config.mean),
            "std": list(config.std),
        },
    }


def from_torchvision(name, title, weights):
    weights = get_model_weights(name)[weights]
    transform = weights.transforms()
    (side,), (resize,) = transform.crop_size, transform.resize_size
    # timm's way of saying it: the shorter side becomes floor(side / crop_pct).
    share = round(side / (resize + 0.5), 4) if resize > side else 1.0
    assert math.floor(side / share) == resize
    return {
        "name": f"{name}.tv_{'in1k' if weights.name.endswith('V1') else 'v2_in1k'}",
        "title": title,
        "architecture": name,
        "published_by": "torchvision",
        "address": weights.url,
        "sha256": weights.url.rsplit("-", 1)[1].split(".")[0],
        "approximate_bytes": round(weights.meta["_file_size"] * 2**20),
        "parameters": counted(get_model(name))[0],
        "licence": "BSD-3-Clause",
        "top1": weights.meta["_metrics"]["ImageNet-1K"]["acc@1"],
        "top1_side": side,
        "input": {
            "input_size": [3, side, side],
            "crop_pct": share,
            "interpolation": transform.interpolation.value,
            "mean": transform.mean,
            "std": transform.std,
        },
    }


models = [from_timm(name, *facts) for name, facts in TIMM.items()]
models += [from_torchvision(name, *facts) for name, facts in TORCHVISION.items()]
lines = ",\n".join(json.dumps(model) for model in models)
(RESOURCES / "catalog.json").write_text(f"[\n{lines}\n]\n")
names = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
assert len(names) == 1000
(RESOURCES / "labels").mkdir(exist_ok=True)
(RESOURCES / "labels" / "imagenet-1k.txt").write_text("".join(name + "\n" for name in names))
