# shellcheck shell=bash
#
# The daemons: how they are started, known again and ended.
#
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

set_runner() { # RUN, which runs the cluster's own programs
    # Neither daemons nor clients see what the caller's shell or CI job exports.
    RUN=(env -i PATH="$PATH" SLURM_CONF="$CONF" MYSQL_UNIX_PORT="$STATE/db/socket")
    RUN+=(DEVCLUSTER_OWN="$STATE") # what other_processes knows them by
    if [[ $RELEASE != host ]]; then RUN+=("$STATE/inside" "$STATE/root"); fi
}

client() { timeout 5 "${RUN[@]}" "$@"; } # left alone, they wait long for a dead daemon

start() { # NAME COMMAND...: does nothing if it runs
    local name=$1 pid id
    shift
    if pid_of "$name" >/dev/null; then return; fi
    setsid "${RUN[@]}" "$@" </dev/null >>"$STATE/log/$name.out" 2>&1 {LOCK}>&- &
    pid=$!
    disown "$pid" # or bash would comment on its end
    # The process is bash, then setsid, then what RUN names, before it is the daemon.
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

start_daemons() { # each one when those that it needs are ready
    local node job
    start munged munged --foreground --key-file="$STATE/munge/key" --seed-file="$STATE/munge/seed" \
        --socket="$STATE/munge/socket" --pid-file="$STATE/run/munged.pid"
    await munged client munge -n -S "$STATE/munge/socket"

    if [[ $ACCOUNTING == on ]]; then
        start mariadb mariadbd --no-defaults --user="$(database_user)" --skip-networking \
            --socket="$STATE/db/socket" --datadir="$STATE/db/data" --tmpdir="$STATE/db" \
            --pid-file="$STATE/db/pid"
        await mariadb client mariadb-admin --no-defaults --socket="$STATE/db/socket" ping
        # slurmdbd makes the database that it misses, but with libmariadb 3.4.10 it dies of that.
        client mariadb --no-defaults --socket="$STATE/db/socket" \
            -e "create database if not exists slurm"
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
    if [[ $REBOOTED ]]; then # else Slurm thinks for minutes that the jobs of before still run
        client squeue -h -t running -o %A | while read -r job; do
            client scontrol requeue "$job" || client scancel "$job"
        done
    fi
    if [[ $ACCOUNTING == on ]]; then await slurmdbd client sacct -X; fi
}

end_jobs() { # by way of Slurm, so that srun and salloc hear of it and jobs have a moment to save
    local jobs tries
    for ((tries = 0; tries < 50; tries++)); do
        mapfile -t jobs < <(client squeue -h -o %A)
        if ((${#jobs[@]} == 0)); then break; fi
        if ((tries == 0)); then client scancel "${jobs[@]}" || true; fi
        sleep 0.1
    done
} 2>/dev/null

other_processes() ( # pids of what a killed `up` and this cluster's jobs have left running
    local pid
    set +e # processes come and go meanwhile
    grep -lszxF "DEVCLUSTER_OWN=$STATE" /proc/[0-9]*/environ | cut -d/ -f3
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
        mapfile -t pids < <(
            for name in $(daemons); do pid_of "$name" || true; done
            other_processes
        )
        if ((${#pids[@]} == 0)); then break; fi
        kill -KILL "${pids[@]}" 2>/dev/null || true
        sleep 0.1
    done
    ((${#pids[@]} == 0)) || say "could not end: ${pids[*]}"
    rm -rf --one-file-system "$STATE"
}
