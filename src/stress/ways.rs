//! How each client of a crowd leaves: chosen, or by chance that repeats. Plain data.

use super::How;
use super::fleet::Leave;
use super::seed::Seed;

/// How each client leaves; the same for the same seed.
pub(super) fn ways(how: How, clients: usize, seed: u64) -> Vec<Leave> {
    let mut seed = Seed(seed);
    let mixed = [Leave::Fin, Leave::Rst, Leave::HalfClose];
    (0..clients)
        .map(|_| match how {
            How::Fin => Leave::Fin,
            How::Rst => Leave::Rst,
            How::Half => Leave::HalfClose,
            How::Mix => mixed[seed.below(mixed.len())],
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_has_every_way_and_a_seed_repeats_it() {
        let mixed = ways(How::Mix, 300, 7);
        for way in [Leave::Fin, Leave::Rst, Leave::HalfClose] {
            let count = mixed.iter().filter(|one| **one == way).count();
            assert!((50..150).contains(&count), "{way:?} {count}");
        }
        assert_eq!(mixed, ways(How::Mix, 300, 7));
        assert_ne!(mixed, ways(How::Mix, 300, 8));
    }
}
