//! System packages that the end-to-end tests use.

use std::process::Command;

use super::{Part, apt};
use crate::shell;

pub const PARTS: [Part; 6] = [
    Part {
        name: "ip",
        note: "package iproute2",
        present: || shell::find("ip").is_some(),
        install: || apt::install(&["iproute2"], &[]),
    },
    Part {
        name: "python3 with venv",
        note: "package python3-venv",
        present: || shell::succeeds(Command::new("python3").args(["-c", "import venv, ensurepip"])),
        install: || apt::install(&["python3-venv"], &[]),
    },
    Part {
        name: "node and npm",
        note: "packages nodejs and npm",
        present: || shell::find("node").is_some() && shell::find("npm").is_some(),
        install: || apt::install(&["nodejs", "npm"], &[]),
    },
    Part {
        name: "nginx",
        note: "package nginx-light",
        present: || shell::find("nginx").is_some(),
        install: || apt::install(&["nginx-light"], &["nginx"]),
    },
    Part {
        name: "promtool",
        note: "package prometheus, its service stays off",
        present: || shell::find("promtool").is_some(),
        install: || apt::install(&["prometheus"], &["prometheus"]),
    },
    Part {
        name: "chromium",
        note: "package chromium",
        present: || shell::find("chromium").is_some(),
        install: || apt::install(&["chromium"], &[]),
    },
];
