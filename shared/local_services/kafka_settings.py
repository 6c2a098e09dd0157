"""The configuration files of local brokers, and how their Java process is started."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from omnibase_infra.shared.local_services.free_ports import LOOPBACK
from omnibase_infra.shared.local_services.kafka_security import SECURED_HOST, KafkaSecurity

JAVA_OPTIONS = (
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Djava.awt.headless=true",
    "-Djava.net.preferIPv4Stack=true",
)
LOG_OPTIONS = (
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=info",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSX",
    "-Dorg.slf4j.simpleLogger.showThreadName=false",
)

# What makes a broker small and quick on a development machine. Order and durability promises are the defaults'.
COMMON = """\
process.roles=broker,controller
controller.listener.names=CONTROLLER
inter.broker.listener.name=CLIENT

auto.create.topics.enable=false
delete.topic.enable=true
num.partitions=1
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
share.coordinator.state.topic.num.partitions=4

# A group starts, rebalances and notices a dead member quickly; both group protocols are on.
group.coordinator.rebalance.protocols=classic,consumer
group.initial.rebalance.delay.ms=0
group.consumer.min.session.timeout.ms=6000
group.consumer.min.heartbeat.interval.ms=500

# A killed broker is back after 4 s instead of 11 s.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500

num.network.threads=1
num.io.threads=2
background.threads=2
num.recovery.threads.per.data.dir=1
log.cleaner.dedupe.buffer.size=4194304
log.cleaner.io.buffer.size=65536
"""


class BrokerAddress(msgspec.Struct, frozen=True, omit_defaults=True):
    """Ports of one broker on the loopback address: for clients, and for the controller quorum.

    Attributes:
        proxied_port: where it listens for clients that come through a proxy; 0 where there is none.
        proxy_port: of that proxy, which is what such clients are told, so that they come back through it.
        secured_ports: of the listeners with TLS and passwords, in the order of their names.
    """

    client_port: int
    controller_port: int
    proxied_port: int = 0
    proxy_port: int = 0
    secured_ports: tuple[int, ...] = ()

    def listeners(self, security: KafkaSecurity | None = None) -> str:
        """Return the lines that say where it listens, how, and what it tells clients."""
        client, controller = (
            f"CLIENT://{LOOPBACK}:{self.client_port}",
            f"CONTROLLER://{LOOPBACK}:{self.controller_port}",
        )
        heard, told = [client, controller], [client]
        if self.proxied_port:
            heard.append(f"PROXIED://{LOOPBACK}:{self.proxied_port}")
            told.append(f"PROXIED://{LOOPBACK}:{self.proxy_port}")
        protocols = "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT"
        for name, port in zip(security.names if security else (), self.secured_ports, strict=True):
            heard.append(f"{name}://{LOOPBACK}:{port}")
            told.append(f"{name}://{SECURED_HOST}:{port}")
            protocols += f",{name}:SASL_SSL"
        return f"""\
listeners={",".join(heard)}
advertised.listeners={",".join(told)}
listener.security.protocol.map={protocols}"""


def server_properties(
    node_id: int, brokers: Sequence[BrokerAddress], data: str, security: KafkaSecurity | None = None
) -> str:
    """Return the configuration of broker `node_id` (from 1) of a cluster of `brokers`.

    `data` is relative to the folder the broker is started in: no character of a path needs escaping then.
    """
    count = len(brokers)
    majority = count // 2 + 1
    own = brokers[node_id - 1]
    voters = ",".join(f"{number}@{LOOPBACK}:{item.controller_port}" for number, item in enumerate(brokers, start=1))
    return f"""\
node.id={node_id}
log.dirs={data}
controller.quorum.voters={voters}
{own.listeners(security)}
default.replication.factor={count}
min.insync.replicas={majority}
offsets.topic.replication.factor={count}
transaction.state.log.replication.factor={count}
transaction.state.log.min.isr={majority}
share.coordinator.state.topic.replication.factor={count}
share.coordinator.state.topic.min.isr={majority}
{COMMON}{security.properties() if security else ""}"""


def class_path(jars: Sequence[Path]) -> str:
    """Return the class path, in the order that the ahead-of-time cache was made with."""
    return ":".join(str(jar) for jar in jars)


def options_key() -> str:
    """Return a short text that changes with the options an ahead-of-time cache depends on."""
    return hashlib.sha256("\n".join(JAVA_OPTIONS).encode()).hexdigest()[:8]
