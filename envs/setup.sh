#!/usr/bin/env bash
# Creates .venv from requirements.lock. FFCV is compiled on the way, so its C++ libraries come first.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
  echo "error: $1" >&2
  exit 1
}

python=${PYTHON:-python3.11}
command -v "$python" >/dev/null || python=python3
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null ||
  fail "Python 3.11 not found; install it (Debian/Ubuntu: apt-get install python3.11 python3.11-venv) or set PYTHON=/path/to/python3.11"

packages=(g++ pkg-config libopencv-dev libturbojpeg0-dev)
complete() {
  command -v g++ >/dev/null && command -v pkg-config >/dev/null &&
    pkg-config --exists opencv4 libturbojpeg
}
if ! complete; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing ${packages[*]} (FFCV compiles against them)"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${packages[@]}" >/dev/null
    complete || fail "C++ OpenCV or libjpeg-turbo still not found by pkg-config after installing ${packages[*]}"
  else
    fail "FFCV needs C++ OpenCV and libjpeg-turbo; run: sudo apt-get install ${packages[*]}"
  fi
fi

echo "Creating .venv from requirements.lock"
rm -f .venv/complete
"$python" -m venv .venv
.venv/bin/pip install --quiet --disable-pip-version-check -r requirements.lock
.venv/bin/pip install --quiet --disable-pip-version-check --no-deps --editable .
touch .venv/complete
