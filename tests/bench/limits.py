"""Runs galley in control groups with little memory: what must work there works, and nothing is ever killed.

Needs torch, torchvision and timm (pip install torch torchvision timm), a release build of galley, Linux, and the right to make control groups (v1 or
v2, as root); run it from the project's folder:
  python tests/bench/limits.py PHOTOS LABELLED [--random 50] [--seed 0]
PHOTOS is a folder with at least 1,000 photos, LABELLED one with a folder per class. First come the cases with a name, then
configurations drawn at random: network, work, batch, side, precision, recompute and limit. Each prints a line: how it ended
(`done`, `refused` with the message, `failed`, `KILLED`), the most the group held, and seconds. Networks have random weights.
"""

import argparse
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

GALLEY = pathlib.Path("target/release/galley").resolve()
SMALL = ["mobilenetv3_small_100", "mobilenetv3_large_100", "efficientnet_b0", "squeezenet1_1", "convnext_atto"]
NETWORKS = SMALL + ["resnet18", "resnet50", "convnext_tiny", "vit_tiny_patch16_224", "convnextv2_atto"]


# Networks, batches, and a person's own limit in MB, where the system has more.
OWN_LIMITS = [
    ("convnext_atto", 16, 100),
    ("convnext_atto", 16, 130),
    ("convnext_atto", 16, 160),
    ("resnet18", 16, 300),
    ("resnet18", 16, 400),
    ("convnext_tiny", 16, 600),
    ("convnext_tiny", 16, 800),
    ("mobilenetv3_large_100", 32, 200),
    ("efficientnet_b0", 16, 250),
    ("squeezenet1_1", 32, 150),
]


class Group:
    """A control group without swap for one command."""

    def __init__(self, limit):
        self.is_second = pathlib.Path("/sys/fs/cgroup/cgroup.controllers").exists()
        root = pathlib.Path("/sys/fs/cgroup" if self.is_second else "/sys/fs/cgroup/memory")
        lines = pathlib.Path("/proc/self/cgroup").read_text().splitlines()
        own = next(line.split(":", 2)[2] for line in lines if line.split(":")[1] == ("" if self.is_second else "memory"))
        self.folder = root / own.lstrip("/") / f"galley-{os.getpid()}-{time.monotonic_ns()}"
        self.folder.mkdir()
        (self.folder / ("memory.max" if self.is_second else "memory.limit_in_bytes")).write_text(str(limit))

    def enter(self):
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    def kills(self):
        events = "memory.events" if self.is_second else "memory.oom_control"
        fields = dict(line.split() for line in (self.folder / events).read_text().splitlines())
        return int(fields.get("oom_kill", 0))

    def close(self):
        self.folder.rmdir()


def run(arguments, limit, work):
    """How galley ended with these arguments in a group of so many bytes, the most it had resident, and seconds."""
    group = Group(limit)
    environment = os.environ | {f"GALLEY_{name}": str(work / name.lower()) for name in ["TILES", "VERDICTS"]}
    environment["GALLEY_JOURNAL"] = str(work / "journal.sqlite")
    started, peak = time.monotonic(), 0
    with open(work / "out", "wb") as out, open(work / "err", "wb") as err:
        child = subprocess.Popen([GALLEY, *arguments], stdout=out, stderr=err, env=environment, preexec_fn=group.enter)
        while child.poll() is None:
            try:
                status = pathlib.Path(f"/proc/{child.pid}/status").read_text()
                peak = max(peak, next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")))
            except (OSError, StopIteration):
                pass
            time.sleep(0.005)
    seconds, kills = time.monotonic() - started, group.kills()
    group.close()
    message = (work / "err").read_text(errors="replace").strip().splitlines()[-1:] or [""]
    if kills or child.returncode == -signal.SIGKILL:
        ended = "KILLED"
    elif child.returncode == 0:
        ended = "done"
    else:
        ended = "refused" if any(word in message[0] for word in ["memory budget", "does not fit"]) else "failed"
    return ended, peak * 1024, seconds, message[0]


def told(name, limit, ended, peak, seconds, message):
    tail = "" if ended == "done" else f"  {message[:300]}"
    print(f"{name:70} {limit / 1e6:6.0f} MB  {ended:8} {peak / 1e6:6.0f} MB {seconds:6.0f} s{tail}", flush=True)


def checkpoint(name, path, with_adam):
    """Random weights, as a training saves them with Adam's two moments or as safetensors."""
    import timm
    import torch
    import torchvision
    from safetensors.torch import save_file

    torch.manual_seed(0)
    make = torchvision.models.squeezenet1_1 if name == "squeezenet1_1" else lambda **rest: timm.create_model(name, **rest)
    state = make(num_classes=101).state_dict()
    if not with_adam:
        return save_file({key: value.contiguous() for key, value in state.items()}, path)
    moments = {
        index: {"step": torch.tensor(100.0), "exp_avg": torch.randn_like(value), "exp_avg_sq": torch.rand_like(value)}
        for index, value in enumerate(state.values())
    }
    groups = [{"lr": 1e-4, "betas": (0.9, 0.999), "params": list(range(len(state)))}]
    torch.save({"epoch": 7, "model": state, "optimizer": {"state": moments, "param_groups": groups}}, path)


def drawn(choice, photos, labelled, out):
    """A configuration at random: arguments and the limit."""
    network, limit = choice.choice(NETWORKS), choice.choice([100, 150, 200, 256, 384, 512, 768, 1024]) << 20
    side = 224 if network.startswith("vit") else choice.choice([96, 160, 224, 288])
    batch = choice.choice([1, 4, 8, 16, 32, 64])
    if choice.random() < 0.5:
        precision = choice.choice(["stored", "f32", "int8", "int4"])
        arguments = ["classify", str(photos), "--model", f"{network}.safetensors", "--precision", precision, "--fresh"]
        arguments += ["--resize", str(side), "--crop", str(side)] if not network.startswith("vit") else []
    else:
        recompute = choice.choice(["none", "auto", "all"])
        arguments = ["train", "--model", f"{network}.safetensors", "--data", str(labelled), "--image-size", str(side), "--epochs", "1"]
        arguments += ["--per-class", "8", "--recompute", recompute, "--unfreeze", choice.choice(["all", "2", "head"])]
        arguments += ["--out", str(out)]
    return arguments + ["--batch-size", str(batch)], limit


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=pathlib.Path)
    parser.add_argument("labelled", type=pathlib.Path)
    parser.add_argument("--random", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    photos, labelled = options.photos.resolve(), options.labelled.resolve()
    endings = {}
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        os.chdir(work)
        few = work / "few"
        few.mkdir()
        files = sorted(path for path in photos.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
        thousand = work / "thousand"
        thousand.mkdir()
        for index, path in enumerate(files[:: max(1, len(files) // 1000)][:1000]):
            (thousand / f"{index:04}{path.suffix}").symlink_to(path)
            if index < 40:
                (few / f"{index:04}{path.suffix}").symlink_to(path)
        checkpoint("convnext_base", work / "base.pth", with_adam=True)
        for name in NETWORKS:
            checkpoint(name, work / f"{name}.safetensors", with_adam=False)
        mebi = 1 << 20
        train = ["train", "--arch", "convnext_tiny", "--data", str(labelled), "--epochs", "1", "--out", "run"]
        cases = [
            ("inspect a training checkpoint of ConvNeXt-Base", ["inspect", "base.pth"], 512),
            ("quantize the same to 8 bits", ["quantize", "base.pth", "base-8bit.gguf"], 512),
            ("quantize the same to 4 bits", ["quantize", "base.pth", "base-4bit.gguf", "--type", "q4_0"], 512),
            ("1,000 photos, in 8 bits", ["classify", "thousand", "--model", "base-8bit.gguf"], 512),
            ("1,000 photos, rounded while reading", ["classify", "thousand", "--model", "base.pth", "--precision", "int8"], 512),
            ("40 photos, the original in f32", ["classify", "few", "--model", "base.pth", "--precision", "f32"], 512),
            ("40 photos, ConvNeXt-Tiny", ["classify", "few", "--model", "convnext_tiny.safetensors"], 256),
            ("one photo, ConvNeXt-Tiny", ["classify", "few/0000.jpg", "--model", "convnext_tiny.safetensors"], 256),
            ("the same in 8 bits", ["classify", "few/0000.jpg", "--model", "convnext_tiny.safetensors", "--precision", "int8"], 256),
            ("training ConvNeXt-Tiny, batch 24", [*train, "--per-class", "8", "--batch-size", "24"], 1024),
        ]
        print(f"base.pth is {(work / 'base.pth').stat().st_size / 1e6:.0f} MB")
        for name, arguments, limit in cases:
            if arguments[0] == "classify":
                arguments = [*arguments, "--largest-model", "2GB"]
            told(name, limit * mebi, *run(arguments, limit * mebi, work))
        for index, (name, batch, limit) in enumerate(OWN_LIMITS):
            arguments = ["train", "--arch", name, "--data", str(labelled), "--per-class", "8", "--epochs", "1"]
            arguments += ["--batch-size", str(batch), "--memory-limit", f"{limit}MB", "--out", f"own {index}"]
            told(f"--memory-limit {limit}MB, training {name}, batch {batch}", limit * 10**6, *run(arguments, 4 << 30, work))
        choice = random.Random(options.seed)
        for number in range(options.random):
            arguments, limit = drawn(choice, few, labelled, work / f"run {number}")
            ended = run(arguments, limit, work)
            hidden = {str(few): "PHOTOS", str(labelled): "LABELLED", str(work / f"run {number}"): "RUN"}
            name = " ".join(hidden.get(word, word) for word in arguments if word not in {"--data", "--out"})
            told(name, limit, *ended)
            endings[ended[0]] = endings.get(ended[0], 0) + 1
    print(json.dumps(endings))
    sys.exit("KILLED" in endings or "failed" in endings)


if __name__ == "__main__":
    main()
