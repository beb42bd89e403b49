"""The only room that imports Ray: connects to a cluster and runs groups of replicates on it."""

import os

_ENVIRONMENT = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # trials are what this machine is asked to do: no lower priority than other programs (Ray's default is 15)
    "RAY_worker_niceness": "0",
    # a driver whose Ray is gone ends after this long (60 s by default); the same command then continues
    "RAY_gcs_rpc_server_reconnect_timeout_s": "20",
    # and on a busy machine Ray's start may take longer than usual (60 s and 5 s by default)
    "RAY_GCS_SERVER_REQUEST_TIMEOUT_SECONDS": "120",
    "RAY_gcs_rpc_server_connect_timeout_s": "30",
    # Tune's workers have variables of their own, so none that waits is ever taken
    "RAY_prestart_worker_first_driver": "0",
    # Tune: no loggers of its own, no change of directory, no log of every failed trial, no snapshots, no handler of Ctrl-C
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}
# before Ray is imported, for the processes that it starts too
for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
