# Apache Kafka: one KRaft process, broker and controller, plain java on jars that Maven fetches. No tarball, no ZooKeeper.
# shellcheck shell=bash disable=SC2034

VARIABLE=GRAVITY_TEST_KAFKA
PORT=${GRAVITY_KAFKA_PORT:-19092}
CONTROLLER_PORT=${GRAVITY_KAFKA_CONTROLLER_PORT:-19093}
address=127.0.0.1:$PORT

POM_DIR=$ROOT/conformance/servers.d/kafka
VERSION=$(sed -n 's/.*<kafka.version>\(.*\)<.*/\1/p' "$POM_DIR/pom.xml")
JARS=$WORK/jars/kafka-$VERSION

missing_packages() { have java || echo default-jre-headless; }

install() {
  fetch_jars
  local cluster=$HOME_DIR/cluster-id
  write_properties
  [[ -f $HOME_DIR/data/meta.properties ]] && return
  # A new id with new data, so that nobody takes a wiped broker for the old one. 'G' first: an id may not begin with '-'.
  printf 'G%s\n' "$(head -c 15 /dev/urandom | base64 | tr '+/' '-_')A" >"$cluster"
  rm -rf "$HOME_DIR/data"
  local format=()
  if [[ -n ${GRAVITY_KAFKA_SCRAM:-} ]]; then format=(--add-scram "$GRAVITY_KAFKA_SCRAM"); fi
  java -cp "$JARS/*" -Dlog4j2.configurationFile="$POM_DIR/log4j2.properties" kafka.tools.StorageTool format \
    -t "$(cat "$cluster")" -c "$HOME_DIR/server.properties" "${format[@]}" >>"$LOG_FILE" 2>&1 9>&- ||
    { tail -n 20 "$LOG_FILE" >&2; die "kafka: format of the data folder failed ($LOG_FILE)"; }
}

fetch_jars() {
  [[ -d $JARS ]] && return
  have mvn || die "kafka: mvn is needed to fetch the broker's jars"
  say "fetching Apache Kafka $VERSION"
  local part=$JARS.part-$$
  mvn -q -B -f "$POM_DIR/pom.xml" dependency:copy-dependencies -DoutputDirectory="$part" -DincludeScope=runtime \
    </dev/null >>"$LOG_FILE" 2>&1 9>&- || { rm -rf "$part"; tail -n 20 "$LOG_FILE" >&2; die "kafka: Maven could not fetch the jars ($LOG_FILE)"; }
  mv "$part" "$JARS"
}

write_properties() {
  cat >"$HOME_DIR/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$CONTROLLER_PORT
listeners=PLAINTEXT://127.0.0.1:$PORT,CONTROLLER://127.0.0.1:$CONTROLLER_PORT
advertised.listeners=PLAINTEXT://127.0.0.1:$PORT
controller.listener.names=CONTROLLER
log.dirs=$HOME_DIR/data
num.partitions=4
auto.create.topics.enable=false
# One broker: internal topics with one replica, and few partitions so that the first group and transaction are quick.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=8
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# Tests of static membership and of a dead consumer want short sessions.
group.min.session.timeout.ms=1000
# After kill -9 the controller takes the broker back only once its old session is over.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
PROPERTIES
  # The last line of a name counts.
  if [[ -n ${GRAVITY_KAFKA_PROPERTIES:-} ]]; then cat "$GRAVITY_KAFKA_PROPERTIES" >>"$HOME_DIR/server.properties"; fi
}

start() {
  # GRAVITY_KAFKA_HEAP: a bench may want more than a test.
  local heap=${GRAVITY_KAFKA_HEAP:-512m}
  spawn java -Xms"$heap" -Xmx"$heap" -XX:+UseG1GC -Dlog4j2.configurationFile="$POM_DIR/log4j2.properties" \
    -cp "$JARS/*" kafka.Kafka "$HOME_DIR/server.properties"
}

# A client's own question: the broker answers with metadata that names it.
ready() {
  (exec 3<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null || return 1
  kcat -b "127.0.0.1:$PORT" -L -m 3 2>/dev/null </dev/null | grep -q "broker 1 at 127.0.0.1:$PORT"
}
