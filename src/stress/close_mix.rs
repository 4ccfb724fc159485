//! How each of many clients closes its connection: one way, or a random mix from a seed. Plain data.

use super::How;
use super::client_pool::CloseMode;
use super::rng::Rng;

/// How each client closes; the same for the same seed.
pub(super) fn close_modes(how: How, clients: usize, seed: u64) -> Vec<CloseMode> {
    let mut rng = Rng(seed);
    let mixed = [CloseMode::Fin, CloseMode::Rst, CloseMode::HalfClose];
    (0..clients)
        .map(|_| match how {
            How::Fin => CloseMode::Fin,
            How::Rst => CloseMode::Rst,
            How::Half => CloseMode::HalfClose,
            How::Mix => mixed[rng.below(mixed.len())],
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_has_every_way_and_a_seed_repeats_it() {
        let mixed = close_modes(How::Mix, 300, 7);
        for way in [CloseMode::Fin, CloseMode::Rst, CloseMode::HalfClose] {
            let count = mixed.iter().filter(|one| **one == way).count();
            assert!((50..150).contains(&count), "{way:?} {count}");
        }
        assert_eq!(mixed, close_modes(How::Mix, 300, 7));
        assert_ne!(mixed, close_modes(How::Mix, 300, 8));
    }
}
