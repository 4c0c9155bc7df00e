"""Writes tiny checkpoints of every kind that Galley reads or refuses, with the values torch has in them.

    python tests/reference/checkpoints.py

writes tests/reference/checkpoints/ anew: the files, and expected.json, which maps each file to the tensors that are
its weights (dtype, shape, all values), the names of its other tensors, some of its metadata, or a part of the error.
"""

import argparse
import json
import os
import pickle
import shutil
from collections import OrderedDict
from pathlib import Path

import numpy
import torch
from torch import nn

OUT = Path(__file__).parent / "checkpoints"
DTYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
expected = {}


def values(tensor):
    # NumPy knows no bfloat16; every value here is exact in float64.
    return tensor.detach().to(torch.float64).flatten().tolist()


def describe(tensors):
    return {
        name: {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape), "values": values(tensor)}
        for name, tensor in tensors.items()
    }


def save(name, content, tensors=None, others=(), metadata=None, error=None, found_as=None, **options):
    torch.save(content, OUT / name, **options)
    note(name, tensors, others, metadata, error, found_as)


def note(name, tensors=None, others=(), metadata=None, error=None, found_as=None):
    entry = {"error": error} if error else {"tensors": describe(tensors), "others": sorted(others)}
    if metadata:
        entry["metadata"] = metadata
    if found_as:
        entry["found_as"] = found_as
    expected[name] = entry


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def every_type():
    numbers = torch.tensor([0, 1, 2, 3, 100, 1])
    return OrderedDict((name, numbers.to(getattr(torch, name)).reshape(2, 3)) for name in DTYPES)


def protocols():
    for protocol in (2, 3, 4, 5):
        for form, zipped in (("zip", True), ("legacy", False)):
            content = {"state_dict": every_type(), "epoch": 7, "é": "ü", "large": 2**70}
            save(
                f"protocol{protocol}-{form}.pth",
                content,
                content["state_dict"],
                metadata={"epoch": 7, "é": "ü"},
                found_as="under the key state_dict",
                pickle_protocol=protocol,
                _use_new_zipfile_serialization=zipped,
            )


def layouts():
    grid = torch.arange(48, dtype=torch.float32)
    base = grid.reshape(2, 4, 3, 2)
    tensors = OrderedDict(
        row_major=base.clone(),
        channels_last=base.clone(memory_format=torch.channels_last),
        column_major=grid.reshape(6, 8).t(),
        slice=grid.reshape(6, 8)[1:5, 2:7],
        every_third=grid[1::3],
        permuted=base.permute(2, 0, 3, 1),
        expanded=grid[5:8].expand(4, 3),
        scalar=torch.tensor(2.5),
        empty=torch.zeros(0, 3),
        one=grid[9:10].reshape(1, 1, 1),
        thin=torch.arange(200 * 100, dtype=torch.int8).reshape(200, 100)[:, 3],
        thin_wide=torch.arange(6000, dtype=torch.int16).reshape(3, 2000)[:, ::1500],
    )
    tensors["tied"] = tensors["row_major"]
    save("layouts-zip.pth", tensors, tensors)
    save("layouts-legacy.pth", tensors, tensors, _use_new_zipfile_serialization=False)


def big_endian():
    """What torch writes on a big-endian system: the same archive with swapped storages and another `byteorder`."""
    import zipfile

    tensors = every_type()
    torch.save(tensors, OUT / "big-endian.pth")
    with zipfile.ZipFile(OUT / "big-endian.pth") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    for key, tensor in enumerate(tensors.values()):
        name = next(name for name in entries if name.endswith(f"/data/{key}"))
        width = tensor.element_size()
        swapped = numpy.frombuffer(entries[name], dtype=f"V{width}")
        entries[name] = b"".join(bytes(element)[::-1] for element in swapped)
    with zipfile.ZipFile(OUT / "big-endian.pth", "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            archive.writestr(name, b"big" if name.endswith("/byteorder") else content)
    note("big-endian.pth", tensors)


def wrappers():
    state = network().state_dict()
    for key in ("state_dict", "model", "model_state_dict", "ema"):
        save(f"wrapper-{key}.pth", {key: state, "epoch": 3}, state, metadata={"epoch": 3}, found_as=f"under the key {key}")
    save("wrapper-nested.pth", {"model": {"state_dict": state}, "acc": 0.5}, state, found_as="under the key model / state_dict")
    save("wrapper-unknown-key.pth", {"weights_v2": state, "note": "x"}, state, found_as="under the key weights_v2")
    parallel = nn.DataParallel(network()).state_dict()
    save("prefix-module.pth", {"state_dict": parallel}, state, found_as="under the key state_dict, prefix module. removed")
    compiled = {f"_orig_mod.{name}": tensor for name, tensor in parallel.items()}
    save("prefix-both.pth", compiled, state, found_as="a bare state dict, prefixes _orig_mod. module. removed")
    lightning = {f"model.{name}": tensor for name, tensor in state.items()}
    content = {"state_dict": lightning, "hyper_parameters": {"lr": 0.1}, "optimizer_states": [{"state": {}, "param_groups": []}]}
    save("prefix-lightning.ckpt", content, state, metadata={"hyper_parameters": {"lr": 0.1}})
    save("prefix-not-shared.pth", {"model.a": state["0.bias"], "b": state["3.bias"]}, {"model.a": state["0.bias"], "b": state["3.bias"]})


def training():
    model = network()
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    averaged = torch.optim.swa_utils.AveragedModel(model)
    state = model.state_dict()
    moments = [f"optimizer/state/{i}/{name}" for i in range(6) for name in ("step", "exp_avg", "exp_avg_sq")]
    averages = ["model_ema/n_averaged"] + [f"model_ema/module.{name}" for name in state]
    content = {
        "epoch": 12,
        "best_acc": numpy.float64(0.75),
        "classes": ["apple", "bread", "cake"],
        "args": argparse.Namespace(lr=0.1, size=(224, 224), device=torch.device("cpu"), path=Path("x")),
        "sizes": torch.Size([3, 4]),
        "names": {"b"},
        "rng": torch.get_rng_state()[:8].clone(),
        "optimizer": optimizer.state_dict(),
        "model_ema": averaged.state_dict(),
        "model": state,
    }
    metadata = {"epoch": 12, "classes": ["apple", "bread", "cake"], "sizes": [3, 4], "names": ["b"]}
    metadata["args"] = {"lr": 0.1, "size": [224, 224]}
    save("training-zip.pth", content, state, moments + averages + ["rng"], metadata, found_as="under the key model")
    options = {"_use_new_zipfile_serialization": False}
    save("training-legacy.pth", content, state, moments + averages + ["rng"], metadata, **options)
    only_averaged = {"model_ema": averaged.state_dict()}
    counted = {"n_averaged": averaged.n_averaged, **state}
    save("training-averaged.pth", only_averaged, counted, found_as="under the key model_ema, prefix module. removed")
    beside = {**state, "optimizer": optimizer.state_dict()}
    save("training-beside.pth", beside, state, moments)


def parameters():
    tensors = OrderedDict(weight=nn.Parameter(torch.tensor([1.0, 2.0])), buffer=nn.Buffer(torch.tensor([3.0])))
    save("parameters.pth", tensors, tensors)
    nested = {"encoder": {"0": {"weight": tensors["weight"].data}}, "decoder": {"bias": tensors["buffer"].data}}
    flat = {"encoder.0.weight": tensors["weight"], "decoder.bias": tensors["buffer"]}
    save("nested.pth", nested, flat)


class Tiny(nn.Module):
    """A module whose source, which the legacy form stores, is short."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))


def refused():
    model = Tiny()
    for form, zipped in (("zip", True), ("legacy", False)):
        remedy = "model.state_dict()"
        save(f"module-{form}.pth", model, error=remedy, _use_new_zipfile_serialization=zipped)
    save("module-wrapped.pth", {"model": model, "epoch": 1}, error="(__main__.Tiny)")
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), OUT / "torchscript.pt")
    note("torchscript.pt", error="TorchScript")
    save("single-tensor.pth", torch.ones(2), error="without a name")
    save("no-tensors.pth", {"epoch": 1, "classes": ["a"]}, error="epoch, classes")
    save("empty-dict.pth", {}, error="no tensors")
    save("complex.pth", {"w": torch.ones(2, dtype=torch.complex64)}, error="tensor w")
    save("float8.pth", {"w": torch.ones(2).to(torch.float8_e4m3fn)}, error="float8_e4m3fn")
    save("sparse.pth", {"w": torch.eye(2).to_sparse()}, error="sparse")
    save("negated.pth", {"w": torch.tensor([1 + 2j]).conj().imag}, error="negated")
    save("not-finite.pth", {"w": torch.tensor([1.0, float("nan")])}, error="element 1 is NaN")
    (OUT / "plain-pickle.pkl").write_bytes(pickle.dumps({"w": [1.0, 2.0]}))
    note("plain-pickle.pkl", error="plain Python pickle")


if __name__ == "__main__":
    shutil.rmtree(OUT, ignore_errors=True)
    os.makedirs(OUT)
    for write in (protocols, layouts, big_endian, wrappers, training, parameters, refused):
        write()
    (OUT / "expected.json").write_text(json.dumps(expected, indent=None, separators=(",", ":"), ensure_ascii=False).replace('},"', '},\n"') + "\n")
