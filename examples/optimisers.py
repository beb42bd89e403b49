"""Runs optimisers.yaml in this process, then asks what the YAML did not: python optimisers.py [KEY=VALUE ...]."""

import sys
from pathlib import Path

import fmm_study

# KEY=VALUE as --set takes it: blocks=1 fixed.epochs=2, say
spec = fmm_study.load_spec(Path(__file__).with_suffix(".yaml"), *sys.argv[1:])
results = fmm_study.run(spec)

asked = results.contrast(arm={"optimizer": "nesterov"}, reference={"optimizer": "sgd"})
for row in asked.effects.to_pylist():
    if row["stratum"] == "all" and row["outcome"] == "test/accuracy":
        difference, p = row["mean_difference"], row["p_sign_flip"]
        print(f"Nesterov's momentum, asked afterwards: {100 * difference:+.2f} points of test accuracy, p = {p:.2g}")
asked.figure().savefig("nesterov.png")
