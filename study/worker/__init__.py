"""What runs in a worker: trains and measures groups of replicates. Needs torch, torchvision, numpy, pyarrow."""
