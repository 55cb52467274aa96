//! Recognises the head of an HTTP/1.1 upgrade to WebSocket (RFC 6455, section 4), byte by byte.
//!
//! The scanner only answers: where does the head end, does it ask for (or grant) a WebSocket.
//! Everything else in a head is read in user space. A PROXY protocol prefix (version 1 or 2) in
//! front of a request is skipped.

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadScanner {
    stage: u8,
    /// Characters matched in the current stage.
    progress: u8,
    upgrade: u8,
    _reserved: u8,
    /// Of a response: the status. Of a PROXY version 2 prefix: its bytes still to skip.
    number: u16,
    _reserved2: u16,
}

const REQUEST_START: u8 = 0;
const GET: u8 = 1;
const PROXY_V1: u8 = 2;
const PROXY_V1_LINE: u8 = 3;
const PROXY_V2: u8 = 4;
const PROXY_V2_LENGTH: u8 = 5;
const PROXY_V2_SKIP: u8 = 6;
const RESPONSE_START: u8 = 7;
const STATUS: u8 = 8;
const LINE_START: u8 = 9;
const NAME: u8 = 10;
const VALUE: u8 = 11;
const REST_OF_LINE: u8 = 12;

const GET_TEXT: [u8; 16] = *b"GET \0\0\0\0\0\0\0\0\0\0\0\0";
const PROXY_V1_TEXT: [u8; 16] = *b"PROXY \0\0\0\0\0\0\0\0\0\0";
const PROXY_V2_TEXT: [u8; 16] = *b"\r\n\r\n\0\r\nQUIT\n\0\0\0\0";
const HTTP_TEXT: [u8; 16] = *b"HTTP/1.\0\0\0\0\0\0\0\0\0";
const UPGRADE_TEXT: [u8; 16] = *b"upgrade:\0\0\0\0\0\0\0\0";
const WEBSOCKET_TEXT: [u8; 16] = *b"websocket\0\0\0\0\0\0\0";

impl HeadScanner {
    /// A scanner for the head of a request.
    #[inline(always)]
    pub const fn request() -> Self {
        Self::at(REQUEST_START)
    }

    /// A scanner for the head of a response.
    #[inline(always)]
    pub const fn response() -> Self {
        Self::at(RESPONSE_START)
    }

    #[inline(always)]
    const fn at(stage: u8) -> Self {
        Self {
            stage,
            progress: 0,
            upgrade: 0,
            _reserved: 0,
            number: 0,
            _reserved2: 0,
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
        if self.stage >= LINE_START {
            self.number
        } else {
            0
        }
    }

    /// Whether only a line feed can change the state: the caller may skip other bytes.
    #[inline(always)]
    pub fn wants_line_feed(&self) -> bool {
        self.stage == REST_OF_LINE || self.stage == PROXY_V1_LINE
    }

    /// Takes the next byte.
    #[inline(always)]
    pub fn feed(&mut self, byte: u8) -> Verdict {
        match self.stage {
            REST_OF_LINE => {
                if byte == b'\n' {
                    self.enter(LINE_START);
                }
            }
            LINE_START => match byte {
                b'\n' => return Verdict::End,
                b'\r' => {}
                _ => {
                    self.enter(NAME);
                    self.name(byte);
                }
            },
            NAME => self.name(byte),
            VALUE => self.value(byte),
            REQUEST_START => {
                let stage = match byte {
                    b'G' => GET,
                    b'P' => PROXY_V1,
                    b'\r' => PROXY_V2,
                    _ => return Verdict::NotHttp,
                };
                self.enter(stage);
                self.progress = 1;
            }
            GET => return self.literal(byte, &GET_TEXT, 4, REST_OF_LINE),
            PROXY_V1 => return self.literal(byte, &PROXY_V1_TEXT, 6, PROXY_V1_LINE),
            PROXY_V1_LINE => {
                if byte == b'\n' {
                    self.enter(REQUEST_START);
                }
            }
            PROXY_V2 => return self.literal(byte, &PROXY_V2_TEXT, 12, PROXY_V2_LENGTH),
            // Version and command, family, then the length of what follows, big endian.
            PROXY_V2_LENGTH => {
                self.progress += 1;
                self.number = (self.number << 8) | u16::from(byte);
                if self.progress == 4 {
                    self.enter(if self.number == 0 {
                        REQUEST_START
                    } else {
                        PROXY_V2_SKIP
                    });
                }
            }
            PROXY_V2_SKIP => {
                self.number = self.number.wrapping_sub(1);
                if self.number == 0 {
                    self.enter(REQUEST_START);
                }
            }
            RESPONSE_START => {
                let verdict = self.literal(byte, &HTTP_TEXT, 7, STATUS);
                self.number = 0;
                return verdict;
            }
            STATUS => return self.status_digit(byte),
            _ => return Verdict::NotHttp,
        }
        Verdict::More
    }

    #[inline(always)]
    fn enter(&mut self, stage: u8) {
        self.stage = stage;
        self.progress = 0;
    }

    #[inline(always)]
    fn literal(&mut self, byte: u8, text: &[u8; 16], len: u8, then: u8) -> Verdict {
        if byte != text[(self.progress & 15) as usize] {
            return Verdict::NotHttp;
        }
        self.progress += 1;
        if self.progress == len {
            self.enter(then);
        }
        Verdict::More
    }

    /// The minor version, a space and three digits.
    #[inline(always)]
    fn status_digit(&mut self, byte: u8) -> Verdict {
        let legal = if self.progress == 1 {
            byte == b' '
        } else {
            byte.is_ascii_digit()
        };
        if !legal {
            return Verdict::NotHttp;
        }
        if self.progress >= 2 {
            self.number = self.number * 10 + u16::from(byte - b'0');
        }
        self.progress += 1;
        if self.progress == 5 {
            self.enter(REST_OF_LINE);
        }
        Verdict::More
    }

    #[inline(always)]
    fn name(&mut self, byte: u8) {
        if byte.to_ascii_lowercase() == UPGRADE_TEXT[(self.progress & 15) as usize] {
            self.progress += 1;
            if self.progress == 8 {
                self.enter(VALUE);
            }
        } else if byte == b'\n' {
            self.enter(LINE_START);
        } else {
            self.enter(REST_OF_LINE);
        }
    }

    #[inline(always)]
    fn value(&mut self, byte: u8) {
        let lower = byte.to_ascii_lowercase();
        if byte == b'\n' {
            self.enter(LINE_START);
        } else if lower == WEBSOCKET_TEXT[(self.progress & 15) as usize] {
            self.progress += 1;
            if self.progress == 9 {
                self.upgrade = 1;
                self.enter(REST_OF_LINE);
            }
        } else {
            self.progress = u8::from(lower == b'w');
        }
    }
}

/// Words that one load of a head brings.
pub const HEAD_WORDS: usize = 16;
/// The same in bytes.
pub const HEAD_LOAD: u32 = 128;

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
    window: [u64; HEAD_WORDS],
}

impl HeadWalk {
    /// A walk that begins at offset `at` of a chunk of `len` bytes.
    #[inline(always)]
    pub fn new(scanner: HeadScanner, at: u32, len: u32) -> Self {
        Self {
            scanner,
            verdict: Verdict::More,
            at,
            len,
            // Nothing is loaded yet: the first step finds its byte outside.
            window_from: at.wrapping_sub(HEAD_LOAD),
            window: [0; HEAD_WORDS],
        }
    }

    /// Takes the next few bytes; true when the chunk, or the head, is done.
    #[inline(always)]
    pub fn step(&mut self, source: &mut impl HeadSource) -> bool {
        if self.at >= self.len {
            return true;
        }
        let mut index = self.at.wrapping_sub(self.window_from);
        if index >= HEAD_LOAD {
            let left = self.len.wrapping_sub(self.at);
            let len = if left > HEAD_LOAD { HEAD_LOAD } else { left };
            if !source.load_head(self.at, &mut self.window, len) {
                self.verdict = Verdict::NotHttp;
                return true;
            }
            self.window_from = self.at;
            index = 0;
        }
        let word = u64::from_le(self.window[(index >> 3) as usize & (HEAD_WORDS - 1)]);
        let rest = word >> ((index & 7) * 8);
        if self.scanner.wants_line_feed() {
            let skip = match first_line_feed(rest) {
                Some(before) => before,
                None => 8 - (index & 7),
            };
            if skip != 0 {
                let at = self.at + skip;
                self.at = if at > self.len { self.len } else { at };
                return false;
            }
        }
        self.at += 1;
        self.verdict = self.scanner.feed(rest as u8);
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
                let mut walk = HeadWalk::new(scanner, 0, chunk.0.len() as u32);
                while !walk.step(&mut chunk) {}
                (scanner, verdict, taken) = (walk.scanner, walk.verdict, taken + walk.at as usize);
                if verdict != Verdict::More { break; }
            }
            prop_assert_eq!((scanner, verdict, taken), expected);
        }
    }

    struct Slice<'a>(&'a [u8]);

    impl HeadSource for Slice<'_> {
        fn load_head(&mut self, from: u32, window: &mut [u64; HEAD_WORDS], len: u32) -> bool {
            let mut bytes = [0xee; HEAD_LOAD as usize];
            bytes[..len as usize].copy_from_slice(&self.0[from as usize..(from + len) as usize]);
            for (word, eight) in window.iter_mut().zip(bytes.as_chunks::<8>().0) {
                *word = u64::from_ne_bytes(*eight);
            }
            true
        }
    }
}
