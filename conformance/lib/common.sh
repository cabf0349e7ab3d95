# What conformance/servers and conformance/run share: places, messages, packages. Sourced, never run.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# Everything these scripts write is below this one folder, which git ignores.
WORK=${GRAVITY_WORK:-$ROOT/.work}
LOGS=$WORK/logs

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# Installs Debian packages, with one `apt-get update` before. Says what is missing where it may not.
install_packages() {
  (($#)) || return 0
  local root=()
  if ((EUID != 0)); then
    if have sudo && sudo -n true 2>/dev/null; then root=(sudo -n); else die "missing: $*. Install them as root: apt-get install $*"; fi
  fi
  have apt-get || die "missing: $*. This machine has no apt-get; install what they stand for by hand"
  say "installing: $*"
  mkdir -p "$LOGS"
  # RUNLEVEL=1 keeps Debian's scripts from starting services of their own.
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 bash -c \
    'apt-get -q update && apt-get -q install -y --no-install-recommends "$@"' apt "$@" </dev/null >"$LOGS/apt.log" 2>&1 9>&- ||
    { tail -n 20 "$LOGS/apt.log" >&2; die "apt-get could not install: $* ($LOGS/apt.log)"; }
}
