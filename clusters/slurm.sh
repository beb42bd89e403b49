#!/usr/bin/env bash
# One study as a Slurm job: sbatch clusters/slurm.sh digits, from the root of a checkout with its .venv, on a filesystem that
# all nodes see. Needs Ray 2.49 or newer (symmetric-run). The same command continues a study whose job ended early.
#SBATCH --job-name=fmm-study
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --output=slurm-%j.log
set -euo pipefail

spec=${1:?"usage: sbatch clusters/slurm.sh SPEC [OPTION ...]"}
shift
root=${SLURM_SUBMIT_DIR:-$PWD}
export PATH=$root/.venv/bin:$PATH
# datasets, on a disk of each node's own where there is one
export FMM_STUDY_DATA=${FMM_STUDY_DATA:-$root/data}
# the token of ~/.ray/auth_token, which all nodes see; made here where there is none
export RAY_AUTH_MODE=token
(umask 077 && ray get-auth-token --generate > /dev/null)
# nodes start at different times
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=600

nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=$(head -n 1 <<< "$nodes")
# SQLite's locks and its log do not go well with a network filesystem, so MLflow's view of this job is on the node's own disk;
# `fmm-study ui SPEC` on a login node builds it anew from the ledger
srun ray symmetric-run --address "$head:6379" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus "$SLURM_CPUS_PER_TASK" --num-gpus "${SLURM_GPUS_ON_NODE:-0}" --disable-usage-stats \
  -- fmm-study run "$spec" --address "$head:6379" --storage "$root/results" \
  --tracking-uri "sqlite:////tmp/fmm-study-$SLURM_JOB_ID.db" "$@"
