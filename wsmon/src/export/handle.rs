//! The way from whoever serves people (HTTP, commands) to the engine that owns the model.
//!
//! The engine holds the receiver of [`channel`] and answers each [`Request`] between two events.
//! An answer that nobody waits for any more is dropped: a failed send is not an error.

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::model::filter::Filter;
use crate::model::snapshot::Snapshot;
use crate::model::view::{ConnectionView, TraceRecord};

/// Requests that may wait for the engine.
const WAITING_REQUESTS: usize = 64;

/// What the engine is asked.
#[derive(Debug)]
pub enum Request {
    /// Sweep the slots, then give sums by service.
    Snapshot(oneshot::Sender<Snapshot>),
    /// Sweep the slots, then give the open connections that the filter matches.
    Connections {
        filter: Filter,
        reply: oneshot::Sender<Vec<ConnectionView>>,
    },
    /// Begin to trace. It ends when the receiver of the records is dropped: the engine finds out
    /// by `Sender::is_closed`, or by a send that fails.
    Trace {
        filter: Filter,
        /// Records in a second; what is over becomes one [`crate::model::view::Traced::Dropped`].
        max_rate: Option<u32>,
        /// Whether Close frames come with their reasons.
        show_reasons: bool,
        reply: oneshot::Sender<mpsc::Receiver<TraceRecord>>,
    },
    /// Who answers.
    Info(oneshot::Sender<Info>),
}

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Of wsmon.
    pub version: String,
    /// The tap in use.
    pub tap: String,
    /// Why that one.
    pub tap_reason: String,
    /// Process id of the agent.
    pub pid: u32,
}

/// The engine does not answer any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the agent is shutting down")]
pub struct Gone;

/// Asks the engine. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle(mpsc::Sender<Request>);

/// A handle, and what the engine reads from.
pub fn channel() -> (Handle, mpsc::Receiver<Request>) {
    let (sender, receiver) = mpsc::channel(WAITING_REQUESTS);
    (Handle(sender), receiver)
}

impl Handle {
    pub async fn snapshot(&self) -> Result<Snapshot, Gone> {
        self.ask(Request::Snapshot).await
    }

    pub async fn connections(&self, filter: Filter) -> Result<Vec<ConnectionView>, Gone> {
        self.ask(|reply| Request::Connections { filter, reply })
            .await
    }

    /// Records as they are made, until the receiver is dropped.
    pub async fn trace(
        &self,
        filter: Filter,
        max_rate: Option<u32>,
        show_reasons: bool,
    ) -> Result<mpsc::Receiver<TraceRecord>, Gone> {
        self.ask(|reply| Request::Trace {
            filter,
            max_rate,
            show_reasons,
            reply,
        })
        .await
    }

    pub async fn info(&self) -> Result<Info, Gone> {
        self.ask(Request::Info).await
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Gone> {
        let (reply, answer) = oneshot::channel();
        self.0.send(request(reply)).await.map_err(|_| Gone)?;
        answer.await.map_err(|_| Gone)
    }
}
