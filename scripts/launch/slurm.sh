#!/usr/bin/env bash
# A Slurm job on nodes of GPUs, with a process for each GPU. Ten minutes before its time is
# over it saves and queues itself again, and goes on from its newest checkpoint.
set -euo pipefail

sbatch <<'EOF'
#!/usr/bin/env bash
#SBATCH --job-name=@NAME@
#SBATCH --nodes=@NODES@
#SBATCH --ntasks-per-node=@GPUS@
#SBATCH --gpus-per-node=@GPUS@
#SBATCH --cpus-per-task=@CPUS@
#SBATCH --time=@TIME@
#SBATCH --signal=B:USR1@600
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=@NAME@-%j.log
@SBATCH@
set -euo pipefail

srun --kill-on-bad-exit=1 .venv/bin/@COMMAND@ &
training=$!
queue_again() {
  trap '' USR1 TERM
  kill -TERM "$training" # srun hands it on to every process
  wait "$training" || true
  scontrol requeue "$SLURM_JOB_ID"
}
trap queue_again USR1 TERM
wait "$training"
EOF
