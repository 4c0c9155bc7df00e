"""Trains a ResNet-18, distils it into a network of a twentieth of its size, and trains the same student alone: same photos,
settings and seeds.

Needs a release build of galley; run it from the project's folder:
  python tests/bench/distill.py [--per-dish 600] [--epochs 40] [--seeds 0,1,2] [--student mobilenetv3_small_050] [--teacher starter]
Draws photos of each dish that are none of `sample-data/photos`, trains on them, keeps the epoch that is best on
`sample-data/photos/train`, and evaluates on `sample-data/photos/test` and on 100 further photos of each dish. Prints a row per
seed and the means.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile

GALLEY = pathlib.Path(os.environ.get("GALLEY", "target/release/galley")).resolve()
PHOTOS = pathlib.Path("sample-data/photos").resolve()


def draw(folder, per_dish, seed):
    command = ["cargo", "run", "--release", "--quiet", "--example", "generate-sample-data", "--"]
    subprocess.run([*command, "--per-class", str(per_dish), "--seed", str(seed), "--out", str(folder)], check=True)
    return folder


def galley(*arguments):
    return subprocess.run([GALLEY, *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def right(model, parts):
    """The shares of photos that are named rightly."""
    options = [] if model == "starter" else ["--model", model]
    return [json.loads(galley("evaluate", *options, part, "--json"))["evaluation"]["top1"] for part in parts]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--per-dish", type=int, default=600)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--student", default="mobilenetv3_small_050")
    parser.add_argument("--teacher", help="a checkpoint, or `starter`; none: one is trained first")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        os.environ.update(GALLEY_TILES=str(folder / "tiles"), GALLEY_JOURNAL=str(folder / "journal.sqlite"))
        dishes, others = draw(folder / "dishes", wanted.per_dish, 5), draw(folder / "others", 100, 9)
        parts = [PHOTOS / "test", others]
        common = ["--val", PHOTOS / "train", "--image-size", 96, "--batch-size", 64, "--warmup-epochs", 2]
        common += ["--ema", 0.99, "--crop-scale", "0.5,1", "--brightness", 0.25, "--contrast", 0.25]
        settings = [*common, "--epochs", wanted.epochs, "--lr", 3e-3]
        teacher = wanted.teacher
        if teacher is None:
            own = [*common, "--epochs", 24, "--lr", 2e-3, "--seed", 0, "--out", folder / "teacher"]
            galley("train", "--data", dishes, "--arch", "resnet18", *own)
            teacher = folder / "teacher" / "best.safetensors"

        def row(name, shares):
            print(f"| {name} | " + " | ".join(f"{100 * share:.1f} %" for share in shares) + " |", flush=True)

        print("| | the 96 test photos | 800 others |\n|---|---|---|")
        row("the teacher", right(teacher, parts))
        found = {"distilled": [], "alone": []}
        for seed in wanted.seeds.split(","):
            for way, shares in found.items():
                run = folder / f"{way}-{seed}"
                own = [*settings, "--seed", seed, "--out", run]
                if way == "distilled":
                    galley("distill", teacher, dishes, "--student", wanted.student, "--distill-weight", 0.9, *own)
                else:
                    galley("train", "--data", dishes, "--arch", wanted.student, *own)
                shares.append(right(run / "best.safetensors", parts))
                row(f"{way}, seed {seed}", shares[-1])
        for way, shares in found.items():
            row(f"{way}, mean", [statistics.mean(column) for column in zip(*shares)])


if __name__ == "__main__":
    main()
