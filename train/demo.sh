#!/usr/bin/env bash
# The whole chain at the size of a laptop, in a quarter of an hour: a world's clips, two tokenizers, pretraining, samples.
#
#     make demo            or, in an activated environment:  train/demo.sh [RUN]
#
# Everything lies under runs/demo (or RUN). After an interruption, start it anew; remove the folder to begin from nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

# One thread a process: threads that wait for a core that something else holds cost more than they bring.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

exec vpoet chain world:platformer --clips 3000 --hours 0.25 --out "${1:-runs/demo}" \
  --prompt "a robot walks right on grass" \
  --prompt "a zombie walks left on snow at night" \
  --prompt "a heroine jumps up and down on sand while a bee flies above" \
  --prompt "a man climbs up a ladder on stone"
