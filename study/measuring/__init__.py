"""The statistics measured on trained networks: a study's replicates, and any checkpoint or network without a study."""

from study.measuring.network import Measured, measure_checkpoint, measure_file, measure_network

__all__ = ["Measured", "measure_checkpoint", "measure_file", "measure_network"]
