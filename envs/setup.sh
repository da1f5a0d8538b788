#!/usr/bin/env bash
# Creates .venv from requirements.lock. FFCV is compiled on the way, so what it needs comes first.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
  echo "error: $*" >&2
  exit 1
}

# Python 3.11, with which the reference results were made, else a newer one that everything runs on.
fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }
candidates=(python3.11 python3 python3.13 python3.12)
[ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
for python in "${candidates[@]}"; do
  if fits "$python"; then break; fi
done
fits "$python" || fail "no Python 3.11, 3.12 or 3.13 (tried ${candidates[*]});" \
  "install one (Debian, Ubuntu: apt-get install python3) or set PYTHON=/path/to/one"

# Runs a stage of the set-up: says what it does, then what it took.
stage() {
  local what=$1 begun=$SECONDS
  shift
  echo "$what …"
  "$@"
  echo "$what: $((SECONDS - begun)) s"
}

# Prints the Debian packages that are missing, by looking for what they bring.
missing() {
  local version
  version=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
  "$python" -c 'import ensurepip, venv' 2>/dev/null || echo "$version-venv"
  "$python" -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null || echo "$version-dev"
  command -v g++ >/dev/null || echo g++
  command -v pkg-config >/dev/null || { echo pkg-config libopencv-dev libturbojpeg0-dev; return; }
  pkg-config --exists opencv4 || echo libopencv-dev
  pkg-config --exists libturbojpeg || echo libturbojpeg0-dev
}

packages=$(missing | xargs)
if [ -n "$packages" ]; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    fail "set-up needs packages (FFCV is compiled); run: sudo apt-get install $packages"
  fi
  install_packages() {
    apt-get update -qq
    # shellcheck disable=SC2086 # one word per package
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
  }
  stage "Installing $packages (FFCV is compiled)" install_packages
  packages=$(missing | xargs)
  [ -z "$packages" ] || fail "still missing after installing: $packages"
fi

rm -f .venv/complete
# Shows errors alone: warnings are of build tools and package indexes, which nobody here can change.
pip() { .venv/bin/pip --quiet --quiet --disable-pip-version-check "$@"; }
stage "Creating .venv" "$python" -m venv .venv
stage "Installing requirements.lock, compiling FFCV" pip install --use-pep517 -r requirements.lock
stage "Installing this project" pip install --no-deps --editable .
touch .venv/complete
echo "Set up in $SECONDS s; .venv takes $(du -sh .venv | cut -f1)"
