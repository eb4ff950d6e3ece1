#!/bin/sh
# Runs a program where Slurm, libc and all else that ROOT/usr has are another Debian release's.
# ROOT/usr is laid over the host's /usr, so what it lacks is the host's: the Python that runs this
# project, for one. Nothing outside of /usr changes: files, users, processes and network are shared.
#
# The mounts are in a namespace of their own, so that they end with the last process that is in it,
# whatever ends it, and the host never sees them.

set -eu
usage="usage: inside.sh ROOT PROGRAM [ARGUMENT...]"
mark=/usr/share/slurm-devcluster # only ROOT has it

if [ "${1-}" = --mount ]; then # in the namespace
    root=$2
    shift 2
    mount -t overlay overlay -o "lowerdir=$root/usr:/usr" "$root/mnt"
    mount --rbind /usr/local "$root/mnt/local" # the overlay is read-only
    for plugins in "$root"/usr/lib/*/slurm-wlm; do # of the host's Slurm, none
        mount --bind "$plugins" "$root/mnt/${plugins#"$root/usr/"}"
    done
    mount --move "$root/mnt" /usr
    exec "$@"
fi

root=${1:?"$usage"}
shift
: "${1:?"$usage"}"
if [ -e "$mark" ]; then exec "$@"; fi # is inside already, as every job is
if [ "$(id -u)" != 0 ]; then
    echo "$1: needs root: this cluster's Slurm is of another Debian release" >&2
    exit 1
fi
# A mount that the host makes or ends is seen inside, if the host shares its mounts.
exec unshare --mount --propagation slave "$0" --mount "$root" "$@"
