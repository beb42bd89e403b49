#!/usr/bin/env bash
# What the files of `ray up` do on every host, a step a call: bash node.sh STEP. Any step may be run again.
# Values come from the environment: ~/study.env, which cluster.yaml writes from its block of values to edit.
set -euo pipefail

apt() {
  sudo DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 "$@"
}

case "${1:-}" in
  packages) # of the system, on Debian or Ubuntu
    apt update
    apt install curl git nfs-common python3-venv rsync
    ;;
  install) # the project at one commit, in a virtual environment of its own
    test -d ~/fmm-study || git clone -q "$STUDY_REPOSITORY" ~/fmm-study
    git -C ~/fmm-study fetch -q origin
    git -C ~/fmm-study checkout -q "$STUDY_COMMIT"
    python3 -m venv ~/study
    ~/study/bin/pip install -q -c ~/fmm-study/constraints.txt -e ~/fmm-study 'ray[default]' "${@:2}"
    chmod 600 ~/.ray/auth_token
    ;;
  share) # the head's own disk as the folder that all hosts see; who may reach it, the cloud's firewall says
    apt install nfs-kernel-server
    sudo mkdir -p "$STUDY_SHARED/data" "$STUDY_SHARED/results"
    sudo chown "$(id -u):$(id -g)" "$STUDY_SHARED" "$STUDY_SHARED/data" "$STUDY_SHARED/results"
    private='(rw,sync,no_subtree_check)'
    echo "$STUDY_SHARED 10.0.0.0/8$private 172.16.0.0/12$private 192.168.0.0/16$private" |
      sudo tee /etc/exports.d/study.exports
    sudo exportfs -ra
    ;;
  mount) # that folder, on a worker
    sudo mkdir -p "$STUDY_SHARED"
    mountpoint -q "$STUDY_SHARED" || sudo mount -t nfs4 -o hard,noatime "$RAY_HEAD_IP:$STUDY_SHARED" "$STUDY_SHARED"
    ;;
  cache) # datasets from the shared folder to this host's own disk
    mkdir -p "$FMM_STUDY_DATA"
    if [ -d "$STUDY_SHARED/data" ]; then
      cp -ru "$STUDY_SHARED/data/." "$FMM_STUDY_DATA/"
    fi
    ;;
  tracking) # MLflow's server, on loopback; it takes store and artifacts from MLFLOW_* variables
    if ! curl -sf -o /dev/null http://127.0.0.1:5000/health; then
      mkdir -p ~/mlflow
      MLFLOW_DISABLE_TELEMETRY=true nohup setsid ~/study/bin/mlflow server --host 127.0.0.1 --port 5000 --workers 1 \
        > ~/mlflow/server.log 2>&1 < /dev/null &
    fi
    ;;
  stop) # on hosts of one's own: what `ray down` leaves running
    ~/study/bin/ray stop --force
    tracking=(-u "$(id -u)" -f 'study/bin/python .*mlflow')
    pkill "${tracking[@]}" || true
    for _ in {1..20}; do
      pgrep "${tracking[@]}" > /dev/null || exit 0
      sleep 0.5
    done
    pkill -KILL "${tracking[@]}" || true
    ;;
  *)
    echo "usage: node.sh packages | install [PACKAGE ...] | share | mount | cache | tracking | stop" >&2
    exit 2
    ;;
esac
