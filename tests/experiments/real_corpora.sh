#!/usr/bin/env bash
# The main job on real text, in the paper's setting of continued pretraining: a base model by CLM on one half of a noisy corpus, a
# reference continued from it on curated text, scores of the other half from two scorer processes over one Redis, then CLM and SLM from
# the same base on that half, at equal tokens. Prints the held-out losses of both.
#
#   tests/experiments/real_corpora.sh DATA OUT
#
# DATA has curated/, pretrain/shard-0?.jsonl.* and heldout/{gsm8k,math,general}.jsonl with a field "text". The base reads
# 2.0 M tokens, the other three 1.5 M each.
set -euo pipefail
data=$(readlink -f "$1"); mkdir -p "$2"; out=$(readlink -f "$2")
rho=$(cd "$(dirname "$0")/../.." && pwd)/rho
started=()
trap 'for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done; wait' EXIT

cd "$out"
[[ -e tokenizer ]] || "$rho" tokenizer train --vocab 4096 --out tokenizer "$data"/curated/* "$data"/pretrain/shard-00.jsonl.gz
corpus() { [[ -e $1 ]] || "$rho" corpus build --tokenizer tokenizer --length 256 --out "$@"; }
corpus curated "$data"/curated/*
corpus first "$data"/pretrain/shard-0[0-3]*
corpus second --shard-tokens 524288 "$data"/pretrain/shard-0[4-5]*
for set in gsm8k math general; do corpus "heldout-$set" "$data/heldout/$set.jsonl"; done

evaluation='"evaluation": {"every_steps": 100, "sets": [
    {"name": "gsm8k", "corpus": "heldout-gsm8k"}, {"name": "math", "corpus": "heldout-math"}, {"name": "general", "corpus": "heldout-general", "max_sequences": 300}]}'
run() { # name, model, corpus, objective and reference, tokens, learning rate
  [[ -e $1/final ]] && return
  cat > "$1.json" <<JSON
{"output": "$1", "model": $2, "data": {"corpora": [{"path": "$3"}]}, $4
 "batch": {"sequences": 16}, "tokens": $5, "schedule": {"learning_rate": $6, "warmup_steps": 30}, "seed": 1, $evaluation}
JSON
  "$rho" train "$1.json"
}
run base '{"config": {"hidden_size": 256, "layers": 4, "heads": 8, "key_value_heads": 4, "context_length": 256}, "tokenizer": "tokenizer"}' first "" 2000000 1e-3
run reference '{"from": "base/final"}' curated "" 1500000 5e-4

port=$((20000 + RANDOM % 10000))
redis-server --port "$port" --save "" --appendonly no --dir "$out" > redis.log & started+=($!)
addresses=""
for i in 1 2; do
  "$rho" scorer --reference reference/final --port $((port + i)) --redis "127.0.0.1:$port" > "scorer-$i.log" 2>&1 & started+=($!)
  addresses+="${addresses:+, }\"127.0.0.1:$((port + i))\""
done
for i in 1 2; do
  for _ in $(seq 300); do grep -q "listening on" "scorer-$i.log" && break; sleep 0.2; done
  grep -q "listening on" "scorer-$i.log" || { cat "scorer-$i.log" >&2; exit 1; }
done

run clm '{"from": "base/final"}' second "" 1500000 5e-4
run slm '{"from": "base/final"}' second "\"objective\": {\"kind\": \"slm\", \"ratio\": 0.6}, \"reference\": {\"sources\": [{\"scorers\": [$addresses]}]}," 1500000 5e-4
for name in base reference clm slm; do printf '%s ' "$name"; grep -h '"event":"evaluation"' "$name/metrics.jsonl" | tail -n 1; done
