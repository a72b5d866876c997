//! The requests of one connection, and the segments in which they are sent.

use std::time::Duration;

use fastrand::Rng;

use crate::exchange::Exchange;
use crate::{Options, junk, request};

/// The requests of one connection.
pub(crate) struct Pipeline {
    /// The seed that it was generated from.
    pub(crate) seed: u64,
    /// In the order of the requests. Requests that must not be processed have none.
    pub(crate) exchanges: Vec<Exchange>,
    /// All bytes to send.
    pub(crate) bytes: Vec<u8>,
    /// Offsets at which a segment ends, with the pause behind it.
    pub(crate) cuts: Vec<(usize, Duration)>,
    /// The field with a request's id in a response.
    pub(crate) id_field: &'static str,
}

impl Pipeline {
    /// Generates the pipeline of a seed: the same one each time.
    pub(crate) fn generate(seed: u64, options: &Options) -> Self {
        let (profile, prefix) = (options.profile, options.prefix.as_str());
        let random = &mut Rng::with_seed(seed);
        let mut pipeline = Self {
            seed,
            exchanges: Vec::new(),
            bytes: Vec::new(),
            cuts: Vec::new(),
            id_field: profile.id_field(),
        };
        let id = |number: usize| format!("{seed:x}-{number}");
        let count = random.usize(1..=options.depth.max(1));
        let mut ends = Vec::new();
        for number in 0..count {
            if random.u8(..8) == 0 {
                pipeline.bytes.extend(b"\r\n");
            }
            let request = request::generate(random, profile, prefix, &id(number));
            pipeline.push(request);
            ends.push(pipeline.bytes.len());
            if pipeline.closes() {
                break;
            }
        }
        if !pipeline.closes() {
            match random.u8(..12) {
                0..5 => pipeline.push(junk::generate(random, profile, prefix, &id(count))),
                5 => {
                    if let Some(upgrade) = request::upgrade(profile, prefix, &id(count)) {
                        pipeline.push(upgrade);
                    }
                }
                _ => {}
            }
            ends.push(pipeline.bytes.len());
        }
        if pipeline.closes() {
            for number in 0..random.usize(..3) {
                let forbidden = request::forbidden(profile, prefix, &id(count + 1 + number));
                pipeline.bytes.extend(forbidden.bytes());
            }
        }
        pipeline.cut(random, &ends);
        pipeline
    }

    fn push(&mut self, (bytes, exchange): (Vec<u8>, Exchange)) {
        self.bytes.extend(bytes);
        self.exchanges.push(exchange);
    }

    fn closes(&self) -> bool {
        self.exchanges
            .last()
            .is_some_and(|exchange| exchange.closes)
    }

    /// Chooses the segments. `ends` are the offsets at which requests end.
    fn cut(&mut self, random: &mut Rng, ends: &[usize]) {
        let length = self.bytes.len();
        let mut cuts: Vec<_> = match random.u8(..6) {
            0 => Vec::new(),
            1 | 2 => ends.to_vec(),
            3 if length < 600 => (1..length).collect(),
            _ => {
                let count = random.usize(1..=8);
                (0..count).map(|_| random.usize(..length)).collect()
            }
        };
        cuts.push(length);
        cuts.sort_unstable();
        cuts.dedup();
        let mut pauses = random.usize(..4);
        for cut in cuts {
            let pauses_here = pauses > 0 && random.u8(..4) == 0;
            pauses -= usize::from(pauses_here);
            let pause = if pauses_here { random.u64(1..6) } else { 0 };
            self.cuts.push((cut, Duration::from_millis(pause)));
        }
    }
}
