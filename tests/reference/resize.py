"""Writes resize.json: what Pillow and torchvision make of a picture given by a formula.

Run from anywhere: python tests/reference/resize.py (Pillow 13, torchvision 0.29). Each case holds the size of the
picture, the resize, the crop, the filter, and the resulting bytes (rows of RGB) in hexadecimal; `sums` of every channel
stand in for the bytes of large results, with every 997th byte.

The picture: level(x, y, c) = (x*x*(c+3) + y*y*(5-c) + x*y*7 + x*11 + y*13 + c*50) mod 251, plus 4 where (x//5 + y//7)
is odd.
"""

import json
import pathlib

import numpy as np
from PIL import Image, __version__ as pillow_version
from torchvision import __version__ as torchvision_version
from torchvision import transforms
from torchvision.transforms import InterpolationMode


def picture(width: int, height: int) -> Image.Image:
    x = np.arange(width, dtype=np.int64)[None, :, None]
    y = np.arange(height, dtype=np.int64)[:, None, None]
    c = np.arange(3, dtype=np.int64)[None, None, :]
    levels = (x * x * (c + 3) + y * y * (5 - c) + x * y * 7 + x * 11 + y * 13 + c * 50) % 251
    levels = levels + 4 * ((x // 5 + y // 7) % 2)
    return Image.fromarray(levels.astype(np.uint8), "RGB")


SIZES = [(64, 48), (37, 53), (7, 5), (1, 1), (200, 3), (3, 200), (129, 128), (512, 340)]
# (resize, crop); a single number is the shorter side, a pair is (height, width).
STEPS = [(12, 16), (16, None), (40, 40), ([17, 31], 24), ([9, 30], 9), ([23, 11], None)]
LARGE = [((512, 384), 256, 224), ((341, 512), 256, 224), ((1008, 756), 256, 224), ((100, 68), 256, 224), ((30, 45), 235, 288)]


def case(size, resize, crop, name):
    steps = [transforms.Resize(resize, InterpolationMode(name))]
    if crop:
        steps.append(transforms.CenterCrop(crop))
    result = np.asarray(transforms.Compose(steps)(picture(*size)))
    entry = {"width": size[0], "height": size[1], "resize": resize, "crop": crop, "interpolation": name,
             "result": [result.shape[1], result.shape[0]]}
    if result.size <= 2500:
        entry["bytes"] = result.tobytes().hex()
    else:
        entry["sums"] = [int(total) for total in result.reshape(-1, 3).sum(0, dtype=np.int64)]
        entry["every_997th"] = [int(level) for level in result.reshape(-1)[::997]]
    return entry


def main():
    cases = []
    for name in ("bilinear", "bicubic"):
        for size in SIZES:
            for resize, crop in STEPS:
                if crop or isinstance(resize, list) or max(size) <= 8 * min(size):
                    cases.append(case(size, resize, crop, name))
        cases.extend(case(size, resize, crop, name) for size, resize, crop in LARGE)
    document = {"made_with": {"pillow": pillow_version, "torchvision": torchvision_version}, "cases": cases}
    path = pathlib.Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(document, separators=(",", ":")).replace('{"width"', '\n{"width"') + "\n")
    print(path.stat().st_size, "bytes,", len(cases), "cases")


if __name__ == "__main__":
    main()
