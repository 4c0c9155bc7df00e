//! Times several ways to do the same work in turn, so that all of them meet the same state of the machine.

use std::time::{Duration, Instant};

const ROUNDS: usize = 9;
/// How long each works in a round.
const TURN: Duration = Duration::from_millis(40);

/// Seconds of one pass of each, the median of the rounds.
pub fn seconds<const COUNT: usize>(mut ways: [&mut dyn FnMut(); COUNT]) -> [f64; COUNT] {
    let mut rounds = [const { Vec::new() }; COUNT];
    for round in 0..=ROUNDS {
        for (way, seconds) in ways.iter_mut().zip(&mut rounds) {
            let (start, mut passes) = (Instant::now(), 0);
            while start.elapsed() < TURN {
                way();
                passes += 1;
            }
            // The first round only warms up.
            if round > 0 {
                seconds.push(start.elapsed().as_secs_f64() / f64::from(passes));
            }
        }
    }
    rounds.map(|mut seconds| {
        seconds.sort_by(f64::total_cmp);
        seconds[ROUNDS / 2]
    })
}
