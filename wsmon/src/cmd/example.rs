//! Rows for tests.

use wsmon::model::view::{
    ConnectionView, DirectionView, FramesView, HandshakeView, TraceRecord, Traced,
};

pub fn connection(id: &str) -> ConnectionView {
    ConnectionView {
        id: id.into(),
        role: "server".into(),
        state: "open".into(),
        process: "node".into(),
        pid: Some(4711),
        port: 8080,
        local: "127.0.0.1:8080".into(),
        remote: "127.0.0.1:51234".into(),
        handshake: HandshakeView {
            status: Some(101),
            duration_seconds: Some(0.0012),
            path: Some("/chat".into()),
            host: Some("localhost:8080".into()),
            user_agent: Some("demo/1".into()),
            ..HandshakeView::default()
        },
        opened_at: "2026-01-02T12:01:02.123456Z".into(),
        age_seconds: 252.0,
        idle_seconds: 0.4,
        sent: DirectionView {
            frames: FramesView {
                text: 120,
                ping: 3,
                ..FramesView::default()
            },
            text_messages: 120,
            payload_bytes: 12_000,
            wire_bytes: 12_500,
            ..DirectionView::default()
        },
        received: DirectionView {
            frames: FramesView {
                text: 7,
                pong: 3,
                ..FramesView::default()
            },
            text_messages: 7,
            payload_bytes: 700,
            wire_bytes: 800,
            ..DirectionView::default()
        },
    }
}

pub fn record(what: Traced) -> TraceRecord {
    TraceRecord {
        time: "2026-01-02T12:01:02.123456Z".into(),
        connection: "1".into(),
        role: "server".into(),
        process: "node".into(),
        pid: Some(4711),
        local: "127.0.0.1:8080".into(),
        remote: "127.0.0.1:51234".into(),
        port: 8080,
        path: Some("/chat".into()),
        what,
    }
}

pub fn frame(direction: &str, opcode: &str, length: u64) -> Traced {
    Traced::Frame {
        direction: direction.into(),
        opcode: opcode.into(),
        fin: true,
        rsv: 0,
        masked: direction == "received",
        length,
        rtt_seconds: None,
        code: None,
        reason: None,
    }
}

pub fn end(code: u16) -> Traced {
    Traced::Close {
        code,
        reason: None,
        initiator: "remote".into(),
        cause: "reset".into(),
        severity: "investigate".into(),
        duration_seconds: 252.0,
        unsent_bytes: 0,
        sent: DirectionView::default(),
        received: DirectionView::default(),
    }
}
