#!/usr/bin/env bash
# All measurements on a GPU, with nothing but the program and LibTorch:
#
#     BIN=target/release/attndreambooth crates/benchmarks/gpu.sh OUT
#
# from the repository's root. On a machine without Rust, carry the program there and let LD_LIBRARY_PATH name the folder lib
# of the same LibTorch release. Where PYTHON (python3) has torch, diffusers and transformers, the same work is timed in it by
# turns. Everything goes to OUT/numbers.jsonl, one line a measurement: what, by whom, which turn, and the line that the work
# printed; what failed says why in OUT/errors.txt.
#
# The most important comes first, and after LIMIT seconds (520) nothing new is begun. With DONE=FILE, the numbers.jsonl of an
# earlier call, what was measured there is not measured again. PARTS chooses among: check steps sampling memory repeat
# components scaling recipe. To try the script itself without a GPU: DEVICE=cpu MODEL=fixtures/miniature SIDE=128.
set -euo pipefail
out=${1:?the folder for the numbers}
bin=${BIN:-target/release/attndreambooth}
python=${PYTHON:-python3}
parts=${PARTS:-check steps sampling memory repeat components scaling recipe}
limit=${LIMIT:-520}
done_before=${DONE:-/dev/null}
full=${MODEL:-models/procedural/sd21-base}
side=${SIDE:-512}
device=${DEVICE:-cuda}
mkdir -p "$out"
with_python=no
"$python" -c 'import torch, diffusers, transformers' 2>/dev/null && with_python=yes
# Turns serve ratios; alone the program is timed once.
rounds=${ROUNDS:-$([ $with_python = yes ] && echo 3 || echo 1)}
{
    date
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv || echo "no nvidia-smi"
    "$bin" --version
    echo "Python with torch, diffusers and transformers: $with_python"
} 2>/dev/null | tee -a "$out/machine.txt"
[ -d "$full" ] || "$bin" bench --make sd21-base --out "$full"

# line NAME WHO ROUND: how a measurement's line begins, by which it is found again.
line() { printf '{"name": "%s", "who": "%s", "round": %s, "measured": ' "$@"; }
# wanted NAME WHO ROUND: there is time for it, and an earlier call has not measured it.
wanted() {
    ((SECONDS < limit)) && ! grep -F "$(line "$@")" "$done_before" | grep -vqF '"measured": null'
}
# measure NAME WHO ROUND COMMAND...: one line; what fails, or hangs for three minutes, is a line too.
measure() {
    local begun measured
    wanted "${@:1:3}" || return 0
    begun=$(line "${@:1:3}")
    shift 3
    measured=$(timeout "${EACH:-180}" "$@" 2>"$out/last-error.txt" | tail -n 1) || measured=
    if [ -z "$measured" ]; then
        { echo "== $begun"; tail -n 20 "$out/last-error.txt"; } >>"$out/errors.txt"
        measured=null
    fi
    echo "$begun$measured}" | tee -a "$out/numbers.jsonl"
}
ours() { local name=$1; shift; measure "$name" ours 1 "$bin" bench "$@"; }
# Both by turns; LOOPS are the ways that Python has.
both() {
    local name=$1 loops=$2 round loop
    shift 2
    for round in $(seq "$rounds"); do
        measure "$name" ours "$round" "$bin" bench "$@"
        [ $with_python = no ] && continue
        for loop in $loops; do
            measure "$name" "python-$loop" "$round" "$python" crates/benchmarks/python/work.py "$@" --loop "$loop"
        done
    done
}
wants() { [[ " $parts " == *" $1 "* ]]; }
large="--model $full --resolution $side --device $device"

if wants check; then # The same work on both devices: their checks should agree to rounding.
    for work in unet-forward embedding-step cross-attention-step unet-step text-encoder vae-encode vae-decode sampling; do
        for where in cpu "$device"; do
            ours "check $work $where" "$work" --device "$where" --batch-size 2 --iterations 1 --warm-up 0
        done
    done
    ours "check unet-step $device bf16" unet-step --device "$device" --dtype bf16 --batch-size 2 --iterations 1 --warm-up 0
    ours "check sampling $device bf16" sampling --device "$device" --dtype bf16 --batch-size 2 --iterations 1 --warm-up 0
fi
if wants steps; then
    for work in unet-step cross-attention-step embedding-step; do
        both "$work bf16" lean $work $large --dtype bf16 --iterations 20 --warm-up 5
        both "$work tf32" lean $work $large --dtype tf32 --iterations 10 --warm-up 3
    done
    both "unet-step fp32" authors unet-step $large --dtype fp32 --iterations 5 --warm-up 2
fi
if wants sampling; then
    both "sampling bf16" lean sampling $large --dtype bf16 --batch-size 8 --steps 50 --iterations 3
fi
if wants memory; then # For cards of 24 GB.
    ours "unet-step bf16, checkpointing" unet-step $large --dtype bf16 --gradient-checkpointing --iterations 10
    ours "unet-step bf16, checkpointing, batch 4" unet-step $large --dtype bf16 --gradient-checkpointing --batch-size 4 --iterations 10
fi
# A fixed seed gives the same run twice.
repeat() {
    local runs turn
    runs=$(mktemp -d)
    for turn in 1 2; do
        "$bin" train --model fixtures/miniature --concept fixtures/subjects/penguin --category bird --out "$runs/$turn" \
            --device "$device" --deterministic --results none --set embedding.steps=5 --set cross_attention.steps=5 \
            --set unet.steps=10 || return 1
    done
    if (cd "$runs/1" && find . -name '*.safetensors' -exec sha256sum {} +) | (cd "$runs/2" && sha256sum --quiet -c - >&2); then
        echo '"equal"'
    else
        echo '"different"'
    fi
    rm -rf "$runs"
}
if wants repeat; then
    export -f repeat
    export bin device
    measure repeat ours 1 bash -c repeat
fi
if wants components; then
    both "unet-forward bf16" lean unet-forward $large --dtype bf16 --iterations 20 --warm-up 5
    both "vae-encode bf16" lean vae-encode $large --dtype bf16 --iterations 20 --warm-up 5
    both "vae-decode bf16" lean vae-decode $large --dtype bf16 --batch-size 4 --iterations 10 --warm-up 3
    both "text-encoder bf16" lean text-encoder $large --dtype bf16 --batch-size 1 --iterations 50 --warm-up 5
    both adamw "lean authors" adamw $large --iterations 20 --warm-up 3
    both loading lean loading $large
fi
if wants scaling; then
    for batch in 1 2 4 8 16; do
        ours "scaling batch $batch" unet-step $large --dtype bf16 --batch-size $batch --iterations 10
    done
    for pixels in 256 512 768; do
        ours "scaling side $pixels" unet-step --model "$full" --device "$device" --dtype bf16 --resolution $pixels \
            --iterations 10
    done
fi
if wants recipe; then # With a checkpoint a hundred steps, 10 GB each, the disk would be measured; one a stage is left.
    for dtype in bf16 tf32; do
        EACH=400 ours "recipe $dtype" recipe --model "$full" --device "$device" --dtype $dtype --iterations 1 --warm-up 0 \
            --set checkpoint_every=100000
    done
fi
