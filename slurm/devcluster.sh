#!/usr/bin/env bash
#
# A real Slurm cluster on one machine: three nodes of 8 CPUs and 4 GPUs each.
# The daemons, the queue and the accounting are Slurm's own; only the hardware is make-believe.

set -euo pipefail
umask 022
PATH="$PATH:/usr/sbin:/sbin" # a plain user's PATH often lacks the daemons

SELF=$(realpath "$0")
STATE=$(realpath -m "${DEVCLUSTER_STATE:-/var/lib/slurm-devcluster}")
ABOUT=$STATE/devcluster # "BASE_PORT ACCOUNTING"; a folder without this file is not ours
CONF=$STATE/etc/slurm.conf
cd / # so that no daemon keeps the caller's folder busy

NODES=(node1 node2 node3)
CPUS=8 GPUS=4 MEMORY_MB=64000 # of each node
UP_SECONDS=60                 # how long `up` waits before it gives up

usage() {
    cat <<EOF
usage: slurm/devcluster.sh COMMAND

  up [--no-accounting] [--install]
            start the cluster, or what has died of it
              --no-accounting  no slurmdbd and no database, so no sacct
              --install        install the missing Debian packages first
  down      end its jobs, stop it and delete its state folder
  status    show what runs; exit code 0 if the cluster is up and healthy, 1 if not
  env       print shell commands that point Slurm's clients at the cluster:
              eval "\$(slurm/devcluster.sh env)"

${#NODES[@]} nodes with $CPUS CPUs and $GPUS GPUs each. Partitions: gpu (default), and low,
whose jobs are requeued, 20 s or more after a warning, when a job in gpu needs their place.
Account: research.
Everything is in \$DEVCLUSTER_STATE (default /var/lib/slurm-devcluster).
up and down need root. Exit codes: 0 done, 1 failed, 2 wrong request.
EOF
}

say() { echo "devcluster: $*" >&2; }
die() { say "$@" && exit 1; }
wrong_request() { say "$*; see --help" && exit 2; }

# --- Daemons -----------------------------------------------------------------------------------
# Each runs in its foreground mode, in a session of its own, and is known by a name:
#   run/NAME.id   its pid, program and start time, which together are never reused
#   log/NAME.out  what it prints (Slurm's daemons also write a NAME.log, with dates)

daemons() { # in the order in which they start
    echo munged
    [[ $ACCOUNTING == off ]] || printf '%s\n' mariadb slurmdbd
    printf '%s\n' slurmctld "${NODES[@]}"
}

identity() { # PID: "PID PROGRAM START_TIME", or nothing if it has ended
    local stat fields
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
    read -ra fields <<<"${stat##*) }" # without "PID (PROGRAM) "; the state comes first
    stat=${stat%)*}
    [[ ${fields[0]} == Z ]] || echo "$1 ${stat#*(} ${fields[19]}"
}

pid_of() { # NAME: its pid; fails if it is dead
    local id
    id=$(cat "$STATE/run/$1.id" 2>/dev/null) || return 1
    [[ -n $id && $(identity "${id%% *}") == "$id" ]] && echo "${id%% *}"
}

# Neither daemons nor clients see what the caller's shell or CI job exports.
CLEAN=(env -i PATH="$PATH" SLURM_CONF="$CONF" MYSQL_UNIX_PORT="$STATE/db/socket")
client() { "${CLEAN[@]}" timeout 5 "$@"; } # left alone, they wait long for a dead daemon

start() { # NAME COMMAND...: does nothing if it runs
    local name=$1 pid id
    shift
    if pid_of "$name" >/dev/null; then return; fi
    "${CLEAN[@]}" setsid "$@" </dev/null >>"$STATE/log/$name.out" 2>&1 {LOCK}>&- &
    pid=$!
    disown "$pid" # or bash would comment on its end
    # The process is bash, then env, then setsid, before it is the daemon.
    until id=$(identity "$pid") && [[ -z $id || $id == "$pid $1 "* ]]; do sleep 0.01; done
    echo "$id" >"$STATE/run/$name.id"
}

give_up() { # NAME WHAT
    say "$1 $2. Its last lines:"
    tail -n 15 "$STATE/log/$1.out" >&2
    exit 1
}

await() { # NAME COMMAND...: until COMMAND succeeds, which says that daemon NAME serves
    local name=$1
    shift
    until "$@" &>/dev/null; do
        pid_of "$name" >/dev/null || give_up "$name" "died"
        ((SECONDS < DEADLINE)) || give_up "$name" "is not ready after $UP_SECONDS s"
        sleep 0.1
    done
}

node_ready() { # NODE
    [[ $(client sinfo -h -p gpu -n "$1" -o %T) =~ ^(idle|mixed|allocated|completing|planned)$ ]]
}

has_account() {
    [[ $(client sacctmgr -nP list association account=research user=root format=user) == root ]]
}

# --- Configuration -----------------------------------------------------------------------------

free_base_port() { # the first of as many ports in a row as there are daemons that listen
    local base port
    for ((base = 16810; base < 17800; base += 10)); do # clear of Slurm's own 6817 to 6819
        for ((port = base; port < base + 2 + ${#NODES[@]}; port++)); do
            if grep -qs ":$(printf %04X "$port") " /proc/net/tcp /proc/net/tcp6; then continue 2; fi
        done
        echo "$base"
        return
    done
    die "no free ports from 16810 to 17800"
}

configure() { # comes to the same result each time, so that `up` can also repair
    local host major minor cgroups gpu nodes="node[1-${#NODES[@]}]"
    host=$(uname -n | cut -d. -f1)
    mkdir -p "$STATE"/{etc,run,log,gpu,munge,db,slurmctld} "${NODES[@]/#/$STATE/}"
    if [[ ! -s $STATE/munge/key ]]; then
        (umask 077 && head -c 128 /dev/urandom >"$STATE/munge/key")
    fi
    # Slurm counts the device files of GPUs and never opens them, so that any device will do.
    for ((gpu = 0; gpu < GPUS; gpu++)); do ln -sfn /dev/null "$STATE/gpu/gpu$gpu"; done

    cat >"$CONF" <<EOF
ClusterName=devcluster
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$BASE_PORT
SlurmUser=root
AuthType=auth/munge
# cred_expire is also how long a requeued job is held back; by default that is two minutes.
AuthInfo=socket=$STATE/munge/socket,cred_expire=10
StateSaveLocation=$STATE/slurmctld
SlurmdSpoolDir=$STATE/%n
SlurmctldPidFile=$STATE/run/slurmctld.pid
SlurmdPidFile=$STATE/run/%n.pid
SlurmctldLogFile=$STATE/log/slurmctld.log
SlurmdLogFile=$STATE/log/%n.log
MailProg=/bin/true

# No cgroups and no binding to CPUs: they do not work in every container.
ProctrackType=proctrack/linuxproc
JobAcctGatherType=jobacct_gather/linux
SlurmdParameters=config_overrides
# A node that has died is down after a minute (default five), and back when its slurmd is.
SlurmdTimeout=60
ReturnToService=2

SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=$((MEMORY_MB / CPUS))
GresTypes=gpu
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
# How long squeue and scontrol remember a finished job.
MinJobAge=300

NodeName=$nodes NodeHostname=$host NodeAddr=127.0.0.1 \
Port=[$((BASE_PORT + 2))-$((BASE_PORT + 1 + ${#NODES[@]}))] \
CPUs=$CPUS Boards=1 SocketsPerBoard=1 CoresPerSocket=$CPUS ThreadsPerCore=1 \
RealMemory=$MEMORY_MB Gres=gpu:$GPUS
PartitionName=DEFAULT Nodes=ALL State=UP
PartitionName=gpu PriorityTier=10 PreemptMode=OFF Default=YES
PartitionName=low PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
EOF
    cat >"$STATE/etc/gres.conf" <<EOF
AutoDetect=off
NodeName=$nodes Name=gpu File=$STATE/gpu/gpu[0-$((GPUS - 1))]
EOF
    # slurmd loads a cgroup plugin even if nothing uses it. Before 23.02 "disabled" is unknown, and
    # v1 is the plugin that asks nothing of the machine.
    IFS=' .' read -r _ major minor _ < <(slurmd -V)
    if ((10#$major$minor < 2302)); then cgroups=cgroup/v1; else cgroups=disabled; fi
    echo "CgroupPlugin=$cgroups" >"$STATE/etc/cgroup.conf"
    if [[ $ACCOUNTING == on ]]; then configure_accounting; fi
}

configure_accounting() {
    # slurmdbd's clients take the munge socket from the "password", not from AuthInfo.
    cat >>"$CONF" <<EOF

AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$((BASE_PORT + 1))
AccountingStoragePass=$STATE/munge/socket
AccountingStorageTRES=gres/gpu
EOF
    install -m 600 /dev/stdin "$STATE/etc/slurmdbd.conf" <<EOF
AuthType=auth/munge
AuthInfo=socket=$STATE/munge/socket
SlurmUser=root
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$((BASE_PORT + 1))
PidFile=$STATE/run/slurmdbd.pid
LogFile=$STATE/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm
EOF
    if [[ -d $STATE/db/data ]]; then return; fi
    chown mysql "$STATE/db"
    rm -rf "$STATE/db/new" # of an `up` that was killed
    "${CLEAN[@]}" mariadb-install-db --no-defaults --user=mysql --datadir="$STATE/db/new" \
        --skip-name-resolve --skip-test-db --auth-root-authentication-method=socket \
        </dev/null &>"$STATE/log/mariadb.out" || give_up mariadb "has no database"
    mv "$STATE/db/new" "$STATE/db/data"
}

start_daemons() { # each one when those that it needs are ready
    local node
    start munged munged --foreground --key-file="$STATE/munge/key" --seed-file="$STATE/munge/seed" \
        --socket="$STATE/munge/socket" --pid-file="$STATE/run/munged.pid"
    await munged munge -n -S "$STATE/munge/socket"

    if [[ $ACCOUNTING == on ]]; then
        start mariadb mariadbd --no-defaults --user=mysql --skip-networking \
            --socket="$STATE/db/socket" --datadir="$STATE/db/data" --tmpdir="$STATE/db" \
            --pid-file="$STATE/db/pid"
        await mariadb mariadb-admin --no-defaults --socket="$STATE/db/socket" ping
        start slurmdbd slurmdbd -D
        await slurmdbd client sacctmgr -n list cluster
        if ! has_account; then # before slurmctld, which wants to find its cluster
            {
                client sacctmgr -iQ add cluster devcluster || true # fails if it is there
                client sacctmgr -iQ add account research || true
                client sacctmgr -iQ add user root account=research || true
            } >>"$STATE/log/slurmdbd.out" 2>&1
            has_account || give_up slurmdbd "did not take account research"
        fi
    fi

    start slurmctld slurmctld -D
    await slurmctld client scontrol ping
    for node in "${NODES[@]}"; do start "$node" slurmd -D -N "$node"; done
    for node in "${NODES[@]}"; do await "$node" node_ready "$node"; done
    if [[ $ACCOUNTING == on ]]; then await slurmdbd client sacct -X; fi
}

# --- The end -----------------------------------------------------------------------------------

end_jobs() { # by way of Slurm, so that srun and salloc hear of it and jobs have a moment to save
    local jobs tries
    for ((tries = 0; tries < 50; tries++)); do
        mapfile -t jobs < <(client squeue -h -o %A)
        if ((${#jobs[@]} == 0)); then break; fi
        if ((tries == 0)); then client scancel "${jobs[@]}" || true; fi
        sleep 0.1
    done
} 2>/dev/null

job_processes() ( # pids of what this cluster's jobs have left running
    local pid
    set +e # processes come and go meanwhile
    # Slurm sets both variables in every task; children inherit them.
    grep -lszxF "SLURM_CONF=$CONF" /proc/[0-9]*/environ |
        xargs -r grep -lsz '^SLURMD_NODENAME=' | cut -d/ -f3
    # slurmstepd wipes its environment, but keeps the log of its slurmd open.
    grep -lsx slurmstepd /proc/[0-9]*/comm | cut -d/ -f3 | while read -r pid; do
        find "/proc/$pid/fd" -lname "$STATE/log/*" -printf "$pid\n" -quit
    done
) 2>/dev/null

remove_cluster() {
    local name pids tries
    if pid_of slurmctld >/dev/null; then end_jobs; fi
    # KILL at once: all that the daemons would save is deleted next.
    for ((tries = 0; tries < 100; tries++)); do
        mapfile -t pids < <(for name in $(daemons); do pid_of "$name" || true; done; job_processes)
        if ((${#pids[@]} == 0)); then break; fi
        kill -KILL "${pids[@]}" 2>/dev/null || true
        sleep 0.1
    done
    ((${#pids[@]} == 0)) || say "could not end: ${pids[*]}"
    rm -rf "$STATE"
}

# --- Packages ----------------------------------------------------------------------------------

missing_packages() { # ACCOUNTING
    command -v munged || echo missing munge
    { command -v slurmctld && command -v slurmd && command -v srun; } || echo missing slurm-wlm
    if [[ $1 == off ]]; then return; fi
    command -v slurmdbd || echo missing slurmdbd
    command -v mariadbd || echo missing mariadb-server
}

install_packages() ( # PACKAGE...; a subshell, to have an EXIT trap of its own
    command -v apt-get >/dev/null || die "--install needs apt-get"
    # The services that come with the packages must start neither now nor at the next boot.
    # (Those of Slurm do not without a configuration in /etc.)
    policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then
        trap 'rm -f "$policy"' EXIT
        install -m 755 /dev/stdin "$policy" <<<$'#!/bin/sh\nexit 101'
    fi
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"
    if command -v systemctl; then
        if [[ " $* " == *" munge "* ]]; then systemctl disable munge; fi
        if [[ " $* " == *" mariadb-server "* ]]; then systemctl disable mariadb; fi
    fi
) </dev/null >&2

# --- Commands ----------------------------------------------------------------------------------

load() { [[ -s $ABOUT ]] && read -r BASE_PORT ACCOUNTING <"$ABOUT"; } # fails if there is none

enter() { # for the commands that change something
    ((EUID == 0)) || die "needs root: Slurm's daemons start jobs as any user"
    exec {LOCK}</var/lib # one at a time on this machine, lest two choose the same ports
    flock -w 120 "$LOCK" || die "another devcluster.sh has been busy for two minutes"
}

up() { # ACCOUNTING INSTALL
    local missing dead=() name
    [[ $STATE =~ ^[A-Za-z0-9/._-]{2,80}$ ]] || die "no fit path for Slurm's sockets: '$STATE'"
    enter
    mapfile -t missing < <(missing_packages "$1" | sed -n 's/^missing //p')
    if ((${#missing[@]})) && [[ $2 == no ]]; then
        die "first: apt-get install -y --no-install-recommends ${missing[*]} (or up --install)"
    elif ((${#missing[@]})); then
        install_packages "${missing[@]}"
    fi

    if load; then
        [[ $ACCOUNTING == "$1" ]] || die "has accounting $ACCOUNTING; first: $SELF down"
        for name in $(daemons); do pid_of "$name" >/dev/null || dead+=("$name"); done
        if ((${#dead[@]} == 0)); then
            say "is up already"
            return
        fi
        say "dead, so started again: ${dead[*]}"
        # Its jobs may still be queued, so that a failure must not delete the folder.
        trap 'say "is not up; to begin anew, first: $SELF down"' EXIT
    else
        [[ -z $(ls -A "$STATE" 2>/dev/null) ]] || die "did not make $STATE, so leaves it alone"
        BASE_PORT=$(free_base_port)
        ACCOUNTING=$1
        trap remove_cluster EXIT
        mkdir -p "$STATE"
        chmod 755 "$STATE"
        echo "$BASE_PORT $ACCOUNTING" >"$ABOUT"
        setpriv --reuid=nobody --clear-groups test -x "$STATE" ||
            die "needs parents of $STATE that any user may enter (chmod o+x)"
    fi
    trap 'exit 130' INT
    trap 'exit 143' TERM
    DEADLINE=$((SECONDS + UP_SECONDS))
    configure
    start_daemons
    trap - EXIT
    say "is up after $SECONDS s, accounting $ACCOUNTING. Next:"
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
    echo "state folder $STATE, ports from $BASE_PORT, accounting $ACCOUNTING"
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
    local name
    load || die "is not up"
    # What another cluster or an outer job has left would poison what is submitted here.
    for name in $(compgen -A export | grep -E '^(SLURM|SLURMD|SBATCH|SALLOC|SRUN)_'); do
        echo "unset $name"
    done
    echo "export SLURM_CONF=$CONF"
}

main() {
    local command=${1-} accounting=on install=no argument
    for argument in "$@"; do
        case $command:$argument in
        *:-h | *:--help) usage && exit ;;
        up:--no-accounting) accounting=off ;;
        up:--install) install=yes ;;
        up:up | down:down | status:status | env:env) ;;
        *) wrong_request "cannot make sense of '$argument'" ;;
        esac
    done
    case $command in
    up) up "$accounting" "$install" ;;
    down) down ;;
    status) status ;;
    env) environment ;;
    *) wrong_request "needs a command" ;;
    esac
}

main "$@"
