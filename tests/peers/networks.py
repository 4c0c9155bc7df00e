"""Compares Galley's inference with PyTorch, ONNX Runtime and OpenVINO on this machine, alternating in rounds.

Needs Linux and: pip install torch torchvision timm onnx onnxruntime openvino nncf
    cargo build --release
    python tests/peers/networks.py --networks convnext_tiny --batch 1,8,32 --precision f32,int8

Each engine is a process of its own. In every round each runs for some seconds while the others are stopped (SIGSTOP), so
that all meet the same state of the machine; what counts is the median pass of a round and the median of the rounds.
Memory is the highest resident size of the whole process (VmHWM), Python and imports included for the peers.
"""

import argparse
import contextlib
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
PEERS = {"f32": ["pytorch", "onnxruntime", "openvino"], "int8": ["onnxruntime", "openvino"]}
# The networks' usual input where it is not 224 pixels.
SIDES = {"efficientnet_b2": 288}


class Peer:
    """A process of engines.py, stopped except while it measures."""

    def __init__(self, engine, options, name, side, batch, precision):
        suffix = "xml" if engine == "openvino" else "onnx"
        file = options.cache / f"{name}-{side}-{precision}.{suffix}"
        command = [sys.executable, HERE / "engines.py", engine, file, name, batch, side, options.threads]
        self.process = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.batch = batch
        self.expect("ready")
        self.process.send_signal(signal.SIGSTOP)

    def expect(self, wanted=None):
        line = self.process.stdout.readline().strip()
        while wanted and line != wanted:
            if not line:
                sys.exit(f"an engine ended early: {self.process.args}")
            line = self.process.stdout.readline().strip()
        return line

    def measure(self, seconds):
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        answer = json.loads(self.expect())
        self.process.send_signal(signal.SIGSTOP)
        return {"images_per_second": self.batch * 1e3 / answer["milliseconds"], **answer}

    def close(self):
        self.process.kill()
        self.process.wait()


class Galley:
    """`galley bench`, started anew for every measurement."""

    def __init__(self, options, name, side, batch, precision):
        settings = {
            "arch": name, "image": side, "batch": batch, "precision": precision, "threads": options.threads,
            "device": "cpu", "rounds": 1,
        }
        flags = [f"--{key}={value}" for key, value in settings.items()]
        # As the peers' networks are.
        calibrated = ["--calibrated"] if precision == "int8" else []
        self.command = [options.galley, "bench", "--json", *flags, *calibrated]

    def measure(self, seconds):
        done = subprocess.run([*self.command, f"--seconds={seconds}"], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip())
        return json.loads(done.stdout)

    def close(self):
        pass


def compare(options, name, side, batch, precision):
    """Medians over the rounds, by engine; an engine that fails is left out, and why is said."""
    makers = {"galley": lambda: Galley(options, name, side, batch, precision)}
    for engine in PEERS[precision]:
        makers[engine] = lambda engine=engine: Peer(engine, options, name, side, batch, precision)
    with contextlib.ExitStack() as stack:
        engines = {}
        for engine in [engine for engine in options.engines if engine in makers]:
            engines[engine] = makers[engine]()
            stack.callback(engines[engine].close)
        rounds = {engine: [] for engine in engines}
        for number in range(options.rounds):
            # Everyone is first at times: the machine may change speed within a round.
            first = number % len(engines)
            order = [*list(engines)[first:], *list(engines)[:first]]
            for engine in [engine for engine in order if engine in rounds]:
                try:
                    rounds[engine].append(engines[engine].measure(options.seconds))
                except (RuntimeError, OSError) as error:
                    print(f"{engine} cannot do {name}, batch {batch}, {precision}: {error}", file=sys.stderr)
                    del rounds[engine]
    return {engine: median(measured) for engine, measured in rounds.items()}


def median(rounds):
    keys = [key for key, value in rounds[0].items() if isinstance(value, (int, float))]
    return {key: statistics.median(row[key] for row in rounds) for key in keys}


def line(name, side, batch, precision, results, options):
    cells = []
    for engine in options.engines:
        result = results.get(engine)
        text = "–"
        if result:
            text = f"{result['images_per_second']:.1f} ({result['peak_bytes'] / 2**20:.0f})"
        cells.append(f"{text:>16}")
    # Two threads that are kept busy; less means that an engine did not use them.
    busy = " ".join(f"{results[engine]['cores']:.1f}" for engine in options.engines if "cores" in results.get(engine, {}))
    peers = [result["images_per_second"] for engine, result in results.items() if engine != "galley"]
    known = "galley" in results and peers
    ratio = f"{results['galley']['images_per_second'] / max(peers):.2f}" if known else "–"
    return f"{name:<24}{side:>5}{batch:>6}{precision:>6}{''.join(cells)}{ratio:>8}   {busy}"


def machine():
    with open("/proc/cpuinfo") as cpuinfo:
        names = [line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name")]
    flags = pathlib.Path("/proc/cpuinfo").read_text()
    features = [flag for flag in ["avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8"] if f" {flag}" in flags]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{names[0]}, {len(names)} cores, {' '.join(features)}, {memory:.0f} GiB, Linux {os.uname().release}"


def versions(engines):
    from importlib.metadata import version

    packages = {"pytorch": "torch"}
    return ", ".join(f"{engine} {version(packages.get(engine, engine))}" for engine in engines if engine != "galley")


def arguments():
    words = lambda text: text.split(",")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=words, default="convnext_tiny,convnext_atto,mobilenetv3_large_100,efficientnet_b2,resnet50")
    parser.add_argument("--batch", type=words, default="8")
    parser.add_argument("--precision", type=words, default="f32")
    parser.add_argument("--engines", type=words, default="galley,pytorch,onnxruntime,openvino")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--galley", default=str(REPOSITORY / "target/release/galley"))
    parser.add_argument("--cache", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()) / "galley-peers")
    return parser.parse_args()


def main():
    options = arguments()
    print(f"{machine()}; {options.threads} threads; {options.rounds} rounds of {options.seconds:g} s each")
    print(versions(options.engines))
    print("images per second (peak MiB of the whole process); ratio: Galley to the best peer; cores the peers kept busy")
    heads = "".join(f"{engine:>16}" for engine in options.engines)
    print(f"{'network':<24}{'px':>5}{'batch':>6}{'':>6}{heads}{'ratio':>8}   cores", flush=True)
    for name in options.networks:
        side = SIDES.get(name, 224)
        make = [sys.executable, HERE / "exports.py", options.cache, name, side, ",".join(options.precision)]
        made = subprocess.run([str(word) for word in make], capture_output=True, text=True)
        if made.returncode != 0:
            sys.exit(f"cannot export {name}:\n{made.stderr}")
        for precision in options.precision:
            for batch in map(int, options.batch):
                results = compare(options, name, side, batch, precision)
                print(line(name, side, batch, precision, results, options), flush=True)


if __name__ == "__main__":
    main()
