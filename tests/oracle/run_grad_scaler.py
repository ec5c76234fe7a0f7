"""What torch.amp.GradScaler makes of steps whose gradients are finite or not (src/train/grad_scaler_test.cpp).

run_grad_scaler.py STEPS.safetensors OUT.safetensors
    STEPS: finite [N] i32.  OUT: scale [N] f32 and tracker [N] i32 after each step, and gradient [N] f32: what it unscaled the gradient 3 x the scale to (0 where it was not finite).
"""
import sys

import torch
from safetensors.torch import load_file, save_file


def main():
    finite = load_file(sys.argv[1])["finite"].tolist()
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([parameter], lr=0.0)
    scaler = torch.amp.GradScaler("cpu")
    scales, trackers, gradients = [], [], []
    for good in finite:
        scale = scaler.scale(torch.tensor(1.0)).item()
        parameter.grad = torch.tensor([3 * scale, 0.0 if good else float("inf")])
        scaler.unscale_(optimizer)
        gradients.append(parameter.grad[0].item() if good else 0.0)
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
        trackers.append(scaler._get_growth_tracker())
    save_file({"scale": torch.tensor(scales), "tracker": torch.tensor(trackers, dtype=torch.int32), "gradient": torch.tensor(gradients)}, sys.argv[2])


if __name__ == "__main__":
    main()
