//! `wsmon ls`: the open connections now, from a running agent.

use std::io::Write;

use clap::{Args, ValueEnum};
use wsmon::model::view::{ConnectionView, DirectionView};

use super::{
    api::Agent,
    args::{AgentAddress, FilterFlags},
};
use crate::output::{
    self, escape, escape_json, human,
    table::{self, Align, Column},
};

const EXAMPLES: &str = "\
Examples:
  wsmon ls
  wsmon ls --port 8080 --path '/chat*'
  wsmon ls --output json | jq 'group_by(.process) | map({(.[0].process): length}) | add'
";

/// List the open WebSockets.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Ls {
    #[command(flatten)]
    agent: AgentAddress,

    #[command(flatten)]
    filter: FilterFlags,

    /// How to write them.
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Table,
    Json,
    Csv,
}

impl Ls {
    pub async fn run(self) -> anyhow::Result<()> {
        let mut rows = Agent::at(&self.agent)?
            .connections(&self.filter.filter())
            .await?;
        // Oldest first: rows keep their place from one call to the next.
        rows.sort_by(|a, b| a.opened_at.cmp(&b.opened_at).then_with(|| a.id.cmp(&b.id)));
        let mut out = output::stdout();
        match self.output {
            Format::Table => write_table(&mut out, &rows, output::width())?,
            Format::Json => {
                let json = serde_json::to_string_pretty(&rows)?;
                writeln!(out, "{}", escape_json(&json))?;
            }
            Format::Csv => write_csv(&mut out, &rows)?,
        }
        out.flush()?;
        if rows.is_empty() && matches!(self.output, Format::Table) {
            eprintln!("No open WebSockets match. `wsmon demo` makes some.");
        }
        Ok(())
    }
}

const COLUMNS: &[Column] = &[
    column("ROLE", Align::Left, usize::MAX, 0),
    column("PROCESS", Align::Left, 7, 0),
    column("PID", Align::Right, usize::MAX, 2),
    column("PORT", Align::Right, usize::MAX, 0),
    column("REMOTE", Align::Left, 15, 0),
    column("PATH", Align::Left, 8, 1),
    column("STATE", Align::Left, usize::MAX, 4),
    column("AGE", Align::Right, usize::MAX, 0),
    column("IDLE", Align::Right, usize::MAX, 3),
    column("MSGS OUT", Align::Right, usize::MAX, 5),
    column("MSGS IN", Align::Right, usize::MAX, 5),
    column("SENT", Align::Right, usize::MAX, 0),
    column("RECEIVED", Align::Right, usize::MAX, 0),
];

const fn column(title: &'static str, align: Align, least: usize, rank: u8) -> Column {
    Column {
        title,
        align,
        least,
        rank,
    }
}

fn write_table(
    out: &mut impl Write,
    rows: &[ConnectionView],
    width: Option<usize>,
) -> std::io::Result<()> {
    let messages = |direction: &DirectionView| {
        human::count(direction.text_messages + direction.binary_messages)
    };
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            vec![
                row.role.clone(),
                row.process.clone(),
                row.pid.map_or("-".into(), |pid| pid.to_string()),
                row.port.to_string(),
                row.remote.clone(),
                row.handshake.path.clone().unwrap_or("-".into()),
                row.state.clone(),
                human::age(row.age_seconds),
                human::age(row.idle_seconds),
                messages(&row.sent),
                messages(&row.received),
                human::bytes(row.sent.payload_bytes),
                human::bytes(row.received.payload_bytes),
            ]
        })
        .collect();
    table::write(out, COLUMNS, &rows, width)
}

/// Names are those of the JSON output, nested ones joined by `_`.
fn write_csv(out: &mut impl Write, rows: &[ConnectionView]) -> anyhow::Result<()> {
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record([
        "id",
        "role",
        "state",
        "process",
        "pid",
        "port",
        "local",
        "remote",
        "handshake_status",
        "handshake_duration_seconds",
        "path",
        "host",
        "user_agent",
        "subprotocol",
        "extensions",
        "opened_at",
        "age_seconds",
        "idle_seconds",
        "sent_text_messages",
        "sent_binary_messages",
        "sent_payload_bytes",
        "received_text_messages",
        "received_binary_messages",
        "received_payload_bytes",
    ])?;
    for row in rows {
        let handshake = &row.handshake;
        let text = |text: &Option<String>| escape(text.as_deref().unwrap_or_default()).into_owned();
        csv.write_record([
            escape(&row.id).into_owned(),
            escape(&row.role).into_owned(),
            escape(&row.state).into_owned(),
            escape(&row.process).into_owned(),
            row.pid.map_or(String::new(), |pid| pid.to_string()),
            row.port.to_string(),
            escape(&row.local).into_owned(),
            escape(&row.remote).into_owned(),
            handshake
                .status
                .map_or(String::new(), |status| status.to_string()),
            handshake
                .duration_seconds
                .map_or(String::new(), |seconds| seconds.to_string()),
            text(&handshake.path),
            text(&handshake.host),
            text(&handshake.user_agent),
            text(&handshake.subprotocol),
            text(&handshake.extensions),
            escape(&row.opened_at).into_owned(),
            row.age_seconds.to_string(),
            row.idle_seconds.to_string(),
            row.sent.text_messages.to_string(),
            row.sent.binary_messages.to_string(),
            row.sent.payload_bytes.to_string(),
            row.received.text_messages.to_string(),
            row.received.binary_messages.to_string(),
            row.received.payload_bytes.to_string(),
        ])?;
    }
    csv.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd::example;

    fn shown(width: usize) -> String {
        let mut strange = example::connection("2");
        strange.handshake.path = Some("/a\x1b[2J".into());
        let mut out = Vec::new();
        write_table(&mut out, &[example::connection("1"), strange], Some(width)).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_table_fits_the_terminal() {
        for width in [80, 100, 120, 200] {
            let table = shown(width);
            assert!(
                table.lines().all(|line| line.chars().count() <= width),
                "{table}"
            );
        }
        assert!(shown(80).contains("127.0.0.1:51234"));
        assert!(shown(200).contains("MSGS OUT"));
    }

    #[test]
    fn a_path_cannot_write_to_the_terminal() {
        assert!(shown(200).contains("/a\\u{1b}[2J"));
    }

    #[test]
    fn csv_quotes_what_has_commas() {
        let mut row = example::connection("1");
        row.handshake.user_agent = Some("a, \"b\"".into());
        let mut out = Vec::new();
        write_csv(&mut out, &[row]).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains(",\"a, \"\"b\"\"\","), "{text}");
        let columns = text.lines().next().unwrap().split(',').count();
        assert_eq!(columns, 24);
    }
}
