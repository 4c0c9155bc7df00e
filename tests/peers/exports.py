"""Makes the files that the engines are measured with: ONNX and OpenVINO's format, f32 and INT8, with random weights.

Called by networks.py in a process of its own. Weights come from a fixed seed, files are made once per folder. INT8 is
static, per channel, calibrated on random images: right for speed and memory, not for accuracy, which nobody reads here.
"""

import pathlib
import sys

import numpy as np

SEED = 7
CALIBRATION_IMAGES = 16
# f32 files must answer what PyTorch answers, or their speed would say nothing.
TOLERANCE = 1e-3


def torch_network(name):
    import timm
    import torch

    torch.manual_seed(SEED)
    return timm.create_model(name, pretrained=False, num_classes=1000).eval()


def images(count, side):
    return np.random.default_rng(SEED).standard_normal((count, 3, side, side), dtype=np.float32)


def onnx_f32(name, side, path):
    import onnxruntime
    import torch

    network, pixels = torch_network(name), images(2, side)
    torch.onnx.export(
        network, (torch.from_numpy(pixels),), path, dynamo=False, opset_version=17, do_constant_folding=True,
        input_names=["pixels"], output_names=["logits"], dynamic_axes={"pixels": {0: "batch"}, "logits": {0: "batch"}},
    )
    with torch.inference_mode():
        expected = network(torch.from_numpy(pixels)).numpy()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    difference = np.abs(session.run(None, {"pixels": pixels})[0] - expected).max()
    assert difference <= TOLERANCE * max(1, np.abs(expected).max()), f"{name}: {difference} from PyTorch"


def onnx_int8(side, f32, path):
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.batches = iter(images(CALIBRATION_IMAGES, side)[:, None])

        def get_next(self):
            pixels = next(self.batches, None)
            return None if pixels is None else {"pixels": pixels}

    prepared = path.with_suffix(".prepared.onnx")
    quant_pre_process(f32, prepared, skip_symbolic_shape=True)
    # Unsigned activations and signed weights are what VNNI multiplies.
    quantize_static(
        prepared, path, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )
    prepared.unlink()


def openvino_f32(f32, path):
    import openvino

    openvino.save_model(openvino.convert_model(f32), path, compress_to_fp16=False)


def openvino_int8(name, side, f32, path):
    import nncf
    import openvino

    calibration = nncf.Dataset([pixels[None] for pixels in images(CALIBRATION_IMAGES, side)])
    is_vit = nncf.ModelType.TRANSFORMER if name.startswith("vit") else None
    quantized = nncf.quantize(
        openvino.Core().read_model(f32), calibration, model_type=is_vit,
        preset=nncf.QuantizationPreset.MIXED, subset_size=CALIBRATION_IMAGES,
    )
    openvino.save_model(quantized, path, compress_to_fp16=False)


def whole(path, make):
    """Makes a file unless it is there; one that was not finished never has its name."""
    if not path.exists():
        part = path.with_name("part-" + path.name)
        make(part)
        # OpenVINO keeps the weights in a file beside.
        if part.with_suffix(".bin").exists():
            part.with_suffix(".bin").rename(path.with_suffix(".bin"))
        part.rename(path)
    return path


def make_all(folder, name, side, precisions):
    folder.mkdir(parents=True, exist_ok=True)
    f32 = whole(folder / f"{name}-{side}-f32.onnx", lambda path: onnx_f32(name, side, path))
    f32_ir = whole(folder / f"{name}-{side}-f32.xml", lambda path: openvino_f32(f32, path))
    if "int8" in precisions:
        whole(folder / f"{name}-{side}-int8.onnx", lambda path: onnx_int8(side, f32, path))
        whole(folder / f"{name}-{side}-int8.xml", lambda path: openvino_int8(name, side, f32_ir, path))


if __name__ == "__main__":
    folder, name, side, precisions = sys.argv[1:]
    make_all(pathlib.Path(folder), name, int(side), precisions.split(","))
