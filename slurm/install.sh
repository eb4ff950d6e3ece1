#!/usr/bin/env bash
# Install the bundle that this script lies in: the project, its environment, data and weights.
#
#   ./install.sh [--to PROJECT_DIR]     the folder to make; ./slurm-finetune if left out
#   PYTHON=/path/to/python3.11 ./install.sh
#
# Needs Python and coreutils; no network, no root, and the bundle may be read-only. What was
# interrupted is finished by the same command. Exit codes: 0 done, 1 failed, 2 wrong request.
set -euo pipefail
export LC_ALL=C

bundle=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
MARKER=.installing

# What a Python must be to run this bundle; each problem is a sentence that begins with its name.
CHECK='
import os, platform, sys, sysconfig
python, machine, glibc = sys.argv[1:]
have = "%d.%d" % sys.version_info[:2]
if platform.python_implementation() != "CPython" or have != python:
    sys.exit("is %s %s" % (platform.python_implementation(), have))
if sysconfig.get_config_var("Py_GIL_DISABLED"):
    sys.exit("is a free-threaded build")
if platform.machine() != machine:
    sys.exit("runs on %s, and the wheels are for %s" % (platform.machine(), machine))
try:
    libc = os.confstr("CS_GNU_LIBC_VERSION").split()[1]
except (AttributeError, IndexError, OSError, ValueError):
    sys.exit("runs on a system without glibc, and the wheels need glibc %s" % glibc)
if [int(part) for part in libc.split(".")[:2]] < [int(part) for part in glibc.split(".")[:2]]:
    sys.exit("runs on glibc %s, and the wheels need %s or later" % (libc, glibc))
try:
    import ensurepip, venv
except ImportError:
    sys.exit("comes without venv; the administrators can install it (python%s-venv)" % python)
'
UNPACK='
import sys, tarfile
with tarfile.open(sys.argv[1]) as archive:
    safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    archive.extractall(sys.argv[2], **safely)
'

usage() {
  sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

fail() {
  local code=$1
  shift
  printf 'error: %s\n' "$*" >&2
  exit "$code"
}

say() {
  printf '%s\n' "$*" >&2
}

verify() {
  local told
  [[ -r $bundle/SHA256SUMS ]] || fail 1 "$bundle has no SHA256SUMS to check it by; carry it again"
  # Its last line names the manifest, so that a list that was cut short shows.
  told=$(tail -n 1 -- "$bundle/SHA256SUMS")
  [[ $told == *"  manifest.json" ]] || fail 1 "$bundle/SHA256SUMS is cut short; carry it again"
  say "verifying $bundle"
  told=$(cd -- "$bundle" && sha256sum --check --quiet --strict SHA256SUMS 2>&1) || {
    say "$told"
    fail 1 "the bundle is damaged: carry the files named above again"
  }
  refuse_surplus
}

# What no list names was not checked, and would be installed with the rest.
refuse_surplus() {
  local line path surplus=()
  local -A listed=()
  while IFS= read -r line; do
    listed[${line#*  }]=1
  done <"$bundle/SHA256SUMS"
  shopt -s globstar dotglob nullglob
  for path in "$bundle"/files/** "$bundle"/wheels/**; do
    [[ -d $path && ! -L $path ]] || [[ -n ${listed[${path#"$bundle/"}]:-} ]] || surplus+=("$path")
  done
  shopt -u globstar dotglob nullglob
  ((${#surplus[@]})) || return 0
  printf '  %s\n' "${surplus[@]}" >&2
  fail 1 "the files named above are in no list of the bundle: remove them"
}

read_facts() {
  local line
  arguments=()
  while IFS= read -r line; do
    case $line in
      python=*) python=${line#*=} ;;
      machine=*) machine=${line#*=} ;;
      glibc=*) glibc=${line#*=} ;;
      torch=*) torch=${line#*=} ;;
      room=*) room=${line#*=} ;;
      argument=*) arguments+=("${line#*=}") ;;
    esac
  done <"$bundle/bundle.conf"
}

# The first Python that can run the bundle; what is wrong with the others if there is none.
find_python() {
  local each told refusals=()
  if [[ -n ${PYTHON:-} ]]; then
    set -- "$PYTHON"
  else
    set -- "python$python" python3
  fi
  for each; do
    if ! command -v -- "$each" >/dev/null; then
      refusals+=("$each is not on PATH")
    elif told=$("$each" -I -c "$CHECK" "$python" "$machine" "$glibc" 2>&1); then
      interpreter=$each
      return
    else
      refusals+=("$each ${told%%$'\n'*}")
    fi
  done
  printf '  %s\n' "${refusals[@]}" >&2
  fail 1 "this bundle needs CPython $python on $machine with glibc $glibc or later;" \
    "name one: PYTHON=/path/to/python$python $0"
}

# Nothing that is there is written over, but for an installation of this bundle that broke off.
open_target() {
  local key begun
  key=$(sha256sum <"$bundle/SHA256SUMS")
  if [[ -e $target/$MARKER ]]; then
    begun=$(<"$target/$MARKER")
    [[ -z $begun || $begun == "$key" ]] ||
      fail 2 "$target was begun from another bundle; remove it first: rm -r '$target'"
    say "going on with $target"
  elif [[ -e $target || -L $target ]]; then
    [[ -d $target && -z $(ls -A -- "$target") ]] ||
      fail 2 "$target is there already; name another folder by --to, or move it away"
  fi
  mkdir -p -- "$target" || fail 1 "$target cannot be made"
  : >>"$target/$MARKER" || fail 1 "$target cannot be written to"
  exec 9<>"$target/$MARKER"
  # Another failure means that this file system has no locks, which is no reason to stop.
  if command -v flock >/dev/null; then
    flock -n -E 99 9 2>/dev/null || [[ $? != 99 ]] ||
      fail 2 "another install.sh is at work on $target"
  fi
  printf '%s\n' "$key" >&9
  target=$(cd -- "$target" && pwd -P)
}

check_room() {
  local free held
  free=$(df --output=avail --block-size=1 -- "$target" | tail -n 1)
  # What an installation that broke off has unpacked is written over, and takes no more room.
  held=$(du --summarize --block-size=1 -- "$target" | cut -f 1)
  ((free + held >= room)) ||
    fail 1 "$target has room for $(((free + held) / 1000000)) MB," \
      "and $((room / 1000000)) MB are needed"
}

make_environment() {
  local env=$target/.venv pip
  say "making $env (torch: $torch); this takes minutes"
  "$interpreter" -I -m venv -- "$env" || fail 1 "$interpreter could not make $env"
  # Neither a person's nor the site's settings of pip may name an index.
  pip=("$env/bin/python" -I -m pip --isolated --quiet --disable-pip-version-check --no-cache-dir)
  PIP_CONFIG_FILE=/dev/null "${pip[@]}" install --no-index --find-links "$bundle/wheels" \
    --only-binary :all: --require-hashes -r "$bundle/requirements.txt" ||
    fail 1 "pip could not install the wheels; what it says is above"
  touch -- "$env/installed" # for make, which would install them from an index
}

target=slurm-finetune
while (($#)); do
  case $1 in
    --to)
      [[ -n ${2:-} ]] || fail 2 "--to needs a folder"
      target=$2
      shift 2
      ;;
    --help | -h)
      usage
      exit 0
      ;;
    *) fail 2 "unknown argument $1; see $0 --help" ;;
  esac
done
[[ $target == /* ]] || target=$PWD/$target

verify
read_facts
find_python
open_target
trap '[[ ! -e $target/$MARKER ]] || say "$target is not complete; the same command goes on"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
rm -rf -- "$target/.venv" # half made, and large
check_room
say "unpacking the project, data and weights to $target"
"$interpreter" -I -c "$UNPACK" "$bundle/project.tar.gz" "$target"
if [[ -d $bundle/files ]]; then
  cp -R --reflink=auto --no-preserve=mode,ownership -- "$bundle/files/." "$target/"
fi
make_environment
rm -- "$target/$MARKER"
exec 9>&-
say "installed; now doctor looks at the whole of it"
cd -- "$target"
code=0
.venv/bin/python launch.py doctor "${arguments[@]}" || code=$?
say ""
say "next:"
say "  cd $(printf %q "$target") && . .venv/bin/activate"
say "  python launch.py$(printf ' %q' "${arguments[@]}")"
exit "$code"
