//! The page of metrics. What each of them means stands in docs/METRICS.md.

mod format;
mod samples;

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use wsmon_common::slot::FRAME_CLASSES;

pub use self::format::Format;
use self::samples::{BYTES, Extra, Labels, NANOSECONDS, Samples};
use super::text_format;
use crate::decode::Direction;
use crate::model::errors::KINDS;
use crate::model::lifecycle::State;
use crate::model::snapshot::{AgentStats, Snapshot, Totals};

/// The page of a snapshot.
pub fn render(snapshot: Arc<Snapshot>, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Page(snapshot)));
    let mut page = String::new();
    encode(&mut page, &registry)?;
    Ok(match format {
        Format::OpenMetrics => page,
        Format::Text => text_format::from_open_metrics(&page),
    })
}

#[derive(Debug)]
struct Page(Arc<Snapshot>);

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let mut families = Families {
            encoder: &mut encoder,
            snapshot: &self.0,
        };
        families.connections()?;
        families.handshakes()?;
        families.traffic()?;
        families.ends()?;
        families.processes()?;
        families.agent()
    }
}

/// Writes families, each with the samples of every service.
struct Families<'a, 'e> {
    encoder: &'a mut DescriptorEncoder<'e>,
    snapshot: &'a Snapshot,
}

impl Families<'_, '_> {
    fn connections(&mut self) -> fmt::Result {
        self.services(
            "wsmon_connections",
            "WebSockets that are being opened or open",
            None,
            MetricType::Gauge,
            |samples, totals| {
                for (state, count) in State::ALL.iter().zip(totals.connections) {
                    samples.gauge(count, &[("state", &state.as_str())])?;
                }
                Ok(())
            },
        )
    }

    fn handshakes(&mut self) -> fmt::Result {
        self.services(
            "wsmon_handshakes",
            "Handshakes by what came of them and the status of the answer",
            None,
            MetricType::Counter,
            |samples, totals| {
                for ((result, status), count) in &totals.handshakes {
                    samples.counter(*count, &[("result", &result.as_str()), ("status", status)])?;
                }
                Ok(())
            },
        )?;
        self.services(
            "wsmon_handshake_duration",
            "Time from the request's first byte to the status line of the answer",
            Some(&Unit::Seconds),
            MetricType::Histogram,
            |samples, totals| samples.histogram(&totals.handshake_duration, NANOSECONDS, &[]),
        )
    }

    fn traffic(&mut self) -> fmt::Result {
        self.services(
            "wsmon_frames",
            "Frames by direction and opcode",
            None,
            MetricType::Counter,
            |samples, totals| {
                for direction in Direction::ALL {
                    let traffic = &totals.traffic[direction as usize];
                    for (opcode, count) in FRAME_CLASSES.iter().zip(traffic.frames) {
                        samples.counter(
                            count,
                            &[("direction", &direction.as_str()), ("opcode", opcode)],
                        )?;
                    }
                }
                Ok(())
            },
        )?;
        self.services(
            "wsmon_messages",
            "Messages by direction and type, each when its last byte passed",
            None,
            MetricType::Counter,
            |samples, totals| {
                for direction in Direction::ALL {
                    let traffic = &totals.traffic[direction as usize];
                    for (kind, count) in ["text", "binary"].iter().zip(traffic.messages) {
                        samples.counter(
                            count,
                            &[("direction", &direction.as_str()), ("type", kind)],
                        )?;
                    }
                }
                Ok(())
            },
        )?;
        self.services(
            "wsmon_payload",
            "Payload of all frames as on the wire, control frames included",
            Some(&Unit::Bytes),
            MetricType::Counter,
            |samples, totals| {
                samples.by_direction(|direction| totals.traffic[direction as usize].payload_bytes)
            },
        )?;
        self.services(
            "wsmon_message_size",
            "Payload of messages; the sum is that of all frames",
            Some(&Unit::Bytes),
            MetricType::Histogram,
            |samples, totals| {
                for direction in Direction::ALL {
                    samples.histogram(
                        &totals.traffic[direction as usize].message_sizes,
                        BYTES,
                        &[("direction", &direction.as_str())],
                    )?;
                }
                Ok(())
            },
        )?;
        self.services(
            "wsmon_compressed_messages",
            "Messages that permessage-deflate compressed",
            None,
            MetricType::Counter,
            |samples, totals| {
                samples.by_direction(|direction| {
                    totals.traffic[direction as usize].compressed_messages
                })
            },
        )?;
        self.services(
            "wsmon_protocol_errors",
            "Breaches of RFC 6455, each once per connection and direction",
            None,
            MetricType::Counter,
            |samples, totals| {
                for (bit, kind) in KINDS.iter().enumerate() {
                    let count = totals.traffic.iter().map(|one| one.protocol_errors[bit]);
                    samples.counter(count.sum(), &[("kind", kind)])?;
                }
                Ok(())
            },
        )
    }

    fn ends(&mut self) -> fmt::Result {
        self.services(
            "wsmon_connections_closed",
            "Ends of open connections by close code, cause and who began",
            None,
            MetricType::Counter,
            |samples, totals| {
                for (end, count) in &totals.closed {
                    samples.counter(
                        *count,
                        &[
                            ("code", &end.code),
                            ("cause", &end.cause.as_str()),
                            ("initiator", &end.initiator.as_str()),
                            ("severity", &end.severity.as_str()),
                        ],
                    )?;
                }
                Ok(())
            },
        )?;
        self.services(
            "wsmon_connection_duration",
            "Time from the answer to the handshake to the end",
            Some(&Unit::Seconds),
            MetricType::Histogram,
            |samples, totals| samples.histogram(&totals.connection_duration, NANOSECONDS, &[]),
        )?;
        self.services(
            "wsmon_close_idle",
            "Silence in both directions before the end",
            Some(&Unit::Seconds),
            MetricType::Histogram,
            |samples, totals| samples.histogram(&totals.close_idle, NANOSECONDS, &[]),
        )
    }

    fn processes(&mut self) -> fmt::Result {
        self.services(
            "wsmon_process_start_time",
            "When the youngest process of the service started, since the epoch",
            Some(&Unit::Seconds),
            MetricType::Gauge,
            |samples, totals| match totals.process_start_ms {
                Some(ms) => samples.gauge_f64(ms as f64 / 1000.0),
                None => Ok(()),
            },
        )
    }

    fn agent(&mut self) -> fmt::Result {
        let agent: &AgentStats = &self.snapshot.agent;
        self.info(
            "wsmon_build",
            "The version of wsmon",
            &[("version", &env!("CARGO_PKG_VERSION"))],
        )?;
        self.info(
            "wsmon_tap",
            "The tap in use, and why it was chosen",
            &[("tap", &agent.tap), ("reason", &agent.tap_reason)],
        )?;
        for (name, help, value) in [
            (
                "wsmon_agent_events_lost",
                "Events that did not reach the agent, or that it could not read",
                agent.events_lost,
            ),
            (
                "wsmon_agent_untracked_connections",
                "Connections for which there was no slot, or whose request was not seen",
                agent.untracked_connections,
            ),
            (
                "wsmon_agent_segments_dropped",
                "Received segments that could not be kept until their turn",
                agent.segments_dropped,
            ),
            (
                "wsmon_agent_unparsed_packets",
                "Packets of followed connections whose headers could not be read",
                agent.unparsed_packets,
            ),
            (
                "wsmon_agent_series_overflow",
                "Connections and statuses that are counted as other",
                agent.series_overflow,
            ),
            (
                "wsmon_agent_restarts_adopted",
                "Connections that were taken over from an agent before",
                agent.restarts_adopted,
            ),
        ] {
            self.encoder
                .encode_descriptor(name, help, None, MetricType::Counter)?
                .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        self.encoder
            .encode_descriptor(
                "wsmon_agent_unsynced",
                "Bytes that passed while the frame boundary was not known",
                Some(&Unit::Bytes),
                MetricType::Counter,
            )?
            .encode_counter::<NoLabelSet, _, u64>(&agent.unsynced_bytes, None)?;
        for (name, help, value) in [
            (
                "wsmon_agent_unsynced_directions",
                "Directions of open connections whose frame boundary is not known",
                agent.unsynced_directions as f64,
            ),
            (
                "wsmon_agent_slots_used",
                "Slots that connections own",
                agent.slots_used as f64,
            ),
            (
                "wsmon_agent_slots_limit",
                "Slots that there are",
                agent.slots_limit as f64,
            ),
            (
                "wsmon_agent_ring_fill_ratio",
                "How full the ring of events is, 0 to 1",
                agent.ring_fill_ratio,
            ),
            (
                "wsmon_agent_scrape_duration_seconds",
                "How long the page before this one took",
                agent.scrape_duration_seconds,
            ),
        ] {
            let seconds = name.strip_suffix("_seconds");
            self.encoder
                .encode_descriptor(
                    seconds.unwrap_or(name),
                    help,
                    seconds.map(|_| &Unit::Seconds),
                    MetricType::Gauge,
                )?
                .encode_gauge(&value)?;
        }
        Ok(())
    }

    fn services(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        kind: MetricType,
        each: impl Fn(&mut Samples<'_, '_>, &Totals) -> fmt::Result,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, unit, kind)?;
        for service in &self.snapshot.services {
            let mut samples = Samples {
                metric: &mut metric,
                service: &service.labels,
            };
            each(&mut samples, &service.totals)?;
        }
        Ok(())
    }

    fn info(&mut self, name: &str, help: &str, extra: &Extra<'_>) -> fmt::Result {
        self.encoder
            .encode_descriptor(name, help, None, MetricType::Info)?
            .encode_info(&Labels {
                service: None,
                extra,
            })
    }
}

#[cfg(test)]
mod tests;
