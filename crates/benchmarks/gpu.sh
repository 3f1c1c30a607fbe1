#!/usr/bin/env bash
# All measurements on a GPU, with nothing but the program and LibTorch:
#
#     BIN=target/release/attndreambooth crates/benchmarks/gpu.sh OUT
#
# from the repository's root. On a machine without Rust, carry the (stripped) program there; where it does not find LibTorch,
# that of PYTHON's torch is taken, which must be of the same release. Where PYTHON (python3) has torch, diffusers and
# transformers, the same work is timed in it by turns. Everything goes to OUT/numbers.jsonl, one line a measurement: what,
# by whom, which turn, and the line that the work printed; what failed says why in OUT/errors.txt.
#
# The most important comes first, once, before anything is repeated; after LIMIT seconds (520) nothing new is begun. With
# DONE=FILE, the numbers.jsonl of an earlier call (here, or of the CPU's part elsewhere), what was measured there is not
# measured again. PARTS chooses among: steps training sampling memory check repeat profile components scaling. To try the script
# itself without a GPU: DEVICE=cpu MODEL=fixtures/miniature SIDE=128.
set -euo pipefail
out=${1:?the folder for the numbers}
bin=${BIN:-target/release/attndreambooth}
python=${PYTHON:-python3}
parts=${PARTS:-steps training sampling memory check repeat profile components scaling}
limit=${LIMIT:-520}
done_before=${DONE:-/dev/null}
full=${MODEL:-models/procedural/sd21-base}
side=${SIDE:-512}
device=${DEVICE:-cuda}
mkdir -p "$out"
TMPDIR=$(mktemp -d)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

# Without the program, or without the device, there is nothing to measure; better to know at once.
if ! "$bin" --version >/dev/null 2>&1; then
    lib=$("$python" -c 'import os, torch; print(os.path.join(os.path.dirname(torch.__file__), "lib"))')
    export LD_LIBRARY_PATH="$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fi
"$bin" --version
"$bin" bench text-encoder --model fixtures/miniature --device "$device" --iterations 1 --warm-up 0 >/dev/null

with_python=no
"$python" -c 'import torch, diffusers, transformers' 2>"$out/python.txt" && with_python=yes
# Turns serve ratios; alone the program is timed once.
rounds=${ROUNDS:-$([ $with_python = yes ] && echo 3 || echo 1)}
{
    date
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv 2>/dev/null || echo "no nvidia-smi"
    "$bin" --version
    echo "Python with torch, diffusers and transformers: $with_python $(tail -n 1 "$out/python.txt")"
} | tee -a "$out/machine.txt"
[ -d "$full" ] || "$bin" bench --make sd21-base --out "$full"

# line NAME WHO ROUND: how a measurement's line begins, by which it is found again.
line() { printf '{"name": "%s", "who": "%s", "round": %s, "measured": ' "$@"; }
# wanted NAME WHO ROUND: there is time for it, and an earlier call has not measured it.
wanted() {
    ((SECONDS < limit)) && ! grep -F "$(line "$@")" "$done_before" | grep -vqF '"measured": null'
}
# measure NAME WHO ROUND COMMAND...: one line; what fails, or hangs for three minutes, is a line too. What was measured counts,
# however the program ends.
measure() {
    local begun measured status=0
    wanted "${@:1:3}" || return 0
    begun=$(line "${@:1:3}")
    shift 3
    timeout -k 10 "${EACH:-180}" "$@" >"$TMPDIR/printed" 2>"$TMPDIR/error" || status=$?
    measured=$(tail -n 1 "$TMPDIR/printed")
    case $measured in '{'*'}' | '"'*'"') ;; *) measured=null ;; esac
    if [ "$measured" = null ] || [ "$status" != 0 ]; then
        { echo "== $begun (status $status)"; tail -n 20 "$TMPDIR/error"; } >>"$out/errors.txt"
    fi
    echo "$begun$measured}" | tee -a "$out/numbers.jsonl"
}
# What is measured once.
ours() {
    local name=$1
    shift
    if [ "$round" = 1 ]; then measure "$name" ours 1 "$bin" bench "$@"; fi
}
# Both by turns; LOOPS are the ways that Python has.
both() {
    local name=$1 loops=$2 loop
    shift 2
    measure "$name" ours "$round" "$bin" bench "$@"
    if [ $with_python = no ]; then return 0; fi
    for loop in $loops; do
        measure "$name" "python-$loop" "$round" "$python" crates/benchmarks/python/work.py "$@" --loop "$loop"
    done
}
large="--model $full --resolution $side --device $device"

steps() {
    both "unet-step bf16" lean unet-step $large --dtype bf16 --iterations 20 --warm-up 5
    both "unet-step tf32" lean unet-step $large --dtype tf32 --iterations 10 --warm-up 3
    both "unet-step fp32" authors unet-step $large --dtype fp32 --iterations 5 --warm-up 2
    both "cross-attention-step bf16" lean cross-attention-step $large --dtype bf16 --iterations 10 --warm-up 5
    both "embedding-step bf16" lean embedding-step $large --dtype bf16 --iterations 10 --warm-up 5
}
# With a checkpoint a hundred steps, 10 GB each, the disk would be measured; one a stage is left, but for the last.
training() {
    local dtype
    for dtype in bf16 tf32; do
        EACH=400 ours "training $dtype" training --model "$full" --device "$device" --dtype $dtype --category photo \
            --iterations 1 --warm-up 0 --set checkpoint_every=100000
    done
}
sampling() {
    both "sampling bf16" lean sampling $large --dtype bf16 --batch-size 8 --steps 50 --iterations 2
}
memory() { # For cards of 24 GB.
    ours "unet-step bf16, checkpointing" unet-step $large --dtype bf16 --gradient-checkpointing --iterations 10
    ours "unet-step bf16, checkpointing, batch 4" unet-step $large --dtype bf16 --gradient-checkpointing --batch-size 4 \
        --iterations 10
}
check() { # The same work on both devices: their checks should agree to rounding, the training after thirty steps.
    local work where few="--set phases.embedding.steps=10 --set phases.cross_attention.steps=10 --set phases.unet.steps=10"
    for where in cpu "$device"; do
        for work in unet-forward embedding-step cross-attention-step unet-step text-encoder vae-encode vae-decode sampling; do
            ours "check $work $where" "$work" --device "$where" --batch-size 2 --iterations 1 --warm-up 0
        done
        ours "check training $where" training --device "$where" --iterations 1 --warm-up 0 $few
    done
    ours "check unet-step $device bf16" unet-step --device "$device" --dtype bf16 --batch-size 2 --iterations 1 --warm-up 0
    ours "check sampling $device bf16" sampling --device "$device" --dtype bf16 --batch-size 2 --iterations 1 --warm-up 0
}
short_run() {
    "$bin" train --concept fixtures/subjects/penguin --device "$device" --results none "$@"
}
# A fixed seed gives the same run twice.
twice() {
    local turn
    for turn in 1 2; do
        short_run --model fixtures/miniature --category bird --out "$TMPDIR/twice/$turn" --deterministic \
            --set phases.embedding.steps=5 --set phases.cross_attention.steps=5 --set phases.unet.steps=10 || return 1
    done
    if (cd "$TMPDIR/twice/1" && find . -name '*.safetensors' -exec sha256sum {} +) |
        (cd "$TMPDIR/twice/2" && sha256sum --quiet -c - >&2); then
        echo '"equal"'
    else
        echo '"different"'
    fi
}
# Where a step's time goes: the table and the trace.
profiled() {
    short_run --model "$full" --category photo --out "$TMPDIR/profiled" --dtype bf16 --set augmentation.resolution="$side" \
        --set validation.steps=2 --set phases.embedding.steps=5 --set phases.cross_attention.steps=5 --set phases.unet.steps=20 --profile \
        2>"$out/profile.txt" || return 1
    cp "$TMPDIR/profiled/log.jsonl" "$TMPDIR/profiled/profile.json" "$out"
    echo '"profile.txt"'
}
export -f short_run twice profiled
export bin device full side out
repeat() {
    if [ "$round" = 1 ]; then measure repeat ours 1 bash -c twice; fi
}
profile() {
    if [ "$round" = 1 ]; then measure profile ours 1 bash -c profiled; fi
}
components() {
    both "unet-forward bf16" lean unet-forward $large --dtype bf16 --iterations 20 --warm-up 5
    both "vae-encode bf16" lean vae-encode $large --dtype bf16 --iterations 20 --warm-up 5
    both "vae-decode bf16" lean vae-decode $large --dtype bf16 --batch-size 4 --iterations 10 --warm-up 3
    both "text-encoder bf16" lean text-encoder $large --dtype bf16 --batch-size 1 --iterations 50 --warm-up 5
    both adamw "lean authors" adamw $large --iterations 20 --warm-up 3
    both loading lean loading $large
}
scaling() {
    local batch pixels
    for batch in 1 2 4 8 16; do
        ours "scaling batch $batch" unet-step $large --dtype bf16 --batch-size $batch --iterations 10
    done
    for pixels in 256 512 768; do
        ours "scaling side $pixels" unet-step --model "$full" --device "$device" --dtype bf16 --resolution $pixels \
            --iterations 10
    done
}
for round in $(seq "$rounds"); do
    for part in $parts; do "$part"; done
done
