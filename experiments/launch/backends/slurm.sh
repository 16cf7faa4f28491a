#!/bin/bash
# One task of an array. $1 is a file whose line n describes task n: the run folder, the log, and the command, quoted.
# A pre-empted task is queued again by Slurm; a task that nears its time limit gets USR1, and queues itself again.

line=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" "$1")
eval "set -- $line"
folder=$1 log=$2
shift 2

checkpoint() { stat --format=%y "$folder/checkpoint.pt" 2>/dev/null; }
before=$(checkpoint)

"$@" >>"$log" 2>&1 &
worker=$!

stop() { kill -TERM "$worker" 2>/dev/null; }

stop_and_requeue() {
  stop
  wait "$worker"
  local status=$?
  if [ $status -le 1 ]; then exit $status; fi  # it has just ended: done, or failed
  if [ -e "$folder/spec.json" ] && [ "$(checkpoint)" = "$before" ] && [ $SECONDS -gt 300 ]; then
    echo "not queued again: the time limit is too short for a checkpoint (SLURM=--time=8:00:00)" | tee -a "$log"
    exit $status
  fi
  scontrol requeue "$SLURM_JOB_ID"
  exit $status
}

trap stop TERM
trap stop_and_requeue USR1
wait "$worker"
status=$?
while kill -0 "$worker" 2>/dev/null; do  # a signal ends wait early
  wait "$worker"
  status=$?
done
exit $status
