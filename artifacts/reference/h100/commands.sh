#!/usr/bin/env bash
# What was run, in a checkout, with onnxruntime-gpu 1.31.1 before PyTorch's own CUDA libraries on the path. scan-64.npz and scan-128.npz are
# simulated scans of 10,000 patterns; n128.zip is the demo's architecture at 128 x 128 pixels with random weights.
set -euo pipefail
B="--budget phase=0.01rad,amp=1%"
python3 -m exporters export examples/demo/wts.h5.zip --require cuda --scan examples/demo/scan.npz --precision float16 $B --out demo || true # float16 was refused, see README
for bundle in cnn-2026-07-n64-g2 ffno-2026-07-n64-g1; do
    python3 -m exporters export tests/data/bundles/$bundle.zip --require cuda --out $bundle
    python3 -m exporters verify --require cuda --report verify-$bundle $bundle/$bundle.zip
    python3 -m ptycho_runtime check --device cuda $bundle/$bundle.zip
done
python3 -m exporters export n128.zip --require cuda --scan scan-128-small.npz --amplitude --precision float16 $B --out n128
python3 -m pytest -q -m cuda tests/runtime/test_engine_gpu.py
python3 -m exporters bench n128/n128.zip --device cuda --batches 1,16,64,256,1024 --rounds 3 --cold-starts 0 --out bench-n128
python3 -m ptycho_runtime reconstruct n128/n128.zip scan-128.npz --amplitude --device cuda --batch 256 -o object.h5
