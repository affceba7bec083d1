#!/bin/sh
# Install what tests/cluster/slurm.py starts, where that is possible; otherwise say in a line why those tests will be
# skipped. Succeeds in any case: without Slurm all other tests still mean something.
packages="slurmctld slurmd slurm-client munge"

skip() {
    echo "The tests on a Slurm of their own will be skipped: $1"
    exit 0
}

# Daemons lie where only root's PATH leads.
PATH=$PATH:/usr/sbin:/sbin
missing=
for program in slurmctld slurmd sbatch munged; do
    command -v $program >/dev/null || missing="$missing $program"
done
if [ -z "$missing" ]; then
    echo "Slurm is installed."
    exit 0
fi
command -v apt-get >/dev/null || skip "$(echo $missing) missing, and this system has no apt-get to install them with."
if [ "$(id -u)" -eq 0 ]; then
    as_root=
elif sudo -n true 2>/dev/null; then
    as_root="sudo -n"
else
    skip "$(echo $missing) missing, and installing packages takes root or sudo without a password."
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() {
    # Under systemd munge's package starts a daemon of its own. The tests don't use it, nor does it disturb them.
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $packages >"$log" 2>&1
}
# Its lists of packages may be missing or old.
if install || { $as_root apt-get update -q >"$log" 2>&1 && install; }; then
    echo "Installed $packages."
else
    skip "apt-get couldn't install $packages ($(tail -n 1 "$log"))."
fi
