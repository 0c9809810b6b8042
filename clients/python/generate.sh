#!/usr/bin/env bash
# Makes rho_client/_proto from protos/rho/scoring/v1. Debian: protobuf-compiler, protobuf-compiler-grpc.
# protoc 21 writes code that protobuf 3.20 and newer run.
set -euo pipefail
cd "$(dirname "$0")"
out=${1:-.}
protoc --proto_path=rho_client/_proto=../../protos/rho/scoring/v1 --python_out="$out" --grpc_python_out="$out" \
    --plugin=protoc-gen-grpc_python="$(command -v grpc_python_plugin)" rho_client/_proto/scoring.proto
