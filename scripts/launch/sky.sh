#!/usr/bin/env bash
# A managed SkyPilot job on nodes of GPUs, a process for each node, in whatever cloud has
# them. SkyPilot looks for other nodes when these are preempted, and the run goes on.
set -euo pipefail

task="$(mktemp --suffix=.yaml)"
cat >"$task" <<'EOF'
name: @NAME@
workdir: .
num_nodes: @NODES@
resources:
  accelerators: @SKY_ACCELERATOR@
  use_spot: @SKY_SPOT@
  disk_size: 512
  job_recovery:
    max_restarts_on_errors: @ATTEMPTS@
    recover_on_exit_codes: [@STOP_CODE@]
setup: |
  [ -x .venv/bin/python ] || {
    python3 -m pip install --quiet --user uv
    python3 -m uv venv --quiet --seed --python 3.12 .venv
  }
  scripts/setup @EXTRA@
run: |
  export JAX_COORDINATOR_ADDRESS="$(head -n 1 <<<"$SKYPILOT_NODE_IPS"):8476"
  export JAX_NUM_PROCESSES="$SKYPILOT_NUM_NODES"
  export JAX_PROCESS_ID="$SKYPILOT_NODE_RANK"
  exec .venv/bin/@COMMAND@
EOF
sky jobs launch --yes "$task"
