"""One engine with one network in a process of its own: loads, then measures each time it is asked.

Called by networks.py: engines.py ENGINE FILE NAME BATCH SIDE THREADS. A line with seconds on stdin is answered by a line
of JSON: milliseconds of the median pass, cores kept busy, and the highest resident size of the whole process so far.
Each engine imports only what it needs, because its memory is measured whole.
"""

import json
import statistics
import sys
import time

import numpy as np


def torch_engine(_, name, pixels, threads):
    import torch

    from exports import torch_network

    torch.set_num_threads(threads)
    network = torch_network(name).to(memory_format=torch.channels_last)
    pixels = torch.from_numpy(pixels).to(memory_format=torch.channels_last)

    def run():
        with torch.inference_mode():
            network(pixels)

    return run


def onnxruntime_engine(file, _, pixels, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_free_dimension_override_by_name("batch", len(pixels))
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    assert session.get_session_options().intra_op_num_threads == threads
    return lambda: session.run(None, {"pixels": pixels})


def openvino_engine(file, _, pixels, threads):
    import openvino
    from openvino import properties
    from openvino.properties import hint

    core = openvino.Core()
    model = core.read_model(file)
    model.reshape(pixels.shape)
    settings = {
        hint.performance_mode(): hint.PerformanceMode.LATENCY,
        hint.inference_precision(): openvino.Type.f32,
        properties.inference_num_threads(): threads,
    }
    compiled = core.compile_model(model, "CPU", settings)
    assert compiled.get_property(properties.inference_num_threads()) == threads
    request = compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(pixels, shared_memory=True))
    return request.infer


ENGINES = {"pytorch": torch_engine, "onnxruntime": onnxruntime_engine, "openvino": openvino_engine}


def peak_bytes():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


def measure(run, seconds):
    times, began, busy = [], time.perf_counter(), time.process_time()
    while not times or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    cores = (time.process_time() - busy) / (time.perf_counter() - began)
    return {"milliseconds": statistics.median(times) * 1e3, "cores": cores, "peak_bytes": peak_bytes()}


def main(engine, file, name, batch, side, threads):
    shape = (int(batch), 3, int(side), int(side))
    pixels = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    run = ENGINES[engine](file, name, pixels, int(threads))
    for _ in range(2):
        run()
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(measure(run, float(line))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
