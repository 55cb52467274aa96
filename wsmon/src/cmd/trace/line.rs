//! One thing that happened as one line:
//!
//! ```text
//! 12:01:02.123456 3f server node[4711] 127.0.0.1:8080 ← 127.0.0.1:51234  ping      5 B  FIN masked
//! ```

use jiff::{Timestamp, tz::TimeZone};
use unicode_width::UnicodeWidthStr as _;
use wsmon::model::view::{DirectionView, HandshakeView, TraceRecord, Traced};

use crate::output::{
    escape, human,
    table::{Align, pad},
};

/// Makes lines whose columns are as wide as the widest cell so far, so that they align and are no
/// wider than they must be.
#[derive(Debug)]
pub struct Lines {
    colour: bool,
    zone: TimeZone,
    widths: [usize; 4],
}

#[derive(Clone, Copy)]
enum Colour {
    Dim,
    Red,
    Green,
    Yellow,
    Cyan,
}

impl Lines {
    pub fn new(colour: bool) -> Self {
        Self {
            colour,
            zone: TimeZone::system(),
            widths: [2, 10, 14, 15],
        }
    }

    /// The line, without its end. Whatever came from outside is escaped.
    pub fn line(&mut self, record: &TraceRecord) -> String {
        let time = self.paint(Colour::Dim, &self.time(&record.time));
        if let Traced::Dropped { lines } = record.what {
            let text = format!("… {lines} lines left out");
            return format!("{time} {}", self.paint(Colour::Yellow, &text));
        }
        let process = match record.pid {
            Some(pid) => format!("{}[{pid}]", escape(&record.process)),
            None => escape(&record.process).into_owned(),
        };
        let id = self.column(0, &escape(&record.connection));
        let process = self.column(1, &process);
        let local = self.column(2, &escape(&record.local));
        let remote = self.column(3, &escape(&record.remote));
        format!(
            "{time} {} {} {process} {local} {} {remote}  {}",
            self.paint(Colour::Dim, &id),
            pad(&escape(&record.role), 6, Align::Left),
            arrow(&record.what),
            self.what(record),
        )
        .trim_end()
        .to_owned()
    }

    /// Local time of day; what is not a time is shown as it is.
    fn time(&self, text: &str) -> String {
        text.parse::<Timestamp>().map_or_else(
            |_| escape(text).into_owned(),
            |time| {
                time.to_zoned_datetime(self.zone.clone())
                    .strftime("%H:%M:%S%.6f")
                    .to_string()
            },
        )
    }

    fn column(&mut self, index: usize, text: &str) -> String {
        let width = &mut self.widths[index];
        // An address of IPv6 is at most 47 wide; names are cut by nobody else.
        *width = text.width().min(47).max(*width);
        pad(text, *width, Align::Left)
    }

    fn what(&self, record: &TraceRecord) -> String {
        match &record.what {
            Traced::Handshake { result, handshake } => {
                self.handshake(result, handshake, record.path.as_deref())
            }
            frame @ Traced::Frame { .. } => self.frame(frame),
            end @ Traced::Close { .. } => self.end(end),
            Traced::Dropped { .. } => String::new(),
        }
    }

    fn handshake(&self, result: &str, handshake: &HandshakeView, path: Option<&str>) -> String {
        let colour = if result == "accepted" {
            Colour::Green
        } else {
            Colour::Red
        };
        let mut parts = vec![self.paint(colour, "handshake")];
        parts.extend(handshake.status.map(|status| status.to_string()));
        parts.push(escape(result).into_owned());
        let path = path.or(handshake.path.as_deref());
        parts.extend(path.map(|path| escape(path).into_owned()));
        parts.extend(
            handshake
                .duration_seconds
                .map(|seconds| format!("in {}", human::span(seconds))),
        );
        let named = [
            ("host", &handshake.host),
            ("origin", &handshake.origin),
            ("subprotocol", &handshake.subprotocol),
            ("extensions", &handshake.extensions),
            ("agent", &handshake.user_agent),
        ];
        for (name, value) in named {
            if let Some(value) = value {
                parts.push(format!("{name}={}", quoted(value)));
            }
        }
        parts.join(" ")
    }

    fn frame(&self, frame: &Traced) -> String {
        let Traced::Frame {
            opcode,
            fin,
            rsv,
            masked,
            length,
            rtt_seconds,
            code,
            reason,
            ..
        } = frame
        else {
            return String::new();
        };
        let colour = match opcode.as_str() {
            "close" | "reserved" => Colour::Yellow,
            "ping" | "pong" => Colour::Dim,
            _ => Colour::Cyan,
        };
        // As wide as `handshake`, so that what follows aligns for every opcode but one.
        let mut parts = vec![
            self.paint(
                colour,
                &pad(&escape(opcode), 9.max(opcode.width().min(12)), Align::Left),
            ),
            pad(&human::bytes(*length), 9, Align::Right),
            " ".into(),
        ];
        if *fin {
            parts.push("FIN".into());
        }
        for (bit, name) in [(4, "RSV1"), (2, "RSV2"), (1, "RSV3")] {
            if rsv & bit != 0 {
                parts.push(name.into());
            }
        }
        if *masked {
            parts.push("masked".into());
        }
        if let Some(code) = code {
            parts.push(self.paint(Colour::Yellow, &code.to_string()));
        }
        parts.extend(reason.as_deref().map(quoted));
        parts.extend(rtt_seconds.map(|seconds| format!("rtt={}", human::span(seconds))));
        parts.join(" ")
    }

    fn end(&self, end: &Traced) -> String {
        let Traced::Close {
            code,
            reason,
            initiator,
            cause,
            severity,
            duration_seconds,
            unsent_bytes,
            sent,
            received,
        } = end
        else {
            return String::new();
        };
        let colour = match severity.as_str() {
            "expected" => Colour::Green,
            "high" => Colour::Red,
            _ => Colour::Yellow,
        };
        let mut parts = vec![self.paint(colour, &pad("end", 9, Align::Left))];
        parts.push(self.paint(colour, &code.to_string()));
        parts.extend(reason.as_deref().map(quoted));
        parts.push(format!("{} by {}", escape(cause), escape(initiator)));
        parts.push(format!("after {},", human::span(*duration_seconds)));
        parts.push(format!(
            "sent {}, received {}",
            total(sent),
            total(received)
        ));
        if *unsent_bytes > 0 {
            let unsent = format!("{} unsent", human::bytes(*unsent_bytes));
            parts.push(self.paint(Colour::Yellow, &unsent));
        }
        parts.push(format!("({})", escape(severity)));
        parts.join(" ")
    }

    fn paint(&self, colour: Colour, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match colour {
            Colour::Dim => 2,
            Colour::Red => 31,
            Colour::Green => 32,
            Colour::Yellow => 33,
            Colour::Cyan => 36,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// Which way it went between the two ends.
fn arrow(what: &Traced) -> &'static str {
    match what {
        Traced::Frame { direction, .. } if direction == "sent" => "→",
        Traced::Frame { .. } => "←",
        _ => "·",
    }
}

fn total(direction: &DirectionView) -> String {
    let messages = direction.text_messages + direction.binary_messages;
    let s = if messages == 1 { "" } else { "s" };
    format!(
        "{messages} message{s}/{}",
        human::bytes(direction.payload_bytes)
    )
}

/// Quotes round what has spaces.
fn quoted(text: &str) -> String {
    let text = escape(text);
    if text.contains([' ', '"', '=']) || text.is_empty() {
        format!("\"{}\"", text.replace('"', "\\\""))
    } else {
        text.into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd::example;

    fn lines() -> Lines {
        Lines {
            zone: TimeZone::UTC,
            ..Lines::new(false)
        }
    }

    fn line(what: Traced) -> String {
        lines().line(&example::record(what))
    }

    #[test]
    fn a_frame_has_its_way_opcode_length_and_bits() {
        assert_eq!(
            line(example::frame("received", "ping", 5)),
            "12:01:02.123456 1  server node[4711] 127.0.0.1:8080 ← 127.0.0.1:51234  \
             ping            5 B   FIN masked"
        );
        let mut part = example::frame("sent", "text", 65_536);
        if let Traced::Frame { fin, rsv, .. } = &mut part {
            (*fin, *rsv) = (false, 4);
        }
        assert_eq!(
            line(part),
            "12:01:02.123456 1  server node[4711] 127.0.0.1:8080 → 127.0.0.1:51234  \
             text         64 KiB   RSV1"
        );
    }

    #[test]
    fn an_end_says_why_by_whom_and_after_how_long() {
        assert!(
            line(example::end(1006)).ends_with(
                "end       1006 reset by remote after 4m12s, sent 0 messages/0 B, \
                 received 0 messages/0 B (investigate)"
            ),
            "{}",
            line(example::end(1006))
        );
    }

    #[test]
    fn a_handshake_says_what_was_agreed() {
        let handshake = example::connection("1").handshake;
        let shown = line(Traced::Handshake {
            result: "accepted".into(),
            handshake,
        });
        assert!(
            shown.ends_with(
                "handshake 101 accepted /chat in 1.20ms host=localhost:8080 agent=demo/1"
            ),
            "{shown}"
        );
    }

    #[test]
    fn columns_grow_to_what_was_seen() {
        let mut lines = lines();
        let mut record = example::record(example::frame("sent", "text", 1));
        record.process = "a-rather-long-name".into();
        let position = |line: &str| line.chars().position(|character| character == '→');
        let long = position(&lines.line(&record));
        record.process = "x".into();
        assert_eq!(position(&lines.line(&record)), long);
    }

    #[test]
    fn nothing_from_outside_reaches_the_terminal_raw() {
        let evil = || "\x1b[31m\r\n\u{9b}".to_owned();
        let mut records = vec![
            example::record(Traced::Handshake {
                result: evil(),
                handshake: HandshakeView {
                    status: Some(101),
                    duration_seconds: None,
                    path: Some(evil()),
                    host: Some(evil()),
                    user_agent: Some(evil()),
                    origin: Some(evil()),
                    subprotocol: Some(evil()),
                    extensions: Some(evil()),
                },
            }),
            example::record(Traced::Frame {
                direction: evil(),
                opcode: evil(),
                fin: true,
                rsv: 7,
                masked: true,
                length: 1,
                rtt_seconds: Some(0.1),
                code: Some(1000),
                reason: Some(evil()),
            }),
            example::record(Traced::Close {
                code: 1000,
                reason: Some(evil()),
                initiator: evil(),
                cause: evil(),
                severity: evil(),
                duration_seconds: 1.0,
                unsent_bytes: 1,
                sent: DirectionView::default(),
                received: DirectionView::default(),
            }),
        ];
        for record in &mut records {
            let fields = [
                &mut record.time,
                &mut record.connection,
                &mut record.role,
                &mut record.process,
                &mut record.local,
                &mut record.remote,
            ];
            for field in fields {
                *field = evil();
            }
            let line = lines().line(record);
            assert!(!line.contains(char::is_control), "{line:?}");
        }
    }
}
