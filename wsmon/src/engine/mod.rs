//! The loop that owns the kernel side and the model: events and slots go in, whoever asks through
//! a [`Handle`] gets answers.

mod owners;
mod tracers;

use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use tokio::{
    io::unix::AsyncFd,
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};
use tracing::{info, warn};
use wsmon_common::{cursor::Counter, slot::Slot};

use self::{owners::OwnerSearch, tracers::Tracers};
use crate::{
    decode::{ConnectionId, Event},
    export::handle::{self, Handle, Info, Request},
    identity::process::Processes,
    kernel::{Kernel, KernelError, Options},
    model::{self, Model, clock::ClockOffset, snapshot::Snapshot},
};

/// How often the slots are looked at when nothing else asks for it.
const SWEEP: Duration = Duration::from_millis(250);
/// Sweeps between two calls of [`Model::tick`].
const SWEEPS_PER_TICK: u32 = 4;
/// Records that are read from the ring before anything else is looked at.
const BATCH: usize = 4096;
/// Batches after which an answer is given although the ring still fills.
const MAX_BATCHES: usize = 64;

/// The tap in use, and why.
const TAP: &str = "packet";
const TAP_REASON: &str = "only_tap";

/// Loads the programs and watches until every handle is gone, or the engine is dropped.
pub struct Engine {
    watched: Watched,
    ring: AsyncFd<RingBuf<MapData>>,
    ring_bytes: u32,
    owners: OwnerSearch,
    tracers: Tracers,
    requests: mpsc::Receiver<Request>,
    /// Records that could not be read.
    refused: u64,
    /// The fullest that the ring was since it was last asked for, in bytes.
    fullest: u32,
    /// The last read of the ring ended before the ring did.
    more: bool,
    sweeps: u32,
}

/// What events are applied with, apart from the ring that they are borrowed from.
struct Watched {
    kernel: Kernel,
    model: Model,
    processes: Processes,
}

impl Engine {
    /// Loads and attaches the programs.
    pub fn start(options: &Options, config: model::Config) -> Result<(Self, Handle), KernelError> {
        let (kernel, ring) = Kernel::load(options)?;
        // SAFETY: the map's descriptor stays open and the same for as long as the ring lives.
        let ring = unsafe { AsyncFd::register(ring) }
            .map_err(|error| KernelError::Mapping("EVENTS", error.into()))?;
        let (handle, requests) = handle::channel();
        // Reasons are kept from whoever did not ask for them where records are handed out.
        let config = model::Config {
            show_reasons: true,
            ..config
        };
        kernel.set_clock(now_ns());
        let engine = Self {
            ring_bytes: options.ring_size(),
            owners: OwnerSearch::new(kernel.has_process_hook),
            watched: Watched {
                kernel,
                model: Model::new(config, clock_offset()),
                processes: Processes::default(),
            },
            ring,
            tracers: Tracers::default(),
            requests,
            refused: 0,
            fullest: 0,
            more: false,
            sweeps: 0,
        };
        info!(tap = TAP, reason = TAP_REASON, "watching");
        Ok((engine, handle))
    }

    /// Works until every handle is gone.
    pub async fn run(mut self) {
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                request = self.requests.recv() => match request {
                    Some(request) => self.answer(request),
                    None => return,
                },
                // The ring wakes its reader only when that has caught up.
                () = std::future::ready(()), if self.more => self.read_ring(),
                ready = self.ring.readable() => match ready {
                    Ok(mut guard) => {
                        guard.clear_ready();
                        drop(guard);
                        self.read_ring();
                    }
                    Err(error) => warn!(%error, "the ring of events cannot be awaited"),
                },
                found = self.owners.found() => {
                    let now = now_ns();
                    for (id, pid) in found {
                        self.watched.identify(id, pid, b"", now);
                    }
                }
                _ = sweep.tick() => self.catch_up(),
            }
            self.hand_out();
        }
    }

    fn answer(&mut self, request: Request) {
        // Who asks no longer may have gone: then nobody wants the answer.
        match request {
            Request::Snapshot(reply) => {
                self.catch_up();
                let _ = reply.send(self.snapshot());
            }
            Request::Connections { filter, reply } => {
                self.catch_up();
                let mut connections = self.watched.model.connections(now_ns());
                connections.retain(|connection| filter.matches_connection(connection));
                let _ = reply.send(connections);
            }
            Request::Trace {
                filter,
                max_rate,
                show_reasons,
                reply,
            } => {
                self.catch_up();
                let records = self
                    .tracers
                    .add(filter, max_rate, show_reasons, self.dropped());
                let _ = reply.send(records);
                self.choose_traced();
            }
            Request::Info(reply) => {
                let _ = reply.send(Info {
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    tap: TAP.to_owned(),
                    tap_reason: TAP_REASON.to_owned(),
                    pid: std::process::id(),
                });
            }
        }
    }

    /// Everything that the kernel has said by now.
    fn catch_up(&mut self) {
        for _ in 0..MAX_BATCHES {
            self.read_ring();
            if !self.more {
                break;
            }
        }
        self.sweep();
    }

    fn read_ring(&mut self) {
        let now = now_ns();
        let mut bytes = 0;
        let mut news = false;
        self.more = true;
        for _ in 0..BATCH {
            let Some(record) = self.ring.get_mut().next() else {
                self.more = false;
                break;
            };
            bytes += record.len() as u32 + 8;
            let Ok(event) = Event::parse(&record) else {
                self.refused += 1;
                continue;
            };
            let id = event.connection();
            if let Some(id) = id
                && (matches!(event, Event::State { .. }) || !self.watched.model.knows(id))
            {
                self.watched.look_at(id, now);
                news = true;
            }
            self.watched.model.apply(event, now);
        }
        self.fullest = self.fullest.max(bytes);
        if news {
            self.look_for_owners();
            self.choose_traced();
        }
    }

    fn sweep(&mut self) {
        let now = now_ns();
        self.watched.kernel.set_clock(now);
        for index in 0..self.watched.kernel.slots() {
            if let Some(slot) = self.watched.kernel.slot(index) {
                self.watched.take_slot(index, &slot, now);
            }
        }
        self.look_for_owners();
        self.sweeps += 1;
        if self.sweeps.is_multiple_of(SWEEPS_PER_TICK) {
            self.watched.model.tick(now);
        }
        let releases = self.watched.model.take_releases();
        for id in &releases {
            if let Err(error) = self.watched.kernel.release(id.slot) {
                warn!(%error, slot = id.slot, "a slot is lost");
            }
        }
        if !releases.is_empty() {
            self.watched.kernel.sweep_pending();
        }
    }

    /// Looks for the processes that the kernel did not tell.
    fn look_for_owners(&mut self) {
        let unidentified = self.watched.model.unidentified();
        self.owners.look_for(
            unidentified
                .iter()
                .filter(|connection| connection.pid.is_none()),
        );
    }

    fn snapshot(&mut self) -> Snapshot {
        let mut snapshot = self.watched.model.snapshot(now_ns());
        let agent = &mut snapshot.agent;
        TAP.clone_into(&mut agent.tap);
        TAP_REASON.clone_into(&mut agent.tap_reason);
        agent.events_lost += self.watched.kernel.counter(Counter::EventsLost) + self.refused;
        agent.untracked_connections = [
            Counter::Untracked,
            Counter::StorageFailed,
            Counter::PendingFull,
        ]
        .map(|counter| self.watched.kernel.counter(counter))
        .iter()
        .sum();
        agent.segments_dropped = self.watched.kernel.counter(Counter::SegmentsDropped);
        agent.unparsed_packets = self.watched.kernel.counter(Counter::Unparsed);
        agent.slots_limit = u64::from(self.watched.kernel.slots());
        // While it is read it fills again.
        agent.ring_fill_ratio = (f64::from(self.fullest) / f64::from(self.ring_bytes)).min(1.0);
        self.fullest = 0;
        snapshot
    }

    /// Passes records on to whoever traces; stops the events when nobody does any more.
    fn hand_out(&mut self) {
        if self.tracers.is_empty() {
            return;
        }
        let dropped = self.dropped();
        self.tracers
            .hand_out(&self.watched.model.take_records(), dropped);
        if self.tracers.remove_closed() {
            self.choose_traced();
        }
    }

    /// Events and records that were lost on the way to whoever traces.
    fn dropped(&self) -> u64 {
        self.watched.model.records_dropped() + self.watched.kernel.counter(Counter::EventsLost)
    }

    /// Tells the kernel which connections' frames somebody wants.
    fn choose_traced(&mut self) {
        self.watched.model.set_tracing(!self.tracers.is_empty());
        let frames = self.tracers.want_frames();
        if frames != self.tracers.frames_on || frames {
            if let Err(error) = self.watched.kernel.trace_new(frames) {
                warn!(%error, "new connections cannot be traced");
            }
            // A connection that began while frames are wanted is traced at once, and until it is
            // known that nobody wants it.
            for connection in self.watched.model.traceable(now_ns()) {
                let on = frames
                    && self
                        .tracers
                        .may_want(&connection.view, connection.is_settled);
                self.watched.kernel.trace(connection.slot, on);
            }
            self.tracers.frames_on = frames;
        }
    }
}

impl Watched {
    /// Reads the slot of an event before the event, so that its records say whose they are.
    fn look_at(&mut self, id: ConnectionId, now: u64) {
        if let Some(slot) = self.kernel.slot(id.slot) {
            self.take_slot(id.slot, &slot, now);
        }
    }

    /// Passes on what a slot holds, its process first: if the connection is over, it is counted at
    /// once.
    fn take_slot(&mut self, index: u32, slot: &Slot, now: u64) {
        let id = ConnectionId {
            slot: index,
            generation: slot.generation,
        };
        if slot.pid != 0 && !self.model.knows_process(id) {
            self.identify(id, slot.pid, slot.executable_name(), now);
        }
        self.model.apply(Event::Slot { index, slot }, now);
    }

    fn identify(&mut self, id: ConnectionId, pid: u32, executable: &[u8], now: u64) {
        let process = self.processes.get(pid, executable);
        self.model.apply(Event::Process { id, process }, now);
    }
}

/// `CLOCK_MONOTONIC` in nanoseconds.
fn now_ns() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}

fn clock_offset() -> ClockOffset {
    let realtime = clock(libc::CLOCK_REALTIME);
    ClockOffset {
        realtime_minus_monotonic_ns: realtime.wrapping_sub(now_ns()) as i64,
    }
}

fn clock(id: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the structure outlives the call; both clocks exist on every Linux.
    unsafe { libc::clock_gettime(id, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
