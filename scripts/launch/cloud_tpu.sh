#!/usr/bin/env bash
# A queued Cloud TPU slice: requests it, waits, installs seedjax on every host, trains. A
# slice that is preempted is requested again, and the run goes on from its newest checkpoint.
set -euo pipefail

name=@NAME@
where=(--zone=@ZONE@@PROJECT@)
tpus() { gcloud compute tpus "$@" "${where[@]}"; }
state() { tpus queued-resources describe "$name" --format='value(state.state)' || echo UNKNOWN; }
give_back() { tpus queued-resources delete "$name" --force --quiet; }

package="$(mktemp -d)/seedjax.tgz"
git archive --format=tgz --output="$package" HEAD

wait_for_slice() {
  while found="$(state)"; [[ "$found" != @(ACTIVE|FAILED|SUSPENDED) ]]; do
    echo "$found" >&2
    sleep "${POLL_SECONDS:-60}"
  done
}
request_slice() {
  tpus queued-resources create "$name" --node-id="$name" \
    --accelerator-type=@ACCELERATOR@ --runtime-version=@RUNTIME@ @SPOT@
  wait_for_slice
}
train() {
  tpus tpu-vm scp "$package" "$name":seedjax.tgz --worker=all &&
    tpus tpu-vm ssh "$name" --worker=all --command=@REMOTE@
}

request_slice
for attempt in $(seq @ATTEMPTS@); do
  echo "attempt $attempt of @ATTEMPTS@: @ACCELERATOR@ in @ZONE@ is $found" >&2
  if [ "$found" = ACTIVE ]; then
    train && code=0 || code=$?
    # 2: the input is at fault, and would be again.
    if [ "$code" = 0 ] || [ "$code" = 2 ]; then
      give_back
      exit "$code"
    fi
    sleep "${POLL_SECONDS:-60}" # until the state tells of a preemption
    wait_for_slice
  fi
  if [ "$found" != ACTIVE ]; then
    give_back
    request_slice
  fi
done
give_back
echo "not finished after @ATTEMPTS@ attempts; run this again to go on" >&2
exit 1
