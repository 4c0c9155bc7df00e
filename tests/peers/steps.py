"""Compares steps of training in Galley and PyTorch: photos per second, one after the other in one run, as ratios.

Needs torch and timm (pip install torch timm) and a release build of galley; run it from the project's folder:
  python tests/peers/steps.py --rounds 3 convnext_tiny:8:224 convnext_tiny:8:224:recompute mobilenetv3_large_100:16:224
A case is NETWORK:BATCH:SIDE, with `recompute` for blocks that are computed twice (timm's gradient checkpointing). Both take
AdamW steps in f32 on made-up pixels with two threads. PyTorch gets the allocator settings that make it fastest on Linux:
buffers are reused instead of mapped anew.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

TUNED = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
}
STEPS = 6


def step_pytorch(name, batch, side, recompute):
    """Runs in a process of its own; prints photos per second."""
    import timm
    import torch

    torch.set_num_threads(2)
    model = timm.create_model(name, num_classes=1000).train()
    model.set_grad_checkpointing(recompute)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    pixels, labels = torch.randn(batch, 3, side, side), torch.randint(0, 1000, (batch,))

    def step():
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model(pixels), labels).backward()
        optimizer.step()

    step()
    started = time.perf_counter()
    for _ in range(STEPS):
        step()
    print(batch * STEPS / (time.perf_counter() - started))


def pytorch(case):
    command = [sys.executable, __file__, "--child", case]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | TUNED).stdout)


def galley(program, case):
    name, batch, side, *rest = case.split(":")
    command = [program, "bench", "--train", "--arch", name, "--batch", batch, "--image", side, "--threads", "2"]
    command += ["--rounds", "1", "--json"] + (["--recompute"] if rest else [])
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=["convnext_tiny:8:224"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--galley", default="target/release/galley")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, batch, side, *rest = arguments.child.split(":")
        return step_pytorch(name, int(batch), int(side), bool(rest))
    for case in arguments.cases:
        ours, theirs, peaks = [], [], []
        for _ in range(arguments.rounds):
            theirs.append(pytorch(case))
            measured = galley(arguments.galley, case)
            ours.append(measured["images_per_second"])
            peaks.append(measured["peak_bytes"])
        ratio = statistics.median(one / other for one, other in zip(ours, theirs))
        print(
            f"{case:40} galley {statistics.median(ours):.2f}  pytorch {statistics.median(theirs):.2f} photos/s"
            f"  ratio {ratio:.2f}  galley's peak {max(peaks) / 1e6:.0f} MB",
            flush=True,
        )


if __name__ == "__main__":
    main()
