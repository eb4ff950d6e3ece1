#!/usr/bin/env bash
#
# A real Slurm cluster on one machine: three nodes of 8 CPUs and 4 GPUs each.
# The daemons, the queue and the accounting are Slurm's own; only the hardware is make-believe.

# shellcheck source-path=SCRIPTDIR/devcluster

set -euo pipefail
umask 022

SELF=$(realpath "$0")
PARTS=${SELF%/*}/devcluster
STATE=$(realpath -m "${DEVCLUSTER_STATE:-/var/lib/slurm-devcluster}")
CACHE=$(realpath -m "${DEVCLUSTER_CACHE:-/var/cache/slurm-devcluster}")
ABOUT=$STATE/devcluster # "BASE_PORT ACCOUNTING RELEASE"; a folder without this file is not ours
CONF=$STATE/etc/slurm.conf
CLIENTS=devcluster-clients # the folder in STATE with the clients of another release
cd / # so that no daemon keeps the caller's folder busy

NODES=(node1 node2 node3)
CPUS=8 GPUS=4 MEMORY_MB=64000 # of each node
UP_SECONDS=60                 # how long `up` waits before it gives up
REBOOTED=                     # 1 if neither daemons nor jobs are left of a cluster that was up

. "$PARTS/packages.sh"
. "$PARTS/configuration.sh"
. "$PARTS/daemons.sh"

usage() {
    cat <<EOF
usage: slurm/devcluster.sh COMMAND

  up [--no-accounting] [--install] [--release trixie]
            start the cluster, or what has died of it
              --no-accounting   no slurmdbd and no database, so no sacct
              --install         install the missing Debian packages first
              --release trixie  Slurm 24.11 of Debian trixie, which is fetched once and not
                                installed; without this, the Slurm that the host has
  down      end its jobs, stop it and delete its state folder
  status    show what runs; exit code 0 if the cluster is up and healthy, 1 if not
  env       print shell commands that point Slurm's clients at the cluster:
              eval "\$(slurm/devcluster.sh env)"

${#NODES[@]} nodes with $CPUS CPUs and $GPUS GPUs each. Partitions: gpu (default), and low,
whose jobs are requeued, 20 s or more after a warning, when a job in gpu needs their place.
Account: research.
Everything is in \$DEVCLUSTER_STATE (default /var/lib/slurm-devcluster); clusters with different
ones run side by side. What --release fetches is kept in \$DEVCLUSTER_CACHE (default
/var/cache/slurm-devcluster) for the next time; delete that folder to fetch it anew.
up and down need root, and so do the clients of a cluster with --release.
Exit codes: 0 done, 1 failed, 2 wrong request.
EOF
}

say() { echo "devcluster: $*" >&2; }
die() { say "$@" && exit 1; }
wrong_request() { say "$*; see --help" && exit 2; }

load() { # fails if there is no cluster
    [[ -s $ABOUT ]] && read -r BASE_PORT ACCOUNTING RELEASE <"$ABOUT" || return
    RELEASE=${RELEASE:-host}
    set_runner
}

without_clients() { # PATH: less the clients of any cluster with --release
    local folder rest=
    while IFS= read -rd : folder; do
        [[ $folder == */$CLIENTS ]] || rest+=:$folder
    done <<<"$1:"
    echo "${rest#:}"
}

need_root() { ((EUID == 0)) || die "needs root: Slurm's daemons start jobs as any user"; }

enter() { # for the commands that change something
    need_root
    exec {LOCK}</var/lib # one at a time on this machine, lest two choose the same ports
    flock -w 120 "$LOCK" || die "another devcluster.sh has been busy for two minutes"
}

up() { # ACCOUNTING INSTALL RELEASE
    local dead=() name
    [[ $STATE =~ ^[A-Za-z0-9/._-]{2,80}$ ]] || die "no fit path for Slurm's sockets: '$STATE'"
    [[ $CACHE =~ ^[A-Za-z0-9/._-]{2,80}$ ]] || die "no fit path for a mount: '$CACHE'"
    need_root
    if [[ $3 != host ]]; then fetch_release "$3"; fi
    enter
    if [[ $3 == host ]]; then require_packages "$1" "$2"; fi

    if load; then
        [[ $ACCOUNTING == "$1" ]] || die "has accounting $ACCOUNTING; first: $SELF down"
        [[ $RELEASE == "$3" ]] || die "has Slurm of release $RELEASE; first: $SELF down"
        for name in $(daemons); do pid_of "$name" >/dev/null || dead+=("$name"); done
        if ((${#dead[@]} == 0)); then
            say "is up already"
            return
        fi
        say "dead, so started again: ${dead[*]}"
        if ((${#dead[@]} == $(daemons | wc -l))) && [[ -z $(other_processes) ]]; then REBOOTED=1; fi
        # Its jobs may still be queued, so that a failure must not delete the folder.
        trap 'say "is not up; to begin anew, first: $SELF down"' EXIT
    else
        [[ -z $(ls -A "$STATE" 2>/dev/null) ]] || die "did not make $STATE, so leaves it alone"
        BASE_PORT=$(free_base_port)
        ACCOUNTING=$1
        RELEASE=$3
        set_runner
        trap remove_cluster EXIT
        mkdir -p "$STATE"
        chmod 755 "$STATE"
        echo "$BASE_PORT $ACCOUNTING $RELEASE" >"$ABOUT"
        setpriv --reuid=nobody --clear-groups test -x "$STATE" ||
            die "needs parents of $STATE that any user may enter (chmod o+x)"
    fi
    trap 'exit 130' INT
    trap 'exit 143' TERM
    DEADLINE=$((SECONDS + UP_SECONDS))
    configure
    start_daemons
    trap - EXIT
    say "is up after $SECONDS s, $(client sinfo -V), accounting $ACCOUNTING. Next:"
    echo "    eval \"\$(${DEVCLUSTER_STATE:+DEVCLUSTER_STATE=$STATE }$SELF env)\"" >&2
    echo "    sinfo" >&2
}

down() {
    enter
    load || { say "is not up" && return; }
    remove_cluster
    say "is down"
}

status() {
    local name pid healthy=yes
    load || die "is not up"
    echo "state folder $STATE, ports from $BASE_PORT, accounting $ACCOUNTING, release $RELEASE"
    for name in $(daemons); do
        pid=$(pid_of "$name") || healthy=no
        printf '%-10s %s\n' "$name" "${pid:-dead}"
    done
    if pid_of slurmctld >/dev/null; then client sinfo || healthy=no; fi
    for name in "${NODES[@]}"; do
        if [[ $healthy == yes ]]; then node_ready "$name" || healthy=no; fi
    done
    if [[ $healthy == yes && $ACCOUNTING == on ]]; then client sacct -X >/dev/null || healthy=no; fi
    [[ $healthy == yes ]] || die "is not healthy"
}

environment() {
    local name path
    load || die "is not up"
    # What another cluster or an outer job has left would poison what is submitted here.
    for name in $(compgen -A export | grep -E '^(SLURM|SLURMD|SBATCH|SALLOC|SRUN)_'); do
        echo "unset $name"
    done
    path=$(without_clients "$CALLERS_PATH")
    if [[ $RELEASE != host ]]; then path=$STATE/$CLIENTS:$path; fi
    if [[ $path != "$CALLERS_PATH" ]]; then printf 'export PATH=%q\n' "$path"; fi
    echo "export SLURM_CONF=$CONF"
}

main() {
    local command=${1-} accounting=on install=no release=host previous='' argument
    for argument in "$@"; do
        case $command:$previous$argument in
        *:-h | *:--help) usage && exit ;;
        up:--no-accounting) accounting=off ;;
        up:--install) install=yes ;;
        up:--release) previous='--release=' && continue ;;
        up:--release=trixie) release=trixie ;;
        up:--release=*) wrong_request "knows no release '$argument'" ;;
        up:up | down:down | status:status | env:env) ;;
        *) wrong_request "cannot make sense of '$argument'" ;;
        esac
        previous=
    done
    [[ -z $previous ]] || wrong_request "--release needs a name"
    case $command in
    up) up "$accounting" "$install" "$release" ;;
    down) down ;;
    status) status ;;
    env) environment ;;
    *) wrong_request "needs a command" ;;
    esac
}

CALLERS_PATH=$PATH
PATH=$(without_clients "$PATH"):/usr/sbin:/sbin # a plain user's PATH often lacks the daemons
main "$@"
