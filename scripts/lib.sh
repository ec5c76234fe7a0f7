# Shared by the scripts beside it: the repository root, the cache folder and messages. Sourced, not run.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${FRUGAL_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/frugal}
jobs=$(nproc)

say() { printf '\n== %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# configure FOLDER CMAKE-ARGS...: runs CMake once for a build folder and again only when its arguments changed;
# ninja itself notices an edited CMakeLists.txt.
configure() {
  local build=$1 wanted
  shift
  wanted=$(printf '%s\n' "$root" "$@")
  if [ ! -f "$build/build.ninja" ] || [ "$(cat "$build/configured-with" 2>/dev/null)" != "$wanted" ]; then
    cmake -G Ninja -S "$root" -B "$build" "$@" >&2 || return
    printf '%s\n' "$wanted" > "$build/configured-with"
  fi
}
