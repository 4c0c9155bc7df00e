"""Runs the sample photos through a local Ray of two actors, and again while processes and an actor are killed.

    python3 -m venv /tmp/ray && /tmp/ray/bin/pip install "ray[data]"
    cargo build && /tmp/ray/bin/python packaging/ray/test.py target/debug/galley
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

import ray

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import galley_ray

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def expected(program, photos):
    """What the program says itself, without Ray."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "GALLEY_JOURNAL": os.path.join(folder, "journal.sqlite")}
        run = subprocess.run([program, "classify", "--json", *photos], capture_output=True, text=True, env=environment)
    return {row["path"]: best(row) for row in map(json.loads, run.stdout.splitlines())}


def best(row):
    return [(one["label"], round(one["probability"], 4)) for one in row["predictions"][:2]]


def processes(beginning):
    """The running processes whose command begins so."""
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True).stdout
    lines = [line.split(None, 1) for line in listed.splitlines()[1:]]
    return [int(pid) for pid, arguments in lines if arguments.startswith(beginning)]


def kill_some(program, killed, over):
    """Kills one about every half second: two processes of Galley, and a worker of Ray with its own."""
    kinds = [f"{program} classify --stdin", "ray::MapWorker", f"{program} classify --stdin"]
    while not over.is_set() and len(killed) < len(kinds):
        for pid in processes(kinds[len(killed)])[:1]:
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
        time.sleep(0.5)


def check(name, answers, known):
    rows = [json.loads(row["answer"]) for row in answers]
    assert sorted(row["path"] for row in rows) == sorted(known), f"{name}: {len(rows)} answers of {len(known)}"
    wrong = [row["path"] for row in rows if best(row) != known[row["path"]]]
    assert not wrong, f"{name}: other answers for {wrong[:3]}"
    print(f"{name}: {len(rows)} answers, all as without Ray")


def main():
    program = os.path.abspath(sys.argv[1])
    photos = galley_ray.photos_in(os.path.join(ROOT, "sample-data", "photos"))
    known = expected(program, photos)
    # The driver's folder is not the workers'.
    os.environ["PYTHONPATH"] = os.path.dirname(os.path.abspath(__file__))
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    arguments = ["--threads", "1"]
    check("two actors", galley_ray.classify(photos, program, arguments, batch_size=16).take_all(), known)

    killed, over = [], threading.Event()
    killer = threading.Thread(target=kill_some, args=(program, killed, over))
    killer.start()
    many = photos * 20
    answers = galley_ray.classify(many, program, arguments, batch_size=16).take_all()
    over.set()
    killer.join()
    assert len(killed) == 3, f"only {len(killed)} were killed: repeat with more photos"
    assert len(answers) == len(many), f"{len(answers)} answers of {len(many)}"
    once = {row["path"]: row for row in answers}.values()
    check("with two processes and a worker killed", once, known)


if __name__ == "__main__":
    main()
