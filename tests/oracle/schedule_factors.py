"""The factors that transformers' schedules give: schedule_factors.py CASES, a file of [{name, total, warmup, arguments}].

Prints a list for each case: the factor of every step from 0 to a little past the end.
"""
import json
import sys

import torch
from transformers.optimization import get_scheduler

factors = []
for case in json.load(open(sys.argv[1])):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = get_scheduler(case["name"], optimizer, num_warmup_steps=case["warmup"], num_training_steps=case["total"],
                              scheduler_specific_kwargs=case["arguments"] or None)
    factors.append([float(scheduler.lr_lambdas[0](step)) for step in range(case["total"] + 4)])
print(json.dumps(factors))
