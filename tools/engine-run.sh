#!/usr/bin/env bash
# Starts and stops the engine of tools/engine.sh, as root, all under one folder and one socket: it neither takes the
# place of an engine of this machine nor touches its firewall.
#   tools/engine-run.sh start FOLDER   prints the socket's address, for DOCKER_HOST
#   tools/engine-run.sh stop FOLDER    ends it and every container of it; images stay for the next start
#   tools/engine-run.sh run FOLDER COMMAND...   start, COMMAND with DOCKER_HOST and its compose in PATH, stop
# ENGINE_PROXY=true or false in the environment, in a network namespace of its own: as Docker is by default, with rules that
# publish ports, and docker-proxy beside them or not.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
usage() { sed -n '4,6s/^# */usage: /p' "${BASH_SOURCE[0]}" >&2; exit 64; }
say() { echo "engine: $*" >&2; }
PATH=$PATH:/usr/sbin:/sbin
action=${1:-}; [[ -n ${2:-} ]] || usage
mkdir -p "$2"
folder=$(cd "$2" && pwd)
socket=$folder/docker.sock
# By the pid alone another process could be meant that has got its number since.
alive() { [[ $(readlink "/proc/${1:-x}/exe" 2>/dev/null) == "$2" ]]; }
programs=$("$root/tools/engine.sh" --path)

start() {
    programs=$("$root/tools/engine.sh")
    if alive "$(cat "$folder/docker.pid" 2>/dev/null)" "$programs/dockerd"; then echo "unix://$socket"; return; fi
    [[ $(id -u) == 0 ]] || { say "starting a container engine takes root"; exit 77; }
    # dockerd runs it in the networks of containers, to answer for their names.
    command -v iptables >/dev/null || "$root/tools/setup.sh" engine >&2
    # Left over by an end without `stop`.
    clean_up
    # No firewall rule, no forwarding, no docker0: containers reach each other and nothing else; a published port is
    # served by docker-proxy.
    local network='"bridge": "none", "iptables": false, "ip-forward": false, "ip-masq": false'
    if [[ ${ENGINE_PROXY:-} ]]; then
        [[ $(readlink /proc/self/ns/net) != $(readlink /proc/1/ns/net) ]] || { say "not in the host's own network"; exit 64; }
        network='"userland-proxy": '$ENGINE_PROXY
    fi
    cat >"$folder/daemon.json" <<END
{
  "hosts": ["unix://$socket"], "data-root": "$folder/data", "exec-root": "$folder/exec", "pidfile": "$folder/docker.pid",
  "userland-proxy-path": "$programs/docker-proxy", $network, "ip6tables": false, "shutdown-timeout": 20
}
END
    PATH=$programs:$PATH setsid "$programs/dockerd" --config-file "$folder/daemon.json" \
        >"$folder/dockerd.log" 2>&1 </dev/null &
    local pid=$! waited=0
    until curl --silent --fail --output /dev/null --unix-socket "$socket" http://engine/_ping 2>/dev/null; do
        if ! alive "$pid" "$programs/dockerd" && (( waited > 5 )) || (( waited++ > 300 )); then
            say "dockerd did not start:"; tail -n 20 "$folder/dockerd.log" >&2
            stop
            exit 69
        fi
        sleep 0.2
    done
    echo "unix://$socket"
}

stop() {
    local pid bridge
    pid=$(cat "$folder/docker.pid" 2>/dev/null || true)
    end "$pid" "$programs/dockerd" 40
    clean_up
    # Bridges stay if dockerd was killed, or compose was not asked to remove them. Ours stand in its store.
    for bridge in /sys/class/net/br-*; do
        [[ -e $bridge ]] && grep -aqs "${bridge##*/br-}" "$folder/data/network/files/local-kv.db" \
            && ip link delete "${bridge##*/}"
    done
    return 0
}

# Ends a process, politely first; $3 seconds are left to it.
end() {
    local pid=$1 program=$2 limit=$(( SECONDS + $3 ))
    alive "$pid" "$program" || return 0
    kill -TERM "$pid"
    while alive "$pid" "$program" && (( SECONDS < limit )); do sleep 0.1; done
    if alive "$pid" "$program"; then say "$program did not end, killing it"; kill -KILL "$pid"; fi
}

# What dockerd leaves behind if it was killed: containers, their shims, containerd, mounts.
clean_up() {
    local file pid id
    for file in "$folder"/exec/containerd/daemon/io.containerd.runtime.v2.task/moby/*/init.pid; do
        [[ -f $file ]] || continue
        # The container's first program, whatever that is, as long as it is in the container's cgroup.
        pid=$(cat "$file") id=$(basename "$(dirname "$file")")
        grep -qs "$id" "/proc/$pid/cgroup" && kill -KILL "$pid"
    done
    # A shim may outlive both its container and dockerd; it names the socket of the containerd that it belongs to.
    for pid in /proc/[0-9]*; do
        pid=${pid#/proc/}
        alive "$pid" "$programs/containerd-shim-runc-v2" && grep -qsF "$folder/exec/containerd/" "/proc/$pid/cmdline" \
            && end "$pid" "$programs/containerd-shim-runc-v2" 5
    done
    [[ -f $folder/exec/containerd/containerd.pid ]] && end "$(cat "$folder/exec/containerd/containerd.pid")" "$programs/containerd" 10
    local mount
    while read -r mount; do umount --lazy "$mount" || true; done \
        < <(awk -v folder="$folder/" 'index($5, folder) == 1 { print $5 }' /proc/self/mountinfo | sort -r)
    rm -rf "$folder/exec" "$socket" "$folder/docker.pid"
}

case $action in
    start) start ;;
    stop) stop ;;
    run)
        shift 2; (( $# )) || usage
        trap stop EXIT
        DOCKER_HOST=$(start); export DOCKER_HOST
        PATH=$("$root/tools/engine.sh" --path):$PATH "$@" ;;
    *) usage ;;
esac
