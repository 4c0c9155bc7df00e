"""Photos to network input (256, centre 224) by Galley, Pillow and torchvision, on one machine in alternating rounds.

    pip install pillow numpy torch torchvision
    python tests/peers/images.py FOLDER_OF_PHOTOS [--rounds 5] [--threads 2]

The 12-megapixel photos are made from the largest photos in the folder (enlarged, with the grain of a camera, about
3.4 MB each); its JPEGs of less than a megapixel are measured as they are. Prints the median of photos per second and
its ratio to Pillow's with draft mode. Galley decodes in decoding.rs, which is built first.
"""

import argparse
import io
import os
import pathlib
import platform
import re
import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image, features

ROOT = pathlib.Path(__file__).resolve().parents[2]
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def machine():
    cpus = pathlib.Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", cpus.read_text()) if cpus.exists() else []
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, {platform.system()}"


def jpegs(folder):
    """Path and pixels of each JPEG below the folder."""
    found = []
    for path in sorted(pathlib.Path(folder).rglob("*")):
        if path.suffix.lower() in (".jpg", ".jpeg"):
            try:
                with Image.open(path) as image:
                    if image.format == "JPEG" and image.mode == "RGB":
                        found.append((path, image.width * image.height))
            except OSError:
                pass  # damaged on purpose, in some collections
    return found


def twelve_megapixels(path, seed, target_bytes=3_400_000):
    """The photo at 4032 x 3024 with grain, at the quality that comes nearest to the size from below."""
    with Image.open(path) as image:
        image = image.convert("RGB")
    if image.width < image.height:
        image = image.transpose(Image.Transpose.ROTATE_90)
    pixels = np.asarray(image.resize((4032, 3024), Image.Resampling.LANCZOS), np.int16)
    grain = np.random.default_rng(seed).normal(0, 4, (3024, 4032, 1)).round().astype(np.int16)
    noisy = Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8))
    for quality in range(95, 40, -2):
        data = io.BytesIO()
        noisy.save(data, "JPEG", quality=quality, subsampling="4:2:0")
        if data.tell() <= target_bytes:
            break
    return data.getvalue()


def make_large_photos(folder, out, count):
    """Writes `count` 12-megapixel JPEGs to `out`; more than four are copies of the first four."""
    largest = [path for path, _ in sorted(jpegs(folder), key=lambda found: -found[1])[:4]]
    if not largest:
        raise SystemExit(f"no JPEGs in {folder}")
    datas = [twelve_megapixels(path, seed) for seed, path in enumerate(largest)]
    for number in range(count):
        (pathlib.Path(out) / f"{number:04}.jpg").write_bytes(datas[number % len(datas)])
    return sum(map(len, datas)) / len(datas)


def with_pillow(path, draft):
    with Image.open(path) as image:
        if draft:
            image.draft("RGB", (256, 256))
        image = image.convert("RGB")
    width, height = image.size
    scale = 256 / min(width, height)
    width, height = round(width * scale), round(height * scale)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - 224) // 2, (height - 224) // 2
    levels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32)
    return (levels / 255 - MEAN) / STD


def with_torchvision(path):
    import torch
    from torchvision.io import ImageReadMode, decode_image, read_file
    from torchvision.transforms.v2 import functional

    pixels = decode_image(read_file(str(path)), mode=ImageReadMode.RGB)
    pixels = functional.resize(pixels, [256], antialias=True)
    pixels = functional.center_crop(pixels, [224, 224]).to(torch.float32) / 255
    return functional.normalize(pixels, MEAN.tolist(), STD.tolist())


def python_rate(load, photos, threads, seconds):
    """Photos per second of `load` on a pool of threads."""
    end = time.perf_counter() + seconds

    def work(first):
        number = first
        while time.perf_counter() < end:
            load(photos[number % len(photos)])
            number += threads
        return (number - first) // threads

    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        done = sum(pool.map(work, range(threads)))
    return done / (time.perf_counter() - start)


def galley_command():
    """The program that decodes, built first."""
    build = ["cargo", "build", "--release", "--locked", "--manifest-path", "tests/peers/Cargo.toml", "--bin", "decoding"]
    subprocess.run([*build, "--target-dir", "target"], cwd=ROOT, check=True)
    return ROOT / "target/release/decoding"


def galley_rate(command, photos, threads, seconds):
    arguments = [command, "--threads", str(threads), "--seconds", str(seconds), *photos]
    said = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout
    return float(said.split()[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0, help="per engine and round")
    parser.add_argument("--program", help="the built decoding.rs, instead of building it")
    arguments = parser.parse_args()

    command = arguments.program or galley_command()
    engines = {
        "Galley": lambda photos: galley_rate(command, photos, arguments.threads, arguments.seconds),
        "Pillow, draft mode": lambda photos: python_rate(
            lambda path: with_pillow(path, True), photos, arguments.threads, arguments.seconds
        ),
        "Pillow": lambda photos: python_rate(
            lambda path: with_pillow(path, False), photos, arguments.threads, arguments.seconds
        ),
    }
    try:
        import torch
        import torchvision

        torch.set_num_threads(1)  # the pool has the threads
        engines[f"torchvision {torchvision.__version__}"] = lambda photos: python_rate(
            with_torchvision, photos, arguments.threads, arguments.seconds
        )
    except ImportError:
        pass
    library = f"Pillow {Image.__version__}, libjpeg-turbo {features.version('libjpeg_turbo')}"
    print(f"{machine()}; {arguments.threads} threads; {library}")

    with tempfile.TemporaryDirectory() as temporary:
        mean_bytes = make_large_photos(arguments.folder, temporary, 4)
        large = sorted(map(str, pathlib.Path(temporary).iterdir()))
        small = [str(path) for path, pixels in jpegs(arguments.folder) if 100_000 < pixels < 1_000_000][:200]
        collections = {f"4032x3024, {mean_bytes / 1e6:.1f} MB": large, "as they are, under a megapixel": small}
        for name, photos in collections.items():
            if not photos:
                continue
            rates = {engine: [] for engine in engines}
            for _ in range(arguments.rounds):
                for engine, rate in engines.items():
                    rates[engine].append(rate(photos))
            medians = {engine: statistics.median(values) for engine, values in rates.items()}
            print(f"\n{name}: {len(photos)} photos")
            for engine, median in medians.items():
                print(f"  {engine:24} {median:8.1f} per second  {median / medians['Pillow, draft mode']:5.2f} x")


if __name__ == "__main__":
    main()
