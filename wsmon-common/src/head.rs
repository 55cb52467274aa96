//! Recognises the head of an HTTP/1.1 upgrade to WebSocket (RFC 6455, section 4), byte by byte.
//!
//! The scanner only answers: where does the head end, does it ask for (or grant) a WebSocket.
//! Everything else in a head is read in user space. A PROXY protocol prefix (version 1 or 2) in
//! front of a request is skipped.

use crate::verifier::opaque;

/// What the scanner makes of the bytes so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The head goes on.
    More,
    /// The byte that was fed last is the last one of the head.
    End,
    /// This is no HTTP/1.1 request by GET, or no HTTP/1.1 response.
    NotHttp,
}

/// The state between two bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadScanner {
    state: u8,
    upgrade: u8,
    /// Of a response: the status. Of a PROXY version 2 prefix: its bytes still to skip.
    number: u16,
    _reserved: u32,
}

// Of a literal, the state says how many of its bytes have been seen.
const REQUEST_START: u8 = 0;
const GET: u8 = 0;
const PROXY_V1: u8 = 3;
const PROXY_V1_LINE: u8 = 9;
const PROXY_V2: u8 = 9;
const PROXY_V2_LENGTH: u8 = 21;
const PROXY_V2_SKIP: u8 = 25;
const RESPONSE_START: u8 = 26;
const STATUS: u8 = 35;
// From here on the first line is read as far as it matters.
const REST_OF_LINE: u8 = 38;
const REST_AFTER_UPGRADE: u8 = 39;
const LINE_START: u8 = 40;
const NAME: u8 = 40;
const VALUE: u8 = 48;
const END: u8 = 57;
const NOT_HTTP: u8 = 58;

const STATES: usize = 64;

/// The next state, by state and byte: one look-up for a byte, and nothing for the verifier to
/// branch on.
static NEXT: [u8; STATES * 256] = next_states();

const fn next_states() -> [u8; STATES * 256] {
    let mut next = [NOT_HTTP; STATES * 256];
    next[at(REQUEST_START, b'G')] = GET + 1;
    next[at(REQUEST_START, b'P')] = PROXY_V1 + 1;
    next[at(REQUEST_START, b'\r')] = PROXY_V2 + 1;
    literal(&mut next, b"GET ", GET, REST_OF_LINE);
    literal(&mut next, b"PROXY ", PROXY_V1, PROXY_V1_LINE);
    literal(
        &mut next,
        b"\r\n\r\n\0\r\nQUIT\n",
        PROXY_V2,
        PROXY_V2_LENGTH,
    );
    // Behind an empty line, which a server ignores (RFC 9112, section 2.2).
    next[at(PROXY_V2 + 2, b'G')] = GET + 1;
    next[at(RESPONSE_START, b'H')] = RESPONSE_START + 1;
    literal(&mut next, b"HTTP/1.", RESPONSE_START, RESPONSE_START + 7);
    next[at(RESPONSE_START + 8, b' ')] = STATUS;
    let mut digit = b'0';
    while digit <= b'9' {
        next[at(RESPONSE_START + 7, digit)] = RESPONSE_START + 8;
        next[at(STATUS, digit)] = STATUS + 1;
        next[at(STATUS + 1, digit)] = STATUS + 2;
        next[at(STATUS + 2, digit)] = REST_OF_LINE;
        digit += 1;
    }
    let mut byte = 0;
    while byte < 256 {
        let any = byte as u8;
        let mut length = PROXY_V2_LENGTH;
        while length <= PROXY_V2_SKIP {
            next[at(length, any)] = if length == PROXY_V2_SKIP {
                length
            } else {
                length + 1
            };
            length += 1;
        }
        next[at(PROXY_V1_LINE, any)] = PROXY_V1_LINE;
        next[at(REST_OF_LINE, any)] = REST_OF_LINE;
        next[at(REST_AFTER_UPGRADE, any)] = REST_OF_LINE;
        let mut seen = 0;
        while seen < UPGRADE.len() {
            let matches = any.to_ascii_lowercase() == UPGRADE[seen];
            next[at(NAME + seen as u8, any)] = if matches {
                NAME + seen as u8 + 1
            } else {
                REST_OF_LINE
            };
            seen += 1;
        }
        let mut seen = 0;
        while seen < WEBSOCKET.len() {
            let state = VALUE + seen as u8;
            next[at(state, any)] = if any.to_ascii_lowercase() != WEBSOCKET[seen] {
                VALUE + any.eq_ignore_ascii_case(&b'w') as u8
            } else if seen + 1 == WEBSOCKET.len() {
                REST_AFTER_UPGRADE
            } else {
                state + 1
            };
            seen += 1;
        }
        byte += 1;
    }
    let mut state = REST_OF_LINE;
    while state < END {
        next[at(state, b'\n')] = LINE_START;
        state += 1;
    }
    next[at(PROXY_V1_LINE, b'\n')] = REQUEST_START;
    next[at(LINE_START, b'\n')] = END;
    next[at(LINE_START, b'\r')] = LINE_START;
    next
}

const UPGRADE: &[u8; 8] = b"upgrade:";
const WEBSOCKET: &[u8; 9] = b"websocket";
const _: () = assert!(NAME + UPGRADE.len() as u8 == VALUE && VALUE + WEBSOCKET.len() as u8 == END);

const fn at(state: u8, byte: u8) -> usize {
    (state as usize) << 8 | byte as usize
}

/// The states behind the first byte of a literal, the last of which goes on to `then`.
const fn literal(next: &mut [u8; STATES * 256], text: &[u8], base: u8, then: u8) {
    let mut seen = 1;
    while seen < text.len() {
        let is_last = seen + 1 == text.len();
        next[at(base + seen as u8, text[seen])] =
            if is_last { then } else { base + seen as u8 + 1 };
        seen += 1;
    }
}

impl HeadScanner {
    /// A scanner for the head of a request.
    #[inline(always)]
    pub const fn request() -> Self {
        Self {
            state: REQUEST_START,
            upgrade: 0,
            number: 0,
            _reserved: 0,
        }
    }

    /// A scanner for the head of a response.
    #[inline(always)]
    pub const fn response() -> Self {
        Self {
            state: RESPONSE_START,
            upgrade: 0,
            number: 0,
            _reserved: 0,
        }
    }

    /// Whether an `Upgrade` header that names `websocket` was seen.
    #[inline(always)]
    pub fn has_upgrade(&self) -> bool {
        self.upgrade != 0
    }

    /// The status of a response, once its first line was read that far; else 0.
    #[inline(always)]
    pub fn status(&self) -> u16 {
        if self.state >= REST_OF_LINE && self.state != NOT_HTTP {
            self.number
        } else {
            0
        }
    }

    /// Whether this is an interim response, after which another one comes (RFC 9110, section
    /// 15.2): 101 is final for HTTP.
    #[inline(always)]
    fn is_interim(self) -> bool {
        let status = self.status();
        status >= 100 && status < 200 && status != 101
    }

    /// Whether only a line feed can change the state: the caller may skip other bytes.
    #[inline(always)]
    pub fn wants_line_feed(&self) -> bool {
        self.state == REST_OF_LINE || self.state == PROXY_V1_LINE
    }

    /// Takes the next byte.
    #[inline(always)]
    pub fn feed(&mut self, byte: u8) -> Verdict {
        let state = self.state;
        let mut next = NEXT[(state as usize & (STATES - 1)) << 8 | byte as usize];
        if state >= PROXY_V2_LENGTH && state <= STATUS + 2 {
            self.count(state, byte, &mut next);
        }
        self.state = next;
        match next {
            END => Verdict::End,
            NOT_HTTP => Verdict::NotHttp,
            REST_AFTER_UPGRADE => {
                self.upgrade = 1;
                self.state = REST_OF_LINE;
                Verdict::More
            }
            _ => Verdict::More,
        }
    }

    /// The states that a number belongs to.
    #[inline(always)]
    fn count(&mut self, state: u8, byte: u8, next: &mut u8) {
        if state >= STATUS {
            self.number = self
                .number
                .wrapping_mul(10)
                .wrapping_add(u16::from(byte & 0x0f));
        } else if state < PROXY_V2_SKIP {
            // Version and command, family, then the length of what follows, big endian.
            self.number = (self.number << 8) | u16::from(byte);
        } else if state == PROXY_V2_SKIP {
            self.number = self.number.wrapping_sub(1);
        }
        if *next == PROXY_V2_SKIP && self.number == 0 {
            *next = REQUEST_START;
        }
    }

    /// The same state, out of sight of the verifier: see [`HeadWalk::new`].
    #[inline(always)]
    fn mixed(self, zero: u32) -> Self {
        Self {
            state: self.state ^ zero as u8,
            upgrade: self.upgrade ^ zero as u8,
            number: self.number ^ zero as u16,
            ..self
        }
    }
}

/// Words that one load of a head brings.
pub const HEAD_WORDS: usize = 4;
/// The same in bytes.
pub const HEAD_LOAD: u32 = 32;

/// Where the bytes of a head come from.
pub trait HeadSource {
    /// Copies `len` bytes (1 to [`HEAD_LOAD`]) from offset `from` of the chunk to `window`, in
    /// memory order. False if they cannot be read.
    fn load_head(&mut self, from: u32, window: &mut [u64; HEAD_WORDS], len: u32) -> bool;
}

/// Runs a [`HeadScanner`] over a chunk, and past what cannot matter eight bytes at a time.
pub struct HeadWalk {
    /// The scanner, to be kept if the chunk ends before the head.
    pub scanner: HeadScanner,
    /// What came of it.
    pub verdict: Verdict,
    /// Offset in the chunk behind the last byte taken.
    pub at: u32,
    len: u32,
    window_from: u32,
    zero: u32,
    window: [u64; HEAD_WORDS],
}

impl HeadWalk {
    /// A walk that begins at offset `at` of a chunk of `len` bytes.
    ///
    /// `zero` is 0, from where the kernel's verifier cannot know that: it would follow every
    /// value that the state can have through every step, and give up.
    #[inline(always)]
    pub fn new(scanner: HeadScanner, at: u32, len: u32, zero: u32) -> Self {
        Self {
            zero,
            scanner,
            verdict: Verdict::More,
            at,
            len,
            // Nothing is loaded yet: the first step finds its byte outside.
            window_from: at.wrapping_sub(HEAD_LOAD),
            window: [0; HEAD_WORDS],
        }
    }

    /// Steps that suffice: each takes a byte at least.
    #[inline(always)]
    pub fn steps(&self) -> u32 {
        self.len.wrapping_sub(self.at).wrapping_add(1)
    }

    /// Takes the next few bytes; true when the chunk, or the head, is done.
    #[inline(always)]
    pub fn step(&mut self, source: &mut impl HeadSource) -> bool {
        let zero = self.zero;
        let at = self.at ^ zero;
        if at >= self.len {
            return true;
        }
        let mut index = at.wrapping_sub(self.window_from);
        if index >= HEAD_LOAD {
            let left = self.len.wrapping_sub(at);
            let len = if left > HEAD_LOAD { HEAD_LOAD } else { left };
            if !source.load_head(at, &mut self.window, len) {
                self.verdict = Verdict::NotHttp;
                return true;
            }
            self.window_from = at;
            index = 0;
        }
        let word_index = opaque(index >> 3) as usize & (HEAD_WORDS - 1);
        let word = u64::from_le(self.window[word_index]);
        let rest = word >> ((index & 7) * 8);
        let mut scanner = self.scanner.mixed(self.zero);
        if scanner.wants_line_feed() {
            let skip = match first_line_feed(rest) {
                Some(before) => before,
                None => 8 - (index & 7),
            };
            if skip != 0 {
                let at = at + skip;
                self.at = if at > self.len { self.len } else { at };
                return false;
            }
        }
        self.at = at + 1;
        self.verdict = scanner.feed(rest as u8);
        if self.verdict == Verdict::End && scanner.is_interim() {
            scanner = HeadScanner::response();
            self.verdict = Verdict::More;
        }
        self.scanner = scanner.mixed(self.zero);
        self.verdict != Verdict::More
    }
}

/// How many bytes of `word`, lowest first, come before its first line feed.
#[inline(always)]
fn first_line_feed(word: u64) -> Option<u32> {
    const LOW: u64 = 0x0101_0101_0101_0101;
    let zero_where_line_feed = word ^ (LOW * b'\n' as u64);
    let mut found = zero_where_line_feed.wrapping_sub(LOW) & !zero_where_line_feed & (LOW << 7);
    if found == 0 {
        return None;
    }
    // The lowest mark is exact; the kernel's instruction set counts no trailing zeros.
    let mut before = 0;
    if found & 0xffff_ffff == 0 {
        before += 4;
        found >>= 32;
    }
    if found & 0xffff == 0 {
        before += 2;
        found >>= 16;
    }
    if found & 0xff == 0 {
        before += 1;
    }
    Some(before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slice::Slice;
    use proptest::prelude::*;

    /// Feeds `bytes` and gives the verdict with the number of bytes that it took.
    fn scan(mut scanner: HeadScanner, bytes: &[u8]) -> (HeadScanner, Verdict, usize) {
        for (i, &byte) in bytes.iter().enumerate() {
            let verdict = scanner.feed(byte);
            if verdict != Verdict::More {
                return (scanner, verdict, i + 1);
            }
        }
        (scanner, Verdict::More, bytes.len())
    }

    const REQUEST: &[u8] = b"GET /chat HTTP/1.1\r\nHost: a\r\nuPgRaDe:  h2c, WebSocket\r\n\r\n";

    #[test]
    fn a_request_that_asks_for_a_websocket() {
        let (scanner, verdict, taken) = scan(HeadScanner::request(), REQUEST);
        assert_eq!((verdict, taken), (Verdict::End, REQUEST.len()));
        assert!(scanner.has_upgrade());
    }

    #[test]
    fn an_empty_line_before_a_request_is_ignored() {
        let bytes = [b"\r\n", REQUEST].concat();
        let (scanner, verdict, taken) = scan(HeadScanner::request(), &bytes);
        assert_eq!((verdict, taken), (Verdict::End, bytes.len()));
        assert!(scanner.has_upgrade());
    }

    #[test]
    fn the_word_elsewhere_is_no_upgrade() {
        for head in [
            &b"GET /websocket HTTP/1.1\r\nHost: upgrade: websocket\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\nX-Upgrade: websocket\r\n\r\n",
            b"GET / HTTP/1.1\r\nUpgrade: h2c\r\nA: websocket\r\n\r\n",
            b"GET / HTTP/1.1\r\nUpgrade: webs\r\nocket\r\n\r\n",
        ] {
            let (scanner, verdict, _) = scan(HeadScanner::request(), head);
            assert_eq!(verdict, Verdict::End);
            assert!(!scanner.has_upgrade(), "{}", head.escape_ascii());
        }
    }

    #[test]
    fn a_proxy_prefix_of_either_version_is_skipped() {
        let v1 = [b"PROXY TCP4 192.0.2.1 192.0.2.2 5 80\r\n", REQUEST].concat();
        let v2 = [
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c",
            &[7u8; 12][..],
            REQUEST,
        ]
        .concat();
        let local = [b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00", REQUEST].concat();
        for bytes in [v1, v2, local] {
            let (scanner, verdict, taken) = scan(HeadScanner::request(), &bytes);
            assert_eq!((verdict, taken), (Verdict::End, bytes.len()));
            assert!(scanner.has_upgrade());
        }
    }

    #[test]
    fn other_protocols_are_dismissed() {
        for bytes in [
            &b"POST / HTTP/1.1\r\n"[..],
            b"PRI * HTTP/2.0",
            b"SSH-2.0",
            b"GETX",
            b"\x16\x03\x01",
        ] {
            assert_eq!(scan(HeadScanner::request(), bytes).1, Verdict::NotHttp);
        }
    }

    #[test]
    fn the_status_of_a_response() {
        let (scanner, verdict, _) = scan(
            HeadScanner::response(),
            b"HTTP/1.1 101 Switching\r\nA: b\r\n\r\n",
        );
        assert_eq!((scanner.status(), verdict), (101, Verdict::End));
        let (scanner, verdict, _) = scan(HeadScanner::response(), b"HTTP/1.0 403 \r\n");
        assert_eq!((scanner.status(), verdict), (403, Verdict::More));
        assert_eq!(
            scan(HeadScanner::response(), b"HTTP/2 200").1,
            Verdict::NotHttp
        );
        assert_eq!(
            scan(HeadScanner::response(), b"HTTP/1.1 1x1").1,
            Verdict::NotHttp
        );
    }

    #[test]
    fn bare_line_feeds_end_lines_too() {
        let (scanner, verdict, _) = scan(
            HeadScanner::request(),
            b"GET / HTTP/1.1\nUpgrade:websocket\n\n",
        );
        assert_eq!(verdict, Verdict::End);
        assert!(scanner.has_upgrade());
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            scan(HeadScanner::request(), &bytes);
            scan(HeadScanner::response(), &bytes);
        }

        #[test]
        fn the_first_line_feed_in_a_word_is_found(bytes in any::<[u8; 8]>(), at in 0usize..9) {
            let mut bytes = bytes;
            if let Some(byte) = bytes.get_mut(at) { *byte = b'\n'; }
            let expected = bytes.iter().position(|&byte| byte == b'\n');
            prop_assert_eq!(first_line_feed(u64::from_le_bytes(bytes)), expected.map(|at| at as u32));
        }

        #[test]
        fn a_walk_over_any_chunks_ends_where_the_scanner_does(
            mut bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b':'), any::<u8>()], 0..400),
            cuts in proptest::collection::vec(0usize..500, 0..6),
        ) {
            bytes.splice(0..0, *b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n");
            let expected = scan(HeadScanner::request(), &bytes);
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let (mut scanner, mut verdict, mut taken) = (HeadScanner::request(), Verdict::More, 0);
            for pair in cuts.windows(2) {
                let mut chunk = Slice(&bytes[pair[0]..pair[1]]);
                let mut walk = HeadWalk::new(scanner, 0, chunk.0.len() as u32, 0);
                while !walk.step(&mut chunk) {}
                (scanner, verdict, taken) = (walk.scanner, walk.verdict, taken + walk.at as usize);
                if verdict != Verdict::More { break; }
            }
            prop_assert_eq!((scanner, verdict, taken), expected);
        }
    }
}
