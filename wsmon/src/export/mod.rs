//! How the outside world reads what the model knows.

pub mod handle;
pub mod http;
pub mod prometheus;
mod text_format;
