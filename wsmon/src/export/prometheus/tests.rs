use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};

use super::*;
use crate::model::close_code::CodePolicy;
use crate::model::service::{Hop, Role, ServiceLabels, Services};
use crate::model::snapshot::ServiceSnapshot;

fn labels(process: &str) -> ServiceLabels {
    ServiceLabels {
        role: Role::Server,
        hop: Hop::Endpoint,
        process: process.to_owned(),
        port: Some(8080),
        container: None,
        pod: None,
        namespace: None,
    }
}

/// A page with all families, and a process whose name would break it.
fn snapshot() -> Arc<Snapshot> {
    let mut totals = Totals::new(&CodePolicy::default());
    totals.connections[1] = 3;
    totals.process_start_ms = Some(1_700_000_000_250);
    totals.handshake_duration.observe(1_500_000);
    totals.traffic[0].payload_bytes = 77;
    let mut in_pod = labels("b\"a\\d\nname");
    in_pod.container = Some("0123abcd".into());
    in_pod.pod = Some("web-1".into());
    in_pod.namespace = Some("default".into());
    let services = [labels("node"), in_pod]
        .map(|labels| ServiceSnapshot {
            labels,
            totals: totals.clone(),
        })
        .to_vec();
    let agent = AgentStats {
        tap: "packet".into(),
        tap_reason: "default".into(),
        slots_limit: 10,
        ..AgentStats::default()
    };
    Arc::new(Snapshot { services, agent })
}

fn page(format: Format) -> String {
    render(snapshot(), format).unwrap()
}

/// Families with their types, as the page declares them.
fn families(page: &str) -> BTreeMap<&str, &str> {
    page.lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect()
}

/// The complaints of `promtool check metrics`; none if there is no promtool.
fn promtool(page: &str) -> Option<String> {
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        eprintln!("SKIPPED: promtool is not installed (Debian: prometheus)");
        return None;
    };
    child.stdin.take()?.write_all(page.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let mut said = String::from_utf8_lossy(&output.stderr).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stdout));
    Some(said)
}

#[test]
fn promtool_finds_nothing_to_complain_of_in_the_text_format() {
    if let Some(complaints) = promtool(&page(Format::Text)) {
        assert_eq!(complaints, "");
    }
}

#[test]
fn promtool_finds_nothing_to_complain_of_in_open_metrics() {
    // promtool reads it as the older format: it does not know the type info, and a counter's
    // samples look like a family of their own, which has no help. Anything else is a finding.
    let page = page(Format::OpenMetrics).replace(" info\n", " gauge\n");
    let Some(complaints) = promtool(&page) else {
        return;
    };
    let by_design = |line: &&str| {
        line.split_once(' ').is_some_and(|(name, complaint)| {
            let family = name
                .strip_suffix("_total")
                .or_else(|| name.strip_suffix("_info"));
            family.is_some_and(|family| families(&page).contains_key(family))
                && complaint == "no help text"
        })
    };
    let findings: Vec<_> = complaints.lines().filter(|line| !by_design(line)).collect();
    assert!(findings.is_empty(), "{findings:#?}");
}

#[test]
fn open_metrics_ends_with_eof_and_every_sample_belongs_to_the_family_above() {
    let page = page(Format::OpenMetrics);
    assert!(page.ends_with("# EOF\n"));
    let mut family = ("", "");
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split_once(' ').unwrap();
        } else if !line.starts_with('#') {
            let name = &line[..line.find(['{', ' ']).unwrap()];
            let suffixes: &[&str] = match family.1 {
                "counter" => &["_total"],
                "info" => &["_info"],
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            let suffix = name.strip_prefix(family.0).unwrap();
            assert!(suffixes.contains(&suffix), "{line} in {family:?}");
        }
    }
}

#[test]
fn the_issue_s_names_are_there() {
    let text = page(Format::Text);
    let families = families(&text);
    for (name, kind) in [
        ("wsmon_connections", "gauge"),
        ("wsmon_handshakes_total", "counter"),
        ("wsmon_handshake_duration_seconds", "histogram"),
        ("wsmon_frames_total", "counter"),
        ("wsmon_messages_total", "counter"),
        ("wsmon_payload_bytes_total", "counter"),
        ("wsmon_message_size_bytes", "histogram"),
        ("wsmon_compressed_messages_total", "counter"),
        ("wsmon_connections_closed_total", "counter"),
        ("wsmon_connection_duration_seconds", "histogram"),
        ("wsmon_close_idle_seconds", "histogram"),
        ("wsmon_protocol_errors_total", "counter"),
        ("wsmon_process_start_time_seconds", "gauge"),
        ("wsmon_build_info", "gauge"),
        ("wsmon_tap_info", "gauge"),
        ("wsmon_agent_events_lost_total", "counter"),
        ("wsmon_agent_unsynced_bytes_total", "counter"),
        ("wsmon_agent_unsynced_directions", "gauge"),
        ("wsmon_agent_untracked_connections_total", "counter"),
        ("wsmon_agent_segments_dropped_total", "counter"),
        ("wsmon_agent_unparsed_packets_total", "counter"),
        ("wsmon_agent_slots_used", "gauge"),
        ("wsmon_agent_slots_limit", "gauge"),
        ("wsmon_agent_ring_fill_ratio", "gauge"),
        ("wsmon_agent_series_overflow_total", "counter"),
        ("wsmon_agent_scrape_duration_seconds", "gauge"),
        ("wsmon_agent_restarts_adopted_total", "counter"),
    ] {
        assert_eq!(families.get(name), Some(&kind), "{name}");
    }
    assert_eq!(families.len(), 27);
}

#[test]
fn the_reference_lists_every_family_and_no_other() {
    let reference = include_str!("../../../../docs/METRICS.md");
    let listed: BTreeSet<_> = reference
        .lines()
        .filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`'))
        .collect();
    let text = page(Format::Text);
    let exported: BTreeSet<_> = families(&text).into_keys().collect();
    assert_eq!(listed, exported);
}

#[test]
fn a_service_brings_the_number_of_series_that_the_limit_reckons_with() {
    let snapshot = Snapshot {
        services: snapshot().services[..1].to_vec(),
        agent: AgentStats::default(),
    };
    let text = render(Arc::new(snapshot), Format::Text).unwrap();
    let series = text
        .lines()
        .filter(|line| line.contains("process="))
        .count();
    let services = Services::new(&CodePolicy::default(), 200, 50_000);
    assert_eq!(series, services.series_per_service());
}

#[test]
fn names_are_escaped() {
    let text = page(Format::Text);
    assert!(
        text.contains(r#"process="b\"a\\d\nname",port="8080",container="0123abcd",pod="web-1""#)
    );
}

#[test]
fn seconds_and_bytes_are_the_units() {
    let text = page(Format::Text);
    let base = r#"role="server",hop="endpoint",process="node",port="8080""#;
    for line in [
        format!(r#"wsmon_handshake_duration_seconds_bucket{{le="0.001048576",{base}}} 0"#),
        format!(r#"wsmon_handshake_duration_seconds_bucket{{le="0.004194304",{base}}} 1"#),
        format!("wsmon_handshake_duration_seconds_sum{{{base}}} 0.0015"),
        format!(r#"wsmon_payload_bytes_total{{{base},direction="sent"}} 77"#),
        format!(r#"wsmon_connections{{{base},state="open"}} 3"#),
        format!("wsmon_process_start_time_seconds{{{base}}} 1700000000.25"),
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

#[test]
fn the_format_is_negotiated() {
    let prometheus = "application/openmetrics-text;version=1.0.0,\
        application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    for (accept, format) in [
        ("", Format::Text),
        ("*/*", Format::Text),
        ("text/plain", Format::Text),
        (prometheus, Format::OpenMetrics),
        (
            "application/openmetrics-text; q=0.1, text/plain",
            Format::Text,
        ),
        ("application/openmetrics-text;q=0", Format::Text),
    ] {
        assert_eq!(Format::negotiate(accept), format, "{accept}");
    }
}
