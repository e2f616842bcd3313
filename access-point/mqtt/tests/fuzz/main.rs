//! The fuzz targets without a fuzzer: the corpora, and changes to them at random, always the same ones. `infra/fuzz` has
//! a fuzzer look for more; what it finds goes into the corpora.
#![expect(clippy::unwrap_used, reason = "a test may end at the first surprise")]
#![expect(clippy::expect_used, reason = "a test may end at the first surprise")]

mod checks;

use std::{
    env, fs,
    path::Path,
    time::{Duration, Instant},
};

use proptest::test_runner::{RngAlgorithm, TestRng};
use rand::RngExt as _;

/// How long each target runs, unless `FANFARE_FUZZ_S` says so.
const RUN: Duration = Duration::from_secs(2);

/// The largest input that is made.
const INPUT_MAX_BYTES: usize = 4 * 1024;

fn run() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "how infra/fuzz asks for a longer run")]
    env::var("FANFARE_FUZZ_S").ok().map_or(RUN, |seconds| Duration::from_secs(seconds.parse().unwrap()))
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// Changes an input a little: a bit, a byte, a piece gone, a piece twice, or the end of another one.
fn change(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut TestRng) {
    let at = random.random_range(0..=input.len());
    match random.random_range(0..6) {
        0 | 1 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
        2 if at < input.len() => input[at] = random.random(),
        3 => drop(input.drain(at..(at + random.random_range(0..16)).min(input.len()))),
        4 => {
            let piece = input[at..].iter().take(16).copied().collect::<Vec<_>>();
            input.splice(at..at, piece);
        }
        _ => {
            let other = &corpus[random.random_range(0..corpus.len())];
            input.truncate(at);
            input.extend_from_slice(&other[random.random_range(0..=other.len())..]);
        }
    }
    input.truncate(INPUT_MAX_BYTES);
}

fn look(target: &str, check: fn(&[u8])) {
    let corpus = corpus(target);
    corpus.iter().for_each(|input| check(input));
    let (mut random, started, mut inputs) = (TestRng::deterministic_rng(RngAlgorithm::ChaCha), Instant::now(), 0);
    while started.elapsed() < run() {
        let mut input = corpus[random.random_range(0..corpus.len())].clone();
        for _ in 0..random.random_range(1..8) {
            change(&mut input, &corpus, &mut random);
        }
        let outcome = std::panic::catch_unwind(|| check(&input));
        assert!(outcome.is_ok(), "this input is for the corpus: {input:?}");
        inputs += 1;
    }
    println!("{target}: {} of the corpus and {inputs} more", corpus.len());
}

#[test]
fn the_decoder_takes_any_bytes() {
    look("decode", checks::decode);
}

#[test]
fn the_session_holds_in_any_order_of_events() {
    look("session", checks::session);
}
