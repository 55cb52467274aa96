//! Looks sockets up in /proc whose process the kernel did not tell, one search at a time.

use std::{path::Path, time::Duration};

use tokio::task::JoinHandle;

use crate::{
    decode::ConnectionId,
    identity::socket::{Socket, owners},
    model::Unidentified,
};

/// How long a search may take; what it did not find by then is looked for again.
const PATIENCE: Duration = Duration::from_millis(500);
/// Times that a connection is passed over where the kernel is expected to tell.
const PATIENT_ROUNDS: u8 = 2;

/// See the module.
pub struct OwnerSearch {
    kernel_tells: bool,
    rounds: u8,
    running: Option<JoinHandle<Vec<(ConnectionId, u32)>>>,
}

impl OwnerSearch {
    /// `kernel_tells`: a connection's process shows by itself, as a rule.
    pub fn new(kernel_tells: bool) -> Self {
        Self {
            kernel_tells,
            rounds: 0,
            running: None,
        }
    }

    /// Begins a search, unless one is under way.
    pub fn look_for<'a>(&mut self, connections: impl Iterator<Item = &'a Unidentified>) {
        if self.running.is_some() {
            return;
        }
        let wanted: Vec<_> = connections
            .map(|connection| {
                (
                    connection.id,
                    Socket::new(connection.local, connection.remote),
                )
            })
            .collect();
        if wanted.is_empty() {
            self.rounds = 0;
            return;
        }
        self.rounds = self.rounds.saturating_add(1);
        if self.kernel_tells && self.rounds <= PATIENT_ROUNDS {
            return;
        }
        self.running = Some(tokio::task::spawn_blocking(move || {
            let sockets: Vec<_> = wanted.iter().map(|&(_, socket)| socket).collect();
            let found = owners(Path::new("/proc"), &sockets, PATIENCE);
            wanted
                .into_iter()
                .filter_map(|(id, socket)| Some((id, *found.get(&socket)?)))
                .collect()
        }));
    }

    /// What the search found, when it ends; waits for ever while there is none. Cancel safe.
    pub async fn found(&mut self) -> Vec<(ConnectionId, u32)> {
        match &mut self.running {
            Some(search) => {
                let found = search.await.unwrap_or_default();
                self.running = None;
                found
            }
            None => std::future::pending().await,
        }
    }
}
