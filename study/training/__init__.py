"""Training one replicate: its loop, its evaluation, its checkpoint."""

from study.training.loop import evaluate, train
from study.training.member import Member, MidTraining, Progress, Trained, load_checkpoint, save_checkpoint
from study.training.schedule import check_schedule

__all__ = [
    "Member",
    "MidTraining",
    "Progress",
    "Trained",
    "check_schedule",
    "evaluate",
    "load_checkpoint",
    "save_checkpoint",
    "train",
]
