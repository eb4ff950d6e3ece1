# shellcheck shell=bash
#
# What is in the state folder before the daemons start.

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
    if [[ $RELEASE != host ]]; then configure_release; fi
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
    IFS=' .' read -r _ major minor _ < <(client slurmd -V)
    if ((10#$major$minor < 2302)); then cgroups=cgroup/v1; else cgroups=disabled; fi
    echo "CgroupPlugin=$cgroups" >"$STATE/etc/cgroup.conf"
    if [[ $ACCOUNTING == on ]]; then configure_accounting; fi
}

configure_release() { # programs that are Slurm's clients to any shell on the host
    local name
    ln -sfn "$(release_root "$RELEASE")" "$STATE/root"
    install -m 755 "$PARTS/inside.sh" "$STATE/inside"
    mkdir -p "$STATE/$CLIENTS"
    for name in sacct sacctmgr salloc sattach sbatch sbcast scancel scontrol sdiag sinfo sprio \
        squeue sreport srun sshare sstat strigger; do
        install -m 755 /dev/stdin "$STATE/$CLIENTS/$name" <<EOF
#!/bin/sh
exec $STATE/inside $STATE/root /usr/bin/$name "\$@"
EOF
    done
    client true || die "cannot mount Debian $RELEASE, which --release needs"
}

database_user() { # the host may know no user mysql when the database is of another release
    if [[ $RELEASE == host ]]; then echo mysql; else echo nobody; fi
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
    chown "$(database_user)" "$STATE/db"
    rm -rf "$STATE/db/new" # of an `up` that was killed
    "${RUN[@]}" mariadb-install-db --no-defaults --user="$(database_user)" \
        --datadir="$STATE/db/new" --skip-name-resolve --skip-test-db \
        --auth-root-authentication-method=socket </dev/null &>"$STATE/log/mariadb.out" ||
        give_up mariadb "has no database"
    mv "$STATE/db/new" "$STATE/db/data"
}
