//! The state of every connection and service: events and time go in, snapshots come out.

pub mod view;
