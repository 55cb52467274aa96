//! `wsmon top`: the connections of a running agent, live.

mod columns;
mod state;
mod view;

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::Args;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyEventKind},
};
use tokio::{sync::mpsc, time::MissedTickBehavior};
use wsmon::model::{filter::Filter, view::ConnectionView};

use self::state::{Action, State};
use super::{
    api::{Agent, ApiError},
    args::{AgentAddress, FilterFlags},
    stop::Stop,
};
use crate::output::{self, table};

const EXAMPLES: &str = "\
Keys: 1-9 or < > sort by a column, r reverses, / filters, Enter opens a connection, q quits.

Examples:
  wsmon top
  wsmon top --port 8080
  wsmon top --once                    one table for a script or a log
";

/// Watch the open WebSockets live.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Top {
    #[command(flatten)]
    agent: AgentAddress,

    #[command(flatten)]
    filter: FilterFlags,

    /// Print one table to stdout, rates measured over a second, and end.
    #[arg(long)]
    once: bool,
}

/// How often the agent is asked.
const EVERY: Duration = Duration::from_secs(1);

impl Top {
    pub async fn run(self) -> anyhow::Result<()> {
        let agent = Agent::at(&self.agent)?;
        let mut state = State::new(self.agent.url);
        if self.once {
            return once(&agent, &self.filter.filter(), &mut state).await;
        }
        if !output::on_terminal() {
            bail!("stdout is not a terminal; `wsmon top --once` prints one table");
        }
        let mut stop = Stop::listen()?;
        let terminal = ratatui::try_init().context("cannot take over the terminal")?;
        // Also when `live` fails; a panic is seen to by the hook that `try_init` set.
        let restore = Restore;
        let result = tokio::select! {
            result = live(terminal, agent, self.filter.filter(), state) => result,
            () = stop.requested() => Ok(()),
        };
        drop(restore);
        result
    }
}

struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

async fn once(agent: &Agent, filter: &Filter, state: &mut State) -> anyhow::Result<()> {
    state.update(agent.connections(filter).await?, Instant::now());
    tokio::time::sleep(EVERY).await;
    state.update(agent.connections(filter).await?, Instant::now());

    // Off a terminal there is no width to fit.
    let width = output::width();
    let shown = columns::visible(width.unwrap_or(usize::MAX));
    let layout: Vec<table::Column> = shown
        .iter()
        .map(|column| table::Column {
            title: column.title(),
            align: column.align(),
            least: column.title().len(),
            rank: 0,
        })
        .collect();
    let rows: Vec<Vec<String>> = state
        .shown()
        .into_iter()
        .map(|row| shown.iter().map(|column| column.cell(row)).collect())
        .collect();
    let mut out = output::stdout();
    table::write(&mut out, &layout, &rows, width)?;
    out.flush()?;
    if rows.is_empty() {
        eprintln!("No open WebSockets match. `wsmon demo` makes some.");
    }
    Ok(())
}

type Look = Result<Vec<ConnectionView>, ApiError>;

async fn live(
    mut terminal: DefaultTerminal,
    agent: Agent,
    filter: Filter,
    mut state: State,
) -> anyhow::Result<()> {
    let mut looks = look(agent, filter);
    let mut events = events();
    loop {
        let size = terminal.size().context("cannot size the terminal")?;
        state.size = (size.width, size.height);
        terminal
            .draw(|frame| view::draw(frame, &state))
            .context("cannot draw")?;
        tokio::select! {
            look = looks.recv() => match look.context("nobody asks the agent any more")? {
                Ok(views) => state.update(views, Instant::now()),
                Err(error) => state.problem = Some(error.to_string()),
            },
            event = events.recv() => match event.context("the terminal is gone")?? {
                Event::Key(key)
                    if key.kind != KeyEventKind::Release && state.key(key) == Action::Quit =>
                {
                    return Ok(());
                }
                _ => {}
            },
        }
    }
}

/// Asks again and again until the receiver is dropped.
fn look(agent: Agent, filter: Filter) -> mpsc::Receiver<Look> {
    let (sender, looks) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if sender.send(agent.connections(&filter).await).await.is_err() {
                return;
            }
        }
    });
    looks
}

/// Keys and resizes, read by a thread: reading a terminal blocks.
fn events() -> mpsc::Receiver<std::io::Result<Event>> {
    let (sender, events) = mpsc::channel(64);
    std::thread::spawn(move || {
        loop {
            let event = event::read();
            let failed = event.is_err();
            if sender.blocking_send(event).is_err() || failed {
                return;
            }
        }
    });
    events
}
