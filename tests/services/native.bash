# shellcheck shell=bash
# How servers are installed and prepared without Docker, for up and for tests/matrix: each as its globals of lib.bash say
# (versions, homes, ports, data under the lab). Sourced after lib.bash.

# ---- downloads -----------------------------------------------------------------------------------------------------------

# Each is renamed when it is whole: a broken download is never taken for the server.
scratch_directory() { mktemp -d "$homes/download.XXXXXX"; }

# Debian's packages have it, or those of Maven Central where a version is asked for.
download_postgres() {
  local scratch platform=linux-amd64
  [ -n "$postgres_home" ] && [ ! -d "$postgres_home" ] || return 0
  say "downloading PostgreSQL $postgres_version"
  [ "$(uname -m)" != aarch64 ] || platform=linux-arm64v8
  scratch=$(scratch_directory)
  maven "$scratch" unpack -DoutputDirectory="$scratch" \
    -Dartifact="io.zonky.test.postgres:embedded-postgres-binaries-$platform:$postgres_version.0"
  mkdir "$scratch/home"
  tar -xJf "$scratch"/*.txz -C "$scratch/home"
  chmod -R a+rX "$scratch/home"
  mv "$scratch/home" "$postgres_home"
  rm -rf "$scratch"
}

download_kafka() {
  local scratch coordinates logger=org.apache.logging.log4j:log4j-slf4j-impl:2.24.3
  [ -d "$kafka_home" ] && return
  say "downloading Kafka $kafka_version"
  case $kafka_version in 3.*) logger=org.slf4j:slf4j-simple:1.7.36 ;; esac
  scratch=$(scratch_directory)
  IFS=: read -ra logger <<<"$logger"
  coordinates=$(printf '<dependency><groupId>%s</groupId><artifactId>%s</artifactId><version>%s</version></dependency>' \
    org.apache.kafka kafka_2.13 "$kafka_version" org.apache.kafka kafka-tools "$kafka_version" "${logger[@]}")
  cat >"$scratch/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>foldline</groupId>
<artifactId>lab</artifactId><version>1</version><packaging>pom</packaging><dependencies>$coordinates</dependencies></project>
POM
  maven "$scratch" copy-dependencies -DoutputDirectory="$scratch/libs" -DincludeScope=runtime
  log4j warn >"$scratch/log4j2.properties"
  log4j error >"$scratch/log4j2-tools.properties"
  chmod -R a+rX "$scratch"
  mv "$scratch" "$kafka_home"
}

# Elasticsearch, or OpenSearch where that is the flavor.
download_elasticsearch() {
  local scratch artifact
  [ -d "$elasticsearch_home" ] && return
  say "downloading $elasticsearch_flavor $elasticsearch_version"
  artifact=org.$elasticsearch_flavor.distribution.integ-test-zip:$elasticsearch_flavor:$elasticsearch_version:zip
  scratch=$(scratch_directory)
  # Some versions have no checksum there: it is kept here, and Maven warns only.
  checksums=-c maven "$scratch" copy -DoutputDirectory="$scratch" -Dartifact="$artifact"
  sha256sum --quiet -c - <<<"$elasticsearch_sha256  $scratch/$elasticsearch_flavor-$elasticsearch_version.zip" >&2 \
    || die "what was downloaded as $elasticsearch_flavor $elasticsearch_version has another SHA-256"
  (cd "$scratch" && python3 -m zipfile -e ./*.zip .)
  chmod -R a+rX "$scratch"; chmod a+x "$scratch/$elasticsearch_flavor-$elasticsearch_version"/bin/*
  mv "$scratch/$elasticsearch_flavor-$elasticsearch_version" "$elasticsearch_home"
  rm -rf "$scratch"
}

download_axe() { download_from_jar "$axe_home" "com.deque.html.axe-core:selenium:$axe_version" axe.min.js; }

# One file of a jar, which is not kept.
download_from_jar() { # HOME COORDINATES FILE
  local scratch
  [ -d "$1" ] && return
  say "downloading $(basename "$1")"
  scratch=$(scratch_directory)
  maven "$scratch" copy -DoutputDirectory="$scratch" -Dartifact="$2"
  mkdir "$scratch/home"
  (cd "$scratch/home" && python3 -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract(sys.argv[2])' ../*.jar "$3")
  chmod -R a+rX "$scratch/home"
  mv "$scratch/home" "$1"
  rm -rf "$scratch"
}

# Where an environment of these pinned packages is: other pins make another one.
python_home() { echo "$homes/$1-$(sha256sum "$services/python/$1.txt" | cut -c 1-12)"; }

download_python() { # NAME
  local home scratch
  home=$(python_home "$1")
  [ ! -d "$home" ] || return 0
  say "downloading $1"
  # Its scripts name the place where they were made: it is made there, and marked when it is whole.
  scratch=$home.part; rm -rf "$scratch" "$home"
  python3 -m venv "$scratch"
  "$scratch/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r "$services/python/$1.txt" >&2 \
    || die "pip could not download $1; see above"
  chmod -R a+rX "$scratch"
  mv "$scratch" "$home"
}

# ---- preparing -----------------------------------------------------------------------------------------------------------

make_owner() {
  if [ "$(id -u)" = 0 ] && ! id "$owner" >/dev/null 2>&1; then
    useradd --system --user-group --home-dir "$homes" --shell /usr/sbin/nologin "$owner"
  fi
  (as_owner test -x "$lab") || die "user $owner cannot enter $lab; set FOLDLINE_LAB to a directory that it can"
}

own() { if [ "$(id -u)" = 0 ]; then chown -R "$owner:" "$@"; fi; }

prepare_postgres() {
  if [ -f "$lab/postgres/foldline.conf" ]; then
    # Made before Debezium read it.
    grep -q wal_level "$lab/postgres/foldline.conf" || { echo 'wal_level = logical' >>"$lab/postgres/foldline.conf"; stop_service postgres INT; }
    return
  fi
  rm -rf "$lab/postgres"; mkdir -m 700 "$lab/postgres"; own "$lab/postgres"
  printf 'foldline\n' >"$lab/password"
  (cd "$lab" && as_owner "$(postgres_bin)/initdb" -D "$lab/postgres" -U foldline --pwfile="$lab/password" \
    --auth=scram-sha-256 -E UTF8 --locale=C.UTF-8 --no-sync) >"$lab/postgres.log" 2>&1 \
    || { cat "$lab/postgres.log" >&2; die "PostgreSQL's cluster could not be made"; }
  # fsync stays on: the tests kill the server and count what it promised to keep. Logical: Debezium reads its log.
  printf '%s\n' "listen_addresses = '127.0.0.1'" "port = $postgres_port" "unix_socket_directories = ''" \
    'max_connections = 200' "timezone = 'UTC'" 'wal_level = logical' >"$lab/foldline.conf"
  own "$lab/foldline.conf"
  echo "include 'foldline.conf'" >>"$lab/postgres/postgresql.conf"
  mv "$lab/foldline.conf" "$lab/postgres/foldline.conf"
}

create_database() {
  local server=${DATABASE_URL%/*}/postgres end=$((SECONDS + 60))
  until psql "$server" -qAtXc 'select 1' >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { tail -n 20 "$lab/postgres.log" >&2; die "PostgreSQL did not start; its log is $lab/postgres.log"; }
    sleep 0.2
  done
  [ "$(psql "$server" -qAtXc "select 1 from pg_database where datname = 'foldline'")" = 1 ] \
    || psql "$server" -qXc 'create database foldline'
}

prepare_kafka() {
  [ ! -f "$lab/kafka/meta.properties" ] || return 0
  cat >"$lab/kafka.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller_port
listeners=PLAINTEXT://127.0.0.1:$kafka_port,CONTROLLER://127.0.0.1:$controller_port
advertised.listeners=PLAINTEXT://127.0.0.1:$kafka_port
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=$lab/kafka
num.partitions=4
auto.create.topics.enable=false
message.max.bytes=16777216
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
PROPERTIES
  mkdir -p "$lab/kafka"; own "$lab/kafka"
  (as_owner "$(find_java)" -Dlog4j2.configurationFile="$kafka_home/log4j2-tools.properties" -cp "$kafka_home/libs/*" \
    kafka.tools.StorageTool format --ignore-formatted -t Zm9sZGxpbmUtbGFiLTAwMQ -c "$lab/kafka.properties") \
    >"$lab/kafka.log" 2>&1 || { cat "$lab/kafka.log" >&2; die "Kafka's log directory could not be formatted"; }
}

prepare_elasticsearch() {
  local config=$lab/elasticsearch-config
  # Its launcher writes there, whoever put it there.
  own "$elasticsearch_home"
  if [ ! -f "$lab/elasticsearch/.made" ]; then
    mkdir -p "$lab/elasticsearch"; touch "$lab/elasticsearch/.made"; own "$lab/elasticsearch"
  fi
  # Elasticsearch makes it by itself only where it may write.
  mkdir -p "$lab/snapshots"; own "$lab/snapshots"
  [ ! -d "$config" ] || return 0
  cp -R "$elasticsearch_home/config" "$config.new"
  cat >"$config.new/$elasticsearch_flavor.yml" <<YAML
discovery.type: single-node
network.host: 127.0.0.1
http.port: $elasticsearch_port
transport.port: $transport_port
path.data: $lab/elasticsearch
path.repo: $lab/snapshots
# A machine whose disk is nearly full would make every index read-only in the middle of a test.
cluster.routing.allocation.disk.threshold_enabled: false
YAML
  [ "$elasticsearch_flavor" = opensearch ] || echo 'xpack.security.enabled: false' >>"$config.new/$elasticsearch_flavor.yml"
  own "$config.new"
  mv "$config.new" "$config"
}
