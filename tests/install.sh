#!/bin/sh
# Install what some tests start, where that is possible; otherwise say in a line why they will be skipped. Succeeds in any
# case: all other tests still mean something.
#   tests/install.sh "The tests in a browser" "chromium" "chromium fonts-dejavu-core"
tests=$1     # what is skipped
programs=$2  # that have to be there
packages=$3  # Debian's, that have them

skip() {
    echo "$tests will be skipped: $1"
    exit 0
}

# Daemons lie where only root's PATH leads.
PATH=$PATH:/usr/sbin:/sbin
missing=
for program in $programs; do
    command -v $program >/dev/null || missing="$missing $program"
done
if [ -z "$missing" ]; then
    echo "$tests have what they need."
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
