//! What `wsmon top` draws.

use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize as _},
    text::{Line, Span, Text},
    widgets::{Cell, Paragraph, Row as TableRow, Table, TableState, Wrap},
};
use wsmon::model::view::DirectionView;

use super::state::{Page, Row, State};
use crate::output::{escape, human, table::Align};

pub fn draw(frame: &mut Frame, state: &State) {
    let [head, body, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(summary(state), head);
    match state.page {
        Page::Table if state.rows().is_empty() => empty(frame, body, state),
        Page::Table => table(frame, body, state),
        Page::Details => details(frame, body, state),
    }
    frame.render_widget(keys(state), foot);
}

fn summary(state: &State) -> Line<'_> {
    let rows = state.rows();
    let of = |role: &str| rows.iter().filter(|row| row.view.role == role).count();
    let rate = |of: fn(&Row) -> f64| human::bytes(rows.iter().map(of).sum::<f64>() as u64);
    let sent = rate(|row| row.rates.unwrap_or_default().sent);
    let received = rate(|row| row.rates.unwrap_or_default().received);
    let mut spans = vec![
        "wsmon top".bold(),
        format!(
            "  {} open: {} server, {} client  sent {sent}/s  received {received}/s",
            rows.len(),
            of("server"),
            of("client"),
        )
        .into(),
    ];
    if state.problem.is_some() {
        spans.push("  (stale)".red());
    }
    Line::from(spans)
}

fn keys(state: &State) -> Line<'_> {
    if let Some(problem) = &state.problem {
        return Line::from(escape(problem).into_owned()).red();
    }
    if state.typing {
        return Line::from(format!("/{}▏", escape(&state.filter)));
    }
    let keys = match state.page {
        Page::Details => "Esc back  ↑↓ next  q quit",
        Page::Table => "1-9 <> sort  r reverse  / filter  Enter details  q quit",
    };
    let mut spans = vec![keys.dim()];
    if !state.filter.is_empty() {
        let shown = format!(
            "  /{} ({} shown)",
            escape(&state.filter),
            state.shown().len()
        );
        spans.push(shown.yellow());
    }
    Line::from(spans)
}

fn empty(frame: &mut Frame, area: Rect, state: &State) {
    let text = if state.loaded {
        "No open WebSockets.\n\nTo have some to look at, in another terminal:\n\nwsmon demo".into()
    } else {
        format!("Asking {} …", state.source)
    };
    let [_, middle, _] = Layout::vertical([
        Constraint::Fill(1),
        Constraint::Length(5),
        Constraint::Fill(1),
    ])
    .areas(area);
    frame.render_widget(
        Paragraph::new(text)
            .alignment(Alignment::Center)
            .wrap(Wrap { trim: true }),
        middle,
    );
}

fn table(frame: &mut Frame, area: Rect, state: &State) {
    let terminal = usize::from(area.width);
    let columns = super::columns::visible(terminal);
    let place = |align: Align| match align {
        Align::Left => Alignment::Left,
        Align::Right => Alignment::Right,
    };
    let header = TableRow::new(columns.iter().map(|&column| {
        let sorted = column == state.sort;
        let mark = match (sorted, state.descending) {
            (true, true) => "↓",
            (true, false) => "↑",
            _ => "",
        };
        let title =
            Line::from(format!("{}{mark}", column.title())).alignment(place(column.align()));
        let style = if sorted {
            Style::new().bold().underlined()
        } else {
            Style::new().bold()
        };
        Cell::from(title).style(style)
    }));
    let rows = state.shown().into_iter().map(|row| {
        let cells = columns.iter().map(|&column| {
            let text = escape(&column.cell(row)).into_owned();
            Cell::from(Line::from(text).alignment(place(column.align())))
        });
        TableRow::new(cells).style(style_of(row))
    });
    let widths = columns.iter().map(|&column| match column.width(terminal) {
        Some(width) => Constraint::Length(width as u16),
        None => Constraint::Fill(1),
    });
    let table = Table::new(rows, widths)
        .header(header)
        .column_spacing(1)
        .row_highlight_style(Modifier::REVERSED);
    let mut selection = TableState::new().with_selected(state.selected_index());
    frame.render_stateful_widget(table, area, &mut selection);
}

fn style_of(row: &Row) -> Style {
    match row.view.state.as_str() {
        "unsynced" => Style::new().fg(Color::Red),
        "closing" => Style::new().fg(Color::Yellow),
        "handshaking" => Style::new().add_modifier(Modifier::DIM),
        _ => Style::new(),
    }
}

fn details(frame: &mut Frame, area: Rect, state: &State) {
    let Some(row) = state.selected() else {
        frame.render_widget(
            Paragraph::new(
                "\nThis connection has ended. `wsmon trace --only end` shows why they do.",
            ),
            area,
        );
        return;
    };
    let view = &row.view;
    let handshake = &view.handshake;
    let pid = view.pid.map_or("unknown".into(), |pid| pid.to_string());
    let mut lines = vec![
        Line::default(),
        field(
            "connection",
            &format!("{}, {} side, {}", view.id, view.role, view.state),
        ),
        field("process", &format!("{} (pid {pid})", view.process)),
        field(
            "addresses",
            &format!("{} here, {} there", view.local, view.remote),
        ),
        field(
            "open for",
            &format!(
                "{}, since {}; idle for {}",
                human::span(view.age_seconds),
                view.opened_at,
                human::span(view.idle_seconds)
            ),
        ),
    ];
    let status = handshake.status.map(|status| status.to_string());
    let took = handshake.duration_seconds.map(human::span);
    let optional = [
        ("path", handshake.path.as_deref()),
        ("host", handshake.host.as_deref()),
        ("origin", handshake.origin.as_deref()),
        ("user agent", handshake.user_agent.as_deref()),
        ("subprotocol", handshake.subprotocol.as_deref()),
        ("extensions", handshake.extensions.as_deref()),
        ("status", status.as_deref()),
        ("handshake", took.as_deref()),
    ];
    lines.extend(
        optional
            .iter()
            .filter_map(|(name, value)| Some(field(name, (*value)?))),
    );
    lines.push(Line::default());
    let rates = row.rates.unwrap_or_default();
    let both = |name: &str, of: &dyn Fn(&DirectionView) -> String| {
        Line::from(vec![
            Span::from(format!("{name:>14}  ")).dim(),
            Span::from(format!("{:>14}{:>14}", of(&view.sent), of(&view.received))),
        ])
    };
    lines.push(Line::from(format!("{:>30}{:>14}", "SENT", "RECEIVED")).bold());
    lines.push(Line::from(vec![
        Span::from(format!("{:>14}  ", "bytes/s")).dim(),
        Span::from(format!(
            "{:>14}{:>14}",
            human::bytes(rates.sent as u64),
            human::bytes(rates.received as u64)
        )),
    ]));
    lines.push(both("payload", &|d| human::bytes(d.payload_bytes)));
    lines.push(both("text", &|d| d.text_messages.to_string()));
    lines.push(both("binary", &|d| d.binary_messages.to_string()));
    lines.push(both("pings", &|d| d.frames.ping.to_string()));
    lines.push(both("pongs", &|d| d.frames.pong.to_string()));
    lines.push(both("close", &|d| {
        d.close_code.map_or("-".into(), |code| code.to_string())
    }));
    if view.sent.unsynced_bytes + view.received.unsynced_bytes > 0 {
        lines.push(both("unsynced", &|d| human::bytes(d.unsynced_bytes)).red());
    }
    let errors = [&view.sent, &view.received].map(|direction| direction.protocol_errors.join(", "));
    if errors.iter().any(|errors| !errors.is_empty()) {
        let text = format!("sent: {}; received: {}", errors[0], errors[1]);
        lines.push(field("errors", &text).red());
    }
    frame.render_widget(Paragraph::new(Text::from(lines)), area);
}

fn field(name: &str, value: &str) -> Line<'static> {
    Line::from(vec![
        Span::from(format!("{name:>14}  ")).dim(),
        Span::from(escape(value).into_owned()),
    ])
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use ratatui::{
        Terminal,
        backend::TestBackend,
        crossterm::event::{KeyCode, KeyEvent},
    };

    use super::*;
    use crate::cmd::example::connection;

    fn drawn(state: &mut State, width: u16, height: u16) -> String {
        state.size = (width, height);
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, state)).unwrap();
        terminal.backend().to_string()
    }

    fn two() -> State {
        let start = Instant::now();
        let mut state = State::new("http://127.0.0.1:9790".into());
        state.update(vec![connection("1"), connection("2")], start);
        let mut busy = connection("2");
        busy.process = "python3.11".into();
        busy.sent.payload_bytes += 1024 * 1024;
        busy.sent.binary_messages += 1000;
        state.update(vec![connection("1"), busy], start + Duration::from_secs(1));
        state
    }

    #[test]
    fn eighty_columns_show_the_busiest_first_with_its_rates() {
        let screen = drawn(&mut two(), 80, 24);
        let lines: Vec<&str> = screen.lines().collect();
        assert!(
            lines[0].contains("2 open: 2 server, 0 client  sent 1 MiB/s"),
            "{screen}"
        );
        assert!(
            lines[1].contains("MSG/S↓") && lines[1].contains("RECV/S"),
            "{screen}"
        );
        assert!(
            lines[2].contains("python3.11") && lines[2].contains("127.0.0.1:51234"),
            "{screen}"
        );
        assert!(
            lines[2].contains("1k") && lines[2].contains("1 MiB"),
            "{screen}"
        );
        assert!(lines[3].contains("node"), "{screen}");
        assert!(lines[23].contains("q quit"), "{screen}");
    }

    #[test]
    fn a_wide_terminal_has_the_path() {
        assert!(!drawn(&mut two(), 80, 24).contains("/chat"));
        assert!(drawn(&mut two(), 140, 24).contains("/chat"));
    }

    #[test]
    fn without_connections_it_says_how_to_have_some() {
        let mut state = State::new("http://127.0.0.1:9790".into());
        assert!(drawn(&mut state, 80, 24).contains("Asking http://127.0.0.1:9790"));
        state.update(Vec::new(), Instant::now());
        assert!(drawn(&mut state, 80, 24).contains("wsmon demo"));
    }

    #[test]
    fn details_fit_eighty_by_twenty_four() {
        let mut state = two();
        state.key(KeyEvent::from(KeyCode::Enter));
        let screen = drawn(&mut state, 80, 24);
        for text in [
            "python3.11 (pid 4711)",
            "/chat",
            "RECEIVED",
            "pongs",
            "Esc back",
        ] {
            assert!(screen.contains(text), "{text}: {screen}");
        }
    }

    #[test]
    fn an_agent_that_is_gone_is_said_over_the_old_rows() {
        let mut state = two();
        state.problem = Some("no agent answers\x1b[0m".into());
        let screen = drawn(&mut state, 80, 24);
        assert!(screen.contains("no agent answers\\u{1b}[0m"), "{screen}");
        assert!(
            screen.contains("(stale)") && screen.contains("python3.11"),
            "{screen}"
        );
    }

    #[test]
    fn a_tiny_terminal_does_not_panic() {
        for (width, height) in [(1, 1), (5, 2), (20, 3)] {
            let mut state = two();
            drawn(&mut state, width, height);
            state.page = Page::Details;
            drawn(&mut state, width, height);
        }
    }
}
