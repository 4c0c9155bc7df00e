"""Makes the gradient references beside this script: one training step of timm's and torchvision's networks.

Needs torch, torchvision and timm; run it from anywhere: python gradients.py
Weights are made by the formula of networks.py, and so are the pixels (a tensor of its own name, NCHW). Every network
computes in double precision, in training mode without dropout: the mean cross entropy of a batch whose image i has
label i, the gradient of every tensor (its norm, and its first, middle and last element), and every running statistic
after the step (its first and last element). Tensors come in the order of the network reference. `rounding` says how
well the gradients are defined at all: one clamped activation that falls on the other side of its kink moves them.
"""

import json
import pathlib

import timm
import torch
import torchvision

import networks

OUT = pathlib.Path(__file__).parent / "gradients"
PIXELS = "pixel_token"


def numbers(values):
    return [float(f"{value:.7g}") for value in values]


def some(tensor):
    flat = tensor.flatten().tolist()
    return [flat[0], flat[len(flat) // 2], flat[-1]]


def step(model, side, batch, noise=None):
    """The loss of a training step, and the gradients by name; `noise` seeds what rounding does, several times larger."""
    state = model.state_dict()
    for key in state:
        if not key.endswith("num_batches_tracked"):
            state[key] = networks.fill(key, list(state[key].shape))
    model.load_state_dict(state)
    model.double().train().zero_grad()
    generator = torch.Generator().manual_seed(noise or 0)
    hooks = []
    for module in model.modules():
        if isinstance(module, (torch.nn.Dropout, torchvision.ops.StochasticDepth)):
            module.p = 0.0
        if noise and isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            shaken = lambda _, __, y: y * (1 + 3e-7 * torch.randn(y.shape, generator=generator, dtype=y.dtype))
            hooks.append(module.register_forward_hook(shaken))
    pixels = networks.fill(PIXELS, [batch, 3, side, side]).double()
    loss = torch.nn.functional.cross_entropy(model(pixels), torch.arange(batch))
    loss.backward()
    for hook in hooks:
        hook.remove()
    return loss.item(), {key: tensor.grad.clone() for key, tensor in model.named_parameters()}


def rounding(model, side, batch, exact):
    """How far the worst gradient moves (by its norm) when every layer's outputs are shaken."""
    largest = max(gradient.norm() for gradient in exact.values())
    moved = [step(model, side, batch, noise)[1] for noise in (1, 2, 3)]
    distance = lambda key, other: (other[key] - exact[key]).norm() / (exact[key].norm() + 1e-2 * largest)
    return max(distance(key, other).item() for other in moved for key in exact)


def save(name, model, side, batch):
    loss, exact = step(model, side, batch)
    gradients, running = [], []
    for key, tensor in model.state_dict().items():
        if key in exact:
            gradients.append(numbers([exact[key].norm().item()] + some(exact[key])))
        elif not key.endswith("num_batches_tracked"):
            running.append(numbers([tensor[0].item(), tensor[-1].item()]))
    reference = {"name": name, "side": side, "batch": batch, "pixels": PIXELS, "loss": loss}
    reference["rounding"] = numbers([rounding(model, side, batch, exact)])[0]
    reference |= {"gradients": gradients, "running": running}
    (OUT / f"{name}.json").write_text(json.dumps(reference, separators=(",", ":")) + "\n")
    print(name, len(gradients), len(running), loss, reference["rounding"], flush=True)


def main():
    OUT.mkdir(exist_ok=True)
    for name in ["convnext_atto", "convnextv2_atto", "mobilenetv3_small_100", "efficientnet_b0"]:
        save(f"timm-{name}", timm.create_model(name, num_classes=networks.CLASSES), 64, 4)
    for name in ["mobilenet_v2", "mobilenet_v3_small", "resnet18", "resnet50"]:
        save(f"torchvision-{name}", torchvision.models.get_model(name, num_classes=networks.CLASSES), 64, 4)
    save("torchvision-squeezenet1_1", torchvision.models.squeezenet1_1(num_classes=networks.CLASSES), 64, 4)
    save("timm-vit_tiny_patch16_224", timm.create_model("vit_tiny_patch16_224", num_classes=networks.CLASSES), 224, 2)
    save("head-resnet-norms", networks.replaced("resnet-norms"), 64, 4)


if __name__ == "__main__":
    main()
