#!/usr/bin/env bash
# The recipe of sudoku-9x9-hard at a GPU's batch, within a lease of minutes: what it leaves in OUT is what to keep.
#
#   trainer/hard.sh DATA OUT [MINUTES]     DATA: a CSV of puzzles with the sources named below
#   trainer/hard.sh --dry-run OUT          the same path at toy size on a CPU
#
# The same command goes on where it was stopped, so a lease may end at any moment. Of the run, OUT/run.tar holds what
# another lease needs to go on from (under 16 MB), and OUT/checkpoint and OUT/metrics.jsonl what came of it.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "${1:-}" = --dry-run ]; then
    out=$2
    how=(--task sudoku-4x4 --device cpu --steps 30 --threads 1 --data generated:200
         --set train.batch_size=16 --set train.compile=false --set train.bf16=false --set train.final_puzzles=8)
else
    data=$1 out=$2
    how=(--task sudoku-9x9 --device cuda --minutes "${3:-10}" --set train.batch_size=1024
         --set arch.hidden_size=64 --set train.lr=3e-3 --set train.final_puzzles=200
         --data "$data:forum_hardest_1905_11+@0.55" --data "$data:diabolical@0.25" --data "$data:17_clue@0.2")
fi
run=${RUN:-runs/hard}
mkdir -p "$out"
if [ -f "$out/run.tar" ] && [ ! -d "$run" ]; then
    mkdir -p "$run" && tar -xf "$out/run.tar" -C "$run"
fi
keep() {  # also where the lease's clock, or somebody, ends it
    tar -cf "$out/run.tar" --exclude data -C "$run" .
    rm -rf "$out/checkpoint" && cp -r "$run/checkpoint" "$run/metrics.jsonl" "$out"
}
trap keep EXIT
"${PYTHON:-python3}" -m hrm_edge.cli train --preset deduce --set train.eval_every=2000 --set train.save_every=500 \
    "${how[@]}" -o "$run"
