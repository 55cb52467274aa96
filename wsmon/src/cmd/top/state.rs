//! What `wsmon top` knows and how keys change it. Time is passed in.

use std::{collections::HashMap, time::Instant};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use wsmon::model::view::{ConnectionView, DirectionView};

use super::columns::{self, Column};

/// A connection and how fast it goes.
#[derive(Clone, Debug)]
pub struct Row {
    pub view: ConnectionView,
    /// Unknown until it was seen twice.
    pub rates: Option<Rates>,
}

/// Per second, between the last two looks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Either way.
    pub messages: f64,
    /// Bytes of payload.
    pub sent: f64,
    pub received: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    Table,
    /// Of the selected connection.
    Details,
}

#[derive(Debug)]
pub struct State {
    /// Where the data come from, as shown.
    pub source: String,
    pub page: Page,
    pub sort: Column,
    pub descending: bool,
    pub filter: String,
    /// Whether keys go into the filter.
    pub typing: bool,
    /// Why the last look failed; the rows are then those of the one before.
    pub problem: Option<String>,
    /// Whether there was an answer yet.
    pub loaded: bool,
    /// Size of the terminal, for what moves by a page and which columns there are.
    pub size: (u16, u16),
    rows: Vec<Row>,
    /// Chosen by the user; else it is the first that is shown.
    selected: Option<String>,
    looked_at: Option<Instant>,
}

/// What a key asks of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Stay,
    Quit,
}

impl State {
    pub fn new(source: String) -> Self {
        Self {
            source,
            page: Page::Table,
            sort: Column::Messages,
            descending: true,
            filter: String::new(),
            typing: false,
            problem: None,
            loaded: false,
            size: (80, 24),
            rows: Vec::new(),
            selected: None,
            looked_at: None,
        }
    }

    /// Takes a new look at the connections.
    pub fn update(&mut self, views: Vec<ConnectionView>, now: Instant) {
        let seconds = self
            .looked_at
            .map(|before| now.saturating_duration_since(before).as_secs_f64())
            .filter(|&seconds| seconds > 0.0);
        let before: HashMap<String, Row> = self
            .rows
            .drain(..)
            .map(|row| (row.view.id.clone(), row))
            .collect();
        self.rows = views
            .into_iter()
            .map(|view| {
                let rates = before
                    .get(&view.id)
                    .zip(seconds)
                    .map(|(before, seconds)| Rates::between(&before.view, &view, seconds));
                Row { view, rates }
            })
            .collect();
        self.looked_at = Some(now);
        self.loaded = true;
        self.problem = None;
        self.keep_selection();
    }

    /// The rows to show, in order.
    pub fn shown(&self) -> Vec<&Row> {
        let mut rows: Vec<&Row> = self.rows.iter().filter(|row| self.matches(row)).collect();
        rows.sort_by(|a, b| {
            let order = self.sort.compare(a, b);
            let order = if self.descending {
                order.reverse()
            } else {
                order
            };
            // Equal ones must not change places from one look to the next.
            order
                .then_with(|| a.view.opened_at.cmp(&b.view.opened_at))
                .then_with(|| a.view.id.cmp(&b.view.id))
        });
        rows
    }

    /// All connections, shown or not.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The selected row, which details are of: also if the filter hides it, or `None` if the
    /// connection ended.
    pub fn selected(&self) -> Option<&Row> {
        match self.selected.as_deref() {
            Some(id) => self.rows.iter().find(|row| row.view.id == id),
            None => self.shown().first().copied(),
        }
    }

    pub fn selected_index(&self) -> Option<usize> {
        let id = &self.selected()?.view.id;
        self.shown().iter().position(|row| row.view.id == *id)
    }

    pub fn key(&mut self, key: KeyEvent) -> Action {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Action::Quit,
                _ => Action::Stay,
            };
        }
        if self.typing {
            self.type_filter(key.code);
            return Action::Stay;
        }
        let page = isize::from(i16::try_from(self.size.1).unwrap_or(i16::MAX)).max(6) - 5;
        match (self.page, key.code) {
            (_, KeyCode::Char('q')) | (Page::Table, KeyCode::Esc) if self.filter.is_empty() => {
                return Action::Quit;
            }
            (_, KeyCode::Char('q')) => return Action::Quit,
            (Page::Table, KeyCode::Esc) => {
                self.filter.clear();
                self.keep_selection();
            }
            (Page::Details, KeyCode::Esc | KeyCode::Enter | KeyCode::Backspace) => {
                self.page = Page::Table;
                self.keep_selection();
            }
            (Page::Table, KeyCode::Enter) => {
                if let Some(row) = self.selected() {
                    self.selected = Some(row.view.id.clone());
                    self.page = Page::Details;
                }
            }
            (Page::Table, KeyCode::Char('/')) => self.typing = true,
            (Page::Table, KeyCode::Char('r')) => self.descending = !self.descending,
            (Page::Table, KeyCode::Char('<') | KeyCode::Left) => self.sort_by_neighbour(-1),
            (Page::Table, KeyCode::Char('>') | KeyCode::Right) => self.sort_by_neighbour(1),
            (Page::Table, KeyCode::Char(digit @ '1'..='9')) => {
                let index = digit as usize - '1' as usize;
                if let Some(&column) = self.columns().get(index) {
                    self.sort_by(column);
                }
            }
            (_, KeyCode::Up | KeyCode::Char('k')) => self.step(-1),
            (_, KeyCode::Down | KeyCode::Char('j')) => self.step(1),
            (_, KeyCode::PageUp) => self.step(-page),
            (_, KeyCode::PageDown) => self.step(page),
            (_, KeyCode::Home | KeyCode::Char('g')) => self.step(isize::MIN),
            (_, KeyCode::End | KeyCode::Char('G')) => self.step(isize::MAX),
            _ => {}
        }
        Action::Stay
    }

    pub fn columns(&self) -> &'static [Column] {
        columns::visible(usize::from(self.size.0))
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(character) => self.filter.push(character),
            _ => {}
        }
        self.keep_selection();
    }

    /// Every word of the filter must be in some cell.
    fn matches(&self, row: &Row) -> bool {
        let view = &row.view;
        let pid = view.pid.map(|pid| pid.to_string()).unwrap_or_default();
        let path = view.handshake.path.as_deref().unwrap_or_default();
        let text = [
            &view.role,
            &view.process,
            &pid,
            &view.local,
            &view.remote,
            path,
            &view.state,
        ]
        .join(" ")
        .to_lowercase();
        self.filter
            .to_lowercase()
            .split_whitespace()
            .all(|word| text.contains(word))
    }

    fn sort_by(&mut self, column: Column) {
        if self.sort == column {
            self.descending = !self.descending;
        } else {
            self.sort = column;
            self.descending = column.largest_first();
        }
    }

    fn sort_by_neighbour(&mut self, step: isize) {
        let columns = self.columns();
        let place = columns
            .iter()
            .position(|&column| column == self.sort)
            .unwrap_or(0);
        let next = place.saturating_add_signed(step).min(columns.len() - 1);
        if columns[next] != self.sort {
            self.sort_by(columns[next]);
        }
    }

    fn step(&mut self, by: isize) {
        let shown = self.shown();
        let Some(last) = shown.len().checked_sub(1) else {
            return;
        };
        let index = self
            .selected_index()
            .unwrap_or(0)
            .saturating_add_signed(by)
            .min(last);
        self.selected = Some(shown[index].view.id.clone());
    }

    /// In the table what is selected is there to be seen; details stay where they are.
    fn keep_selection(&mut self) {
        if self.page == Page::Table && self.selected_index().is_none() {
            self.selected = None;
        }
    }
}

impl Rates {
    fn between(before: &ConnectionView, after: &ConnectionView, seconds: f64) -> Self {
        let messages =
            |direction: &DirectionView| direction.text_messages + direction.binary_messages;
        let all = |view: &ConnectionView| messages(&view.sent) + messages(&view.received);
        let rate = |before: u64, after: u64| after.saturating_sub(before) as f64 / seconds;
        Self {
            messages: rate(all(before), all(after)),
            sent: rate(before.sent.payload_bytes, after.sent.payload_bytes),
            received: rate(before.received.payload_bytes, after.received.payload_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cmd::example::connection;

    fn press(state: &mut State, keys: &str) -> Action {
        let mut action = Action::Stay;
        for character in keys.chars() {
            let code = match character {
                '\n' => KeyCode::Enter,
                '\x1b' => KeyCode::Esc,
                other => KeyCode::Char(other),
            };
            action = state.key(KeyEvent::from(code));
        }
        action
    }

    fn ids(state: &State) -> Vec<&str> {
        state
            .shown()
            .iter()
            .map(|row| row.view.id.as_str())
            .collect()
    }

    fn three() -> State {
        let mut state = State::new("agent".into());
        let views = ["a", "b", "c"]
            .map(connection)
            .into_iter()
            .zip([10.0, 30.0, 20.0])
            .map(|(mut view, age)| {
                view.age_seconds = age;
                view.process = format!("proc-{}", view.id);
                view
            });
        state.update(views.collect(), Instant::now());
        state
    }

    #[test]
    fn rates_are_differences_over_the_time_between_two_looks() {
        let start = Instant::now();
        let mut state = State::new("agent".into());
        state.update(vec![connection("a")], start);
        assert_eq!(state.rows()[0].rates, None);
        let mut later = connection("a");
        later.sent.payload_bytes += 4096;
        later.received.text_messages += 6;
        state.update(
            vec![later, connection("new")],
            start + Duration::from_secs(2),
        );
        let expected = Rates {
            messages: 3.0,
            sent: 2048.0,
            received: 0.0,
        };
        assert_eq!(state.rows()[0].rates, Some(expected));
        assert_eq!(state.rows()[1].rates, None);
    }

    #[test]
    fn a_digit_sorts_by_that_column_and_again_reverses() {
        let mut state = three();
        press(&mut state, "6");
        assert_eq!(state.sort, Column::Age);
        assert_eq!(ids(&state), ["b", "c", "a"]);
        press(&mut state, "6");
        assert_eq!(ids(&state), ["a", "c", "b"]);
        press(&mut state, "2r");
        assert_eq!(ids(&state), ["c", "b", "a"]);
    }

    #[test]
    fn the_selection_follows_its_connection() {
        let mut state = three();
        press(&mut state, "6j");
        assert_eq!(state.selected().unwrap().view.id, "c");
        press(&mut state, "6");
        assert_eq!(state.selected().unwrap().view.id, "c");
        press(&mut state, "G");
        assert_eq!(state.selected().unwrap().view.id, "b");
        state.update(vec![connection("a")], Instant::now());
        assert_eq!(state.selected().unwrap().view.id, "a");
    }

    #[test]
    fn typing_filters_and_escape_shows_all_again() {
        let mut state = three();
        press(&mut state, "/PROC-B q\n");
        assert_eq!(ids(&state), Vec::<&str>::new());
        press(&mut state, "\x1b/proc-b 8080\n");
        assert_eq!(ids(&state), ["b"]);
        press(&mut state, "\x1b");
        assert_eq!(ids(&state).len(), 3);
    }

    #[test]
    fn details_open_by_enter_and_stay_when_the_connection_ends() {
        let mut state = three();
        press(&mut state, "\n");
        assert_eq!(state.page, Page::Details);
        state.update(Vec::new(), Instant::now());
        assert_eq!(state.page, Page::Details);
        assert!(state.selected().is_none());
        press(&mut state, "\x1b");
        assert_eq!(state.page, Page::Table);
    }

    #[test]
    fn q_and_control_c_quit() {
        assert_eq!(press(&mut three(), "q"), Action::Quit);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        let mut state = three();
        press(&mut state, "/abc");
        assert_eq!(state.key(interrupt), Action::Quit);
    }
}
