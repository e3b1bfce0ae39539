#!/usr/bin/env bash
# Runs both systemd units as they are shipped, where no systemd is running: by a service manager of root (systemd --user) in a
# mount namespace of its own, with a /run of its own. What differs from a boot: the manager's kind, and the user, nobody.
#   tools/try-units.sh [FOLDER_OF_PROGRAMS [tls | propagation]]     target/debug if not given; with that .conf of the agent
# Sends requests to an nginx, kills the agent, kills and restarts the forwarder, stops both. Exit 1: something is not as it has
# to be; 69: a program is missing; 77: not root. Loads probes: not beside other tests.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
programs=$(realpath "${1:-$root/target/debug}") option=${2:-}
PATH=$PATH:/usr/sbin:/sbin

say() { echo "try-units: $*" >&2; }
fail() { say "$*"; tail -n 20 /run/log-* >&2 || true; exit 1; }

if [[ ${SPANTAP_TRY_UNITS:-} != inside ]]; then
    [[ $(id -u) == 0 ]] || { say "root is needed"; exit 77; }
    for tool in /lib/systemd/systemd "$(command -v nginx || echo nginx)" "$programs/spantap" "$programs/spantap-agent"; do
        [[ -x $tool ]] || { say "$tool is missing"; exit 69; }
    done
    [[ $option == "" || -f $root/packaging/systemd/spantap-agent.service.d/$option.conf ]] || { say "no $option.conf"; exit 64; }
    SPANTAP_TRY_UNITS=inside exec unshare --mount --propagation private "$0" "$programs" "$option"
fi

unset SPANTAP_TRY_UNITS
# A /run that goes with the namespace, with what PID 1 would have put there: it hides folders behind these.
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/systemd/system /run/systemd/inaccessible/dir /run/manager/units /run/web /run/bin
(cd /run/systemd/inaccessible && touch reg sock && mkfifo fifo && mknod chr c 0 0 && mknod blk b 0 0 && chmod 000 -- *)
chmod 711 /run/manager
cp "$programs/spantap" "$programs/spantap-agent" /run/bin
port=$((20000 + $$ % 1000)) admin=$((21000 + $$ % 1000))
cat >/run/bin/spantap.yml <<YAML
discovery: {instrument: [{open_ports: $port}]}
spantap: {admin: "127.0.0.1:$admin", console: text}
YAML
for unit in spantap-forwarder spantap-agent; do
    sed -e "s|/usr/bin/|/run/bin/|; s|/etc/spantap/|/run/bin/|; s|^User=spantap|User=nobody|" \
        -e "s|^SupplementaryGroups=spantap|SupplementaryGroups=nogroup|; /network-online/d" \
        -e "s|^Type=.*|&\nEnvironment=SPANTAP_SOCKET=/run/manager/spantap/ingest.sock|" \
        -e "s|^Type=.*|&\nStandardOutput=append:/run/log-$unit\nStandardError=append:/run/log-$unit|" \
        "$root/packaging/systemd/$unit.service" >"/run/manager/units/$unit.service"
done
kept=0000000000080004 feature=
case $option in
    tls) kept=0000010000080004 feature=tls ;;
    propagation)
        feature=context-propagation
        sed -i 's|^spantap: {|&accept_wrong_fionread: true, |' /run/bin/spantap.yml
        echo "ebpf: {context_propagation: headers}" >>/run/bin/spantap.yml ;;
esac
if [[ $option ]]; then
    install -D -m 644 -t /run/manager/units/spantap-agent.service.d "$root/packaging/systemd/spantap-agent.service.d/$option.conf"
fi
cat >/run/web/nginx.conf <<NGINX
pid /run/web/nginx.pid; error_log /run/web/error.log; events {}
http { access_log off; server { listen 127.0.0.1:$port; location / { return 200 "hello\n"; } } }
NGINX

export XDG_RUNTIME_DIR=/run/manager SYSTEMD_UNIT_PATH=/run/manager/units:/usr/lib/systemd/user
export SYSTEMD_LOG_TARGET=console
/lib/systemd/systemd --user >/run/log-manager 2>&1 & manager=$!
trap 'kill $manager 2>/dev/null; wait $manager || true; kill "$(cat /run/web/nginx.pid 2>/dev/null)" 2>/dev/null || true' EXIT
nginx -c /run/web/nginx.conf

control() { systemctl --user --no-pager "$@"; }
of() { control show --property "$2" --value "$1"; }
await() { # what, command ...
    local what=$1 n; shift
    for n in {1..150}; do "$@" >/dev/null 2>&1 && return; sleep 0.1; done
    fail "waited in vain: $what"
}
seen=0
reports() { (( $(grep -c "GET /try" /run/log-spantap-forwarder) == seen )); }
request() { # expects as many lines as there were requests
    for n in 1 2 3; do curl --silent --output /dev/null "http://127.0.0.1:$port/try$n"; done
    seen=$((seen + 3))
    await "$1" reports
    say "ok: $1"
}
ready() { curl --silent --fail "http://127.0.0.1:$admin/readyz"; }
status() { sed -n "s/^$2:\t*//p" "/proc/$(of "$1" MainPID)/status"; }
expect() { [[ $2 == "$3" ]] || fail "$1 is $2, not $3"; }
kill_unit() { kill -KILL "$(of "$1" MainPID)"; await "$1 starts again" restarted "$1"; }
restarted() { [[ $(of "$1" NRestarts) == 1 && $(of "$1" ActiveState) == active ]]; }

await "the service manager" test -S /run/manager/systemd/private
# The agent alone: it has to bring the forwarder with it.
control start spantap-agent.service
await "both are up" ready
request "requests are reported"
expect "the forwarder's capabilities" "$(status spantap-forwarder CapBnd)" 0000000000000000
expect "the agent's capabilities" "$(status spantap-agent CapEff)" $kept
[[ ! $feature ]] || grep -q "on.*feature.*$feature" /run/log-spantap-agent || fail "$feature is not on"
expect "the agent's no_new_privs" "$(status spantap-agent NoNewPrivs)" 1
expect "interfaces of the agent's network" "$(tail -n +3 "/proc/$(of spantap-agent MainPID)/net/dev" | grep -cv ' lo:' || true)" 0
say "ok: capabilities and network are as documented"
kill_unit spantap-agent
await "the next agent is connected" ready
request "requests are reported after the agent was killed"
kill_unit spantap-forwarder
await "the next forwarder has its agent" ready
request "requests are reported after the forwarder was killed"
control restart spantap-forwarder
await "the restarted forwarder has its agent" ready
request "requests are reported after the forwarder was restarted"
control stop spantap-agent spantap-forwarder
for unit in spantap-agent spantap-forwarder; do
    expect "the result of $unit" "$(of $unit Result) $(of $unit ExecMainStatus)" "success 0"
done
[[ ! -e /run/manager/spantap ]] || fail "the folder of the socket is still there"
say "ok: both stopped with exit code 0, and the folder of the socket is gone"
