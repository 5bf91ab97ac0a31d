#!/usr/bin/env bash
# 12 trials of `bo` and 8 of `random` on generated phantoms, two at a time. Run again, it goes on.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p demo
cp examples/aneurysm/study.yaml examples/aneurysm/demo.yaml demo/
if [ ! -f demo/phantoms/splits.json ]; then
  python -m workloads phantom aneurysm --out demo/phantoms
fi
exec survey compare demo/demo.yaml --root demo/runs
