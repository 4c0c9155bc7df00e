"""Classifies photos on a Ray cluster with Ray Data.

Each actor keeps one `galley classify --stdin` process, which loads the model once and answers in order. A process that dies
is started again and asked anew what it had not answered; an actor or a machine that is lost is replaced by Ray, which
repeats its batch. The answers do not depend on which of them gave them.

    pip install "ray[data]"
    python packaging/ray/galley_ray.py --galley galley --model food.pth --actors 8 --out answers /photos

Every machine needs the `galley` program and must see the photos and the model under the same paths.
"""

import argparse
import json
import os
import subprocess
import threading

import ray

# Deaths of a process in a row, without an answer between them, that are taken for a photo's or the model's fault.
MOST_DEATHS = 3


class Galley:
    """A running `galley classify --stdin`, started again when it dies."""

    def __init__(self, program="galley", arguments=()):
        self.command = [program, "classify", "--stdin", *arguments]
        self.process = None
        self.start()

    def start(self):
        for _ in range(MOST_DEATHS):
            self.stop()
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            if self.process.stdout.readline().endswith("\n"):
                return
            # One that was killed may live the next time. One that ended by itself has said on standard error why it cannot.
            if self.process.wait() > 0:
                break
        raise RuntimeError(f"{' '.join(self.command)} ended with {self.process.returncode} before it was ready")

    def stop(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def __call__(self, batch):
        """Adds the column `answer`, a line of JSON for each `path`."""
        paths = [str(path) for path in batch["path"]]
        answers, deaths = [], 0
        while len(answers) < len(paths):
            before = len(answers)
            self.ask(paths[before:], answers)
            if len(answers) < len(paths):
                deaths = 1 if len(answers) > before else deaths + 1
                if deaths == MOST_DEATHS:
                    raise RuntimeError(f"Galley died {deaths} times at {paths[len(answers)]}")
                self.start()
        batch["answer"] = answers
        return batch

    def ask(self, paths, answers):
        """Appends answers to `answers` until all are there or the process is gone."""
        # Writing aside, because both pipes may be full.
        writer = threading.Thread(target=self.write, args=(self.process.stdin, paths))
        writer.start()
        for _ in paths:
            line = self.process.stdout.readline()
            # A line cut off in the middle is no answer.
            if not line.endswith("\n"):
                break
            answers.append(line.rstrip("\n"))
        writer.join()

    @staticmethod
    def write(lines, paths):
        try:
            for path in paths:
                lines.write(json.dumps({"path": path}) + "\n")
            lines.flush()
        except (BrokenPipeError, ValueError):
            pass  # the process is gone: whoever reads notices

    def __del__(self):
        self.stop()


def classify(paths, program="galley", arguments=(), actors=2, batch_size=64):
    """A Ray dataset with a `path` and an `answer`, a line of JSON, for each of `paths`."""
    photos = ray.data.from_items([{"path": path} for path in paths], override_num_blocks=max(1, len(paths) // batch_size))
    return photos.map_batches(
        Galley,
        fn_constructor_kwargs={"program": program, "arguments": list(arguments)},
        batch_size=batch_size,
        compute=ray.data.ActorPoolStrategy(size=actors),
        # One processor for each actor, and as many threads for its process.
        num_cpus=1,
    )


def photos_in(folder):
    names = (os.path.join(at, name) for at, _, files in os.walk(folder) for name in files)
    return sorted(name for name in names if name.lower().endswith((".jpg", ".jpeg", ".png", ".webp")))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--galley", default="galley", help="the program")
    parser.add_argument("--model", help="a checkpoint; without one the starter model")
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--out", required=True, help="a folder for Parquet files of paths and answers")
    options = parser.parse_args()
    arguments = ["--threads", "1"] + (["--model", options.model] if options.model else [])
    classify(photos_in(options.folder), options.galley, arguments, options.actors).write_parquet(options.out)


if __name__ == "__main__":
    main()
