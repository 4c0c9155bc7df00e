"""Makes the step references beside this script: the losses of ten AdamW steps of timm's and torchvision's networks.

Needs torch, torchvision and timm; run it from anywhere: python steps.py
Weights and pixels are made by the formula of networks.py, the pixels of step k as the tensor that `pixels` names (NCHW).
Every network computes in double precision, in training mode without dropout and stochastic depth; image i of a batch
has label i. Learning rate 1e-4, weight decay 0.05 but for norms, biases, layer scales and tokens (as timm groups them).
ResNet-18 sees one larger batch in all steps: from batch to batch of four its losses in single precision leave those in
double precision by up to 1e-2, so that nothing could be told from them; this way by 1.2e-4 (the others by 2e-5).
"""

import json
import pathlib

import timm
import torch
import torchvision

import networks

OUT = pathlib.Path(__file__).parent / "steps"
STEPS, RATE, DECAY = 10, 1e-4, 0.05


def decays(name, tensor):
    long = sum(length > 1 for length in tensor.shape) > 1
    return long and not name.endswith(("cls_token", "pos_embed", "class_token", "pos_embedding"))


def run(name, model, side, batch=4, fresh=True):
    state = model.state_dict()
    for key in state:
        if not key.endswith("num_batches_tracked"):
            state[key] = networks.fill(key, list(state[key].shape))
    model.load_state_dict(state)
    model.double().train()
    for module in model.modules():
        if isinstance(module, (torch.nn.Dropout, torchvision.ops.StochasticDepth)):
            module.p = 0.0
    groups = {True: [], False: []}
    for key, tensor in model.named_parameters():
        groups[decays(key, tensor)].append(tensor)
    groups = [{"params": groups[True], "weight_decay": DECAY}, {"params": groups[False], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE)
    losses, names = [], [f"pixel_token.{step if fresh else 0}" for step in range(STEPS)]
    for pixels in names:
        pixels = networks.fill(pixels, [batch, 3, side, side]).double()
        loss = torch.nn.functional.cross_entropy(model(pixels), torch.arange(batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    reference = {"name": name, "side": side, "batch": batch, "pixels": names, "losses": losses}
    (OUT / f"{name}.json").write_text(json.dumps(reference, separators=(",", ":")) + "\n")
    print(name, losses, flush=True)


def main():
    OUT.mkdir(exist_ok=True)
    for name in ["convnext_atto", "mobilenetv3_small_100", "efficientnet_b0"]:
        run(f"timm-{name}", timm.create_model(name, num_classes=networks.CLASSES), 64)
    run("torchvision-resnet18", torchvision.models.resnet18(num_classes=networks.CLASSES), 96, 8, fresh=False)
    run("timm-vit_tiny_patch16_224", timm.create_model("vit_tiny_patch16_224", num_classes=networks.CLASSES), 224)


if __name__ == "__main__":
    main()
