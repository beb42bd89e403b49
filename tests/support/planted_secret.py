"""A secret that must be found nowhere, and a small specification of somebody else's to run with it."""

SECRET = "pl4nted"
SPEC = """
name: planted
title: A title to be found
factors: {merge: [add, mul]}
fixed: {dataset: fake, depth: 8, width: 4, epochs: 1, batch_size: 16}
nuisance: {lr: {low: 0.01, high: 1.0, log: true, default: 0.1}}
blocks: 1
budget: {search_trials: 1, startup_trials: 1}
contrasts: [{arm: {merge: mul}, reference: {merge: add}}]
"""
