//! Walks over a head that is cut in any way, and compares with the scanner fed byte by byte.
//!
//! Input: 0 for a request or 1 for a response, the number of cuts, a byte for the length of each
//! piece, then the head; the last piece is what is left.

use wsmon_common::head::{HeadScanner, HeadWalk, Verdict};
use wsmon_common::slice::Slice;

const MAX_CUTS: u8 = 64;

/// Panics if a walk ends elsewhere than the scanner does.
pub fn check(data: &[u8]) {
    let Some((&[kind, cuts], rest)) = data.split_first_chunk() else {
        return;
    };
    let Some((lens, head)) = rest.split_at_checked(usize::from(cuts % MAX_CUTS)) else {
        return;
    };
    let scanner = if kind & 1 == 0 {
        HeadScanner::request()
    } else {
        HeadScanner::response()
    };
    let expected = scan(scanner, head);

    let (mut scanner, mut verdict, mut at) = (scanner, Verdict::More, 0);
    let lens = lens.iter().map(|&len| usize::from(len)).chain([head.len()]);
    for (i, len) in lens.enumerate() {
        let end = head.len().min(at + len);
        // A packet may begin with bytes that passed already.
        let begin = at.saturating_sub(i * 5);
        let mut chunk = Slice(&head[begin..end]);
        let mut walk = HeadWalk::new(scanner, (at - begin) as u32, chunk.0.len() as u32, 0);
        let steps = walk.steps();
        let ended = (0..steps).any(|_| walk.step(&mut chunk));
        assert!(ended, "more steps than were announced");
        (scanner, verdict, at) = (walk.scanner, walk.verdict, begin + walk.at as usize);
        if verdict != Verdict::More {
            break;
        }
    }
    assert_eq!((scanner, verdict, at), expected);
}

/// The scanner, the verdict and the number of bytes taken.
fn scan(mut scanner: HeadScanner, head: &[u8]) -> (HeadScanner, Verdict, usize) {
    for (i, &byte) in head.iter().enumerate() {
        let verdict = scanner.feed(byte);
        let status = scanner.status();
        match verdict {
            Verdict::More => {}
            // After an interim response comes another one.
            Verdict::End if (100..200).contains(&status) && status != 101 => {
                scanner = HeadScanner::response();
            }
            Verdict::End | Verdict::NotHttp => return (scanner, verdict, i + 1),
        }
    }
    (scanner, Verdict::More, head.len())
}
