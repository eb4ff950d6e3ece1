# shellcheck shell=bash
#
# Where the programs come from: packages on the host, or those of another Debian release in a
# folder that inside.sh lays over the host's.

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

require_packages() { # ACCOUNTING INSTALL
    local missing
    mapfile -t missing < <(missing_packages "$1" | sed -n 's/^missing //p')
    if ((${#missing[@]} == 0)); then return; fi
    if [[ $2 == no ]]; then
        die "first: apt-get install -y --no-install-recommends ${missing[*]} (or up --install)"
    fi
    install_packages "${missing[@]}"
}

release_root() { echo "$CACHE/$1"; } # RELEASE: what fetch_release makes

debian_mirror() { # the one that the host's own packages come from, as far as apt knows
    local mirrors
    mapfile -t mirrors < <(apt-get indextargets --format "\$(REPO_URI)" \
        'Created-By: Packages' 'Origin: Debian' 'Label: Debian')
    echo "${mirrors[0]-}"
}

fetch_release() ( # RELEASE; unpacks only: no package's script runs, and the host stays as it is
    root=$(release_root "$1")
    new=$root.new # a folder of any other name is never taken for a whole one
    mkdir -p "$CACHE"
    exec {lock}<"$CACHE"
    flock "$lock" # let another `up` finish its own
    if [[ -d $root ]]; then return; fi

    [[ -L /lib && -L /sbin ]] || die "--release needs a host whose /lib and /sbin are in /usr"
    command -v apt-get dpkg-deb >/dev/null || die "--release needs apt-get and dpkg-deb"
    mirror=${DEVCLUSTER_MIRROR:-$(debian_mirror)}
    if [[ -z $mirror ]]; then
        apt-get update -q
        mirror=$(debian_mirror)
    fi
    [[ -n $mirror ]] || die "apt has no Debian mirror; name one in \$DEVCLUSTER_MIRROR"

    say "fetches Slurm of Debian $1 into $root (about 60 MB to load, 360 MB on disk)"
    rm -rf --one-file-system "$new"
    trap 'rm -rf --one-file-system "$new"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    # An apt of its own, to which nothing is installed; proxies and passwords are the host's.
    apt=$new/apt
    mkdir -p "$apt"/{state/lists/partial,cache/archives/partial}
    touch "$apt/status"
    echo "deb [signed-by=$keys] $mirror $1 main" >"$apt/sources.list"
    options=(-q -y --no-install-recommends --download-only)
    for setting in Dir::State="$apt/state" Dir::State::status="$apt/status" \
        Dir::Cache="$apt/cache" Dir::Etc::SourceList="$apt/sources.list" \
        Dir::Etc::SourceParts=/dev/null Dir::Etc::Preferences=/dev/null \
        Dir::Etc::PreferencesParts=/dev/null APT::Sandbox::User=root; do
        options+=(-o "$setting")
    done
    apt-get "${options[@]}" update
    apt-get "${options[@]}" install munge slurm-wlm slurmdbd mariadb-server

    mkdir -p "$new"/{mnt,usr/{bin,sbin,lib,lib64,share/slurm-devcluster}}
    for folder in bin sbin lib lib64; do ln -s "usr/$folder" "$new/$folder"; done
    for package in "$apt"/cache/archives/*.deb; do dpkg-deb -x "$package" "$new"; done
    for program in "$new"/usr/sbin/slurm*-wlm; do # as the packages' scripts would
        ln -sfn "${program##*/}" "${program%-wlm}"
    done
    rm -rf "$apt"
    mv "$new" "$root"
) </dev/null >&2
