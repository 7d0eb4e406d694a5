#!/usr/bin/env bash
# The whole chain at the size of a laptop: a world's clips, two tokenizers, pretraining with two processes, samples.
#
#     make demo            or, in an activated environment:  train/demo.sh [RUN]
#
# Everything lies under runs/demo (or RUN). A stage that is done is not done again: after an interruption, start it anew;
# remove the folder to begin from nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

# One thread a process: threads that wait for a core that something else holds cost more than they bring.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

run=${1:-runs/demo}
mkdir -p "$run"
touch "$run/stages.jsonl"

prompts=(
  "a robot walks right on grass"
  "a zombie walks left on snow at night"
  "a heroine jumps up and down on sand while a bee flies above"
  "a man climbs up a ladder on stone"
)

# stage NAME "what it does" RESULT COMMAND...: run a command once, say how long it took and where the result lies.
stage() {
  local name=$1 what=$2 result=$3
  shift 3
  if grep -qF "{\"stage\": \"$name\"" "$run/stages.jsonl"; then
    echo "== $name: done before -> $result"
    return
  fi
  echo "== $name: $what"
  echo "   $*"
  local began=$SECONDS
  "$@"
  local took=$((SECONDS - began))
  python -c 'import json, sys; name, took, result, *command = sys.argv[1:]; print(json.dumps(
    {"stage": name, "seconds": int(took), "result": result, "command": " ".join(command)}))' \
    "$name" "$took" "$result" "$@" >> "$run/stages.jsonl"
  echo "== $name: took $((took / 60)) min $((took % 60)) s -> $result"
}

stage world "make clips of the platformer world, with captions and actions" "$run/raw" \
  vpoet ingest world:platformer --clips 3000 --holdout 0.07 --workers 2 --out "$run/raw"

stage train-text "learn text pieces from the captions" "$run/text.model" \
  vpoet train-text "$run/raw/train" --out "$run/text.model" --size 512

stage train-video "learn the video tokenizer in two processes" "$run/video/tokenizer" \
  deepspeed --quiet --num_accelerators 2 tokenizers/train_video.py tokenizers/configs/tiny-platformer.yaml "run=$run/video" "data=[$run/raw/train]" "held_out=[$run/raw/heldout]"

stage evaluate-tokenizer "look at the tokenizer on held-out clips" "$run/reconstructions.png" \
  vpoet evaluate-tokenizer "$run/video/tokenizer" "$run/raw/heldout" --sheet "$run/reconstructions.png"

for side in train heldout; do
  stage "encode-$side" "turn the $side clips into tokens" "$run/tokens/$side" \
    vpoet encode "$run/raw/$side" --tokenizer "$run/video/tokenizer" --out "$run/tokens/$side"
done

stage pretrain "train the transformer in two processes, with DeepSpeed" "$run/pretrain" \
  deepspeed --quiet --num_accelerators 2 train/pretrain.py train/configs/demo.yaml --resume \
  "run=$run/pretrain" "text=$run/text.model" "video=$run/video/tokenizer" \
  "data.sources=[{path: $run/tokens/train}]" "heldout=[{path: $run/tokens/heldout}]"

stage export "gather what sampling needs in one folder" "$run/bundle" \
  vpoet export "$run/pretrain" --out "$run/bundle"

mkdir -p "$run/samples"
printf '%s\n' "${prompts[@]}" > "$run/samples/prompts.txt"
stage sample "sample a clip for each of four prompts" "$run/samples" \
  vpoet sample --model "$run/bundle" "${prompts[@]/#/--prompt=}" --seed 0 --cfg 2.5 --temperature 0.85 --out "$run/samples/sample.mp4" \
  --sheet "$run/samples/sheet.png"

vpoet report "$run" --out "$run/index.html"
