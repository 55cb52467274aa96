//! The columns of `wsmon top`: their text, order and place.

use std::cmp::Ordering;

use super::state::Row;
use crate::output::{human, table::Align};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    Role,
    Process,
    Pid,
    Port,
    Remote,
    Path,
    State,
    Age,
    Idle,
    Messages,
    Sent,
    Received,
}

use Column::{Age, Idle, Messages, Path, Pid, Port, Process, Received, Remote, Role, Sent, State};

/// What fits a terminal of `width` columns; 80 has room for all that change.
pub fn visible(width: usize) -> &'static [Column] {
    match width {
        0..100 => &[
            Role, Process, Pid, Port, Remote, Age, Messages, Sent, Received,
        ],
        100..120 => &[
            Role, Process, Pid, Port, Remote, Path, Age, Messages, Sent, Received,
        ],
        _ => &[
            Role, Process, Pid, Port, Remote, Path, State, Age, Idle, Messages, Sent, Received,
        ],
    }
}

impl Column {
    pub fn title(self) -> &'static str {
        match self {
            Role => "ROLE",
            Process => "PROCESS",
            Pid => "PID",
            Port => "PORT",
            Remote => "REMOTE",
            Path => "PATH",
            State => "STATE",
            Age => "AGE",
            Idle => "IDLE",
            Messages => "MSG/S",
            Sent => "SENT/S",
            Received => "RECV/S",
        }
    }

    pub fn align(self) -> Align {
        match self {
            Role | Process | Remote | Path | State => Align::Left,
            Pid | Port | Age | Idle | Messages | Sent | Received => Align::Right,
        }
    }

    /// Width in columns; `None` takes what is left.
    pub fn width(self, terminal: usize) -> Option<usize> {
        Some(match self {
            Role | Messages | Age | Idle => 6,
            Process => 10,
            Pid => 7,
            Port => 5,
            Remote if terminal >= 100 => 21,
            Remote | Path => return None,
            State => 11,
            Sent | Received => 8,
        })
    }

    /// The cell, not escaped.
    pub fn cell(self, row: &Row) -> String {
        let unknown = || "-".to_owned();
        let view = &row.view;
        match self {
            Role => view.role.clone(),
            Process => view.process.clone(),
            Pid => view.pid.map_or_else(unknown, |pid| pid.to_string()),
            Port => view.port.to_string(),
            Remote => view.remote.clone(),
            Path => view.handshake.path.clone().unwrap_or_else(unknown),
            State => view.state.clone(),
            Age => human::age(view.age_seconds),
            Idle => human::age(view.idle_seconds),
            Messages => row
                .rates
                .map_or_else(unknown, |rates| human::rate(rates.messages)),
            Sent => row
                .rates
                .map_or_else(unknown, |rates| human::bytes(rates.sent as u64)),
            Received => row
                .rates
                .map_or_else(unknown, |rates| human::bytes(rates.received as u64)),
        }
    }

    /// Ascending.
    pub fn compare(self, a: &Row, b: &Row) -> Ordering {
        let (left, right) = (&a.view, &b.view);
        let rate = |row: &Row| row.rates.unwrap_or_default();
        match self {
            Role => left.role.cmp(&right.role),
            Process => left.process.cmp(&right.process),
            Pid => left.pid.cmp(&right.pid),
            Port => left.port.cmp(&right.port),
            Remote => left.remote.cmp(&right.remote),
            Path => left.handshake.path.cmp(&right.handshake.path),
            State => left.state.cmp(&right.state),
            Age => left.age_seconds.total_cmp(&right.age_seconds),
            Idle => left.idle_seconds.total_cmp(&right.idle_seconds),
            Messages => rate(a).messages.total_cmp(&rate(b).messages),
            Sent => rate(a).sent.total_cmp(&rate(b).sent),
            Received => rate(a).received.total_cmp(&rate(b).received),
        }
    }

    /// Whether the interesting end is the upper one.
    pub fn largest_first(self) -> bool {
        matches!(self, Age | Idle | Messages | Sent | Received)
    }
}
