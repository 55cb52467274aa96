//! What `wsmon doctor` found, and what follows from it.

use std::io::{self, Write};

use serde::Serialize;

use super::host::Host;
use crate::output::table::{self, Align, Column};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Ok,
    /// It works, with less than all.
    Warning,
    /// The kernel has it and does not grant it.
    Refused,
    /// The kernel does not have it.
    Unavailable,
}

#[derive(Clone, Debug, Serialize)]
pub struct Check {
    pub name: String,
    pub verdict: Verdict,
    pub text: String,
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub version: &'static str,
    pub kernel: String,
    pub architecture: &'static str,
    pub host: Vec<Check>,
    pub programs: Vec<Check>,
    pub maps: Vec<Check>,
    pub tap: Tap,
    /// What wsmon does not see on this host.
    pub unseen: Vec<String>,
    pub missing_capabilities: Vec<&'static str>,
    /// How to get what is missing.
    pub remedies: Vec<String>,
}

/// The tap that the agent would use.
#[derive(Debug, Serialize)]
pub struct Tap {
    /// Absent if none works.
    pub name: Option<&'static str>,
    pub reason: String,
    /// Where the process of a connection would be learnt: `hook` or `procfs`.
    pub process_source: Option<&'static str>,
}

impl Report {
    pub fn new(host: Host, programs: Vec<Check>, maps: Vec<Check>, tap: Tap) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            architecture: std::env::consts::ARCH,
            unseen: unseen(&host),
            remedies: remedies(&host, &tap),
            kernel: host.release,
            host: host.checks,
            missing_capabilities: host.missing_capabilities,
            programs,
            maps,
            tap,
        }
    }

    pub fn works(&self) -> bool {
        self.tap.name.is_some()
    }

    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "wsmon {} on Linux {} {}\n",
            self.version, self.kernel, self.architecture
        )?;
        section(out, "HOST", &self.host)?;
        section(out, "PROGRAMS", &self.programs)?;
        section(out, "MAPS", &self.maps)?;
        writeln!(out, "TAP")?;
        writeln!(
            out,
            "  {}: {}",
            self.tap.name.unwrap_or("none"),
            self.tap.reason
        )?;
        if let Some(source) = self.tap.process_source {
            writeln!(out, "  process of a connection from: {source}")?;
        }
        writeln!(out)?;
        list(out, "NOT SEEN ON THIS HOST", &self.unseen)?;
        if !self.remedies.is_empty() {
            writeln!(out)?;
            list(out, "WHAT TO DO", &self.remedies)?;
        }
        Ok(())
    }
}

impl Tap {
    /// What came of loading and attaching the tap itself: whether there is a process hook.
    pub fn tried(result: Result<bool, String>) -> Self {
        match result {
            Ok(has_process_hook) => Self {
                name: Some("packet"),
                reason: "loaded and attached; it sees every TCP byte of plain WebSockets, \
                         whatever call wrote it, and is the tap of this version"
                    .into(),
                process_source: Some(if has_process_hook { "hook" } else { "procfs" }),
            },
            Err(reason) => Self {
                name: None,
                reason,
                process_source: None,
            },
        }
    }
}

fn unseen(host: &Host) -> Vec<String> {
    let mut unseen = vec![
        "wss:// where the process itself ends TLS; behind a proxy that does, the plain hop is seen"
            .to_owned(),
        "WebSockets over HTTP/2 (RFC 8441) and HTTP/3 (RFC 9220)".to_owned(),
        "WebSockets on Unix sockets, and on anything else but TCP".to_owned(),
    ];
    if host.cgroup_root.is_none() && !host.cgroup_mounts.is_empty() {
        unseen.push("sockets made outside this cgroup namespace".to_owned());
    }
    let old = super::host::version(&host.release).is_some_and(|version| version < (5, 15));
    if old && super::host::has_v1_socket_tags() {
        unseen.push(
            "sockets made after a net_cls or net_prio cgroup came into use (kernels before 5.15)"
                .to_owned(),
        );
    }
    unseen
}

fn remedies(host: &Host, tap: &Tap) -> Vec<String> {
    let mut remedies = Vec::new();
    if !host.missing_capabilities.is_empty() {
        let names = host.missing_capabilities.join(",");
        remedies.push("run it as root: sudo wsmon doctor".to_owned());
        remedies.push(format!(
            "or grant what is missing: sudo setcap {}=ep $(command -v wsmon)",
            names.to_lowercase()
        ));
        remedies.push(format!(
            "or in a container: --cap-add {}",
            names.replace(',', " --cap-add ")
        ));
    } else if tap.name.is_none() {
        remedies.push(
            "use a kernel from 5.10 on with CONFIG_BPF_SYSCALL, CONFIG_CGROUP_BPF and \
             CONFIG_DEBUG_INFO_BTF"
                .to_owned(),
        );
    }
    remedies
}

fn section(out: &mut impl Write, title: &'static str, checks: &[Check]) -> io::Result<()> {
    let columns = [
        Column {
            title,
            align: Align::Left,
            least: usize::MAX,
            rank: 0,
        },
        Column {
            title: "",
            align: Align::Left,
            least: usize::MAX,
            rank: 0,
        },
        Column {
            title: "",
            align: Align::Left,
            least: 20,
            rank: 0,
        },
    ];
    let rows: Vec<Vec<String>> = checks
        .iter()
        .map(|check| {
            let verdict = match check.verdict {
                Verdict::Ok => "ok",
                Verdict::Warning => "warning",
                Verdict::Refused => "refused",
                Verdict::Unavailable => "not available",
            };
            vec![
                format!("  {}", check.name),
                verdict.to_owned(),
                check.text.clone(),
            ]
        })
        .collect();
    // What is cut is what one came to read.
    table::write(out, &columns, &rows, None)?;
    writeln!(out)
}

fn list(out: &mut impl Write, title: &str, lines: &[String]) -> io::Result<()> {
    writeln!(out, "{title}")?;
    lines.iter().try_for_each(|line| writeln!(out, "  {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks(names: &[&str], verdict: Verdict) -> Vec<Check> {
        let check = |name: &&str| Check {
            name: (*name).into(),
            verdict,
            text: String::new(),
        };
        names.iter().map(check).collect()
    }

    #[test]
    fn the_tap_is_the_one_that_could_be_attached() {
        let tap = Tap::tried(Ok(false));
        assert_eq!(
            (tap.name, tap.process_source),
            (Some("packet"), Some("procfs"))
        );
        let tap = Tap::tried(Err("the kernel refuses".into()));
        assert_eq!(
            (tap.name, tap.reason.as_str()),
            (None, "the kernel refuses")
        );
    }

    #[test]
    fn missing_capabilities_come_with_the_ways_to_get_them() {
        let host = Host {
            release: "6.1.0".into(),
            checks: Vec::new(),
            missing_capabilities: vec!["CAP_BPF", "CAP_PERFMON"],
            cgroup_root: None,
            cgroup_mounts: Vec::new(),
        };
        let report = Report::new(
            host,
            checks(&["cgroup_skb"], Verdict::Refused),
            Vec::new(),
            Tap::tried(Err("not permitted".into())),
        );
        assert!(!report.works());
        let mut out = Vec::new();
        report.write(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("setcap cap_bpf,cap_perfmon=ep"), "{text}");
        assert!(
            text.contains("--cap-add CAP_BPF --cap-add CAP_PERFMON"),
            "{text}"
        );
    }
}
