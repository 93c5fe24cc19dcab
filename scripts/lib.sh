# shellcheck shell=bash
# Sourced by the other scripts: where things live, how they speak, and the container engine that `scripts/setup` chose.
set -euo pipefail

# shellcheck disable=SC2034 # the scripts that source this use it
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/sidecheck
export PATH=$cache/bin:$PATH

say() { printf 'sidecheck: %s\n' "$*" >&2; }
die() {
  say "$*"
  exit 2
}

# Exports what `scripts/setup` wrote down: SIDECHECK_ENGINE (docker or podman) and, if set-up configured the engine, its settings.
load_engine() {
  [ -f "$cache/engine/env" ] || die "no container engine is set up yet: run scripts/setup"
  set -a
  # shellcheck disable=SC1091
  . "$cache/engine/env"
  set +a
}

# Runs the calling script again under a lock, so that only one of its name runs at a time. The lock is held by a parent (`flock -o`),
# never by what the script starts: an engine's daemons would keep it for ever.
alone() {
  local name
  name=$(basename "$0")
  [ "${SIDECHECK_ALONE:-}" = "$name" ] && return
  mkdir -p "$cache"
  SIDECHECK_ALONE=$name exec flock -o "$cache/$name.lock" "$0" "$@"
}

# step WHAT TIME COMMAND...: says what is done and how long that usually takes on two cores, does it, and says how long it took.
step() {
  local what=$1 usually=$2 before=$SECONDS
  shift 2
  say "$what: usually $usually"
  "$@" || return
  say "$what: done after $((SECONDS - before)) s"
}

# Runs a command and shows the end of its output only if it fails.
quietly() { reaching '' "$@"; }

# reaching REGISTRY COMMAND...: runs a command quietly that takes something from a registry, and ends the script if that does not answer.
reaching() {
  local registry=$1 log
  shift
  log=$(mktemp)
  "$@" >"$log" 2>&1 </dev/null && {
    rm -f "$log"
    return
  }
  if [ -n "$registry" ] && grep -qiE "$unreachable" "$log"; then
    rm -f "$log"
    die "$registry cannot be reached: look at this machine's network, then run this again; what is done stays done"
  fi
  tail -n 20 "$log" >&2
  rm -f "$log"
  return 1
}

# What apt, debootstrap, Go, pip and cargo say when nobody answers.
unreachable='network is unreachable|no such host|(could not|failure|failed to) resolv|failure in name resolution|name or service not known|'
unreachable+='unable to connect|could not connect|connection (refused|reset|timed out)|i/o timeout|TLS handshake timeout|failed getting release file'

# Installs Debian packages: apt_install WHY PACKAGE...
apt_install() {
  local why=$1 missing=() package
  shift
  for package in "$@"; do
    # shellcheck disable=SC2016 # a format of dpkg-query
    [ "$(dpkg-query -Wf '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    die "$why needs the packages ${missing[*]}: install them (on Debian as root: apt-get install ${missing[*]}), then run this again"
  fi
  step "installing ${missing[*]} ($why)" '20 s' reaching "Debian's packages" install_packages "${missing[@]}" ||
    die "apt-get could not install ${missing[*]}: see above"
}

install_packages() {
  local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -q -y)
  # What was being installed when somebody killed apt-get.
  dpkg --configure -a
  # The lists of a fresh machine are absent or old.
  "${apt[@]}" install --no-install-recommends "$@" || { "${apt[@]}" update && "${apt[@]}" install --no-install-recommends "$@"; }
}

# What Go needs to keep everything it fetches and compiles in the cache, which can be deleted like any other folder.
go_in_cache() {
  command -v go >/dev/null || die "go is not installed, and $1 is built with it: install Go (https://go.dev/dl), then run this again"
  export GOMODCACHE=$cache/go/mod GOCACHE=$cache/go/build GOBIN=$cache/bin GOWORK=off
  export GOFLAGS='-modcacherw -trimpath -buildvcs=false'
  # A killed build leaves gigabytes behind, so the next one clears them. Only one script of this name runs at a time.
  export GOTMPDIR=$cache/go/tmp/${0##*/}
  rm -rf "$GOTMPDIR"
  mkdir -p "$GOTMPDIR"
  # The compiler spends a sixth of its time on memory that need not be freed.
  export GOGC=400
}
