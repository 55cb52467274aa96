//! What the heads of a handshake say (RFC 6455, section 4): only what is kept. Query strings,
//! cookies, authorization and offered subprotocols never leave this file.

use std::net::SocketAddr;

use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::proxy;
use super::sanitise::clean;

/// Header fields that are looked at; what stands behind them is not read.
const MAX_FIELDS: usize = 128;

/// The request of a handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub method: Option<String>,
    /// Without its query.
    pub path: Option<String>,
    pub host: Option<String>,
    pub user_agent: Option<String>,
    pub origin: Option<String>,
    /// `Sec-WebSocket-Version` as written.
    pub version: Option<String>,
    /// `Sec-WebSocket-Extensions` as written.
    pub offered_extensions: Option<String>,
    /// The client that a PROXY protocol prefix named.
    pub proxied_client: Option<SocketAddr>,
    pub key: Key,
}

/// `Sec-WebSocket-Key`, as what the answer must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Key {
    /// The head was cut, so a key may have stood behind the cut.
    #[default]
    Unknown,
    Missing,
    /// Not the base64 of 16 bytes.
    Malformed,
    /// The `Sec-WebSocket-Accept` that belongs to it.
    Accept(String),
}

/// The response of a handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// `Sec-WebSocket-Protocol`: the one that the server selected.
    pub subprotocol: Option<String>,
    /// `Sec-WebSocket-Extensions` as written.
    pub extensions: Option<String>,
    /// Whether permessage-deflate (RFC 7692) is among them.
    pub deflate: bool,
    /// `Sec-WebSocket-Accept` as written.
    pub accept: Option<String>,
    /// The head was cut: what is absent here may have stood behind the cut.
    pub cut: bool,
}

impl Request {
    /// Reads a request's head as far as it goes; `whole` says that its end is there.
    pub fn parse(head: &[u8], whole: bool) -> Self {
        let (proxied_client, head) = proxy::split(head);
        let head = completed(head, whole, b" HTTP/1.1");
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut parsed = httparse::Request::new(&mut fields);
        // An error leaves what was read before it, which is all that can be said.
        let ended = parsed.parse(&head).is_ok_and(|status| status.is_complete());
        let fields = Fields(parsed.headers);
        let key = match fields.first("Sec-WebSocket-Key") {
            Some(key) => accept_for(key),
            None if whole && ended => Key::Missing,
            None => Key::Unknown,
        };
        Self {
            method: parsed.method.map(|method| clean(method.as_bytes())),
            path: parsed.path.map(path_alone),
            host: fields.text("Host"),
            user_agent: fields.text("User-Agent"),
            origin: fields.text("Origin"),
            version: fields.text("Sec-WebSocket-Version"),
            offered_extensions: fields.joined("Sec-WebSocket-Extensions"),
            proxied_client,
            key,
        }
    }
}

impl Response {
    /// Reads a response's head as far as it goes; `whole` says that its end is there.
    pub fn parse(head: &[u8], whole: bool) -> Self {
        let head = completed(head, whole, b"");
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut parsed = httparse::Response::new(&mut fields);
        let ended = parsed.parse(&head).is_ok_and(|status| status.is_complete());
        let fields = Fields(parsed.headers);
        Self {
            status: parsed.code.unwrap_or(0),
            subprotocol: fields.text("Sec-WebSocket-Protocol"),
            extensions: fields.joined("Sec-WebSocket-Extensions"),
            deflate: fields
                .all("Sec-WebSocket-Extensions")
                .any(names_permessage_deflate),
            accept: fields.text("Sec-WebSocket-Accept"),
            cut: !(whole && ended),
        }
    }

    /// Whether this answer is the last one: not an interim 1xx (RFC 9110, section 15.2).
    pub fn is_final(&self) -> bool {
        self.status == 101 || self.status >= 200
    }
}

/// A head that ends: where it was cut, its last whole line is the last one.
fn completed(head: &[u8], whole: bool, first_line_end: &[u8]) -> Vec<u8> {
    let mut head = head.to_vec();
    if !whole {
        if let Some(end) = head.iter().rposition(|&byte| byte == b'\n') {
            head.truncate(end + 1);
        } else {
            head.extend_from_slice(first_line_end);
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
    }
    head
}

/// The path of a request target, which may be a whole URI (RFC 9112, section 3.2.2).
fn path_alone(target: &str) -> String {
    let target = target.split(['?', '#']).next().unwrap_or_default();
    let path = match target.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => target,
    };
    clean(path.as_bytes())
}

/// RFC 6455, section 4.1: the key is the base64 of 16 bytes, so 22 digits and two `=`.
fn accept_for(key: &[u8]) -> Key {
    let Some(digits) = key.strip_suffix(b"==") else {
        return Key::Malformed;
    };
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    if digits.len() == 22 && digits.iter().all(is_base64) {
        Key::Accept(derive_accept_key(key))
    } else {
        Key::Malformed
    }
}

fn names_permessage_deflate(value: &[u8]) -> bool {
    value.split(|&byte| byte == b',').any(|extension| {
        let name = extension
            .split(|&byte| byte == b';')
            .next()
            .unwrap_or_default();
        name.trim_ascii()
            .eq_ignore_ascii_case(b"permessage-deflate")
    })
}

struct Fields<'a>(&'a [httparse::Header<'a>]);

impl<'a> Fields<'a> {
    fn all(&self, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        self.0
            .iter()
            .filter(move |field| field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value.trim_ascii())
    }

    fn first(&self, name: &'static str) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    fn text(&self, name: &'static str) -> Option<String> {
        self.first(name).map(clean)
    }

    fn joined(&self, name: &'static str) -> Option<String> {
        let values: Vec<_> = self.all(name).collect();
        (!values.is_empty()).then(|| clean(&values.join(&b", "[..])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &[u8] = b"GET /chat?token=secret HTTP/1.1\r\nHost: example.org\r\n\
        Cookie: id=secret\r\nAuthorization: Bearer secret\r\nuser-agent: Test/1\r\n\
        Origin: https://example.org\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Protocol: secret, chat\r\n\
        Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";

    #[test]
    fn the_request_of_rfc_6455_section_1_3() {
        let request = Request::parse(REQUEST, true);
        assert_eq!(request.method.as_deref(), Some("GET"));
        assert_eq!(request.path.as_deref(), Some("/chat"));
        assert_eq!(request.host.as_deref(), Some("example.org"));
        assert_eq!(request.user_agent.as_deref(), Some("Test/1"));
        assert_eq!(request.origin.as_deref(), Some("https://example.org"));
        assert_eq!(request.version.as_deref(), Some("13"));
        assert_eq!(
            request.key,
            Key::Accept("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".into())
        );
    }

    #[test]
    fn nothing_secret_is_kept() {
        for end in 0..=REQUEST.len() {
            for whole in [false, true] {
                let kept = format!("{:?}", Request::parse(&REQUEST[..end], whole));
                assert!(!kept.contains("secret"), "{kept}");
            }
        }
        let response = Response::parse(
            b"HTTP/1.1 101 Switching\r\nSet-Cookie: secret\r\n\r\n",
            true,
        );
        assert!(!format!("{response:?}").contains("secret"));
    }

    #[test]
    fn a_cut_head_is_read_as_far_as_it_goes() {
        let cut = REQUEST.len() - 160;
        let request = Request::parse(&REQUEST[..cut], false);
        assert_eq!(request.path.as_deref(), Some("/chat"));
        assert_eq!(request.host.as_deref(), Some("example.org"));
        let first_line = Request::parse(b"GET /a/very/long/pa", false);
        assert_eq!(first_line.path.as_deref(), Some("/a/very/long/pa"));
        assert_eq!(first_line.key, Key::Unknown);
    }

    #[test]
    fn a_key_that_is_none() {
        let with = |key: &str| {
            let head = format!("GET / HTTP/1.1\r\nSec-WebSocket-Key: {key}\r\n\r\n");
            Request::parse(head.as_bytes(), true).key
        };
        assert_eq!(with("short=="), Key::Malformed);
        assert_eq!(with("dGhlIHNhbXBsZSBub25jZQ=!"), Key::Malformed);
        assert_eq!(
            Request::parse(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", true).key,
            Key::Missing
        );
    }

    #[test]
    fn a_whole_uri_as_target_leaves_its_path() {
        assert_eq!(path_alone("http://user:secret@example.org/a?b"), "/a");
        assert_eq!(path_alone("http://example.org"), "/");
        assert_eq!(path_alone("/a#b?c"), "/a");
    }

    #[test]
    fn a_proxied_request() {
        let head = [b"PROXY TCP4 192.0.2.1 192.0.2.2 5 80\r\n", REQUEST].concat();
        let request = Request::parse(&head, true);
        assert_eq!(request.proxied_client.unwrap().to_string(), "192.0.2.1:5");
        assert_eq!(request.path.as_deref(), Some("/chat"));
    }

    #[test]
    fn a_response_with_what_it_selected() {
        let response = Response::parse(
            b"HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: abc=\r\n\
              Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Extensions: x\r\n\
              Sec-WebSocket-Extensions: Permessage-Deflate; server_no_context_takeover\r\n\r\n",
            true,
        );
        assert_eq!(response.status, 101);
        assert_eq!(response.accept.as_deref(), Some("abc="));
        assert_eq!(response.subprotocol.as_deref(), Some("chat"));
        assert_eq!(
            response.extensions.as_deref(),
            Some("x, Permessage-Deflate; server_no_context_takeover")
        );
        assert!(response.deflate && response.is_final() && !response.cut);
        assert!(!Response::parse(b"HTTP/1.1 100 Continue\r\n\r\n", true).is_final());
    }

    #[test]
    fn garbage_says_nothing_and_breaks_nothing() {
        assert_eq!(Response::parse(b"\xff\xfe\r\n\r\n", true).status, 0);
        assert_eq!(Request::parse(b"", true).path, None);
        let many = [b"GET / HTTP/1.1\r\n".to_vec(), b"A: b\r\n".repeat(500)].concat();
        assert_eq!(Request::parse(&many, false).path.as_deref(), Some("/"));
    }
}
