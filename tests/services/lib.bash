# shellcheck shell=bash
# What up, down, ctl and the Kafka tools share: where the lab is, who runs it, and how each server is started, asked and
# signalled. Sourced, never run.

services=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$services/../.." && pwd)

kafka_version=4.1.0
elasticsearch_version=8.17.0
elasticsearch_flavor=elasticsearch
elasticsearch_sha256=c3e814c3fa6b31ffaa2bad55c3aa2121fd595b3ffe08a7adf3a4579adbcb91d9
all_services="postgres kafka elasticsearch"
# Judges the page's accessibility; Deque's own package for Java has the script.
axe_version=4.10.1

# Ports of our own, so that servers which the machine already runs are never touched. A second lab beside the first one (its
# own FOLDLINE_LAB) takes other ports by FOLDLINE_PORT_SHIFT=1000.
shift_by=${FOLDLINE_PORT_SHIFT:-0}
postgres_port=$((15432 + shift_by))
kafka_port=$((29092 + shift_by))
controller_port=$((29093 + shift_by))
elasticsearch_port=$((29200 + shift_by))
transport_port=$((29300 + shift_by))
export KAFKA=127.0.0.1:$kafka_port
export ELASTICSEARCH=http://127.0.0.1:$elasticsearch_port
export DATABASE_URL=postgres://foldline:foldline@127.0.0.1:$postgres_port/foldline

# PostgreSQL and Elasticsearch refuse to run as root: under root the servers belong to a user of their own, who must be able
# to reach the directory, and root's home is closed to others.
if [ "$(id -u)" = 0 ]; then
  lab=${FOLDLINE_LAB:-/var/tmp/foldline-lab} owner=foldline-lab
else
  lab=${FOLDLINE_LAB:-$HOME/.cache/foldline-lab} owner=$(id -un)
fi
# Where downloads are kept.
homes=$lab
kafka_home=$homes/kafka-$kafka_version
elasticsearch_home=$homes/elasticsearch-$elasticsearch_version
axe_home=$homes/axe-$axe_version
# Apicurio's converter of Avro for Kafka Connect, and with it Java's own Avro.
converter_version=2.6.13.Final
converters=$homes/apicurio-converter-$converter_version
# Debian's PostgreSQL, unless tests/matrix names another.
postgres_version='' postgres_home=''
# What Java the servers run on: Kafka 4 needs 17.
java_lowest=17 java_highest=99

say() { printf 'services: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# Runs a command as the servers' owner, in place (the process keeps its id).
as_owner() {
  if [ "$(id -u)" = 0 ]; then
    exec env HOME="$lab" setpriv --reuid="$owner" --regid="$owner" --init-groups -- "$@"
  else
    exec "$@"
  fi
}

# A Java that fits, as the servers' owner sees it.
find_java() {
  local java version
  for java in ${JAVA_HOME:+"$JAVA_HOME/bin/java"} "$(command -v java || true)" /usr/lib/jvm/*/bin/java; do
    [ -x "$java" ] || continue
    version=$( (as_owner "$java" -version) 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1) || continue
    if [ "${version:-0}" -ge "$java_lowest" ] && [ "$version" -le "$java_highest" ]; then readlink -f "$java"; return 0; fi
  done
  return 1
}

postgres_bin() {
  local initdb
  if [ -n "$postgres_home" ]; then echo "$postgres_home/bin"; return; fi
  initdb=$(find /usr/lib/postgresql -path '*/bin/initdb' 2>/dev/null | sort -V | tail -n 1)
  [ -n "$initdb" ] || initdb=$(command -v initdb) || return 1
  dirname "$(readlink -f "$initdb")"
}

mode() { cat "$lab/mode" 2>/dev/null || echo native; }
compose() { docker compose -f "$root/docker-compose.yml" "$@"; }
docker_answers() {
  [ "${FOLDLINE_SERVICES:-}" != native ] && command -v docker >/dev/null \
    && docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1
}

# ---- downloads -----------------------------------------------------------------------------------------------------------

maven() { # DIRECTORY GOAL OPTION…; checksums=-c where Maven Central has none, plugin= another version of it
  local directory=$1 attempt; shift
  # Maven Central answers 429 now and then.
  for attempt in 1 2 3; do
    # In a directory of its own, since the plugin leaves files where it runs.
    if (cd "$directory" && exec mvn -q -B "${checksums:--C}" "org.apache.maven.plugins:maven-dependency-plugin:${plugin:-3.6.1}:$1" "${@:2}") \
      >"$directory/maven.log" 2>&1 </dev/null; then return; fi
    sleep $((attempt * 5))
  done
  tail -n 20 "$directory/maven.log" >&2; die "Maven could not download what is needed (three attempts); see above"
}

log4j() { # LEVEL
  printf '%s\n' "rootLogger.level=$1" rootLogger.appenderRef.a.ref=a appender.a.type=Console appender.a.name=a \
    appender.a.target=SYSTEM_ERR appender.a.layout.type=PatternLayout 'appender.a.layout.pattern=%d %p %c %m%n'
}

# ---- processes ------------------------------------------------------------------------------------------------------------

# The server's process id, or nothing. The command line is compared, since an id may belong to someone else by now.
pid_of() {
  local pid
  pid=$(cat "$lab/$1.pid" 2>/dev/null) || return 0
  if tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -e "$lab/" -e "$homes/"; then echo "$pid"; fi
}

# A process and all below it: PostgreSQL's backends and Elasticsearch's JVM are children with groups of their own.
tree() {
  local child
  echo "$1"
  for child in $(cat "/proc/$1"/task/*/children 2>/dev/null); do tree "$child"; done
}

signal() { # SIGNAL PID…
  kill "-$1" "${@:2}" 2>/dev/null || true
}

# Gone, or a zombie without threads: nothing of it is left, even where no parent reaps it.
is_gone() {
  [ ! -e "/proc/$1" ] && return
  # shellcheck disable=SC2012 # thread ids have no odd characters
  [ "$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$1/status" 2>/dev/null)" = Z ] \
    && [ "$(ls "/proc/$1/task" 2>/dev/null | wc -l)" -le 1 ]
}

wait_gone() { # SECONDS PID…
  local end=$((SECONDS + $1)) pid
  for pid in "${@:2}"; do
    until is_gone "$pid"; do
      [ $SECONDS -lt $end ] || return 1
      sleep 0.05
    done
  done
}

launch() { # NAME COMMAND…
  local name=$1; shift
  (
    cd "$lab"
    # Without the caller's streams and lock, or whoever waits for them would wait for the server.
    exec </dev/null >>"$lab/$name.log" 2>&1 9>&-
    as_owner setsid "$@"
  ) &
  echo $! >"$lab/$name.pid"
}

# ---- what each server is --------------------------------------------------------------------------------------------------

start_postgres() { launch postgres "$(postgres_bin)/postgres" -D "$lab/postgres"; }
ready_postgres() { PGCONNECT_TIMEOUT=3 psql "$DATABASE_URL" -qAtXc 'select 1' >/dev/null 2>&1; }

start_kafka() {
  launch kafka "$(find_java)" -Xms256m -Xmx768m -Dlog4j2.configurationFile="$kafka_home/log4j2.properties" \
    -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$kafka_home/libs/*" kafka.Kafka "$lab/kafka.properties"
}
ready_kafka() { timeout 20 "$services/kafka-topics" --bootstrap-server "$KAFKA" --list >/dev/null 2>&1; }

start_elasticsearch() {
  local java; java=$(find_java)
  local prefix=ES; [ "$elasticsearch_flavor" = elasticsearch ] || prefix=OPENSEARCH
  launch elasticsearch env "${prefix}_JAVA_HOME=$(dirname "$(dirname "$java")")" "${prefix}_JAVA_OPTS=-Xms1g -Xmx1g" \
    "${prefix}_PATH_CONF=$lab/elasticsearch-config" "$elasticsearch_home/bin/$elasticsearch_flavor"
}
ready_elasticsearch() {
  curl -sf -m 5 "$ELASTICSEARCH/_cluster/health?wait_for_status=yellow&timeout=4s" >/dev/null 2>&1
}

# PostgreSQL's INT is its "fast" shutdown: sessions are ended; TERM would wait for them.
stop_signal() { if [ "$1" = postgres ]; then echo INT; else echo TERM; fi; }

port_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

wait_ready() { # NAME
  local end=$((SECONDS + 180))
  [ "$(mode)" = native ] || return 0 # compose waits for the health checks itself
  until "ready_$1"; do
    # By the process alone, not as pid_of does: until it has become the server its command line is ours, or none.
    if is_gone "$(cat "$lab/$1.pid")"; then
      tail -n 20 "$lab/$1.log" >&2; die "$1 ended while it started; its log is $lab/$1.log"
    fi
    [ $SECONDS -lt $end ] || die "$1 did not answer within 180 seconds; its log is $lab/$1.log"
    sleep 0.3
  done
}

start_service() { # NAME
  local port=${1}_port pid
  if [ "$(mode)" = docker ]; then compose up -d --wait "$1" >&2; return; fi
  [ -d "$lab/$1" ] || die "there is no $1 in $lab; run tests/services/up first"
  pid=$(pid_of "$1")
  if [ -n "$pid" ]; then
    # A fault test that was interrupted may have left it paused.
    # shellcheck disable=SC2046 # one word for each process
    signal CONT $(tree "$pid")
  else
    ! port_open "${!port}" || die "port ${!port}, which $1 needs, is taken by another program"
    "start_$1"
  fi
}

stop_service() { # NAME SIGNAL
  local pid pids
  pid=$(pid_of "$1"); [ -n "$pid" ] || return 0
  mapfile -t pids < <(tree "$pid")
  if [ "$2" = KILL ]; then
    signal KILL "${pids[@]}"
  else
    # Elasticsearch's launcher passes the signal on to the server; a paused process would not see it.
    signal "$2" "$pid"; signal CONT "${pids[@]}"
  fi
  if ! wait_gone 60 "${pids[@]}"; then
    say "$1 did not end within 60 seconds and is killed"
    signal KILL "${pids[@]}"; wait_gone 10 "${pids[@]}" || die "$1 (process $pid) cannot be ended"
  fi
  # PostgreSQL takes the file that a crash leaves for a running server while its process waits to be reaped.
  rm -f "$lab/$1.pid" "$lab/$1/postmaster.pid"
}

kafka_tool() { # CLASS SCRIPT ARGUMENT…
  local class=$1 script=$2; shift 2
  if [ "$(mode)" = docker ]; then
    compose exec -T kafka "/opt/kafka/bin/$script" "$@"
  else
    "$(find_java)" -Xmx256m -XX:TieredStopAtLevel=1 -Dlog4j2.configurationFile="$kafka_home/log4j2-tools.properties" \
      -cp "$kafka_home/libs/*" "$class" "$@"
  fi
}
