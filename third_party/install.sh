#!/bin/bash
# Installs what stairgrad is built with, from the packages of Debian or Ubuntu: as root, or through sudo.
# When everything is there it does nothing. On another system it prints what is needed and stops.
#   third_party/install.sh            to build the library, the programs and the test programs
#   third_party/install.sh --tests    CMake and strace as well: tests/run.sh builds with the one and looks at programs with the other
#   third_party/install.sh --fuzz     clang as well, whose libFuzzer tests/run.sh --fuzz uses
set -euo pipefail

needed=(g++ meson ninja-build pkg-config                                  # compiler and build
        libdnnl-dev libopenblas-openmp-dev zlib1g-dev libstb-dev nlohmann-json3-dev  # the library
        libcli11-dev doctest-dev)                                         # programs, tests
optional=(dataset-fashion-mnist)                                          # the images of the quickstart
for argument in "$@"; do
  case $argument in
    --tests) needed+=(cmake make strace) ;;
    --fuzz) needed+=(clang libclang-rt-dev) ;;
    -h | --help) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "error: install.sh: unknown option $argument, expected --tests, --fuzz or nothing" >&2; exit 1 ;;
  esac
done

stop() { printf 'error: %s\n' "$@" >&2; exit 1; }

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
  stop "this is neither Debian nor Ubuntu (no apt-get). Install these yourself, by Debian's names:" \
    "  ${needed[*]}" \
    "then run: meson setup build && ninja -C build" \
    "The images of Fashion-MNIST come from github.com/zalandoresearch/fashion-mnist; --data names their folder."
fi

installed() { dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }
available() { apt-cache show --no-all-versions "$1" >/dev/null 2>&1; }

without() { echo "install: this system has no package $1; download its data and name the folder with --data"; }

missing=()
for package in "${needed[@]}"; do installed "$package" || missing+=("$package"); done
updated=$([ ${#missing[@]} -gt 0 ] || echo yes)  # lists that once had what is needed are good enough
for package in "${optional[@]}"; do
  if installed "$package"; then continue; fi
  if [ -n "$updated" ] && ! available "$package"; then without "$package"; else missing+=("$package"); fi
done

if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ]; then
    root=()
  elif command -v sudo >/dev/null; then
    root=(sudo)
  else
    stop "packages are missing, and installing them needs root or sudo. As root, run:" \
      "  apt-get install --no-install-recommends ${missing[*]}"
  fi
  apt_get() {
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@"
  }

  echo "install: reading the package lists"
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  apt_get update >"$log" 2>&1 || { cat "$log" >&2; echo "install: apt-get update failed; trying with the lists at hand" >&2; }

  install=()
  for package in "${missing[@]}"; do
    if available "$package"; then
      install+=("$package")
    elif [[ " ${optional[*]} " == *" $package "* ]]; then
      without "$package"
    else
      stop "this system has no package $package (on Ubuntu, is the component 'universe' enabled?)"
    fi
  done
  if [ ${#install[@]} -gt 0 ]; then
    echo "install: installing ${install[*]}"
    apt_get install -y --no-install-recommends "${install[@]}" >"$log" 2>&1 </dev/null || { cat "$log" >&2; stop "apt-get install failed"; }
  fi
fi

# Ubuntu 22.04 has Meson 0.61.
version=$(meson --version)
if ! printf '1.0\n%s\n' "$version" | sort -C -V; then
  stop "Meson is $version, expected 1.0 or newer. Run: python3 -m pip install 'meson>=1.0'"
fi
echo "install: everything is there"
