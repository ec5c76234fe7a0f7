"""AdaLoRA as peft trains it over given gradients.

run_adalora.py IN.safetensors OUT.safetensors STEPS RATE TARGET_R TINIT TFINAL DELTA_T
    IN   <module>.lora_A [r, in], .lora_B [out, r], .lora_E [r, 1] as they begin, and the gradient of each at each step, "<step>.<name>"
    OUT  the same tensors after each step of plain gradient descent and allotment, "<step>.<name>", and the ranks kept at last, "kept.<module>";
         "penalty": the orthogonality loss of each step, without its weight
"""
import sys
from types import SimpleNamespace

import torch
from peft import AdaLoraConfig, get_peft_model
from safetensors.torch import load_file, save_file


class Net(torch.nn.Module):
    """Its loss is linear in the adapter's tensors, so that their gradients are the given ones."""

    def __init__(self, modules, given):
        super().__init__()
        self.given, self.step = given, 0
        for name in modules:
            setattr(self, name, torch.nn.Linear(given[f"{name}.lora_A"].shape[1], given[f"{name}.lora_B"].shape[0], bias=False))

    def forward(self):
        parameters = {name.replace(".default", ""): p for name, p in self.named_parameters() if "lora_" in name}
        return SimpleNamespace(loss=sum((self.given[f"{self.step}.{name}"] * p).sum() for name, p in parameters.items()))


def main():
    given, out = load_file(sys.argv[1]), sys.argv[2]
    rate = float(sys.argv[4])
    steps, target, tinit, tfinal, delta = (int(sys.argv[i]) for i in (3, 5, 6, 7, 8))
    torch.set_num_threads(1)
    modules = sorted({name.split(".")[0] for name in given if name.split(".")[1] == "lora_A"})
    net = Net(modules, given)
    config = AdaLoraConfig(init_r=given[f"{modules[0]}.lora_E"].shape[0], target_r=target, tinit=tinit, tfinal=tfinal, deltaT=delta, total_step=steps,
                           target_modules=modules)
    model = get_peft_model(net, config).base_model
    parameters = {name.replace(".default", ""): p for name, p in net.named_parameters() if "lora_" in name}
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(given[name])
    optimizer = torch.optim.SGD(parameters.values(), lr=rate)
    result, penalties = {}, []
    for step in range(steps):
        net.step = step
        plain = net().loss.item()
        loss = model().loss
        penalties.append((loss.item() - plain) / config.orth_reg_weight)
        loss.backward()
        optimizer.step()
        model.update_and_allocate(step)
        optimizer.zero_grad()
        result.update({f"{step}.{name}": p.detach().clone() for name, p in parameters.items()})
    for name, kept in config.rank_pattern.items():
        result["kept." + name.split(".")[0]] = torch.tensor(kept, dtype=torch.int32)
    result["penalty"] = torch.tensor(penalties)
    save_file(result, out)


if __name__ == "__main__":
    main()
