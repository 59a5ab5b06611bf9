#!/usr/bin/env bash
# A cluster on this machine: a Ray head, workers, Prometheus and Grafana where they are installed, and the service of raysp.
#   cluster/local.sh up [--workers N] [--port PORT] [--dashboard-port PORT]
#   cluster/local.sh status
#   cluster/local.sh down
# What it starts it notes in RAYSP_HOME/local with the time at which each process began, and `down` ends these processes and no others.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
state=${RAYSP_HOME:-$HOME/.raysp}/local
if [ -x "$here/../.venv/bin/raysp" ]; then PATH=$(cd "$here/../.venv/bin" && pwd):$PATH; fi
#: Seconds for a port to answer, and for a process to end: Ray lets the actors of a node finish for up to 35.
start_seconds=120 stop_seconds=60

fail() {
  echo "local.sh: $*" >&2
  exit 2
}

# When a process began, which tells it from another that has its number by now; empty if there is none.
began() { ps -o lstart= -p "$1" 2>/dev/null || true; }

lives() { # NAME
  local pid when
  [ -f "$state/$1.process" ] || return 1
  { read -r pid && read -r when; } <"$state/$1.process"
  [ -n "$when" ] && [ "$(began "$pid")" = "$when" ]
}

names() {
  local file
  for file in "$state"/*.process; do
    if [ -e "$file" ]; then basename "$file" .process; fi
  done
}

start() { # NAME COMMAND...: in a session of its own, which outlives this shell
  local name=$1
  shift
  setsid "$@" </dev/null >"$state/$name.log" 2>&1 &
  printf '%s\n%s\n' "$!" "$(began "$!")" >"$state/$name.process"
}

answers() { (: >"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

free_port() { # FROM
  local port=$1
  while answers "$port"; do port=$((port + 1)); done
  echo "$port"
}

wait_for() { # NAME PORT
  local left=$((start_seconds * 5))
  until answers "$2"; do
    lives "$1" || fail "$1 has ended: $(tail -n 1 "$state/$1.log"); the whole message is in $state/$1.log"
    [ $((left -= 1)) -gt 0 ] || fail "$1 has not answered for $start_seconds s; look at $state/$1.log"
    sleep 0.2
  done
}

wait_until_joined() { # NAME: Ray says so when a node has joined
  local left=$((start_seconds * 5))
  until grep -q 'will now block forever' "$state/$1.log"; do
    lives "$1" || fail "$1 has ended: $(tail -n 1 "$state/$1.log"); the whole message is in $state/$1.log"
    [ $((left -= 1)) -gt 0 ] || fail "$1 has not joined for $start_seconds s; look at $state/$1.log"
    sleep 0.2
  done
}

stop() { # NAME
  local pid left=$((stop_seconds * 5))
  if lives "$1"; then
    read -r pid <"$state/$1.process"
    kill -TERM "$pid" 2>/dev/null || true
    while lives "$1" && [ $((left -= 1)) -gt 0 ]; do sleep 0.2; done
    kill -KILL -- "-$pid" 2>/dev/null || true # what is left of its session
  fi
  rm -f "$state/$1.process"
}

token() { # whoever has it can run code here: nobody else may read it
  export RAY_AUTH_MODE=token
  if [ -n "${RAY_AUTH_TOKEN:-}${RAY_AUTH_TOKEN_PATH:-}" ]; then return; fi
  local file=$HOME/.ray/auth_token
  if [ ! -s "$file" ]; then
    mkdir -p "$HOME/.ray"
    (umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$file")
  fi
  chmod 600 "$file"
}

# The GPUs of worker $1 of $2, as CUDA_VISIBLE_DEVICES has them: each GPU belongs to one worker.
gpus() {
  local count=0
  if command -v nvidia-smi >/dev/null; then count=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU' || true); fi
  seq -s, "$(((($1 - 1) * count) / $2))" "$((($1 * count) / $2 - 1))" 2>/dev/null || true
}

monitoring() {
  local folder=$1
  if command -v prometheus >/dev/null && [ -f "$here/prometheus/prometheus.yml" ]; then
    sed "s|/tmp/ray/|$folder/|; s|rules.yml|$here/prometheus/rules.yml|" "$here/prometheus/prometheus.yml" >"$state/prometheus.yml"
    start prometheus prometheus --config.file="$state/prometheus.yml" --storage.tsdb.path="$state/prometheus" --web.listen-address=127.0.0.1:9090
  fi
  if command -v grafana >/dev/null && [ -d "$here/grafana/provisioning" ]; then
    export PROMETHEUS_URL=http://127.0.0.1:9090 RAYSP_DASHBOARDS=$here/grafana/dashboards
    export GF_SERVER_HTTP_ADDR=127.0.0.1 GF_PATHS_PROVISIONING=$here/grafana/provisioning GF_PATHS_DATA=$state/grafana GF_PATHS_LOGS=$state/grafana
    start grafana grafana server --homepath "${GRAFANA_HOME:-/usr/share/grafana}"
  fi
}

up() {
  local workers=1 port=6379 dashboard=8265 number cores folder
  while [ $# -gt 0 ]; do
    [ $# -gt 1 ] && [[ $2 =~ ^[1-9][0-9]*$ ]] || fail "$1 takes a number of 1 or more"
    case $1 in
      --workers) workers=$2 ;;
      --port) port=$2 ;;
      --dashboard-port) dashboard=$2 ;;
      *) fail "$1 is not an option; there are --workers, --port and --dashboard-port" ;;
    esac
    shift 2
  done
  for name in ray raysp setsid; do command -v "$name" >/dev/null || fail "$name is not installed, or not on the PATH"; done
  for name in $(names); do if lives "$name"; then fail "$name runs already; end it first with $0 down"; fi; done
  for number in "$port" "$dashboard"; do if answers "$number"; then fail "port $number is in use; give another as --port or --dashboard-port"; fi; done
  (umask 077 && mkdir -p "$state")
  rm -f "$state"/*.process
  token
  trap 'echo "local.sh: ending what was started" >&2; down_all' EXIT
  trap 'exit 130' INT TERM
  folder=$(mktemp -d "${RAY_TMPDIR:-/tmp}/local-XXXX") # Ray's sockets need a short path
  echo "$folder" >"$state/folder"
  unset RAY_ADDRESS
  export RAY_raylet_start_wait_time_s=$start_seconds
  monitoring "$folder"
  export RAY_PROMETHEUS_HOST=http://127.0.0.1:9090 RAY_GRAFANA_HOST=http://127.0.0.1:3000
  # The agent of a node, without which no job starts, takes any free port: the usual one may be that of another cluster here.
  local shared=(--block --object-store-memory=200000000 --disable-usage-stats --dashboard-agent-listen-port=0)
  start head ray start --head "${shared[@]}" --port="$port" --dashboard-port="$dashboard" --temp-dir="$folder" --num-cpus=0 --num-gpus=0 --ray-client-server-port="$(free_port 10001)"
  wait_for head "$port"
  wait_for head "$dashboard"
  cores=$(($(getconf _NPROCESSORS_ONLN) / workers))
  for number in $(seq "$workers"); do
    CUDA_VISIBLE_DEVICES=$(gpus "$number" "$workers") start "worker-$number" ray start "${shared[@]}" --address="127.0.0.1:$port" --num-cpus="$((cores > 0 ? cores : 1))"
    wait_until_joined "worker-$number" # two at once would take the same sockets
  done
  raysp up --address "127.0.0.1:$port"
  for name in $(names); do lives "$name" || fail "$name has ended: $(tail -n 1 "$state/$name.log"); the whole message is in $state/$name.log"; done
  trap - EXIT INT TERM
  echo "The dashboard is at http://127.0.0.1:$dashboard; it asks for the token, which ${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token} or RAY_AUTH_TOKEN has."
}

down_all() {
  trap - EXIT INT TERM
  local name
  if lives head; then raysp down || true; fi
  for name in $(names | sort -r); do stop "$name"; done # workers before the head
  if [ -f "$state/folder" ]; then rm -rf "$(cat "$state/folder")"; fi
  rm -f "$state/folder"
}

status() {
  local name found=
  for name in $(names); do
    found=yes
    if lives "$name"; then echo "$name runs (process $(head -n 1 "$state/$name.process"))"; else echo "$name has ended; its log is $state/$name.log"; fi
  done
  if [ -z "$found" ]; then echo "Nothing that local.sh started runs."; fi
  raysp status
}

case ${1:-} in
  up) shift && up "$@" ;;
  down) export RAY_AUTH_MODE=token && down_all ;;
  status) export RAY_AUTH_MODE=token && status ;;
  *) fail "write $0 up, down or status" ;;
esac
