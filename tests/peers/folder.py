"""A folder of 12-megapixel photos through ConvNeXt-Tiny, end to end: `galley classify` against Pillow's draft mode with
ONNX Runtime, on the same cores in alternating rounds.

    pip install pillow numpy torch timm onnx onnxscript onnxruntime safetensors
    python tests/peers/folder.py FOLDER_OF_PHOTOS [--photos 64] [--rounds 3] [--threads 2]

The weights are random (the speed does not depend on them) and the same for both; the photos are made as in images.py.
The peer decodes on as many threads as Galley while ONNX Runtime computes the batch before. Prints the medians of photos
per second and their ratio. What starting up costs is measured by a run on one photo and left out on both sides.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import images


def make_model(folder):
    """The same random weights as a checkpoint and as an ONNX file."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = timm.create_model("convnext_tiny", pretrained=False).eval()
    checkpoint, exported = folder / "model.safetensors", folder / "model.onnx"
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, checkpoint)
    batch = torch.export.Dim("batch", min=1, max=1024)
    torch.onnx.export(
        model, (torch.zeros(2, 3, 224, 224),), exported, dynamo=True, dynamic_shapes=({0: batch},), verbose=False
    )
    return checkpoint, exported


def galley_seconds(program, checkpoint, photos, arguments):
    with tempfile.TemporaryDirectory() as journal:
        environment = os.environ | {"GALLEY_JOURNAL": str(pathlib.Path(journal) / "journal.sqlite")}
        flags = ["--threads", arguments.threads, "--batch-size", arguments.batch, "--device", "cpu", "--json"]
        flags += ["--resize", 256, "--interpolation", "bilinear"]  # as images.py does for the peer
        command = [program, "classify", "--model", checkpoint, *map(str, flags), *photos]
        start = time.perf_counter()
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        seconds = time.perf_counter() - start
    rows = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(rows) == len(photos), done.stderr
    return seconds


def peer_seconds(session, pool, photos, batch):
    """Decodes ahead of the batch that is computed."""
    start = time.perf_counter()
    ahead = [pool.submit(images.with_pillow, path, True) for path in photos[: 2 * batch]]
    for first in range(0, len(photos), batch):
        inputs = [decoded.result() for decoded in ahead[:batch]]
        del ahead[:batch]
        following = photos[first + 2 * batch : first + 3 * batch]
        ahead += [pool.submit(images.with_pillow, path, True) for path in following]
        pixels = np.ascontiguousarray(np.stack(inputs).transpose(0, 3, 1, 2))
        session.run(None, {session.get_inputs()[0].name: pixels})[0].argmax(axis=1)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--photos", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--program", default=images.ROOT / "target/release/galley", help="from `cargo build --release`")
    arguments = parser.parse_args()

    import onnxruntime

    with tempfile.TemporaryDirectory() as temporary:
        temporary = pathlib.Path(temporary)
        checkpoint, exported = make_model(temporary)
        photo_folder = temporary / "photos"
        photo_folder.mkdir()
        mean_bytes = images.make_large_photos(arguments.folder, photo_folder, arguments.photos)
        photos = sorted(map(str, photo_folder.iterdir()))

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = arguments.threads
        session = onnxruntime.InferenceSession(str(exported), options, providers=["CPUExecutionProvider"])
        rates = {"Galley": [], "Pillow draft + ONNX Runtime": []}
        with ThreadPoolExecutor(arguments.threads) as pool:
            peer_seconds(session, pool, photos[: arguments.batch], arguments.batch)  # the first run prepares
            for _ in range(arguments.rounds):
                starting = galley_seconds(arguments.program, checkpoint, photos[:1], arguments)
                whole = galley_seconds(arguments.program, checkpoint, photos, arguments)
                rates["Galley"].append((len(photos) - 1) / (whole - starting))
                rates["Pillow draft + ONNX Runtime"].append(
                    len(photos) / peer_seconds(session, pool, photos, arguments.batch)
                )

    print(f"{images.machine()}; {arguments.threads} threads; ONNX Runtime {onnxruntime.__version__}")
    print(f"ConvNeXt-Tiny f32, {len(photos)} photos of 4032x3024, {mean_bytes / 1e6:.1f} MB, batch {arguments.batch}")
    medians = {engine: statistics.median(values) for engine, values in rates.items()}
    for engine, median in medians.items():
        print(f"  {engine:28} {median:6.1f} per second  {median / medians['Pillow draft + ONNX Runtime']:5.2f} x")


if __name__ == "__main__":
    main()
