//! A trace without an agent: this process loads the programs itself.

use anyhow::bail;
use futures_util::{Stream, stream};
use tokio::sync::mpsc::Receiver;
use wsmon::model::{filter::Filter, view::TraceRecord};

/// What matches, until the receiver is dropped.
#[expect(clippy::unused_async, reason = "loading and attaching will be")]
pub async fn trace(_filter: Filter, _show_reasons: bool) -> anyhow::Result<Receiver<TraceRecord>> {
    bail!("tracing without an agent is not built in yet")
}

pub fn stream(records: Receiver<TraceRecord>) -> impl Stream<Item = TraceRecord> {
    stream::unfold(records, async |mut records| {
        Some((records.recv().await?, records))
    })
}
