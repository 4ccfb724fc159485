//! The pool of names and what comes with a name: `channel::table`.

use super::{ANN, model, spawn};
use crate::channel::{ChannelTable, Stage};
use crate::sync::Arc;

/// Two workers that accept at the same time get different names, and no third one fits.
#[test]
fn no_two_channels_have_the_same_name() {
    model(|| {
        let table = Arc::new(ChannelTable::new(2));
        let other = {
            let table = Arc::clone(&table);
            spawn(move || table.open(1).unwrap())
        };
        let own = table.open(0).unwrap();
        let other = other.join().unwrap();
        assert_ne!(own.slot, other.slot);
        assert_eq!((table.worker(own), table.worker(other)), (0, 1));
        assert_eq!((table.open(0), table.taken()), (None, 2));
    });
}

/// While main frees a name and a worker gives its slot to the next connection, a late kick of the old one misses, and
/// the new one stands as it was opened.
#[test]
fn a_late_kick_misses_the_slots_next_channel() {
    model(|| {
        let table = Arc::new(ChannelTable::new(1));
        let old = table.open(0).unwrap();
        table.leave(old).unwrap();
        let late = {
            let table = Arc::clone(&table);
            spawn(move || table.leave(old))
        };
        let worker = {
            let table = Arc::clone(&table);
            spawn(move || table.open(0))
        };
        table.free(old);
        let new = worker.join().unwrap();
        assert_eq!(late.join().unwrap(), None);
        if let Some(new) = new {
            assert_ne!(new, old);
            assert_eq!((table.stage(new), table.stage(old)), (Stage::Connected, Stage::Free));
        }
        assert_eq!(table.taken(), usize::from(new.is_some()));
        assert_eq!(table.present(), table.taken());
    });
}

/// Whoever sees that a channel is there sees which worker owns it, and nobody's user from before.
#[test]
fn who_sees_a_channel_sees_its_worker() {
    model(|| {
        let table = Arc::new(ChannelTable::new(1));
        let old = table.open(1).unwrap();
        table.begin_session(old, ANN).unwrap();
        table.leave(old).unwrap();
        table.free(old);
        let control = {
            let table = Arc::clone(&table);
            spawn(move || {
                table.occupants().next().map(|channel| (table.worker(channel), table.user(channel)))
            })
        };
        table.open(2).unwrap();
        if let Some(seen) = control.join().unwrap() {
            assert_eq!(seen, (2, None));
        }
    });
}

/// Whoever sees that a client has ended its side sees all that its worker did before.
#[test]
fn who_sees_a_client_end_sees_what_came_before() {
    model(|| {
        let table = Arc::new(ChannelTable::new(2));
        let channel = table.open(0).unwrap();
        let main = {
            let table = Arc::clone(&table);
            spawn(move || (table.has_ended(channel), table.present()))
        };
        table.open(0).unwrap();
        table.mark_ended(channel);
        let (ended, present) = main.join().unwrap();
        assert!(!ended || present == 2, "it has seen {present}");
    });
}
