//! A trace without an agent: this process loads the programs itself.

use futures_util::{Stream, stream};
use wsmon::{
    engine::Engine,
    kernel::Options,
    model::{Config, filter::Filter, view::TraceRecord},
};

/// What matches, until the stream is dropped.
pub async fn trace(
    filter: Filter,
    show_reasons: bool,
) -> anyhow::Result<impl Stream<Item = TraceRecord>> {
    let (engine, handle) = Engine::start(&Options::default(), Config::default())?;
    tokio::spawn(engine.run());
    let records = handle.trace(filter, None, show_reasons).await?;
    // The engine ends with its last handle.
    Ok(stream::unfold(
        (records, handle),
        async |(mut records, handle)| Some((records.recv().await?, (records, handle))),
    ))
}
