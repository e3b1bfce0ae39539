#!/usr/bin/env bash
# Shows Spantap at work: a stock nginx with an upstream behind it, a little traffic, spans on this terminal.
#   tools/demo.sh [FILE]     with FILE: no demo servers, Spantap runs with that configuration
# Environment: BIN_DIR (programs), FOR (seconds after which the demo stops by itself; 0: when interrupted).
# Everything started here is stopped here, by its own process id, and nothing else is touched.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bin=${BIN_DIR:-$root/target/debug}
config=${1:-}
run_for=${FOR:-0}
PATH=$PATH:/usr/sbin:/sbin

say() { echo "demo: $*" >&2; }

for program in spantap spantap-agent; do
    [[ -x $bin/$program ]] || { say "$bin/$program is not there: build it first (make build)"; exit 69; }
done

as_root=()
if [[ $(id -u) != 0 ]]; then
    command -v sudo >/dev/null || { say "root is needed to load the probes, and there is no sudo"; exit 77; }
    say "root is needed to load the probes: starting spantap through sudo"
    sudo -v || exit 77
    as_root=(sudo)
fi

if [[ -n $config ]]; then
    [[ -r $config ]] || { say "cannot read $config"; exit 64; }
    exec "${as_root[@]}" "$bin/spantap" --config "$config"
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/spantap-demo.XXXXXX")
chmod 755 "$work"    # nginx's workers and spantap without privilege read here
children=()
spantap=
cleanup() {
    trap - EXIT INT TERM
    if [[ -n $spantap ]] && kill -TERM "$spantap" 2>/dev/null; then
        wait "$spantap" 2>/dev/null || true
    fi
    for pid in "${children[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in "${children[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

taken=" "
free_port() { # sets $port
    local tries
    for tries in {1..100}; do
        port=$((20000 + RANDOM % 12000))
        [[ $taken == *" $port "* ]] && continue
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && continue
        taken+="$port "
        return
    done
    say "no free port found"; exit 69
}
free_port; web=$port
free_port; upstream=$port
free_port; scrape=$port

mkdir -p "$work/api" "$work/files"
echo '[{"id": 1, "name": "cup"}, {"id": 2, "name": "plate"}]' >"$work/api/items.json"
head -c 200000 /dev/zero | tr '\0' '.' >"$work/files/big.txt"
cat >"$work/nginx.conf" <<NGINX
worker_processes 1;
pid $work/nginx.pid;
error_log $work/nginx.log;
events { worker_connections 256; }
http {
    access_log off;
    client_body_temp_path $work/t1; proxy_temp_path $work/t2; fastcgi_temp_path $work/t3;
    uwsgi_temp_path $work/t4; scgi_temp_path $work/t5;
    sendfile on;
    server {
        listen 127.0.0.1:$web;
        location / { return 200 "hello\n"; }
        location /api/ { proxy_pass http://127.0.0.1:$upstream; }
        location /files/ { root $work; }
        location /missing { return 404; }
    }
}
NGINX
cat >"$work/spantap.yml" <<YAML
# What the demo runs with: the two demo servers, spans on the terminal, metrics to scrape.
discovery:
  instrument:
    - open_ports: "$web,$upstream"
trace_printer: text
prometheus_export:
  port: $scrape
YAML
chmod -R a+rX "$work"

nginx -p "$work" -c "$work/nginx.conf" -g 'daemon off;' 2>"$work/nginx-start.log" & children+=($!)
python3 -m http.server --bind 127.0.0.1 --directory "$work" "$upstream" >"$work/upstream.log" 2>&1 & children+=($!)
answers() { curl -s -o /dev/null --max-time 2 "http://127.0.0.1:$1/"; }
for tries in {1..100}; do
    answers "$web" && answers "$upstream" && break
    (( tries < 100 )) || { say "the demo servers did not start:"; cat "$work"/*.log >&2; exit 1; }
    sleep 0.1
done

say "nginx answers on http://127.0.0.1:$web, behind it a Python server on port $upstream; neither knows of tracing"
say "metrics, from another terminal:  curl -s http://127.0.0.1:$scrape/metrics | grep ^http_"
say "stop with Ctrl-C"

traffic() { # a few requests a second, 5000 at most
    local n
    for n in {1..1000}; do
        curl -s -o /dev/null --max-time 5 \
            "http://127.0.0.1:$web/" "http://127.0.0.1:$web/api/items.json" "http://127.0.0.1:$web/files/big.txt" \
            "http://127.0.0.1:$web/api/nothing-here" "http://127.0.0.1:$web/missing?n=$n" -o /dev/null -o /dev/null \
            -o /dev/null -o /dev/null || true
        sleep 1
    done
}
traffic & children+=($!)

"${as_root[@]}" "$bin/spantap" --config "$work/spantap.yml" & spantap=$!
if (( run_for > 0 )); then
    for (( second = 0; second < run_for; second++ )); do
        kill -0 "$spantap" 2>/dev/null || break
        sleep 1
    done
    if kill -0 "$spantap" 2>/dev/null; then
        say "the metrics by now:"
        curl -s --max-time 5 "http://127.0.0.1:$scrape/metrics" | grep '^http_.*_count' >&2 || say "none"
        kill -TERM "$spantap"
    fi
fi
status=0
wait "$spantap" || status=$?
spantap=
(( status == 0 )) || say "spantap ended with exit code $status"
exit "$status"
