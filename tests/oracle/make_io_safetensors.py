"""Oracle for safetensors: prints the tensors of a folder as the reference reads them, and saves them again."""
import glob
import json
import os
import sys

from safetensors.torch import load_file, save_file

folder = sys.argv[1]
index = folder + "/model.safetensors.index.json"
tensors = {}
for path in sorted(glob.glob(folder + "/model*.safetensors")):
    tensors |= load_file(path)
if os.path.exists(index):
    with open(index) as file:
        content = json.load(file)
    assert set(content["weight_map"]) == set(tensors)
    assert content["metadata"]["total_size"] == sum(t.numel() * t.element_size() for t in tensors.values())
    for name, shard in content["weight_map"].items():
        assert name in load_file(f"{folder}/{shard}")
for name, tensor in sorted(tensors.items()):
    print(name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape), tensor.tolist())
save_file(tensors, folder + "/again.safetensors", {"by": "reference"})
print("saved again")
